"""Tag photographs with a packaged model and an open vocabulary.

The library, the command line and the service all use this module. It needs only numpy, Pillow and ONNX Runtime.
"""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from zerotag.data.photos import MAX_PIXELS, open_photo
from zerotag.errors import ZerotagError
from zerotag.evaluation.calibration import Calibration
from zerotag.serving.package import read_info, read_lexicon
from zerotag.serving.runtime import Runtime, to_pixels
from zerotag.serving.scoring import score
from zerotag.words.lexicon import Lexicon, look_up
from zerotag.words.vocabulary import Vocabulary

PHOTO_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".gif", ".webp", ".bmp", ".tif", ".tiff"})

Task = Literal["all", "unseen"]


@dataclass(frozen=True)
class Tag:
    """A tag of a photo.

    Attributes:
        tag: the word.
        score: the maximum dot product of the word vector with the photo's principal vectors.
        seen: whether it was a training target; None for a word outside the vocabulary.
        probability: the calibrated score.
        principal_vector: index of the principal vector with the maximum, from 0.
    """

    tag: str
    score: float
    seen: bool | None
    probability: float
    principal_vector: int


@dataclass(frozen=True)
class Words:
    """Candidate words with their vectors.

    Attributes:
        words: W words with a vector.
        vectors: (W, d) float32 unit vectors.
        seen: W flags; None for a word outside the vocabulary.
        missing: words without a vector.
    """

    words: list[str]
    vectors: np.ndarray
    seen: list[bool | None]
    missing: list[str]


class Tagger:
    """A packaged model.

    Args:
        folder: package folder written by the package stage.
        threads: threads of the network; 0 for all cores.

    Attributes:
        info: content of tagger.json.
        vocabulary: the tags used in training and evaluation.

    Raises:
        ZerotagError: the folder is not a package.
    """

    def __init__(self, folder: Path | str = "served", threads: int = 0):
        self.folder = Path(folder)
        self.info = read_info(self.folder)
        self.vocabulary = Vocabulary.read(self.folder, self.folder / "vocabulary.csv")
        self._row = {tag: row for row, tag in enumerate(self.vocabulary.tags)}
        self._calibration = Calibration.read(self.folder / "calibration.json")
        self._threads = threads

    # Loaded lazily: a process that only scores does not need the network.
    @cached_property
    def _runtime(self) -> Runtime:
        return Runtime(self.folder / "model.onnx", self._threads)

    @cached_property
    def _lexicon(self) -> Lexicon:
        return read_lexicon(self.folder)

    @cached_property
    def network(self) -> str:
        """Digest of the network; vectors of different networks are not comparable."""
        return hashlib.sha256((self.folder / "model.onnx").read_bytes()).hexdigest()[:16]

    @property
    def lexicon_words(self) -> int:
        """Number of words with a vector beyond the vocabulary."""
        return len(self._lexicon.index)

    @property
    def calibration_figures(self) -> dict[str, Any]:
        """How the calibration was fitted and how well it fits."""
        return self._calibration.figures

    @property
    def size(self) -> int:
        """Side length of the network's input, in pixels."""
        return int(self.info["size"])

    def pixels(self, photo: bytes, name: str, max_pixels: int = MAX_PIXELS) -> np.ndarray:
        """Decode a photo to the network's input, (S, S, 3) uint8.

        Raises:
            PhotoError: the photo cannot be decoded.
        """
        return to_pixels(open_photo(photo, name, max_pixels), self.size)

    def principal_vectors(self, pixels: np.ndarray) -> np.ndarray:
        """(B, S, S, 3) uint8 -> (B, M, d) float32."""
        return self._runtime(pixels)

    def embed(self, photo: bytes, name: str) -> np.ndarray:
        """Compute principal vectors (M, d) of an encoded photo.

        Raises:
            PhotoError: the photo cannot be decoded.
        """
        return self.principal_vectors(self.pixels(photo, name)[None])[0]

    def words(self, words: Iterable[str] = (), task: Task = "all") -> Words:
        """Look up word vectors.

        Args:
            words: any words; the model's vocabulary if empty.
            task: `unseen` excludes training targets.

        Raises:
            ZerotagError: no word has a vector, or no word remains.
        """
        asked = list(dict.fromkeys(word.strip() for word in words if word.strip()))
        if asked:
            found = {word: vector for word in asked if (vector := self._vector(word)) is not None}
            if not found:
                raise ZerotagError(f"No word vector for {', '.join(asked[:10])}. Try other words.")
            kept, vectors = list(found), np.stack(list(found.values()))
        else:
            found, kept, vectors = {}, self.vocabulary.tags, self.vocabulary.vectors
        seen = [bool(self.vocabulary.seen[self._row[word]]) if word in self._row else None for word in kept]
        if task == "unseen":
            places = [place for place, known in enumerate(seen) if not known]
            kept, vectors, seen = [kept[place] for place in places], vectors[places], [seen[place] for place in places]
            if not kept:
                raise ZerotagError("All of these words were seen in training. Use the task `all`.")
        return Words(kept, vectors, seen, [word for word in asked if word not in found])

    def _vector(self, word: str) -> np.ndarray | None:
        if word in self._row:
            return self.vocabulary.vectors[self._row[word]]
        hit = look_up(word, self._lexicon)
        return None if hit is None else self.vocabulary.lift(hit[0][None])[0]

    def rank(self, principal: np.ndarray, words: Words, top: int = 10, threshold: float | None = None) -> list[Tag]:
        """Rank words for a photo.

        Args:
            principal: (M, d) principal vectors of the photo.
            words: candidate words.
            top: maximum number of tags.
            threshold: minimum probability.
        """
        scores, winner = score(principal, words.vectors)
        best = np.argsort(-scores, kind="stable")[:top]
        chosen, seen = [words.words[place] for place in best], [words.seen[place] for place in best]
        probabilities = self._calibration.probabilities(chosen, seen, scores[best])
        return [
            Tag(word, float(scores[place]), known, float(probability), int(winner[place]))
            for word, known, place, probability in zip(chosen, seen, best, probabilities, strict=True)
            if threshold is None or probability >= threshold
        ]

    def tag(
        self,
        photo: bytes,
        name: str,
        words: Iterable[str] = (),
        top: int = 10,
        threshold: float | None = None,
        task: Task = "all",
    ) -> list[Tag]:
        """Tag a photo.

        Args:
            photo: the encoded photo.
            name: name of the photo in error messages.
            words: any words; the model's vocabulary if empty.
            top: maximum number of tags.
            threshold: minimum probability.
            task: `unseen` excludes words seen in training.

        Raises:
            ZerotagError: the photo cannot be decoded, or no word has a vector.
        """
        return self.rank(self.embed(photo, name), self.words(words, task), top, threshold)


def find_photos(paths: Iterable[Path]) -> list[Path]:
    """Expand paths to photos; folders are searched recursively by file extension.

    Raises:
        ZerotagError: a path does not exist, or a folder contains no photo.
    """
    found = []
    for path in paths:
        if path.is_dir():
            inside = sorted(photos_below(path))
            if not inside:
                raise ZerotagError(f"{path}: no photo in this folder ({', '.join(sorted(PHOTO_SUFFIXES))}).")
            found += inside
        elif path.is_file():
            found.append(path)
        else:
            raise ZerotagError(f"{path}: no such file or folder.")
    return found


def photos_below(folder: Path) -> Iterator[Path]:
    """Photos below a folder, by file extension."""
    return (file for file in folder.rglob("*") if file.suffix.lower() in PHOTO_SUFFIXES and file.is_file())
