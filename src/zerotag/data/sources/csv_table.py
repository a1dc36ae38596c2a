"""Custom photos: a table `image,tags`, as CSV or JSON Lines."""

import io
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NotRequired

import numpy as np
import scipy.sparse as sp
from pydantic import TypeAdapter, ValidationError
from typing_extensions import TypedDict

from zerotag.data.sources.base import Source, find_files, hash_split, label_matrix, need
from zerotag.data.tables import read_table, read_text
from zerotag.errors import ZerotagError
from zerotag.words.tags import tag_key, with_one_spelling


@dataclass(frozen=True)
class CsvSettings:
    """Attributes:
    table: a table with a header and the columns `image` and `tags`, separated by commas, semicolons or tabs, or JSON
        Lines (`.jsonl`) with these keys, where tags may also be a list. A column `part` (`train` or `test`) overrides
        `test`, and a column `rejected` has tags that a photo certainly does not have.
    photos: the folder that `image` is relative to.
    separator: of the tags in a cell, such as " ", "|" or ",".
    test: share or number of test photos, chosen by a fixed hash of the name.
    min_photos: tags with fewer photos are dropped.
    """

    table: str = "data/tags.csv"
    photos: str = "data/images"
    separator: str = " "
    test: float = 0.1
    min_photos: int = 1


class _JsonRow(TypedDict):
    image: str
    tags: str | list[str]
    part: NotRequired[str | None]
    rejected: NotRequired[str | list[str] | None]


_JSON_ROW = TypeAdapter(_JsonRow)
# What else may separate tags.
_SEPARATORS = (",", ";", "|")


@dataclass(frozen=True)
class _Row:
    """A row of the table; `cell` is the text of the tags, empty if they are a list."""

    line: int
    image: str
    tags: list[str]
    part: str
    cell: str
    rejected: list[str]


def read(settings: CsvSettings, section: str = "sources.csv") -> Source:
    """Read the table, without opening photos.

    Args:
        settings: where it is.
        section: of params.yaml, for messages.

    Raises:
        ZerotagError: a missing file or column, a duplicate photo, a row without tags, tags with another separator, or
            no photo of the table exists; the message names the file and the line.
    """
    table = need(Path(settings.table), "table", f"{section}.table")
    photos = need(Path(settings.photos), "folder", f"{section}.photos")
    rows = list(_rows(table, settings.separator))
    if not rows:
        raise ZerotagError(f"{table}: lists no photos. Add a line for each: image,tags")
    _check_separator(table, rows, settings.separator)
    lines: dict[str, int] = {}
    for row in rows:
        if not row.tags:
            raise ZerotagError(f"{table}, line {row.line}: photo {row.image} has no tags. Tag it or remove the line.")
        _once(table, lines, row.image, row.line)
    ids, files = find_files(photos, list(lines), str(table), f"{section}.photos")
    lines.clear()
    for name, row in zip(ids, rows, strict=True):
        _once(table, lines, name, row.line)
    tags_of_photos, spellings = with_one_spelling([row.tags for row in rows])
    for row, tags in zip(rows, tags_of_photos, strict=True):
        if not tags:
            raise ZerotagError(
                f"{table}, line {row.line}: the tags of photo {row.image} are punctuation only ({' '.join(row.tags)}). "
                "Tag it or remove the line."
            )
    counts = Counter(tag for tags in tags_of_photos for tag in set(tags))
    vocabulary = sorted(tag for tag, count in counts.items() if count >= settings.min_photos)
    if not vocabulary:
        raise ZerotagError(
            f"{table}: no tag has {settings.min_photos} photos (params.yaml: {section}.min_photos). Lower it."
        )
    kept = set(vocabulary)
    parts = [row.part for row in rows]
    if any(parts):
        if not all(parts):
            raise ZerotagError(f"{table}: photo {ids[parts.index('')]} has no part; set train or test for every photo.")
        train = np.array([part == "train" for part in parts])
        if train.all() or not train.any():
            raise ZerotagError(f"{table}: every photo has part {parts[0]}; set both train and test photos.")
    else:
        train = hash_split(ids, settings.test, f"{section}.test")
    labels = label_matrix([[tag for tag in tags if tag in kept] for tags in tags_of_photos], vocabulary)
    spellings = {tag: given for tag, given in spellings.items() if tag in kept}
    rejected = _rejected([row.rejected for row in rows], tags_of_photos, vocabulary)
    return Source(ids, files, vocabulary, labels, train, spellings=spellings, rejected=rejected)


