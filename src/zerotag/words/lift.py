"""Word vectors lifted into a larger space, in which one linear map can tell all seen tags apart.

In d dimensions the classifiers of all tags have rank d: with 50-d words a head cannot follow 311 tags. The lift maps
a word to its likeness to every seen tag, by the kernel k(a, b) = exp(sharpness (cos(a, b) - 1)) of the centred
vectors, or the mean of several such, and makes these coordinates such that dot products are kernel values again
(Nyström: (K + e I)^(-1/2) k).
A word that was never seen has its place there as well, near the seen words that it resembles.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from zerotag.words.lexicon import unit

# Keeps the root of K finite where two seen tags have the same vector.
_JITTER = 1e-3


@dataclass(frozen=True, eq=False)
class Lift:
    """Attributes:
    seen: (S, d) unit word vectors of the seen tags.
    sharpness: how fast likeness falls off with the angle; 0 would make all words alike. Sharp kernels tell seen tags
        apart, blunt ones still have something to say of words that are far from all of them.
    """

    seen: np.ndarray
    sharpness: tuple[float, ...]

    @cached_property
    def _anchors(self) -> np.ndarray:
        """(S, d) unit: the seen tags, centred."""
        return self._centred(self.seen)

    @cached_property
    def _root(self) -> np.ndarray:
        """(S, S): the inverse square root of their kernel matrix."""
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
