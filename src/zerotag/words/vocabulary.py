"""The tags that a model is trained and evaluated on: names, unit word vectors, seen or unseen."""

import csv
import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from zerotag.errors import ZerotagError
from zerotag.words.lift import Lift


@dataclass(frozen=True)
class Vocabulary:
    """T tags that have a word vector.

    Attributes:
        tags: T names.
        vectors: (T, d) float32, unit rows, used to score tags.
        seen: (T,) bool; unseen tags are never training targets.
        words: the word vectors that `vectors` were lifted from, see `zerotag.words.lift`; None if not lifted.
        sharpness: of the lift.
    """

    tags: list[str]
    vectors: np.ndarray
    seen: np.ndarray
    words: np.ndarray | None = None
    sharpness: tuple[float, ...] = ()

    @classmethod
    def read(cls, words: Path, split: Path) -> "Vocabulary":
        """Join the words stage's output (`vocabulary.csv`, `vectors.npy`) with the split stage's file.

        Raises:
            ZerotagError: the split names a tag without a vector, or omits a tag.
        """
        tags = [row["tag"] for row in _read_csv(words / "vocabulary.csv")]
        listed = {row["tag"]: row["split"] for row in _read_csv(split)}
        if unknown := [tag for tag in listed if tag not in set(tags)]:
            raise ZerotagError(f"{split}: no word vector for {', '.join(unknown[:10])}; see {words}/missing.txt.")
        if absent := [tag for tag in tags if tag not in listed]:
            raise ZerotagError(f"{split}: neither seen nor unseen: {', '.join(absent[:10])}. Run the split stage.")
        seen = np.array([listed[tag] == "seen" for tag in tags])
        vectors = np.load(words / "vectors.npy")
        if not (words / "lift.npz").is_file():
            return cls(tags, vectors, seen)
        with np.load(words / "lift.npz") as lift:
            return cls(tags, vectors, seen, lift["words"], tuple(lift["sharpness"].tolist()))

    def lifted(self, sharpness: tuple[float, ...]) -> "Vocabulary":
        """The same tags with lifted vectors; unchanged if `sharpness` is empty."""
        if not sharpness:
            return self
        vectors = Lift(self.vectors[self.seen], sharpness)(self.vectors)
        return Vocabulary(self.tags, vectors, self.seen, self.vectors, sharpness)

    def lift(self, vectors: np.ndarray) -> np.ndarray:
        """Lift word vectors as this vocabulary's are: (n, d) -> (n, S); unchanged if it is not lifted."""
        return vectors if self._lift is None else self._lift(vectors)

    @cached_property
    def _lift(self) -> Lift | None:
        return None if self.words is None else Lift(self.words[self.seen], self.sharpness)

    def vectors_after(self, columns: np.ndarray) -> np.ndarray:
        """Vectors of all tags, lifted as if only the tags of `columns` were seen."""
        return self.vectors if self.words is None else Lift(self.words[columns], self.sharpness)(self.words)

    @property
    def dimensions(self) -> int:
        """Dimensions of the word vectors before lifting."""
        return (self.vectors if self.words is None else self.words).shape[1]

    def write(self, folder: Path) -> None:
        """Write `vocabulary.csv` (tag, split), `vectors.npy` and, if lifted, `lift.npz`.

        `read(folder, folder / "vocabulary.csv")` reads them.
        """
        with (folder / "vocabulary.csv").open("w", newline="", encoding="utf-8") as lines:
            table = csv.writer(lines, lineterminator="\n")
            table.writerow(["tag", "split"])
            table.writerows(zip(self.tags, np.where(self.seen, "seen", "unseen").tolist(), strict=True))
        np.save(folder / "vectors.npy", self.vectors)
        if self.words is not None:
            np.savez(folder / "lift.npz", words=self.words, sharpness=self.sharpness)

    def seen_by(self, other: "Vocabulary") -> "Vocabulary":
        """The same tags with the seen/unseen split and lift of another vocabulary, that of a trained model.

        Raises:
            ZerotagError: the word vectors differ in dimensions.
        """
        if self.dimensions != other.dimensions:
            raise ZerotagError(
                f"The model's word vectors have {other.dimensions} dimensions, the data's "
                f"{self.dimensions}: set words.source in params.yaml to the model's."
            )
        seen = {tag for tag, is_seen in zip(other.tags, other.seen, strict=True) if is_seen}
        return Vocabulary(self.tags, other.lift(self.vectors), np.array([tag in seen for tag in self.tags], dtype=bool))

    @cached_property
    def digest(self) -> str:
        """Hash of tags, vectors and split."""
        state = hashlib.sha256("\n".join(self.tags).encode())
        state.update(self.vectors.tobytes())
        state.update(self.seen.tobytes())
        return state.hexdigest()[:16]


def _read_csv(file: Path) -> list[dict[str, str]]:
    # csv, not pandas: the service reads vocabularies too, and starts faster without pandas.
    with file.open(newline="", encoding="utf-8") as lines:
        return list(csv.DictReader(lines))
