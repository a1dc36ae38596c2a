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
    # Dot by dot instead of a product with the matrix, for which BLAS would wake all its threads: on a busy machine
    # waiting for them takes a hundred times as long as the computation.
    products = np.vecdot(vectors, principal[:, None])
    winner = products.argmax(axis=0)
    return products[winner, np.arange(len(vectors))], winner
