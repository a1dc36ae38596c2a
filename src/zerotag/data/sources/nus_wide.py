"""NUS-WIDE in its official file layout (Chua et al., CIVR 2009).

The tags are the 1,000 frequent user tags without those that are also ground-truth concepts, followed by the
81 concepts with their ground truth: 925 + 81 = 1,006 in the published files.
"""

import os
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import scipy.sparse as sp

from zerotag.data.sources.archives import is_archive
from zerotag.data.sources.base import PhotoFile, Source, need
from zerotag.data.sources.packed import Record, read_records
from zerotag.data.sources.web import WebSettings
from zerotag.data.tables import read_text
from zerotag.errors import ZerotagError
from zerotag.words.tags import one_spelling, tag_key

_BLOCK = 8 * 2**20
ADDRESS = "https://lms.comp.nus.edu.sg/wp-content/uploads/2019/research/nuswide/"
ARCHIVES = ("ConceptsList.zip", "ImageList.zip", "Groundtruth.zip", "NUS_WID_Tags.zip", "NUS-WIDE-urls.rar")
COUNTS = {"train": 161_789, "test": 107_859, "concepts": 81, "user_tags": 1_000, "seen": 925}


@dataclass(frozen=True)
class NusWideSettings:
    """Attributes:
    folder: contains ConceptsList/, ImageList/, Groundtruth/ and NUS_WID_Tags/; empty to download them.
    photos: the folder that the paths in ImageList/ are relative to, or one of photos named by their Flickr ids, or an
        archive of such a folder (.zip, .tar, .tar.gz, .rar); empty to download the photos from the dataset's URL list.
    archives: URLs of the lists, tags and ground truth.
    counts: expected sizes of the lists: train, test (photos), concepts, user_tags, seen (user tags that are not
        concepts); empty to skip the check.
    min_share: minimum share of downloaded photos; fewer stop the download.
    web: limits and retries of the download.
    """

    folder: str = ""
    photos: str = ""
    archives: tuple[str, ...] = tuple(ADDRESS + name for name in ARCHIVES)
    counts: dict[str, int] = field(default_factory=lambda: dict(COUNTS))
    min_share: float = 0.7
    web: WebSettings = field(default_factory=WebSettings)


def read(settings: NusWideSettings, raw: Path, parameter: str = "sources.nus-wide.folder") -> Source:
    """Read the lists, user tags and ground truth, without opening photos.

    Args:
        settings: their locations.
        raw: the downloads: the lists if `settings.folder` is empty, and packed photos in photos/.
        parameter: the name of the folder's parameter, for messages.

    Raises:
        ZerotagError: a file is missing, does not match the lists in lines or columns, the sizes differ from
            `settings.counts`, or a folder has none of the photos.
    """
    folder = need(Path(settings.folder), "folder", parameter) if settings.folder else raw
    concepts = _lines(folder / "ConceptsList" / "Concepts81.txt")
    user_tags = _lines(folder / "NUS_WID_Tags" / "TagList1k.txt")
    keys = {tag_key(concept) for concept in concepts}
    seen_columns = [column for column, tag in enumerate(user_tags) if tag_key(tag) not in keys]
    lists = {part: _lines(folder / "ImageList" / f"{part}Imagelist.txt") for part in ("Train", "Test")}
    found = (len(lists["Train"]), len(lists["Test"]), len(concepts), len(user_tags), len(seen_columns))
    _check_counts(folder, dict(zip(COUNTS, found, strict=True)), settings.counts)
    blocks = []
    for part, listed in lists.items():
        tags = read_table(folder / "NUS_WID_Tags" / f"{part}_Tags1k.dat", len(listed), len(user_tags))
        truth = [_read_truth(folder, concept, part, listed) for concept in concepts]
        blocks.append(sp.hstack([tags[:, seen_columns], *truth], format="csr", dtype=np.uint8))
    ids = [photo_id(path) for listed in lists.values() for path in listed]
    if settings.photos and not is_archive(Path(settings.photos)):
        files = _find_photos(Path(settings.photos), ids)
    else:
        records = read_records(raw / "photos")
        files = [_packed(raw / "photos", name, records.get(name, Record(name))) for name in ids]
    given = [user_tags[column] for column in seen_columns] + concepts
    labels = sp.vstack(blocks, format="csr", dtype=np.uint8)
    names, spellings = one_spelling(_counts(given, labels))
    tags = list(dict.fromkeys(names[tag] for tag in given if tag in names))
    return Source(
        ids=ids,
        files=files,
        tags=tags,
        labels=labels if tags == given else _with_tags(labels, [names.get(tag) for tag in given], tags),
        train=np.arange(len(ids)) < len(lists["Train"]),
        concepts=frozenset(names[concept] for concept in concepts if concept in names),
        spellings=spellings,
    )


