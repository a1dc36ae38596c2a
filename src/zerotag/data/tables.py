"""Read tables and texts as people's programs write them: any usual delimiter, line end and encoding."""

import codecs
import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from zerotag.errors import ZerotagError

# Longer marks first: that of UTF-32 begins like that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_DELIMITERS = (",", ";", "\t", "|")


@dataclass(frozen=True)
class Row:
    """A row of a table.

    Attributes:
        line: its line in the file, from 1; the last one if a quoted cell has line ends.
        cells: by column, in lower case and without blanks around.
        more: cells beyond the columns that are not empty.
    """

    line: int
    cells: dict[str, str]
    more: list[str]


def read_text(path: Path, what: str = "UTF-8 text") -> str:
    """Read a text in UTF-8, or in UTF-16 or UTF-32 with a byte-order mark.

    Args:
        path: the file.
        what: what it should be, for messages.

    Raises:
        ZerotagError: another encoding; the message names the first line that shows it.
    """
    data = path.read_bytes()
    mark, encoding = next(((mark, name) for mark, name in _MARKS if data.startswith(mark)), (b"", "utf-8"))
    data = data[len(mark) :]
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data[: error.start].decode(encoding, errors="replace").count("\n") + 1
        raise ZerotagError(
            f"{path}, line {line}: not {what} ({error}). Save the file as UTF-8; spreadsheets offer it as CSV UTF-8."
        ) from error
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        raise ZerotagError(
            f"{path}, line {line}: not {what} (a zero byte: UTF-16 without a byte-order mark, or no text at all). "
            "Save the file as UTF-8."
        )
    return text


def read_table(path: Path, columns: Sequence[str]) -> Iterator[Row]:
    """Read the rows of a table with a header. Empty rows are skipped.

    The delimiter is a comma, semicolon, tab or vertical bar: the one that a first line such as `sep=;` names, else the
    one that finds the columns in the header.

    Args:
        path: the file.
        columns: names that the header must have, in any case; there may be others.

    Raises:
        ZerotagError: another encoding, a column that is missing or there twice, or quotes that do not end.
    """
    text = read_text(path)
    first, named = _delimiter_line(text)
    header, line = _first_line(text, first)
    delimiter = named or max(_DELIMITERS, key=lambda each: _found(header, each, columns))
    # Strict: a quote without an end would swallow the rows after it.
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    names: list[str] | None = None
    done = 0
    try:
        for cells in reader:
            done = reader.line_num
            if reader.line_num <= first or not any(cell.strip() for cell in cells):
                continue
            if names is None:
                names = _names(path, line, cells, columns)
                continue
            more = [cell for cell in cells[len(names) :] if cell.strip()]
            yield Row(reader.line_num, dict(zip(names, cells, strict=False)), more)
    except csv.Error as error:
        raise ZerotagError(
            f"{path}, line {done + 1}: not a row of a table ({error}). Correct it; in a cell, a quote is written twice."
        ) from error
    if names is None:
        _names(path, line, [], columns)


def has_columns(path: Path, columns: Sequence[str]) -> bool:
    """Whether a text is a table with these columns, and not a plain list.

    Raises:
        ZerotagError: as `read_text`.
    """
    text = read_text(path)
    header, _ = _first_line(text, _delimiter_line(text)[0])
    return any(_found(header, each, columns) == len(columns) for each in _DELIMITERS)


def _delimiter_line(text: str) -> tuple[int, str]:
    """The number of lines that name the delimiter, as spreadsheets have it (`sep=;`), and the delimiter."""
    first = text.partition("\n")[0].strip("\r\n").strip('"')
    if first.lower().startswith("sep=") and len(first) == 5:
        return 1, first[4]
    return 0, ""


def _first_line(text: str, skipped: int) -> tuple[str, int]:
    """The first line that is not empty after those skipped, and its number."""
    for number, line in enumerate(io.StringIO(text, newline=None), start=1):
        if number > skipped and line.strip():
            return line, number
    return "", skipped + 1


def _found(header: str, delimiter: str, columns: Sequence[str]) -> int:
    """How many of the columns a delimiter finds in a header."""
    return len(set(columns).intersection(_lower(next(csv.reader([header], delimiter=delimiter), []))))


def _lower(cells: Sequence[str]) -> list[str]:
    return [cell.strip().strip("\ufeff").lower() for cell in cells]


def _names(path: Path, line: int, cells: Sequence[str], columns: Sequence[str]) -> list[str]:
    names = _lower(cells)
    if missing := [column for column in columns if column not in names]:
        raise ZerotagError(
            f"{path}, line {line}: column {' and '.join(missing)} missing, found {', '.join(names) or 'nothing'}. "
            f"The first line must name the columns: {','.join(columns)}"
        )
    if twice := [column for column in columns if names.count(column) > 1]:
        raise ZerotagError(f"{path}, line {line}: column {twice[0]} is there twice. Remove one.")
    return names
