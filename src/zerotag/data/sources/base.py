"""What every source delivers: photographs, their tags, a vocabulary and a train/test division."""

import csv
import hashlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import scipy.sparse as sp

from zerotag.errors import ZerotagError


@dataclass(frozen=True)
class PhotoFile:
    """Where a photo's bytes lie: a file of its own, or a part of one that holds many.

    Attributes:
        path: the file.
        offset, size: the part, in bytes; the whole file where the size is None.
        name: what the photo is called in messages, where that is not the file.
        missing: why there is no photo, where a source knows.
    """

    path: Path
    offset: int = 0
    size: int | None = None
    name: str = ""
    missing: str = ""

    def __str__(self) -> str:
        return self.name or self.path.as_posix()

    def read(self) -> bytes:
        """The encoded photo.

        Raises:
            OSError: the file cannot be read.
        """
        with self.path.open("rb") as file:
            file.seek(self.offset)
            return file.read(-1 if self.size is None else self.size)


@dataclass(frozen=True)
class Source:
    """N photographs with T tags, as read from a source; nothing is decoded yet.

    Attributes:
        ids: N names of the photographs, as the source calls them.
        files: N places; a photo may be missing (a dead link), which validation judges.
        tags: T tag names.
        labels: (N, T) CSR matrix of 0/1 (uint8).
        train: (N,) bool, True for training photos and False for test photos.
        concepts: tags that are ground-truth concepts of NUS-WIDE, empty for other sources.
    """

    ids: list[str]
    files: list[PhotoFile]
    tags: list[str]
    labels: sp.csr_matrix
    train: np.ndarray
    concepts: frozenset[str] = field(default_factory=frozenset)


def need(path: Path, what: str, parameter: str) -> Path:
    """Return `path` if it exists.

    Raises:
        ZerotagError: it does not; the message names the parameter that holds it.
    """
    if not path.exists():
        raise ZerotagError(f"{path}: no such {what} (params.yaml: {parameter}).{_hint(path)}")
    return path


def _hint(path: Path) -> str:
    if path.parts[:1] == ("data",):
        return " Put your data there and `dvc add data`, or fetch a versioned one with `dvc pull data`."
    return ""


def write_inventory(source: Source, folder: Path) -> None:
    """List the photos' files and sizes: their state becomes a versioned output, although they stay where they are."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "inventory.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["file", "bytes"])
        for photo in source.files:
            table.writerow([photo.path.as_posix(), photo.path.stat().st_size if photo.path.is_file() else "missing"])


def hash_division(ids: list[str], test: float | int, parameter: str) -> np.ndarray:
    """Divide photos into train (True) and test (False) by a fixed hash of their names.

    The photos with the smallest SHA-256 of their name are the test photos, so the division depends on
    neither their order nor a seed, and a photo keeps its place when others come.

    Args:
        ids: N photo names.
        test: a share below 1, or a number of photos.
        parameter: the parameter that holds `test`, for the message.

    Raises:
        ZerotagError: `test` leaves no photo for training or for testing.
    """
    count = round(test * len(ids)) if test < 1 else int(test)
    if not 0 < count < len(ids):
        raise ZerotagError(
            f"params.yaml: {parameter} = {test} makes {count} test photos of {len(ids)}; "
            "give a share between 0 and 1 or a number of photos that leaves some for training."
        )
    order = sorted(range(len(ids)), key=lambda row: hashlib.sha256(ids[row].encode()).digest())
    train = np.ones(len(ids), dtype=bool)
    train[order[:count]] = False
    return train


def label_matrix(tags_of_photos: list[list[str]], vocabulary: list[str]) -> sp.csr_matrix:
    """(N, T) 0/1 matrix from each photo's tags; a tag given twice counts once."""
    column = {tag: number for number, tag in enumerate(vocabulary)}
    rows, columns = [], []
    for row, tags in enumerate(tags_of_photos):
        for tag in dict.fromkeys(tags):
            rows.append(row)
            columns.append(column[tag])
    ones = np.ones(len(rows), dtype=np.uint8)
    return sp.csr_matrix((ones, (rows, columns)), shape=(len(tags_of_photos), len(vocabulary)))
