"""Lift word vectors into a higher-dimensional space, in which one linear map can separate all seen tags.

In d dimensions the classifiers of all tags have rank d: with 50-d words a head cannot fit 311 tags. The lift maps
a word to its similarity to every seen tag, by the kernel k(a, b) = exp(sharpness (cos(a, b) - 1)) of the centred
vectors, or the mean of several, and whitens the coordinates so that dot products approximate the kernel
(Nyström: (K + e I)^(-1/2) k). Unseen words are lifted the same way and land near the seen words they resemble.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from zerotag.words.lexicon import unit

# Keeps K^(-1/2) finite if two seen tags have the same vector.
_JITTER = 1e-3


@dataclass(frozen=True, eq=False)
class Lift:
    """Attributes:
    seen: (S, d) unit word vectors of the seen tags.
    sharpness: how fast similarity decays with the angle; 0 makes all words alike. Sharp kernels separate seen tags,
        smooth ones still respond to words far from all of them.
    """

    seen: np.ndarray
    sharpness: tuple[float, ...]

    @cached_property
    def _anchors(self) -> np.ndarray:
        """(S, d) unit: the seen tags, centred."""
        return self._centred(self.seen)

    @cached_property
    def _root(self) -> np.ndarray:
        """(S, S): the inverse square root of the anchors' kernel matrix."""
        values, vectors = np.linalg.eigh(self._kernel(self._anchors) + _JITTER * np.eye(len(self.seen)))
        return (vectors / np.sqrt(values)) @ vectors.T

    def _centred(self, vectors: np.ndarray) -> np.ndarray:
        return unit(vectors.astype(np.float64) - self.seen.astype(np.float64).mean(axis=0))

    def _kernel(self, centred: np.ndarray) -> np.ndarray:
        angle = centred @ self._anchors.T - 1
        return np.mean([np.exp(each * angle) for each in self.sharpness], axis=0)

    def __call__(self, vectors: np.ndarray) -> np.ndarray:
        """(n, d) unit word vectors -> (n, S) float32 unit vectors."""
        return unit(self._kernel(self._centred(vectors)) @ self._root).astype(np.float32)
