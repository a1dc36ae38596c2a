"""Store vectors in fewer dimensions: an orthogonal basis of the space that words and photos span."""

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
    def of(cls, words: np.ndarray, dimensions: int, photos: np.ndarray | None = None) -> "Basis":
        """The basis that leaves out least of words and of photos, in the mean square.

        Of both, the mean square counts as a share of what there is, and both shares count the same: then photos are
        ranked as well as in all dimensions, though neither words nor photos have a low rank (docs/search.md).

        Args:
            words: (W, d) word vectors.
            dimensions: r.
            photos: (n, d) principal vectors; None if none are known.

        Raises:
            ZerotagError: r is not between 1 and d.
        """
        if not 1 <= dimensions <= words.shape[1]:
            raise ZerotagError(f"--dimensions {dimensions}: the model's vectors have {words.shape[1]}.")
        moments = [each.T @ each for each in (words, photos) if each is not None]
        _, axes = np.linalg.eigh(sum(moment.astype(np.float64) / np.trace(moment) for moment in moments))
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
