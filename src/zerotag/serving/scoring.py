"""The score of a tag, in numpy: what tagging, search and calibration share."""

import numpy as np


def score(principal: np.ndarray, vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Score all tags of one photo, by the formula of the paper: max over the rows m of <A_m, n_t>.

    Args:
        principal: (M, d) principal vectors.
        vectors: (T, d) unit word vectors.

    Returns:
        (T,) float32 scores and (T,) the principal vector that won.
    """
    # One product a row, not one of matrices: BLAS would wake all its threads for that, and on a busy machine waiting
    # for them takes a hundred times as long as the work.
    products = np.stack([vectors @ row for row in principal])
    winner = products.argmax(axis=0)
    return products[winner, np.arange(len(vectors))], winner
