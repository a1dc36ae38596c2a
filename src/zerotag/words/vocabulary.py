"""The tags that a model is trained and evaluated on: names, unit word vectors, seen or unseen."""

import csv
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from zerotag.errors import ZerotagError
from zerotag.words.kinds import kinds_of
from zerotag.words.lift import Lift


@dataclass(frozen=True)
class Vocabulary:
    """T tags that have a word vector.

    Attributes:
        tags: T names.
        vectors: (T, d) float32, used to score tags; unit rows unless they are lifted with a classifier's classes.
        seen: (T,) bool; unseen tags are never training targets.
        words: (T, d) the word vectors that `vectors` were lifted from; None if not lifted.
        space: the lift, see `zerotag.words.lift`.
    """

    tags: list[str]
    vectors: np.ndarray
    seen: np.ndarray
    words: np.ndarray | None = None
    space: Lift | None = None

    @classmethod
    def read(cls, words: Path, split: Path, mapped: bool = False) -> "Vocabulary":
        """Join the words stage's output (`vocabulary.csv`, `vectors.npy`) with the split stage's file.

        Args:
            words: folder of the words stage.
            split: file of the split stage.
            mapped: leaves the vectors in the file, in memory that processes share and that cannot be written to.

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
        vectors = np.asarray(np.load(words / "vectors.npy", mmap_mode="r" if mapped else None))
        if not (words / "lift.npz").is_file():
            return cls(tags, vectors, seen)
        with np.load(words / "lift.npz") as lift:
            kinds = float(lift.get("kinds", 0.0))
            space = Lift(lift["seen"], tuple(lift["sharpness"].tolist()), lift.get("classes"), kinds)
            return cls(tags, vectors, seen, lift["words"], space)

    def lifted(self, space: Lift) -> "Vocabulary":
        """The same tags with lifted vectors; `space` has the seen tags as anchors, or none of them."""
        words = self.vectors if self.words is None else self.words
        vectors = replace(self, space=space).lift(words, self.tags)
        if len(space.seen):
            vectors[self.seen] = space.lift_seen()
        return replace(self, vectors=vectors, words=words, space=space)

    def lift(self, vectors: np.ndarray, words: Sequence[str]) -> np.ndarray:
        """Lift word vectors as this vocabulary's are; unchanged if it is not lifted.

        Args:
            vectors: (n, d).
            words: the n words, by which kinds are looked up.

        Returns:
            (n, S + C), or (n, S + 2 C) with kinds.
        """
        if self.space is None:
            return vectors
        lifted = self.space(vectors)
        return np.concatenate([lifted, self.space.kinds * kinds_of(words)], axis=1) if self.space.kinds else lifted

    def seeing(self, columns: np.ndarray) -> "Vocabulary":
        """The same tags, had only those of `columns` been seen."""
        seen = np.zeros(len(self.tags), dtype=bool)
        seen[columns] = True
        other = replace(self, seen=seen)
        if self.space is None or self.words is None or not len(self.space.seen):
            return other
        return other.lifted(replace(self.space, seen=self.words[seen]))

    @property
    def targets(self) -> np.ndarray:
        """(S, d): the seen tags' vectors in the dimensions that training fills; those of classes are known already."""
        classes = 0 if self.space is None or self.space.classes is None else len(self.space.classes)
        return self.vectors[self.seen, : self.vectors.shape[1] - classes]

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
        if self.words is not None and self.space is not None:
            space = {field.name: getattr(self.space, field.name) for field in fields(Lift)}
            np.savez(folder / "lift.npz", words=self.words, **{k: v for k, v in space.items() if v is not None})

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
        trained = {tag: row for row, (tag, seen) in enumerate(zip(other.tags, other.seen, strict=True)) if seen}
        seen = np.array([tag in trained for tag in self.tags], dtype=bool)
        vectors = other.lift(self.vectors, self.tags).copy()  # it is our own where the model does not lift
        # A training target has the vector that it was trained with, not one interpolated for a word that was none.
        vectors[seen] = other.vectors[[trained[tag] for tag in self.tags if tag in trained]]
        return Vocabulary(self.tags, vectors, seen)

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
