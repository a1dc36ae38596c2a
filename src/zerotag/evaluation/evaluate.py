"""Evaluate a model on test photos: the supplement's metrics for ZSL, GZSL and seen tags only."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
import torch
from tqdm import tqdm

from zerotag.data.dataset import Dataset
from zerotag.evaluation.bootstrap import draw_weights, interval, resampled_figures
from zerotag.evaluation.metrics import (
    average_precision,
    count_hits,
    expected_average_precision,
    precision_at,
    top_k_hits,
)
from zerotag.training.features import features_of
from zerotag.training.model import Model
from zerotag.words.vocabulary import Vocabulary

_BLOCK = 1024


@dataclass(frozen=True)
class Evaluation:
    """Attributes:
    metrics: percentages by task (zsl, gzsl, seen) and name; None if undefined, as no photo has a tag of the task.
    intervals: 95% bootstrap confidence intervals of F1@3, F1@5 and mAP, by task and name; empty if not computed, and
        without undefined ones.
    tags: one row per tag: tag, seen (0/1), positives, and ap, the average precision over the GZSL photos (percent,
        empty without a positive).
    examples: photos with their true tags and ten top predictions.
    """

    metrics: dict[str, dict[str, float | None]]
    intervals: dict[str, dict[str, tuple[float, float]]]
    tags: pd.DataFrame
    examples: list[dict[str, Any]]


def score_matrix(principal: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """Score all tags: (N, M, d) principal vectors and (T, d) word vectors -> (N, T) float32.

    Works in blocks of photos, so that (N, M, T) is never in memory.
    """
    words = torch.from_numpy(np.ascontiguousarray(vectors.T, dtype=np.float32))
    scores = np.empty((len(principal), words.shape[1]), dtype=np.float32)
    for start in range(0, len(principal), _BLOCK):
        block = torch.from_numpy(principal[start : start + _BLOCK].astype(np.float32))
        scores[start : start + _BLOCK] = (block @ words).amax(dim=1).numpy()
    return scores


def principal_vectors(
    model: Model,
    dataset: Dataset,
    rows: np.ndarray,
    device: torch.device,
    batch: int,
    features: np.ndarray | None,
    elsewhere: Callable[[np.ndarray], np.ndarray] | None = None,
) -> np.ndarray:
    """Compute principal vectors, (n, M, d) float32, of the photos in `rows`.

    Args:
        model: a trained model.
        dataset: the photos.
        rows: (n,) row numbers.
        device: device of the network.
        batch: batch size.
        features: (N, F) cached features of a frozen backbone, or None to run the whole network on the photos.
        elsewhere: runs the whole network in another way, such as on a cluster: (n,) row numbers -> (n, M, d).
    """
    if features is None and elsewhere:
        return elsewhere(rows)
    network = model.network.to(device).eval()
    parts = []
    with torch.inference_mode():
        if features is not None:
            for start in range(0, rows.size, _BLOCK):
                block = torch.from_numpy(features[rows[start : start + _BLOCK]]).to(device)
                parts.append(network.head(block).cpu().numpy())
        else:
            found = features_of(network, dataset, rows, model.info["size"], batch, device)
            parts = list(tqdm(found, desc="evaluate", unit="batch", total=math.ceil(rows.size / batch)))
    return np.concatenate(parts)


def evaluate(
    principal: np.ndarray,
    labels: sp.csr_matrix,
    vocabulary: Vocabulary,
    ids: list[str],
    rows: np.ndarray,
    examples: int,
    resamples: int = 0,
    seed: int = 0,
    rejected: sp.csr_matrix | None = None,
) -> Evaluation:
    """Compute all metrics.

    The photos x tags scores are kept in memory once; everything derived from them is computed in blocks.

    Args:
        principal: (N, M, d) principal vectors of the test photos.
        labels: (N, T) CSR 0/1, in vocabulary order.
        vocabulary: T tags.
        ids: N photo names.
        rows: (N,) the photos' rows in the data set, for the examples.
        examples: number of example photos with their top predictions.
        resamples: bootstrap resamples for the confidence intervals; 0 for none.
        seed: seed of the bootstrap.
        rejected: (N, T) CSR 0/1, tags that a person rejected, in vocabulary order; None for none.
    """
    # Seen tags first, so that each task's tags are a slice of the scores, not a copy.
    order = np.concatenate([np.flatnonzero(vocabulary.seen), np.flatnonzero(~vocabulary.seen)])
    seen = int(vocabulary.seen.sum())
    scores = score_matrix(principal, vocabulary.vectors[order])
    labels = labels[:, order].tocsr()
    tasks = {"zsl": slice(seen, None), "gzsl": slice(None), "seen": slice(seen)}
    weights = draw_weights(len(scores), resamples, seed)
    metrics: dict[str, dict[str, float | None]] = {}
    precisions = {}
    intervals: dict[str, dict[str, tuple[float, float]]] = {}
    for task, part in tasks.items():
        its_labels = labels[:, part].tocsr()
        its_scores = scores[:, part]
        hits = {k: top_k_hits(its_scores, its_labels, k) for k in (3, 5)}
        metrics[task], precisions[task] = _figures(its_scores, its_labels, hits)
        resampled = resampled_figures(its_scores, its_labels, weights, hits) if resamples and its_labels.nnz else {}
        its = metrics[task]
        intervals[task] = {name: interval(100 * values, its[name]) for name, values in resampled.items()}
    metrics["retrieval"] = {"precision@10": 100 * precision_at(scores, labels, 10) if labels.nnz else None}
    if rejected is not None:
        metrics["rejected"] = _rejected_figures(scores, labels, rejected[:, order].tocsr())
    table = pd.DataFrame(
        {
            "tag": [vocabulary.tags[column] for column in order],
            "seen": vocabulary.seen[order].astype(int),
            "positives": np.asarray(labels.sum(axis=0)).ravel(),
            "ap": 100 * precisions["gzsl"],
        }
    )
    tags = table["tag"].tolist()
    shown = _choose_examples(labels, seen, examples)
    best = [_best_tags(scores[row], labels[row], tags, seen, ids[row], int(rows[row])) for row in shown]
    return Evaluation(metrics, intervals, table, best)


def _figures(
    scores: np.ndarray, labels: sp.csr_matrix, hits: dict[int, np.ndarray]
) -> tuple[dict[str, float | None], np.ndarray]:
    """Metrics of one task, in percent, over photos with at least one positive among its tags."""
    kept = np.flatnonzero(np.diff(labels.indptr))
    figures: dict[str, float | None] = {}
    for k, of_photo in hits.items():
        counts = count_hits(of_photo, labels, k)
        for name, value in (("f1", counts.f1), ("precision", counts.precision), ("recall", counts.recall)):
            figures[f"{name}@{k}"] = 100 * value if kept.size else None
    precisions = average_precision(scores, labels, None if kept.size == len(scores) else kept)
    positives = np.asarray(labels.sum(axis=0)).ravel()
    figures["map"] = _mean_percent(precisions)
    figures["random_map"] = _mean_percent(expected_average_precision(positives, kept.size))
    figures["images"] = int(kept.size)
    figures["tags"] = int((positives > 0).sum())
    return figures, precisions


def _rejected_figures(scores: np.ndarray, labels: sp.csr_matrix, rejected: sp.csr_matrix) -> dict[str, float | None]:
    """How often a photo's tag scores higher than a tag that a person rejected, in percent of these pairs."""
    above, pairs = 0, 0
    for photo in np.flatnonzero(np.diff(rejected.indptr)):
        right, wrong = scores[photo, labels[photo].indices], scores[photo, rejected[photo].indices]
        above += int((right[:, None] > wrong).sum())
        pairs += right.size * wrong.size
    return {"below_tags": 100 * above / pairs if pairs else None, "pairs": pairs}


def _mean_percent(values: np.ndarray) -> float | None:
    values = values[~np.isnan(values)]
    return 100 * float(values.mean()) if values.size else None


def _choose_examples(labels: sp.csr_matrix, seen: int, count: int) -> list[int]:
    """Choose photos with many tags, at least one of them unseen, evenly spread over the test set."""
    unseen = np.diff(labels[:, seen:].tocsr().indptr) > 0
    candidates = np.flatnonzero(unseen) if unseen.any() else np.arange(labels.shape[0])
    wealth = np.diff(labels.indptr)
    parts = np.array_split(candidates, min(count, candidates.size) or 1) if count else []
    return [int(part[np.argmax(wealth[part])]) for part in parts if part.size]


def _best_tags(
    scores: np.ndarray, labels: sp.csr_matrix, tags: list[str], seen: int, name: str, row: int
) -> dict[str, Any]:
    true = set(labels.indices.tolist())
    best = np.argsort(-scores, kind="stable")[:10]
    return {
        "row": row,
        "id": name,
        "tags": [tags[column] for column in sorted(true)],
        "top": [
            {
                "tag": tags[column],
                "score": float(scores[column]),
                "seen": bool(column < seen),
                "correct": column in true,
            }
            for column in best.tolist()
        ],
    }