def _rejected(
    words_of_photos: list[list[str]], tags_of_photos: list[list[str]], vocabulary: list[str]
) -> sp.csr_matrix | None:
    """(N, T) 0/1 matrix of rejected tags, in any spelling. A tag that the photo has, too, is none of them."""
    tag_of = {tag_key(tag): tag for tag in vocabulary}
    found = [
        [tag for word in words if (tag := tag_of.get(tag_key(word))) and tag not in tags]
        for words, tags in zip(words_of_photos, tags_of_photos, strict=True)
    ]
    return label_matrix(found, vocabulary) if any(found) else None


def _once(table: Path, lines: dict[str, int], image: str, line: int) -> None:
    if image in lines:
        raise ZerotagError(
            f"{table}, line {line}: photo {image} is already on line {lines[image]}. Put all its tags on one line."
        )
    lines[image] = line


def _rows(table: Path, separator: str) -> Iterator[_Row]:
    if table.suffix.lower() in (".jsonl", ".ndjson"):
        yield from _json_rows(table, separator)
        return
    for row in read_table(table, ("image", "tags")):
        if row.more:
            raise ZerotagError(
                f"{table}, line {row.line}: more values than columns. Quote comma-separated tags, "
                'and set sources.csv.separator to ",".'
            )
        cells = row.cells
        yield _row(
            table, row.line, cells.get("image"), cells.get("tags"), cells.get("part"), cells.get("rejected"), separator
        )


def _json_rows(table: Path, separator: str) -> Iterator[_Row]:
    # Not splitlines, which splits at letters that JSON may contain.
    for line, text in enumerate(io.StringIO(read_text(table), newline=None), start=1):
        if not text.strip():
            continue
        try:
            row = _JSON_ROW.validate_json(text)
        except ValidationError as error:
            problem = error.errors()[0]
            where = ".".join(str(part) for part in problem["loc"])
            raise ZerotagError(
                f'{table}, line {line}: expected an object with "image" and "tags" ({where}: {problem["msg"]}).'
            ) from error
        yield _row(table, line, row["image"], row["tags"], row.get("part"), row.get("rejected"), separator)


def _row(
    table: Path,
    line: int,
    image: str | None,
    tags: str | list[str] | None,
    part: str | None,
    rejected: str | list[str] | None,
    separator: str,
) -> _Row:
    if not image or not image.strip():
        raise ZerotagError(f"{table}, line {line}: no image given. Add one or remove the line.")
    part = (part or "").strip().lower()
    if part not in ("", "train", "test"):
        raise ZerotagError(f"{table}, line {line}: part is {part!r}; it must be train or test.")
    cell = "" if isinstance(tags, list) else (tags or "").strip()
    return _Row(line, image.strip(), _split(tags, separator), part, cell, _split(rejected, separator))


def _split(tags: str | list[str] | None, separator: str) -> list[str]:
    # A space separator matches any whitespace, including tabs and repeated spaces.
    listed = tags if isinstance(tags, list) else (tags or "").split(separator.strip(" ") or None)
    return [tag.strip() for tag in listed if tag.strip()]


def _check_separator(table: Path, rows: list[_Row], separator: str) -> None:
    """Check that the tags are not separated by another sign than the separator.

    With a blank as separator, no tag has a comma, semicolon or bar; with another, a tag may, but then the separator
    occurs somewhere too, or most cells are a single tag.

    Raises:
        ZerotagError: they are; the message names the sign.
    """
    own = separator.strip(" ")
    cells = [row for row in rows if row.cell]
    if own and any(own in row.cell for row in cells):
        return
    for other in (each for each in _SEPARATORS if each != own):
        having = [row for row in cells if re.search(rf"(?<!\d){re.escape(other)}|{re.escape(other)}(?!\d)", row.cell)]
        if having and (not own or 2 * len(having) > len(cells)):
            raise ZerotagError(
                f"{table}, line {having[0].line}: the tags {having[0].cell[:100]!r} are separated by {other!r}, but "
                f"params.yaml: sources.csv.separator is {separator!r}. Set it to {other!r}."
            )
    several = {row.cell for row in cells if " " in row.cell}
    words = {word for cell in several for word in cell.split()}
    # Tags of several words share few of them; separate tags recur in other combinations.
    if own and 2 * sum(row.cell in several for row in cells) > len(cells) and len(words) <= len(several):
        row = next(row for row in cells if row.cell in several)
        raise ZerotagError(
            f"{table}, line {row.line}: the tags {row.cell[:100]!r} seem to be separated by blanks, but params.yaml: "
            f'sources.csv.separator is {separator!r}, which is nowhere. Set it to " ".'
        )
