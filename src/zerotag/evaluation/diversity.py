"""Semantic diversity of a photo's tags (supplement, Figure 1)."""

import numpy as np
import scipy.sparse as sp

_BLOCK = 8192


def semantic_diversity(labels: sp.csr_matrix, vectors: np.ndarray) -> np.ndarray:
    """Mean cosine distance (1 - cosine) over all pairs of a photo's tags.

    The cosines of all pairs of P unit vectors sum to (|sum of the vectors|^2 - P) / 2, so no loop over pairs is needed.

    Args:
        labels: (N, T) CSR 0/1.
        vectors: (T, d) unit rows.

    Returns:
        (N,) in [0, 2]; NaN for a photo with fewer than two tags.
    """
    count = np.diff(labels.indptr).astype(np.float64)
    exact = vectors.astype(np.float64)
    squares = np.empty(labels.shape[0])
    for start in range(0, labels.shape[0], _BLOCK):
        total = labels[start : start + _BLOCK].astype(np.float64) @ exact
        squares[start : start + _BLOCK] = np.einsum("nd,nd->n", total, total)
    pairs = count * (count - 1) / 2
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(pairs > 0, 1 - (squares - count) / 2 / pairs, np.nan)
