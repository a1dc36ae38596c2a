"""A prepared data set: photographs in shards, their tags, and the train/test division.

This is what every later step reads, whichever source it came from. On disk it is one folder::

    photos.parquet   one row a photo: id, file, train, sha256, width, height, problem, shard, offset, size
    tags.csv         one row a tag: tag, concept (a NUS-WIDE ground-truth concept), train_photos, test_photos
    labels.npz       scipy CSR matrix, photos x tags, 0/1
    shards/*.tar     WebDataset shards; a photo's bytes lie at [offset, offset + size) of its shard
"""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.sparse as sp

from zerotag.errors import ZerotagError


@dataclass(frozen=True)
class Dataset:
    """A prepared data set of N photos and T tags.

    Attributes:
        root: the folder it lies in.
        photos: N rows, columns as in the module's docstring; `problem` is empty for a good photo and
            says what is wrong with a bad one (which then has no shard).
        tags: T rows; the row number is the tag's column in `labels`.
        labels: (N, T) CSR matrix of 0/1 (uint8).
    """

    root: Path
    photos: pd.DataFrame
    tags: pd.DataFrame
    labels: sp.csr_matrix

    @classmethod
    def read(cls, root: Path) -> "Dataset":
        """Read the folder that `zerotag.data.prepare.prepare` wrote.

        Raises:
            ZerotagError: the folder is not a prepared data set.
        """
        for name in ("photos.parquet", "tags.csv", "labels.npz"):
            if not (root / name).is_file():
                raise ZerotagError(f"{root / name} is missing: run `dvc repro prepare` first.")
        return cls(
            root=root,
            photos=pd.read_parquet(root / "photos.parquet"),
            tags=pd.read_csv(root / "tags.csv", dtype={"tag": str}, keep_default_na=False),
            labels=sp.load_npz(root / "labels.npz").tocsr(),
        )

    @cached_property
    def usable(self) -> np.ndarray:
        """(N,) bool: photos that decode."""
        return (self.photos["problem"] == "").to_numpy()

    @cached_property
    def train(self) -> np.ndarray:
        """Row numbers of the usable training photos."""
        return np.flatnonzero(self.usable & self.photos["train"].to_numpy())

    @cached_property
    def test(self) -> np.ndarray:
        """Row numbers of the usable test photos."""
        return np.flatnonzero(self.usable & ~self.photos["train"].to_numpy())

    @cached_property
    def digest(self) -> str:
        """Names the content: photos, labels and division."""
        state = hashlib.sha256()
        state.update("".join(self.photos["sha256"]).encode())
        for part in (self.labels.indptr, self.labels.indices, self.photos["train"].to_numpy()):
            state.update(part.tobytes())
        return state.hexdigest()[:16]

    def photo_bytes(self, row: int) -> bytes:
        """The encoded photo of a row, as it lies in its shard."""
        photo = self.photos.iloc[row]
        with (self.root / "shards" / photo["shard"]).open("rb") as shard:
            shard.seek(photo["offset"])
            return shard.read(photo["size"])

    def columns(self, tags: list[str]) -> np.ndarray:
        """Columns of `labels` for tag names, in their order."""
        position = {tag: column for column, tag in enumerate(self.tags["tag"])}
        return np.array([position[tag] for tag in tags], dtype=np.int64)
