"""Ranking metrics: F1@K per photo, average precision per tag.

Ties are resolved independently of the order of photos and tags. F1@K is the expectation over all orders of the tags
tied at the K-th score. Average precision treats photos with equal scores as one step of the precision-recall curve,
like scikit-learn.
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

_SCORES = 2**20  # scores per block
_TAGS = 64  # tags per block
_ROWS = 512  # photos per tile
_BUCKETS = np.float32(2**16)


@dataclass(frozen=True)
class Counts:
    """Counts for F1@K, additive over blocks of photos."""

    hits: float
    picked: int
    positives: int
    photos: int

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(
            self.hits + other.hits,
            self.picked + other.picked,
            self.positives + other.positives,
            self.photos + other.photos,
        )

    @property
    def precision(self) -> float:
        """Share of hits among the predicted tags."""
        return self.hits / max(self.picked, 1)

    @property
    def recall(self) -> float:
        """Share of hits among the positives."""
        return self.hits / max(self.positives, 1)

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall."""
        return 2 * self.hits / max(self.picked + self.positives, 1)


def top_k_counts(scores: np.ndarray, labels: sp.csr_matrix, k: int) -> Counts:
    """Count hits among the top K tags of each photo; photos without a positive tag are skipped.

    Args:
        scores: (N, T) float.
        labels: (N, T) CSR 0/1.
        k: tags predicted per photo; fewer if there are fewer tags.

    Returns:
        Sums over photos; micro-averaged precision, recall and F1 are its properties.
    """
    return count_hits(top_k_hits(scores, labels, k), labels, k)


def count_hits(hits: np.ndarray, labels: sp.csr_matrix, k: int) -> Counts:
    """Sum the hits of `top_k_hits` over photos.

    Args:
        hits: (N,) expected hits; NaN for photos without a positive tag.
        labels: (N, T) CSR 0/1.
        k: as in `top_k_counts`.
    """
    photos = int(np.isfinite(hits).sum())
    return Counts(float(np.nansum(hits)), min(k, labels.shape[1]) * photos, int(labels.nnz), photos)


def top_k_hits(scores: np.ndarray, labels: sp.csr_matrix, k: int) -> np.ndarray:
    """Count hits among the top K tags of each photo.

    Args:
        scores: (N, T) float.
        labels: (N, T) CSR 0/1.
        k: as in `top_k_counts`.

    Returns:
        (N,) expected number of hits; NaN for a photo without a positive tag.
    """
    kept = np.flatnonzero(np.diff(labels.indptr))
    k = min(k, scores.shape[1])
    size = max(1, _SCORES // max(1, scores.shape[1]))
    hits = np.full(len(scores), np.nan)

    def fill(start: int) -> None:
        rows = kept[start : start + size]
        hits[rows] = _expected_hits(scores[rows], labels[rows], k)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(fill, range(0, kept.size, size)))
    return hits


def _expected_hits(scores: np.ndarray, labels: sp.csr_matrix, k: int) -> np.ndarray:
    """Expected positives among the top K tags of each photo, with ties at the K-th score."""
    import torch  # slow to import; others need only the figures' text

    # torch.topk is three times as fast as numpy's partition.
    best = torch.topk(torch.from_numpy(scores), k, sorted=True).values.numpy()
    edge = best[:, -1]
    photo = np.repeat(np.arange(len(scores)), np.diff(labels.indptr))
    value = scores[photo, labels.indices]
    share = (value > edge[photo]).astype(np.float64)
    # Few positives tie with the K-th score, so ties are counted for their photos only.
    on_edge = np.flatnonzero(value == edge[photo])
    tied = photo[on_edge]
    free = k - (best[tied] > edge[tied, None]).sum(axis=1)
    share[on_edge] = free / (scores[tied] == edge[tied, None]).sum(axis=1)
    return np.bincount(photo, weights=share, minlength=len(scores))


