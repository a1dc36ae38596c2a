"""The common output of all sources: photos, their tags, a vocabulary and a train/test split."""

import csv
import hashlib
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np
import scipy.sparse as sp

from zerotag.errors import ZerotagError


@dataclass(frozen=True)
class PhotoFile:
    """Location of a photo's bytes: a file, or a range of a file that holds many.

    Attributes:
        path: the file.
        offset, size: the range in bytes; a size of None is the whole file.
        name: name of the photo in messages, if not the file.
        missing: why the photo is missing, if the source knows.
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
    """N photos with T tags, as read from a source, not decoded.

    Attributes:
        ids: N photo ids of the source.
        files: N locations; a photo may be missing (a dead link), which validation checks.
        tags: T tag names.
        labels: (N, T) CSR matrix of 0/1 (uint8).
        train: (N,) bool, True for training photos and False for test photos.
        concepts: tags that are ground-truth concepts of NUS-WIDE; empty for other sources.
        spellings: the source's spellings of each tag that it spells in another way; see `zerotag.words.tags`.
        rejected: (N, T) CSR matrix of 0/1 (uint8), tags that a person said a photo does not have; None if the source
            has none.
    """

    ids: list[str]
    files: list[PhotoFile]
    tags: list[str]
    labels: sp.csr_matrix
    train: np.ndarray
    concepts: frozenset[str] = field(default_factory=frozenset)
    spellings: dict[str, list[str]] = field(default_factory=dict)
    rejected: sp.csr_matrix | None = None


def need(path: Path, what: str, parameter: str) -> Path:
    """Return `path` if it exists.

    Raises:
        ZerotagError: it does not; the message names its parameter.
    """
    if not path.exists():
        raise ZerotagError(f"{path}: no such {what} (params.yaml: {parameter}).{_hint(path)}")
    return path


def _hint(path: Path) -> str:
    if path.parts[:1] == ("data",):
        return " Put your data there and run `dvc add data`, or `dvc pull data` for a versioned one."
    return ""


def find_files(folder: Path, names: Sequence[str], listing: str, parameter: str) -> tuple[list[str], list[PhotoFile]]:
    """Find the photos that a table names below a folder.

    Backslashes are read as slashes and composed letters as decomposed ones, if that finds the photo.

    Args:
        folder: the folder.
        names: N paths relative to the folder.
        listing: where the names are from, for messages.
        parameter: the name of the folder's parameter, for messages.

    Returns:
        N ids, the paths with slashes and composed letters, and N locations; single photos may be missing.

    Raises:
        ZerotagError: all photos are missing; the message names the first one and the folder.
    """
    entries = cache(_entries)
    found = [_find_file(folder, name, entries) for name in names]
    if names and not any(found):
        raise ZerotagError(
            f"{listing}: none of its {len(names):,} photos is there, the first one would be {folder / names[0]}. "
            f"Paths are relative to {folder} (params.yaml: {parameter}): correct the folder or the paths."
        )
    ids, files = [], []
    for name, path in zip(names, found, strict=True):
        # A name keeps a backslash only if the file has one.
        plain = name if path == folder / name else name.replace("\\", "/")
        ids.append(unicodedata.normalize("NFC", plain))
        files.append(PhotoFile(path or folder / plain))
    return ids, files


def _find_file(folder: Path, name: str, entries: Callable[[Path], dict[str, str]]) -> Path | None:
    for spelling in dict.fromkeys((name, name.replace("\\", "/"))):
        path = folder / spelling
        if _is_file(path):
            return path
        if spelling.isascii():
            continue
        # macOS writes names decomposed, other systems composed, and a path may mix both.
        path = folder
        for part in Path(spelling).parts:
            path /= entries(path).get(unicodedata.normalize("NFC", part), part)
        if _is_file(path):
            return path
    return None


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # too long for a file's name
        return False


def _entries(folder: Path) -> dict[str, str]:
    """The names in a folder, by their composed form."""
    return {unicodedata.normalize("NFC", each.name): each.name for each in folder.iterdir()} if folder.is_dir() else {}


def write_inventory(source: Source, folder: Path) -> None:
    """List the photos' files and sizes, so that DVC versions the state of photos outside of its outputs."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "inventory.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["file", "bytes"])
        for photo in source.files:
            table.writerow([photo.path.as_posix(), photo.path.stat().st_size if photo.path.is_file() else "missing"])


def hash_split(ids: list[str], test: float | int, parameter: str) -> np.ndarray:
    """Split photos into train (True) and test (False) by a fixed hash of their names.

    Photos with the smallest SHA-256 of their name are test photos, so the split depends on neither order nor
    seed, and stays stable when photos are added.

    Args:
        ids: N photo names.
        test: a share below 1, or a number of photos.
        parameter: the name of the parameter `test`, for the message.

    Raises:
        ZerotagError: `test` leaves no training or no test photos.
    """
    count = round(test * len(ids)) if test < 1 else int(test)
    if not 0 < count < len(ids):
        raise ZerotagError(
            f"params.yaml: {parameter} = {test} gives {count} test photos of {len(ids)}; "
            "set a share between 0 and 1, or a number of photos that leaves some for training."
        )
    order = sorted(range(len(ids)), key=lambda row: hashlib.sha256(ids[row].encode()).digest())
    train = np.ones(len(ids), dtype=bool)
    train[order[:count]] = False
    return train


def label_matrix(tags_of_photos: list[list[str]], vocabulary: list[str]) -> sp.csr_matrix:
    """(N, T) 0/1 matrix from each photo's tags; repeated tags count once."""
    column = {tag: number for number, tag in enumerate(vocabulary)}
    rows, columns = [], []
    for row, tags in enumerate(tags_of_photos):
        for tag in dict.fromkeys(tags):
            rows.append(row)
            columns.append(column[tag])
    ones = np.ones(len(rows), dtype=np.uint8)
    return sp.csr_matrix((ones, (rows, columns)), shape=(len(tags_of_photos), len(vocabulary)))
