"""Tag scores in numpy, shared by tagging, export and benchmarks."""

import numpy as np

# OpenBLAS computes a product of up to so many multiplications in the thread that asks for it. For larger ones it wakes
# all its threads: on a busy machine waiting for them takes a hundred times as long as the computation. Besides, what
# one product reads stays in a core's cache.
_ONE_THREAD = 1 << 18
# Rows of principal vectors in one product; with more, fewer word vectors would fit, which are read from memory. It is
# always as many, so that the scores of a photo do not depend on the photos beside it, not even in rounding.
_ROWS = 4


def score(principal: np.ndarray, vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Score all tags of photos by the paper's formula, max over rows m of <A_m, n_t>.

    Args:
        principal: (…, M, d) principal vectors.
        vectors: (T, d) unit word vectors.

    Returns:
        (…, T) float32 scores, and (…, T) the index of the principal vector with the maximum.
    """
    *leading, rows, dimensions = principal.shape
    tags = len(vectors)
    flat = principal.reshape(-1, dimensions)
    count = len(flat)
    flat = np.concatenate([flat, np.zeros((-count % _ROWS, dimensions), flat.dtype)])
    products = np.empty((len(flat), tags), np.result_type(principal, vectors))
    step = max(1, _ONE_THREAD // (_ROWS * dimensions))
    for first in range(0, tags, step):
        for row in range(0, len(flat), _ROWS):
            part = np.s_[row : row + _ROWS, first : first + step]
            np.matmul(flat[part[0]], vectors[part[1]].T, out=products[part])
    products = products[:count]
    if rows == 1:
        return products.reshape(*leading, tags), np.zeros((*leading, tags), dtype=np.intp)
    grouped = products.reshape(-1, rows, tags)
    winner = grouped.argmax(axis=1)
    best = np.take_along_axis(grouped, winner[:, None], axis=1)[:, 0]
    return best.reshape(*leading, tags), winner.reshape(*leading, tags)
