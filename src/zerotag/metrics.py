"""How well tags are ranked: F1@K over photos, average precision over tags.

Ties, by rules that do not depend on the order of photos or tags: F1@K takes the expectation over all
orders of the tags that share the K-th score; average precision treats photos of equal score as one step of
the precision-recall curve (as scikit-learn does).
"""

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

_BLOCK = 4096


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
    hits = 0.0
    for start in range(0, kept.size, _BLOCK):
        rows = kept[start : start + _BLOCK]
        block, positive = scores[rows], labels[rows]
        edge = np.partition(block, -k, axis=1)[:, -k]
        above = (block > edge[:, None]).sum(axis=1)
        tied = (block == edge[:, None]).sum(axis=1)
        photo = np.repeat(np.arange(rows.size), np.diff(positive.indptr))
        value = block[photo, positive.indices]
        hits += float((value > edge[photo]).sum())
        at_edge = photo[value == edge[photo]]
        hits += float(((k - above[at_edge]) / tied[at_edge]).sum())
    return Counts(hits, k * kept.size, int(labels.nnz), int(kept.size))


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
    for start in range(0, scores.shape[1], 64):
        # Columns of a row-major matrix are far apart in memory: copy a few at a time.
        block = np.ascontiguousarray(scores[:, start : start + 64].T)
        for offset, column in enumerate(block):
            tag = start + offset
            positives = column[columns.indices[columns.indptr[tag] : columns.indptr[tag + 1]]]
            if positives.size:
                result[tag] = _average_precision(column, positives)
    return result


def _average_precision(scores: np.ndarray, positives: np.ndarray) -> float:
    positives = np.sort(positives)
    # How many positives and how many photos score at least as high as each positive does.
    hits = positives.size - np.searchsorted(positives, positives, side="left")
    ranks = scores.size - np.searchsorted(np.sort(scores), positives, side="left")
    return float(np.mean(hits / ranks))


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
