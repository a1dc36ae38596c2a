"""How well tags are ranked: F1@K over photos, average precision over tags.

Ties, by rules that do not depend on the order of photos or tags: F1@K takes the expectation over all
orders of the tags that share the K-th score; average precision treats photos of equal score as one step of
the precision-recall curve (as scikit-learn does).
"""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
import torch

_SCORES = 2**20  # scores looked at together
_TAGS = 64  # tags at a time
_ROWS = 512  # photos of a tile
_BUCKETS = np.float32(2**16)


@dataclass(frozen=True)
class Counts:
    """Sums of F1@K over photos, so that blocks of photos can be added up."""

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
        """Hits among the tags that were picked."""
        return self.hits / max(self.picked, 1)

    @property
    def recall(self) -> float:
        """Hits among the positives."""
        return self.hits / max(self.positives, 1)

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall."""
        return 2 * self.hits / max(self.picked + self.positives, 1)


def top_k_counts(scores: np.ndarray, labels: sp.csr_matrix, k: int) -> Counts:
    """Count what the K best tags of each photo hit; photos without a positive tag are left out.

    Args:
        scores: (N, T) float.
        labels: (N, T) CSR 0/1.
        k: tags taken of each photo; fewer when there are fewer tags.

    Returns:
        Sums over photos; micro-averaged precision, recall and F1 are its properties.
    """
    kept = np.flatnonzero(np.diff(labels.indptr))
    k = min(k, scores.shape[1])
    size = max(1, _SCORES // max(1, scores.shape[1]))

    def hits(start: int) -> float:
        rows = kept[start : start + size]
        return _expected_hits(scores[rows], labels[rows], k)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        total = sum(pool.map(hits, range(0, kept.size, size)))
    return Counts(total, k * kept.size, int(labels.nnz), int(kept.size))


def _expected_hits(scores: np.ndarray, labels: sp.csr_matrix, k: int) -> float:
    """Positives among the K best tags of each photo, those that tie for the last place in expectation."""
    # torch finds the best three times as fast as numpy's partition.
    best = torch.topk(torch.from_numpy(scores), k, sorted=True).values.numpy()
    edge = best[:, -1]
    photo = np.repeat(np.arange(len(scores)), np.diff(labels.indptr))
    value = scores[photo, labels.indices]
    certain = np.count_nonzero(value > edge[photo])
    # Few positives lie on the edge, so ties are counted for their photos only.
    tied = photo[value == edge[photo]]
    free = k - (best[tied] > edge[tied, None]).sum(axis=1)
    candidates = (scores[tied] == edge[tied, None]).sum(axis=1)
    return float(certain + (free / candidates).sum())


def average_precision(scores: np.ndarray, labels: sp.csr_matrix | sp.csc_matrix) -> np.ndarray:
    """Average precision of each tag over all photos.

    Only the places of the positives matter, so each tag's scores are sorted once, as plain numbers.

    Args:
        scores: (N, T) float.
        labels: (N, T) sparse 0/1.

    Returns:
        (T,) in [0, 1]; NaN for a tag without a positive.
    """
    columns = labels.tocsc()
    result = np.full(scores.shape[1], np.nan)

    def fill(start: int) -> None:
        # Columns of a row-major matrix are far apart in memory: copy some at a time, in tiles that fit the cache.
        block = np.empty((min(_TAGS, scores.shape[1] - start), len(scores)), scores.dtype)
        for row in range(0, len(scores), _ROWS):
            block[:, row : row + _ROWS] = scores[row : row + _ROWS, start : start + _TAGS].T
        for tag, column in enumerate(block, start):
            positives = column[columns.indices[columns.indptr[tag] : columns.indptr[tag + 1]]]
            if positives.size:
                result[tag] = _average_precision(column, positives)

    # numpy sorts and copies without the interpreter's lock, so threads use all cores.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(fill, range(0, scores.shape[1], _TAGS)))
    return result


def _average_precision(scores: np.ndarray, positives: np.ndarray) -> float:
    positives = np.sort(positives)
    # How many positives and how many photos score at least as high as each positive does.
    hits = _at_least(positives, positives)
    return float(np.mean(hits / _ranks(scores, positives)))


def _at_least(ordered: np.ndarray, values: np.ndarray) -> np.ndarray:
    return ordered.size - np.searchsorted(ordered, values, side="left")


def _ranks(scores: np.ndarray, positives: np.ndarray) -> np.ndarray:
    """How many scores reach each positive.

    Sorting all the scores would take most of the time. So they are counted in even buckets, whose order is theirs,
    and only those that share a bucket with a positive are sorted.
    """
    low, high = scores.min(), scores.max()
    with np.errstate(all="ignore"):
        scale = _BUCKETS / (high - low)
    if not 0 < scale < np.inf:  # all alike, or not finite
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


def precision_at(scores: np.ndarray, labels: sp.csr_matrix | sp.csc_matrix, k: int) -> float:
    """Tag-based retrieval: the mean share of right photos among a tag's K best, over tags with positives.

    Args:
        scores: (N, T) float.
        labels: (N, T) sparse 0/1.
        k: photos taken of each tag.
    """
    by_tag = labels.T.tocsr()
    k = min(k, scores.shape[0])
    counts = top_k_counts(np.ascontiguousarray(scores.T), by_tag, k)
    return counts.hits / max(counts.picked, 1)
