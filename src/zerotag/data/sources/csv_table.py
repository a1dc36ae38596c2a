"""Custom photos: a table `image,tags`, as CSV or JSON Lines."""

import csv
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NotRequired

import numpy as np
from pydantic import TypeAdapter, ValidationError
from typing_extensions import TypedDict

from zerotag.data.sources.base import PhotoFile, Source, hash_split, label_matrix, need
from zerotag.errors import ZerotagError


@dataclass(frozen=True)
class CsvSettings:
    """Attributes:
    table: a CSV file with a header and the columns `image` and `tags`, or JSON Lines (`.jsonl`) with these
        keys, where tags may also be a list. A column `part` (`train` or `test`) overrides `test`.
    photos: the folder that `image` is relative to.
    separator: of tags in CSV, such as " ", "|" or ";".
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


_JSON_ROW = TypeAdapter(_JsonRow)


def read(settings: CsvSettings, section: str = "sources.csv") -> Source:
    """Read the table, without opening photos.

    Args:
        settings: where it is.
        section: of params.yaml, for messages.

    Raises:
        ZerotagError: a missing file or column, a duplicate photo, or a row without tags; the message names the file
            and the line.
    """
    table = need(Path(settings.table), "table", f"{section}.table")
    photos = need(Path(settings.photos), "folder", f"{section}.photos")
    lines: dict[str, int] = {}
    tags_of_photos: list[list[str]] = []
    parts: list[str] = []
    for line, image, tags, part in _rows(table, settings.separator):
        if image in lines:
            raise ZerotagError(
                f"{table}, line {line}: photo {image} is already on line {lines[image]}. Put all its tags on one line."
            )
        if not tags:
            raise ZerotagError(f"{table}, line {line}: photo {image} has no tags. Tag it or remove the line.")
        lines[image] = line
        tags_of_photos.append(tags)
        parts.append(part)
    if not lines:
        raise ZerotagError(f"{table}: lists no photos. Add a line for each: image,tags")
    counts = Counter(tag for tags in tags_of_photos for tag in set(tags))
    vocabulary = sorted(tag for tag, count in counts.items() if count >= settings.min_photos)
    if not vocabulary:
        raise ZerotagError(
            f"{table}: no tag has {settings.min_photos} photos (params.yaml: {section}.min_photos). Lower it."
        )
    kept = set(vocabulary)
    ids = list(lines)
    if any(parts):
        if not all(parts):
            raise ZerotagError(f"{table}: photo {ids[parts.index('')]} has no part; set train or test for every photo.")
        train = np.array([part == "train" for part in parts])
        if train.all() or not train.any():
            raise ZerotagError(f"{table}: every photo has part {parts[0]}; set both train and test photos.")
    else:
        train = hash_split(ids, settings.test, f"{section}.test")
    labels = label_matrix([[tag for tag in tags if tag in kept] for tags in tags_of_photos], vocabulary)
    return Source(ids, [PhotoFile(photos / image) for image in ids], vocabulary, labels, train)


def _rows(table: Path, separator: str) -> Iterator[tuple[int, str, list[str], str]]:
    """Yield the line number, image, tags and part of each row."""
    if table.suffix.lower() in (".jsonl", ".ndjson"):
        yield from _json_rows(table, separator)
        return
    with _utf8(table), table.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        header = reader.fieldnames or []
        if missing := [column for column in ("image", "tags") if column not in header]:
            raise ZerotagError(
                f"{table}, line 1: column {' and '.join(missing)} missing, found {', '.join(header) or 'nothing'}. "
                "The first line must name the columns: image,tags"
            )
        for row in reader:
            if None in row:
                raise ZerotagError(
                    f"{table}, line {reader.line_num}: more values than columns. Quote comma-separated tags, "
                    'and set sources.csv.separator to ",".'
                )
            yield _row(table, reader.line_num, row["image"], row["tags"], row.get("part"), separator)


def _json_rows(table: Path, separator: str) -> Iterator[tuple[int, str, list[str], str]]:
    with _utf8(table), table.open(encoding="utf-8-sig") as file:
        for line, text in enumerate(file, start=1):
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
            yield _row(table, line, row["image"], row["tags"], row.get("part"), separator)


@contextmanager
def _utf8(table: Path) -> Iterator[None]:
    try:
        yield
    except (UnicodeDecodeError, csv.Error) as error:
        raise ZerotagError(f"{table}: not a UTF-8 table ({error}). Save it as UTF-8 CSV.") from error


def _row(
    table: Path, line: int, image: str | None, tags: str | list[str] | None, part: str | None, separator: str
) -> tuple[int, str, list[str], str]:
    if not image or not image.strip():
        raise ZerotagError(f"{table}, line {line}: no image given. Add one or remove the line.")
    if part and part not in ("train", "test"):
        raise ZerotagError(f"{table}, line {line}: part is {part!r}; it must be train or test.")
    # A space separator matches any whitespace, including tabs and repeated spaces.
    listed = tags if isinstance(tags, list) else (tags or "").split(separator.strip(" ") or None)
    return line, image.strip(), [tag.strip() for tag in listed if tag.strip()], part or ""
