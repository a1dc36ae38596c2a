"""What is done with the photos of requests: decode them, run the network on them, and rank words."""

import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from zerotag.data.photos import PhotoError
from zerotag.metadata.vocabulary_file import VocabularyFile
from zerotag.registry.drift import brightness_and_contrast
from zerotag.runtime import on_gpu
from zerotag.serving.keywords import rank_keywords
from zerotag.serving.tagger import Tag, Tagger, Task, Words

# Photos that the network is given at a time on CPUs: as fast as four, with 30 MB less of memory for each process.
_AT_ONCE = 2


@dataclass(frozen=True, eq=False)
class Asked:
    """What a request asks of its photos; its own words, or None for those that the service has for the task."""

    words: Words | None
    task: Task
    top: int
    threshold: float | None
    everything: bool


@dataclass(frozen=True)
class Photo:
    """An encoded photo, its name, and what is asked of it beside its principal vectors."""

    data: bytes
    name: str
    asked: Asked | None = None


@dataclass
class Seen:
    """What became of a photo.

    Attributes:
        brightness: mean of its pixels, in [0, 1].
        contrast: their standard deviation.
        seconds: per step: `decode` and `score`, and `network` for all else, when the answer is known.
        principal: (M, d) principal vectors.
        tags: of the words that were asked for.
    """

    brightness: float
    contrast: float
    seconds: dict[str, float]
    principal: np.ndarray = field(default_factory=lambda: np.empty(0))
    tags: list[Tag] = field(default_factory=list)

    @property
    def milliseconds(self) -> dict[str, float]:
        """Of each step."""
        return {step: round(1000 * seconds, 2) for step, seconds in self.seconds.items()}


# From photos to what became of each, in order: the reason where one could not be decoded.
Work = Callable[[list[Photo]], list[Seen | Exception]]


@dataclass(frozen=True)
class OwnWords:
    """A person's own vocabulary in place of the model's, and its words that have a vector."""

    vocabulary: VocabularyFile
    words: Words


@dataclass
class Model:
    """A packaged model as the service uses it; several threads may call it at once.

    Args:
        package: its folder.
        views: as for Tagger.
        max_pixels: maximum number of pixels of a photo.
        own: words that are ranked where a request names none; None for the model's vocabulary.
    """

    package: Path
    views: int
    max_pixels: int
    own: OwnWords | None = None

    @cached_property
    def tagger(self) -> Tagger:
        """The model. It is not loaded before it is needed."""
        return Tagger(self.package, threads=1, views=self.views)

    def load(self) -> None:
        """Load what photos need."""
        _ = self.tagger.at_once
        self.words("all")

    def words(self, task: Task) -> Words:
        """The words that are ranked where a request names none.

        Raises:
            ZerotagError: all of them were seen in training, and the task is `unseen`.
        """
        if self.own is None:
            return self.tagger.words((), task)
        return self.own.words if task == "all" else self._unseen

    @cached_property
    def _unseen(self) -> Words:
        assert self.own
        return self.own.words.unseen()

    def words_of(self, asked: Asked) -> Words:
        """The words that are ranked."""
        return asked.words or self.words(asked.task)

    def rank(self, matrices: np.ndarray, asked: Asked) -> list[list[Tag]]:
        """Rank words for photos by their principal vectors (B, M, d)."""
        words, how = self.words_of(asked), (asked.top, asked.threshold, asked.everything)
        if self.own and not asked.words:
            return [rank_keywords(self.tagger, each, words, self.own.vocabulary, *how) for each in matrices]
        return self.tagger.rank_all(matrices, words, *how)

    def __call__(self, photos: list[Photo]) -> list[Seen | Exception]:
        """Decode photos, run the network on those that can be decoded, and rank what is asked for."""
        results: list[Seen | Exception] = []
        decoded: list[tuple[Photo, Seen]] = []
        pixels: list[np.ndarray] = []
        for photo in photos:
            started = time.perf_counter()
            try:
                pixels.append(self.tagger.pixels(photo.data, photo.name, self.max_pixels))
            except PhotoError as error:
                results.append(error)
                continue
            levels = brightness_and_contrast(pixels[-1])
            seen = Seen(*levels, {"decode": time.perf_counter() - started})
            decoded.append((photo, seen))
            results.append(seen)
        if decoded:
            step = self.tagger.at_once if on_gpu() else _AT_ONCE
            for first in range(0, len(pixels), step):
                some = slice(first, first + step)
                matrices = self.tagger.principal_vectors(np.stack(pixels[some]))
                for (_, seen), principal in zip(decoded[some], matrices, strict=True):
                    seen.principal = principal
            self._rank(decoded)
        return results

    def _rank(self, photos: list[tuple[Photo, Seen]]) -> None:
        """Rank the words that are asked for, together for photos of which the same is asked."""
        together: dict[Any, list[tuple[Asked, Seen]]] = defaultdict(list)
        for photo, seen in photos:
            if asked := photo.asked:
                what = id(asked.words), asked.task, asked.top, asked.threshold, asked.everything
                together[what].append((asked, seen))
        for group in together.values():
            started = time.perf_counter()
            tags = self.rank(np.stack([seen.principal for _, seen in group]), group[0][0])
            seconds = (time.perf_counter() - started) / len(group)
            for (_, seen), found in zip(group, tags, strict=True):
                seen.tags, seen.seconds["score"] = found, seconds
