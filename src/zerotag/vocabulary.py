"""The tags that a model is trained and judged on: names, unit word vectors, seen or unseen."""

import csv
import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from zerotag.errors import ZerotagError


@dataclass(frozen=True)
class Vocabulary:
    """T tags that have a word vector.

    Attributes:
        tags: T names.
        vectors: (T, d) float32, rows of unit length.
        seen: (T,) bool; unseen tags are never a training target.
    """

    tags: list[str]
    vectors: np.ndarray
    seen: np.ndarray

    @classmethod
    def read(cls, words: Path, split: Path) -> "Vocabulary":
        """Join the words stage's folder (`vocabulary.csv`, `vectors.npy`) with the split stage's file.

        Raises:
            ZerotagError: the split names a tag that has no vector, or leaves a tag out.
        """
        tags = [row["tag"] for row in _read_csv(words / "vocabulary.csv")]
        listed = {row["tag"]: row["split"] for row in _read_csv(split)}
        if unknown := [tag for tag in listed if tag not in set(tags)]:
            raise ZerotagError(f"{split}: no word vector for {', '.join(unknown[:10])}; see {words}/missing.txt.")
        if absent := [tag for tag in tags if tag not in listed]:
            raise ZerotagError(f"{split}: neither seen nor unseen: {', '.join(absent[:10])}. Run the split stage.")
        seen = np.array([listed[tag] == "seen" for tag in tags])
        return cls(tags, np.load(words / "vectors.npy"), seen)

    def write(self, folder: Path) -> None:
        """Write `vocabulary.csv` (tag, split) and `vectors.npy`, for `read(folder, folder / "vocabulary.csv")`."""
        with (folder / "vocabulary.csv").open("w", newline="", encoding="utf-8") as lines:
            table = csv.writer(lines, lineterminator="\n")
            table.writerow(["tag", "split"])
            table.writerows(zip(self.tags, np.where(self.seen, "seen", "unseen").tolist(), strict=True))
        np.save(folder / "vectors.npy", self.vectors)

    def seen_by(self, other: "Vocabulary") -> "Vocabulary":
        """The same tags, seen where they are seen tags of another vocabulary: what a model was trained on.

        Raises:
            ZerotagError: the word vectors are of different sizes.
        """
        if self.vectors.shape[1] != other.vectors.shape[1]:
            raise ZerotagError(
                f"The model's word vectors have {other.vectors.shape[1]} dimensions, the data's "
                f"{self.vectors.shape[1]}: set words.source in params.yaml to the model's."
            )
        seen = {tag for tag, is_seen in zip(other.tags, other.seen, strict=True) if is_seen}
        return Vocabulary(self.tags, self.vectors, np.array([tag in seen for tag in self.tags], dtype=bool))

    @cached_property
    def digest(self) -> str:
        """Names the content: tags, vectors and split."""
        state = hashlib.sha256("\n".join(self.tags).encode())
        state.update(self.vectors.tobytes())
        state.update(self.seen.tobytes())
        return state.hexdigest()[:16]


def _read_csv(file: Path) -> list[dict[str, str]]:
    # Not pandas: the service reads vocabularies too, and starts faster without it.
    with file.open(newline="", encoding="utf-8") as lines:
        return list(csv.DictReader(lines))
