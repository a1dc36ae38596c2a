"""Tag scores in numpy, shared by tagging, export and benchmarks."""

import numpy as np


def score(principal: np.ndarray, vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Score all tags of one photo by the paper's formula, max over rows m of <A_m, n_t>.

    Args:
        principal: (M, d) principal vectors.
        vectors: (T, d) unit word vectors.

    Returns:
        (T,) float32 scores, and (T,) the index of the principal vector with the maximum.
    """
    # One product per row instead of a matrix product, for which BLAS would wake all its threads: on a busy machine
    # waiting for them takes a hundred times as long as the computation.
    products = np.stack([vectors @ row for row in principal])
    winner = products.argmax(axis=0)
    return products[winner, np.arange(len(vectors))], winner
