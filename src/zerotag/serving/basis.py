"""Store vectors in fewer dimensions: an orthogonal basis of the space that words span."""

from dataclasses import dataclass

import numpy as np

from zerotag.errors import ZerotagError


@dataclass(frozen=True, eq=False)
class Basis:
    """Orthonormal axes (d, r) on which vectors are projected.

    A word's score w.f becomes (Pw).(Pf). It differs by at most |w - Pw| |f - Pf|; `left_out` says the first factor.
    """

    axes: np.ndarray

    @classmethod
    def of(cls, words: np.ndarray, dimensions: int) -> "Basis":
        """The basis that leaves out least of words, in the mean square.

        Args:
            words: (W, d) word vectors.
            dimensions: r.

        Raises:
            ZerotagError: r is not between 1 and d.
        """
        if not 1 <= dimensions <= words.shape[1]:
            raise ZerotagError(f"--dimensions {dimensions}: the model's vectors have {words.shape[1]}.")
        words = words.astype(np.float64)
        _, axes = np.linalg.eigh(words.T @ words)
        return cls(axes[:, ::-1][:, :dimensions].astype(np.float32))

    def left_out(self, words: np.ndarray) -> np.ndarray:
        """(W, d) -> (W,): the length of what the projection leaves out of each word."""
        return np.linalg.norm(words - self.up(self.down(words)), axis=-1)

    def down(self, vectors: np.ndarray) -> np.ndarray:
        """(…, d) -> (…, r)."""
        return vectors @ self.axes

    def up(self, vectors: np.ndarray) -> np.ndarray:
        """(…, r) -> (…, d), the projection in the space of words."""
        return vectors @ self.axes.T
