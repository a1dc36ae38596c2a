"""NUS-WIDE in its official file layout (Chua et al., CIVR 2009), as published.

The tags are the 1,000 frequent user tags less those that are also ground-truth concepts, followed by the
81 concepts with their ground truth: 925 + 81 = 1,006 on the real files.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.sparse as sp

from zerotag.errors import ZerotagError
from zerotag.sources.base import Source, need

_BLOCK = 8 * 2**20


@dataclass(frozen=True)
class NusWideSettings:
    """Attributes:
    folder: holds ConceptsList/, ImageList/, Groundtruth/ and NUS_WID_Tags/.
    photos: the folder that the paths in ImageList/ are relative to.
    """

    folder: str = "data/nus-wide"
    photos: str = "data/nus-wide/images"


def read(settings: NusWideSettings, parameter: str = "sources.nus-wide.folder") -> Source:
    """Read the lists, the user tags and the ground truth; photos are not opened.

    Raises:
        ZerotagError: a file is missing, or has another number of lines or columns than the lists.
    """
    folder = need(Path(settings.folder), "folder", parameter)
    concepts = _lines(folder / "ConceptsList" / "Concepts81.txt")
    user_tags = _lines(folder / "NUS_WID_Tags" / "TagList1k.txt")
    seen_columns = [column for column, tag in enumerate(user_tags) if tag not in set(concepts)]
    paths: list[str] = []
    blocks = []
    train: list[bool] = []
    for part in ("Train", "Test"):
        listed = _lines(folder / "ImageList" / f"{part}Imagelist.txt")
        tags = read_table(folder / "NUS_WID_Tags" / f"{part}_Tags1k.dat", len(listed), len(user_tags))
        truth = [
            read_table(folder / "Groundtruth" / "TrainTestLabels" / f"Labels_{concept}_{part}.txt", len(listed), 1)
            for concept in concepts
        ]
        blocks.append(sp.hstack([tags[:, seen_columns], *truth], format="csr", dtype=np.uint8))
        paths += listed
        train += [part == "Train"] * len(listed)
    ids = [path.replace("\\", "/") for path in paths]
    return Source(
        ids=ids,
        files=[Path(settings.photos) / name for name in ids],
        tags=[user_tags[column] for column in seen_columns] + concepts,
        labels=sp.vstack(blocks, format="csr", dtype=np.uint8),
        train=np.array(train),
        concepts=frozenset(concepts),
    )


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
