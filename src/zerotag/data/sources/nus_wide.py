"""NUS-WIDE in its official file layout (Chua et al., CIVR 2009), as published.

The tags are the 1,000 frequent user tags less those that are also ground-truth concepts, followed by the
81 concepts with their ground truth: 925 + 81 = 1,006 on the real files.
"""

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
from zerotag.errors import ZerotagError

_BLOCK = 8 * 2**20
ADDRESS = "https://lms.comp.nus.edu.sg/wp-content/uploads/2019/research/nuswide/"
ARCHIVES = ("ConceptsList.zip", "ImageList.zip", "Groundtruth.zip", "NUS_WID_Tags.zip", "NUS-WIDE-urls.rar")
COUNTS = {"train": 161_789, "test": 107_859, "concepts": 81, "user_tags": 1_000, "seen": 925}


@dataclass(frozen=True)
class NusWideSettings:
    """Attributes:
    folder: holds ConceptsList/, ImageList/, Groundtruth/ and NUS_WID_Tags/; empty: they are downloaded.
    photos: the folder that the paths in ImageList/ are relative to, or an archive of such a folder (.zip, .tar,
        .tar.gz, .rar); empty: the photos are downloaded, one by one, from the dataset's list of addresses.
    archives: where the lists, tags and ground truth are downloaded from.
    counts: what the lists must come to: train, test (photos), concepts, user_tags, seen (user tags that are no
        concept); empty: anything.
    min_share: of the photos that must have been had, or the download stops.
    web: how the download treats the web.
    """

    folder: str = ""
    photos: str = ""
    archives: tuple[str, ...] = tuple(ADDRESS + name for name in ARCHIVES)
    counts: dict[str, int] = field(default_factory=lambda: dict(COUNTS))
    min_share: float = 0.7
    web: WebSettings = field(default_factory=WebSettings)


def read(settings: NusWideSettings, raw: Path, parameter: str = "sources.nus-wide.folder") -> Source:
    """Read the lists, the user tags and the ground truth; photos are not opened.

    Args:
        settings: where they are.
        raw: what was downloaded: the lists where `settings.folder` is empty, and packed photos in photos/.
        parameter: the parameter that holds the folder, for messages.

    Raises:
        ZerotagError: a file is missing, has another number of lines or columns than the lists, or the numbers are
            not those of `settings.counts`.
    """
    folder = need(Path(settings.folder), "folder", parameter) if settings.folder else raw
    concepts = _lines(folder / "ConceptsList" / "Concepts81.txt")
    user_tags = _lines(folder / "NUS_WID_Tags" / "TagList1k.txt")
    seen_columns = [column for column, tag in enumerate(user_tags) if tag not in set(concepts)]
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
        files = [PhotoFile(Path(settings.photos) / name) for name in ids]
    else:
        records = read_records(raw / "photos")
        files = [_packed(raw / "photos", name, records.get(name, Record(name))) for name in ids]
    return Source(
        ids=ids,
        files=files,
        tags=[user_tags[column] for column in seen_columns] + concepts,
        labels=sp.vstack(blocks, format="csr", dtype=np.uint8),
        train=np.arange(len(ids)) < len(lists["Train"]),
        concepts=frozenset(concepts),
    )


def photo_id(path: str) -> str:
    """A photo's name from its path in a list or in an archive: its folder and its file."""
    return "/".join(path.replace("\\", "/").split("/")[-2:])


def _packed(folder: Path, name: str, record: Record) -> PhotoFile:
    if not record.file:
        return PhotoFile(folder / name, missing=record.problem)
    return PhotoFile(folder / record.file, record.offset, record.size, name)


def _check_counts(folder: Path, found: Mapping[str, int], wanted: Mapping[str, int]) -> None:
    for name, count in wanted.items():
        if found.get(name) != count:
            raise ZerotagError(
                f"{folder}: {name} = {found.get(name)} where {count} is expected. Fetch the lists again, or say what "
                "to expect of others (params.yaml: sources.nus-wide.counts)."
            )


def _read_truth(folder: Path, concept: str, part: str, listed: list[str]) -> sp.csr_matrix:
    """(n, 1) ground truth of a concept.

    The published Labels_lake_Train.txt has the value -1130179 on one line. Where a file of TrainTestLabels/ is
    wrong, AllLabels/ is asked, which has the same labels in the order of Imagelist.txt.
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
        warnings.warn(f"{error} Taken from {whole} instead.", stacklevel=2)
        return values[[rows[name] for name in listed]]


def _lines(path: Path) -> list[str]:
    if not path.is_file():
        raise ZerotagError(f"{path} is missing: the official layout of NUS-WIDE has it. Unpack its archive there.")
    try:
        return [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except UnicodeDecodeError as error:
        raise ZerotagError(f"{path}: not a list in UTF-8 ({error}). Fetch it again.") from error


def read_table(path: Path, rows: int, columns: int) -> sp.csr_matrix:
    """Read a text file of 0/1 values, white space between them, one row a line, in blocks of bytes.

    Args:
        path: the file.
        rows, columns: what the lists promise.

    Returns:
        (rows, columns) CSR matrix of uint8.

    Raises:
        ZerotagError: the file is missing, holds something else than 0 and 1, or another number of values;
            the message names the first line that is wrong.
    """
    if not path.is_file():
        raise ZerotagError(f"{path} is missing: the official layout of NUS-WIDE has it. Unpack its archive there.")
    ones, count = [], 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            characters = np.frombuffer(block, dtype=np.uint8)
            # A value is one character, so the values of a block are its characters above the blank.
            places = np.flatnonzero(characters > ord(" "))
            values = characters[places]
            if values.size and (values.min() < ord("0") or values.max() > ord("1")):
                raise ZerotagError(_wrong_line(path, rows, columns))
            # A short line and a long one would make up for each other and shift what lies between.
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
                    f"{path}, line {number}: expected {columns} values of 0 or 1, found {len(values)}. Fetch it again."
                )
    return f"{path}: {number} lines, but the image list has {rows}. The file is cut or of another list; fetch it again."