def _counts(tags: list[str], labels: sp.csr_matrix) -> dict[str, int]:
    counts: dict[str, int] = {}
    for tag, count in zip(tags, np.asarray(labels.sum(axis=0)).ravel().tolist(), strict=True):
        counts[tag] = counts.get(tag, 0) + count
    return counts


def _with_tags(labels: sp.csr_matrix, names: list[str | None], tags: list[str]) -> sp.csr_matrix:
    """(N, T) labels of `tags` from those of columns that are named like them; columns without a name are dropped."""
    place = {tag: number for number, tag in enumerate(tags)}
    kept = [(column, place[name]) for column, name in enumerate(names) if name is not None]
    where, target = ([pair[side] for pair in kept] for side in (0, 1))
    ones = np.ones(len(kept), dtype=np.int32)
    merged = labels.astype(np.int32) @ sp.csr_matrix((ones, (where, target)), shape=(len(names), len(tags)))
    return (merged > 0).astype(np.uint8).tocsr()


def _find_photos(folder: Path, ids: list[str]) -> list[PhotoFile]:
    """The photos in a folder: by their path in the lists, else by their Flickr id anywhere in the folder.

    Raises:
        ZerotagError: none is there; the message shows the layout.
    """
    paths = [folder / name for name in ids]
    absent = {name for name, path in zip(ids, paths, strict=True) if not path.is_file()}
    if not absent or not folder.is_dir():
        return [PhotoFile(path) for path in paths]
    by_flickr: dict[str, Path] = {}
    example: Path | None = None
    for path in sorted(Path(base) / file for base, _, files in os.walk(folder) for file in files):
        example = example or path
        if number := flickr_id(path.name):
            by_flickr.setdefault(number, path)
    paths = [
        by_flickr.get(flickr_id(name), path) if name in absent else path for name, path in zip(ids, paths, strict=True)
    ]
    if len(absent) == len(ids) and not any(path.is_file() for path in paths):
        raise ZerotagError(
            f"{folder}: none of the {len(ids):,} photos is there (params.yaml: sources.nus-wide.photos). "
            + layout(ids[0], example)
        )
    return [PhotoFile(path) for path in paths]


def layout(name: str, found: Path | str | None) -> str:
    """A sentence on the layouts in which photos are found, for messages: the id of a photo, and what there is."""
    return (
        f"Expected {name} as in ImageList/, or {flickr_id(name)}.jpg, by Flickr id, in any folder; "
        f"found {found or 'no file'}."
    )


def flickr_id(path: str) -> str:
    """The Flickr id in a photo's file name; empty if there is none.

    Names are `0001_2124494179.jpg` in the dataset, and `2124494179.jpg` or `2124494179_0a1b2c3d4e_m.jpg` from Flickr.
    """
    stem = path.rpartition("/")[2].partition(".")[0]
    for pattern in (r"\d{1,5}_(\d+)", r"(\d+)(_[0-9a-f]+)?(_[a-z])?"):
        if match := re.fullmatch(pattern, stem):
            return match[1]
    return ""


def photo_id(path: str) -> str:
    """A photo's id from its path in a list or archive: the last folder and the file name."""
    return "/".join(path.replace("\\", "/").split("/")[-2:])


def _packed(folder: Path, name: str, record: Record) -> PhotoFile:
    if not record.file:
        return PhotoFile(folder / name, missing=record.problem)
    return PhotoFile(folder / record.file, record.offset, record.size, name)