def average_precision(
    scores: np.ndarray, labels: sp.csr_matrix | sp.csc_matrix, photos: np.ndarray | None = None
) -> np.ndarray:
    """Average precision per tag.

    Only the ranks of the positives matter, so each tag's scores are sorted once, without indices.

    Args:
        scores: (N, T) float.
        labels: (N, T) sparse 0/1.
        photos: rows to rank, including all rows with a positive; None for all rows.

    Returns:
        (T,) in [0, 1]; NaN for a tag without a positive.
    """
    columns = labels.tocsc()
    result = np.full(scores.shape[1], np.nan)

    def fill(start: int) -> None:
        block = tag_block(scores, start)
        for tag, column in enumerate(block, start):
            positives = column[columns.indices[columns.indptr[tag] : columns.indptr[tag + 1]]]
            if positives.size:
                result[tag] = _average_precision(column if photos is None else column[photos], positives)

    in_tag_blocks(fill, scores.shape[1])
    return result


def tag_block(scores: np.ndarray, start: int) -> np.ndarray:
    """Transpose a block of tags from `start` on: (N, T) scores -> (t, N), contiguous per tag."""
    block = np.empty((min(_TAGS, scores.shape[1] - start), len(scores)), scores.dtype)
    # Columns of a row-major matrix are strided, so copy in tiles that fit the cache.
    for row in range(0, len(scores), _ROWS):
        block[:, row : row + _ROWS] = scores[row : row + _ROWS, start : start + _TAGS].T
    return block


def in_tag_blocks(work: Callable[[int], None], tags: int) -> None:
    """Call `work` with the start of each block of tags, on all cores.

    numpy releases the GIL while sorting and copying, so threads suffice.
    """
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(work, range(0, tags, _TAGS)))


def expected_average_precision(positives: np.ndarray, photos: int) -> np.ndarray:
    """Expected average precision of random scores: the mean over all orders of the photos.

    The photo at rank k is a positive with probability R / N. Of the k - 1 photos above it, a share of
    (R - 1) / (N - 1) is positive on average. Summed over k, with H the N-th harmonic number:
    (H + (R - 1) / (N - 1) (N - H)) / N.

    Args:
        positives: (T,) number of positives R per tag.
        photos: number of photos N.

    Returns:
        (T,) in [0, 1]; NaN for a tag without a positive.
    """
    harmonic = float((1 / np.arange(1, photos + 1)).sum())
    mean = (harmonic + (positives - 1) / max(photos - 1, 1) * (photos - harmonic)) / max(photos, 1)
    return np.where(positives > 0, mean, np.nan)


def _average_precision(scores: np.ndarray, positives: np.ndarray) -> float:
    positives = np.sort(positives)
    # Number of positives, and of photos, that score at least as high as each positive.
    hits = _at_least(positives, positives)
    return float(np.mean(hits / _ranks(scores, positives)))


def _at_least(ordered: np.ndarray, values: np.ndarray) -> np.ndarray:
    return ordered.size - np.searchsorted(ordered, values, side="left")


def _ranks(scores: np.ndarray, positives: np.ndarray) -> np.ndarray:
    """Rank of each positive: the number of scores at least as high.

    Sorting all scores would dominate the run time. They are counted in ordered buckets of equal width instead, and
    only scores that share a bucket with a positive are sorted.
    """
    low, high = scores.min(), scores.max()
    with np.errstate(all="ignore"):
        scale = _BUCKETS / (high - low)
    if not 0 < scale < np.inf:  # all equal, or not finite
        return _at_least(np.sort(scores), positives)
    buckets = ((scores - low) * scale).astype(np.int32)
    own = ((positives - low) * scale).astype(np.int32)
    counts = np.bincount(buckets)
    shared = np.zeros(counts.size, dtype=bool)
    shared[own] = True
    close = np.sort(scores[shared[buckets]])
    counts[shared] = 0
    above = counts[::-1].cumsum()[::-1]
    return _at_least(close, positives) + above[own]


def figure_text(figure: float | None, form: str = ".1f") -> str:
    """A figure for people; `none` if it is undefined, since no photo has a tag."""
    return "none" if figure is None else format(figure, form)


def precision_at(scores: np.ndarray, labels: sp.csr_matrix | sp.csc_matrix, k: int) -> float:
    """Precision@K of retrieval by tag: the mean over tags with positives.

    Args:
        scores: (N, T) float.
        labels: (N, T) sparse 0/1.
        k: photos retrieved per tag.
    """
    by_tag = labels.T.tocsr()
    k = min(k, scores.shape[0])
    total = Counts(0.0, 0, 0, 0)
    for start in range(0, scores.shape[1], _TAGS):
        total += top_k_counts(tag_block(scores, start), by_tag[start : start + _TAGS], k)
    return total.precision
