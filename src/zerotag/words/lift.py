"""Lift word vectors into a higher-dimensional space, in which one linear map can separate all seen tags.

In d dimensions the classifiers of all tags have rank d: with 50-d words a head cannot fit 311 tags. The lift maps
a word to its similarity to every seen tag, by the kernel k(a, b) = exp(sharpness (cos(a, b) - 1)) of the centred
vectors, or the mean of several, and whitens the coordinates so that dot products approximate the kernel
(Nyström: (K + e I)^(-1/2) k). Unseen words are lifted the same way and land near the seen words they resemble.

A backbone's own classifier has classes with names: further anchors, whose scores are known without any training
(`zerotag.training.heads.ClassHead`). A word that is no training target is then scored by kernel interpolation over
the seen tags' scores, minus their mean, and the classes': k(u, A) (K + e I)^(-1). With classes alone, no training photo
is needed at all.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from zerotag.words.lexicon import unit

# Keeps K^(-1/2) finite if two seen tags have the same vector.
_JITTER = 1e-3
# How noisy an anchor's score is as evidence for a word, against the kernel's 1. Selected on training photos, by the
# folds of benchmarks.corel5k; with classes alone, 0.03 to 0.3 hardly differ.
_NOISE = 0.3


@dataclass(frozen=True, eq=False)
class Lift:
    """Attributes:
    seen: (S, d) unit word vectors of the seen tags; S is 0 where classes are the only anchors.
    sharpness: how fast similarity decays with the angle; 0 makes all words alike. Sharp kernels separate seen tags,
        smooth ones still respond to words far from all of them.
    classes: (C, d) unit word vectors of a classifier's classes; None without one.
    kinds: weight of C more coordinates for the classes' own probabilities (`zerotag.words.kinds`), which
        `Vocabulary.lift` adds, for they are a word's and not its vector's; 0 without.
    """

    seen: np.ndarray
    sharpness: tuple[float, ...]
    classes: np.ndarray | None = None
    kinds: float = 0.0

    @cached_property
    def _centre(self) -> np.ndarray:
        """(d,) that is subtracted from words and seen tags."""
        of = self.seen if len(self.seen) or self.classes is None else self.classes
        return of.astype(np.float64).mean(axis=0)

    @cached_property
    def _seen(self) -> np.ndarray:
        """(S, d) unit: the seen tags, centred."""
        return self._centred(self.seen)

    @cached_property
    def _root(self) -> np.ndarray:
        """(S, S): the inverse square root of the seen tags' kernel matrix."""
        values, vectors = np.linalg.eigh(self._kernel(self._seen, self._seen) + _JITTER * np.eye(len(self.seen)))
        return (vectors / np.sqrt(values)) @ vectors.T

    def _centred(self, vectors: np.ndarray) -> np.ndarray:
        return unit(vectors.astype(np.float64) - self._centre)

    def _kernel(self, centred: np.ndarray, anchors: np.ndarray) -> np.ndarray:
        angle = centred @ anchors.T - 1
        return np.mean([np.exp(each * angle) for each in self.sharpness], axis=0)

    def __call__(self, vectors: np.ndarray) -> np.ndarray:
        """Lift words that are no training targets: (n, d) unit word vectors -> (n, S + C) float32.

        Without classes the rows are unit vectors, and so they are without seen tags.
        """
        centred = self._centred(vectors)
        if self.classes is None:
            return unit(self._kernel(centred, self._seen) @ self._root).astype(np.float32)
        weights = self._kernel(centred, self._anchors) @ self._inverse
        if not len(self.seen):
            return unit(weights).astype(np.float32)
        of_seen, of_classes = np.split(weights, [len(self.seen)], axis=1)
        trained = self.lift_seen()[:, : len(self.seen)]
        interpolated = of_seen @ (trained - trained.mean(axis=0))
        return np.concatenate([interpolated, of_classes], axis=1).astype(np.float32)

    def lift_seen(self) -> np.ndarray:
        """Lift the seen tags, which keep the scores that they were trained to have: (S, S + C) float32."""
        vectors = unit(self._kernel(self._seen, self._seen) @ self._root).astype(np.float32)
        return np.pad(vectors, ((0, 0), (0, 0 if self.classes is None else len(self.classes))))

    @cached_property
    def _anchors(self) -> np.ndarray:
        """(S + C, d) unit: seen tags and classes, each centred by its own mean."""
        assert self.classes is not None
        classes = self.classes.astype(np.float64)
        return np.concatenate([self._seen, unit(classes - classes.mean(axis=0))])

    @cached_property
    def _inverse(self) -> np.ndarray:
        """(S + C, S + C): (K + e I)^(-1)."""
        return np.linalg.inv(self._kernel(self._anchors, self._anchors) + _NOISE * np.eye(len(self._anchors)))