def _check_counts(folder: Path, found: Mapping[str, int], wanted: Mapping[str, int]) -> None:
    for name, count in wanted.items():
        if found.get(name) != count:
            raise ZerotagError(
                f"{folder}: {name} = {found.get(name)}, expected {count}. Download the lists again, or set the "
                "expected sizes of other lists (params.yaml: sources.nus-wide.counts)."
            )


def _read_truth(folder: Path, concept: str, part: str, listed: list[str]) -> sp.csr_matrix:
    """(n, 1) ground truth of a concept.

    The published Labels_lake_Train.txt has the value -1130179 on one line. If a file of TrainTestLabels/ is
    invalid, fall back to AllLabels/, which has the same labels in the order of Imagelist.txt.
    """
    labels = folder / "Groundtruth" / "TrainTestLabels" / f"Labels_{concept}_{part}.txt"
    try:
        return read_table(labels, len(listed), 1)
    except ZerotagError as error:
        everything = folder / "ImageList" / "Imagelist.txt"
        whole = folder / "Groundtruth" / "AllLabels" / f"Labels_{concept}.txt"
        if not labels.is_file() or not everything.is_file() or not whole.is_file():
            raise
        rows = {name: row for row, name in enumerate(_lines(everything))}
        values = read_table(whole, len(rows), 1)
        if any(name not in rows for name in listed):
            raise
        warnings.warn(f"{error} Using {whole} instead.", stacklevel=2)
        return values[[rows[name] for name in listed]]


def _lines(path: Path) -> list[str]:
    if not path.is_file():
        raise ZerotagError(f"{path} is missing from the official layout of NUS-WIDE. Unpack its archive there.")
    return [line.strip() for line in read_text(path, "a list in UTF-8").splitlines() if line.strip()]


def read_table(path: Path, rows: int, columns: int) -> sp.csr_matrix:
    """Read a text file of whitespace-separated 0/1 values, one row per line, in blocks of bytes.

    Args:
        path: the file.
        rows, columns: expected from the lists.

    Returns:
        (rows, columns) CSR matrix of uint8.

    Raises:
        ZerotagError: the file is missing, has values other than 0 and 1, or an unexpected number of them; the
            message names the first invalid line.
    """
    if not path.is_file():
        raise ZerotagError(f"{path} is missing from the official layout of NUS-WIDE. Unpack its archive there.")
    ones, count = [], 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            characters = np.frombuffer(block, dtype=np.uint8)
            # A value is one character, so the values of a block are its non-whitespace characters.
            places = np.flatnonzero(characters > ord(" "))
            values = characters[places]
            if values.size and (values.min() < ord("0") or values.max() > ord("1")):
                raise ZerotagError(_wrong_line(path, rows, columns))
            # A short and a long line would cancel out and shift the lines between them.
            ends = np.searchsorted(places, np.flatnonzero(characters == ord("\n"))) + count
            if columns and (ends % columns).any():
                raise ZerotagError(_wrong_line(path, rows, columns))
            ones.append(np.flatnonzero(values == ord("1")) + count)
            count += values.size
    if count != rows * columns:
        raise ZerotagError(_wrong_line(path, rows, columns))
    where = np.concatenate(ones) if ones else np.empty(0, dtype=np.int64)
    row, column = np.divmod(where, columns)
    pointers = np.concatenate([[0], np.cumsum(np.bincount(row, minlength=rows))])
    return sp.csr_matrix((np.ones(where.size, dtype=np.uint8), column, pointers), shape=(rows, columns))


def _wrong_line(path: Path, rows: int, columns: int) -> str:
    number = 0
    with path.open("rb") as file:
        for line in file:
            values = line.split()
            if not values:
                continue
            number += 1
            if len(values) != columns or any(value not in (b"0", b"1") for value in values):
                return (
                    f"{path}, line {number}: expected {columns} values of 0 or 1, found {len(values)}. "
                    "Download it again."
                )
    return f"{path}: {number} lines, the image list has {rows}. The file is cut or of another list; download it again."
