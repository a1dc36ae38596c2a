"""A prepared dataset: photos in shards, their tags, and the train/test split.

All later steps read it, whatever the source. On disk it is one folder::

    photos.parquet   one row per photo: id, file, train, sha256, width, height, problem, shard, offset, size
    tags.csv         one row per tag: tag, concept (a NUS-WIDE ground-truth concept), train_photos, test_photos,
                     spellings (those of the source with " | " between, if it spells the tag in another way)
    labels.npz       scipy CSR matrix, photos x tags, 0/1
    rejected.npz     likewise, tags that a person said a photo does not have; only if there are any
    shards/*.tar     WebDataset shards; a photo's bytes are at [offset, offset + size) of its shard
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
    """A prepared dataset of N photos and T tags.

    Attributes:
        root: its folder.
        photos: N rows, columns as in the module docstring; `problem` is empty for a usable photo and
            describes the defect of an unusable one, which has no shard.
        tags: T rows; the row number is the tag's column in `labels`.
        labels: (N, T) CSR matrix of 0/1 (uint8).
        rejected: likewise, tags that a person said a photo does not have; None if there are none.
    """

    root: Path
    photos: pd.DataFrame
    tags: pd.DataFrame
    labels: sp.csr_matrix
    rejected: sp.csr_matrix | None = None

    @classmethod
    def read(cls, root: Path) -> "Dataset":
        """Read the folder that `zerotag.data.prepare.prepare` wrote.

        Raises:
            ZerotagError: the folder is not a prepared dataset.
        """
        for name in ("photos.parquet", "tags.csv", "labels.npz"):
            if not (root / name).is_file():
                raise ZerotagError(f"{root / name} is missing: run `dvc repro prepare` first.")
        return cls(
            root=root,
            photos=pd.read_parquet(root / "photos.parquet"),
            tags=pd.read_csv(root / "tags.csv", dtype={"tag": str, "spellings": str}, keep_default_na=False),
            labels=sp.load_npz(root / "labels.npz").tocsr(),
            rejected=sp.load_npz(root / "rejected.npz").tocsr() if (root / "rejected.npz").is_file() else None,
        )

    @property
    def spelled_otherwise(self) -> dict[str, str]:
        """The source's spellings of each tag that it spells in another way, with " | " between."""
        if "spellings" not in self.tags:  # prepared by an earlier version
            return {}
        return {tag: given for tag, given in zip(self.tags["tag"], self.tags["spellings"], strict=True) if given}

    @cached_property
    def usable(self) -> np.ndarray:
        """(N,) bool: photos that can be decoded."""
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
        """Hash of photos, labels and train/test split."""
        state = hashlib.sha256()
        state.update("".join(self.photos["sha256"]).encode())
        parts = [self.labels.indptr, self.labels.indices, self.photos["train"].to_numpy()]
        if self.rejected is not None:
            parts += [self.rejected.indptr, self.rejected.indices]
        for part in parts:
            state.update(part.tobytes())
        return state.hexdigest()[:16]

    def photo_bytes(self, row: int) -> bytes:
        """The encoded photo of a row, as stored in its shard."""
        photo = self.photos.iloc[row]
        with (self.root / "shards" / photo["shard"]).open("rb") as shard:
            shard.seek(photo["offset"])
            return shard.read(photo["size"])

    def rejected_of(self, tags: list[str]) -> sp.csr_matrix | None:
        """(N, S) CSR matrix of the rejected ones of some tags; None if no photo has any."""
        if self.rejected is None:
            return None
        chosen = self.rejected[:, self.columns(tags)].tocsr()
        return chosen if chosen.nnz else None

    def columns(self, tags: list[str]) -> np.ndarray:
        """Columns of `labels` for the given tags, in that order."""
        position = {tag: column for column, tag in enumerate(self.tags["tag"])}
        return np.array([position[tag] for tag in tags], dtype=np.int64)
