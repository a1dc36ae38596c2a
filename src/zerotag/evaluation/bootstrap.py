"""Bootstrap confidence intervals of the metrics, resampled over test photos."""

from collections.abc import Mapping

import numpy as np
import scipy.sparse as sp

from zerotag.evaluation.metrics import in_tag_blocks, tag_block


def draw_weights(photos: int, repeats: int, seed: int) -> np.ndarray:
    """Draw bootstrap weights: how often each of N photos occurs in each resample, (N, repeats) float32."""
    random = np.random.default_rng(seed)
    weights = np.empty((photos, repeats), dtype=np.float32)
    for repeat in range(repeats):
        weights[:, repeat] = np.bincount(random.integers(photos, size=photos), minlength=photos)
    return weights


def resampled_figures(
    scores: np.ndarray, labels: sp.csr_matrix, weights: np.ndarray, hits: Mapping[int, np.ndarray]
) -> dict[str, np.ndarray]:
    """Compute F1@K and mAP on each resample, over photos with at least one positive, as the metrics themselves.

    Args:
        scores: (N, T) float.
        labels: (N, T) CSR 0/1.
        weights: (N, R) from `draw_weights`.
        hits: (N,) of `top_k_hits` for each K of F1@K.

    Returns:
        f1@K and map, each (R,) in [0, 1].
    """
    count = np.diff(labels.indptr)
    kept = np.flatnonzero(count)
    weights = np.ascontiguousarray(weights[kept])
    figures = {}
    for k, of_photo in hits.items():
        picked = min(k, scores.shape[1]) + count[kept]
        figures[f"f1@{k}"] = 2 * (of_photo[kept] @ weights) / np.maximum(picked @ weights, 1)
    precisions = _resampled_precisions(scores, labels[kept].tocsc(), kept, weights)
    counted = ~np.isnan(precisions)
    figures["map"] = np.where(counted, precisions, 0).sum(axis=0) / np.maximum(counted.sum(axis=0), 1)
    return figures


def _resampled_precisions(
    scores: np.ndarray, labels: sp.csc_matrix, kept: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    """Average precision per tag and resample, (T, R); NaN where the resample has no positive."""
    result = np.full((scores.shape[1], weights.shape[1]), np.nan)

    def fill(start: int) -> None:
        for tag, column in enumerate(tag_block(scores, start), start):
            rows = labels.indices[labels.indptr[tag] : labels.indptr[tag + 1]]
            if rows.size:
                result[tag] = _resampled_precision(column[kept], rows, weights)

    in_tag_blocks(fill, scores.shape[1])
    return result


def _resampled_precision(scores: np.ndarray, positives: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weighted average precision of one tag, (R,), without sorting its scores for each resample.

    Photos are binned between the positives' scores. The weight ranked at or above a positive is the sum of its own
    bin and all bins above it.
    """
    edges = np.sort(scores[positives])
    bucket = np.searchsorted(edges, scores, side="right")

    def reaching(rows: np.ndarray | slice) -> np.ndarray:
        """(P, R): total weight of the given photos that score at least as high as each positive, ordered as `edges`."""
        place = bucket[rows]
        where = sp.csr_matrix((np.ones(place.size, np.float32), (place, np.arange(place.size))),
                              shape=(edges.size + 1, place.size))  # fmt: skip
        return np.cumsum((where @ weights[rows])[::-1], axis=0, dtype=np.float64)[::-1][1:]

    hits, ranks = reaching(positives), reaching(slice(None))
    own = weights[positives[np.argsort(scores[positives], kind="stable")]]
    total = own.sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        summed = np.where(own > 0, own * hits / ranks, 0).sum(axis=0)
        return np.where(total > 0, summed / total, np.nan)


def interval(values: np.ndarray, figure: float | None = None) -> tuple[float, float]:
    """95% bootstrap interval: the 2.5% and 97.5% quantiles of resampled values.

    A photo drawn twice raises average precision, which biases resampled mAP upwards where tags have few photos. If
    `figure` is given, the interval is centred on it instead of on the resamples' mean.
    """
    low, high = np.quantile(values, [0.025, 0.975])
    shift = 0.0 if figure is None else figure - values.mean()
    return float(low + shift), float(high + shift)
