"""One's own photographs: a table `image,tags`, as CSV or JSON Lines."""

import csv
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from zerotag.errors import ZerotagError
from zerotag.sources.base import Source, hash_division, label_matrix, need


@dataclass(frozen=True)
class CsvSettings:
    """Attributes:
    table: a CSV file with a header and the columns `image` and `tags`, or JSON Lines (`.jsonl`) with those
        keys, where tags may also be a list. A column `part` (`train` or `test`) overrides `test`.
    photos: the folder that `image` is relative to.
    separator: what stands between tags in CSV; " " or "|" or ";" ….
    test: the share or the number of test photos, chosen by a fixed hash of the name.
    min_photos: tags with fewer photos than this are left out.
    """

    table: str = "data/tags.csv"
    photos: str = "data/images"
    separator: str = " "
    test: float = 0.1
    min_photos: int = 1


def read(settings: CsvSettings) -> Source:
    """Read the table; photos are not opened.

    Raises:
        ZerotagError: a missing file or column, a photo listed twice, a row without tags; the message
            names the file and the line.
    """
    table = need(Path(settings.table), "table", "sources.csv.table")
    photos = need(Path(settings.photos), "folder", "sources.csv.photos")
    lines: dict[str, int] = {}
    tags_of_photos: list[list[str]] = []
    parts: list[str] = []
    for line, image, tags, part in _rows(table, settings.separator):
        if image in lines:
            raise ZerotagError(
                f"{table}, line {line}: photo {image} is already on line {lines[image]}. Put all its tags on one line."
            )
        if not tags:
            raise ZerotagError(f"{table}, line {line}: photo {image} has no tags. Tag it or take the line out.")
        lines[image] = line
        tags_of_photos.append(tags)
        parts.append(part)
    if not lines:
        raise ZerotagError(f"{table}: no photo is listed.")
    counts = Counter(tag for tags in tags_of_photos for tag in set(tags))
    vocabulary = sorted(tag for tag, count in counts.items() if count >= settings.min_photos)
    kept = set(vocabulary)
    ids = list(lines)
    if any(parts):
        if not all(parts):
            raise ZerotagError(f"{table}: photo {ids[parts.index('')]} has no part; give train or test to every photo.")
        train = np.array([part == "train" for part in parts])
    else:
        train = hash_division(ids, settings.test, "sources.csv.test")
    labels = label_matrix([[tag for tag in tags if tag in kept] for tags in tags_of_photos], vocabulary)
    return Source(ids, [photos / image for image in ids], vocabulary, labels, train)


def _rows(table: Path, separator: str) -> Iterator[tuple[int, str, list[str], str]]:
    """Yield line number, image, tags and part of each row."""
    if table.suffix.lower() in (".jsonl", ".ndjson"):
        yield from _json_rows(table, separator)
        return
    with table.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        header = reader.fieldnames or []
        if missing := [column for column in ("image", "tags") if column not in header]:
            raise ZerotagError(
                f"{table}, line 1: column {' and '.join(missing)} missing, found {', '.join(header) or 'nothing'}. "
                "The first line must name the columns: image,tags"
            )
        for row in reader:
            yield _row(table, reader.line_num, row["image"], row["tags"], row.get("part"), separator)


def _json_rows(table: Path, separator: str) -> Iterator[tuple[int, str, list[str], str]]:
    for line, text in enumerate(table.read_text(encoding="utf-8-sig").splitlines(), start=1):
        if not text.strip():
            continue
        try:
            row = json.loads(text)
            image, tags = row["image"], row["tags"]
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise ZerotagError(f'{table}, line {line}: not an object with "image" and "tags" ({error!r}).') from error
        yield _row(table, line, image, tags, row.get("part"), separator)


def _row(
    table: Path, line: int, image: str | None, tags: str | list[str] | None, part: str | None, separator: str
) -> tuple[int, str, list[str], str]:
    if not image or not image.strip():
        raise ZerotagError(f"{table}, line {line}: no image is named.")
    if part and part not in ("train", "test"):
        raise ZerotagError(f"{table}, line {line}: part is {part!r}, must be train or test.")
    listed = tags if isinstance(tags, list) else (tags or "").split(separator)
    return line, image.strip(), [tag.strip() for tag in listed if tag.strip()], part or ""
