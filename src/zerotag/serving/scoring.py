"""Tag scores in numpy, shared by tagging, export and benchmarks."""

import numpy as np

# Bytes of word vectors that are compared with one photo after another while they are in a core's cache. With fewer than
# 500 products at a time numpy would keep the interpreter's lock.
_BLOCK = 1 << 20


def score(principal: np.ndarray, vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Score all tags of photos by the paper's formula, max over rows m of <A_m, n_t>.

    Args:
        principal: (…, M, d) principal vectors.
        vectors: (T, d) unit word vectors.

    Returns:
        (…, T) float32 scores, and (…, T) the index of the principal vector with the maximum.
    """
    *leading, rows, dimensions = principal.shape
    photos = principal.reshape(-1, rows, 1, dimensions)
    products = np.empty((len(photos), rows, len(vectors)), np.result_type(principal, vectors))
    step = max(1, _BLOCK // (vectors.itemsize * dimensions))
    for start in range(0, len(vectors), step):
        block = slice(start, start + step)
        # Dot by dot instead of a product with the matrix, for which BLAS would wake all its threads: on a busy machine
        # waiting for them takes a hundred times as long as the computation.
        np.vecdot(vectors[block], photos, out=products[:, :, block])
    winner = products.argmax(axis=1)
    best = np.take_along_axis(products, winner[:, None], axis=1)[:, 0]
    return best.reshape(*leading, -1), winner.reshape(*leading, -1)
