"""Platt scaling: map scores to probabilities, with one sigmoid per seen tag and one for all unseen words.

Reading and applying a calibration needs only numpy; fitting needs scikit-learn.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import scipy.sparse as sp

# Tags with fewer positives among the held-out photos share the pooled sigmoid.
_MIN_POSITIVES = 5


@dataclass(frozen=True)
class Calibration:
    """p = 1 / (1 + exp(-(slope * score + offset))).

    Attributes:
        unseen: (slope, offset) for words not seen in training.
        seen: (slope, offset) pooled over all seen tags, for tags without their own.
        tags: (slope, offset) by seen tag.
        figures: how it was fitted and how well it fits: method, photos, expected calibration error, reliability.
    """

    unseen: tuple[float, float]
    seen: tuple[float, float]
    tags: dict[str, tuple[float, float]]
    figures: dict[str, Any] = field(default_factory=dict)

    def lines(self, words: Sequence[str], seen: Sequence[bool | None] | np.ndarray) -> np.ndarray:
        """The slope and intercept of each word, whose `probability` can then be computed for many photos.

        Args:
            words: T words.
            seen: (T,) whether each word was a training target.

        Returns:
            (T, 2) float64.
        """
        lines = [
            self.tags.get(word, self.seen) if known else self.unseen for word, known in zip(words, seen, strict=True)
        ]
        return np.array(lines).reshape(-1, 2)

    def probabilities(
        self, words: Sequence[str], seen: Sequence[bool | None] | np.ndarray, scores: np.ndarray
    ) -> np.ndarray:
        """Convert scores to probabilities.

        Args:
            words: T words.
            seen: (T,) whether each word was a training target.
            scores: (..., T).

        Returns:
            (..., T) float64 in [0, 1].
        """
        return probability(scores, self.lines(words, seen))

    def content(self) -> dict[str, Any]:
        """Return the calibration as a JSON-serializable dict."""
        return {"unseen": self.unseen, "seen": self.seen, "tags": self.tags, "figures": self.figures}

    @classmethod
    def read(cls, file: Path) -> "Calibration":
        """Read calibration.json."""
        return cls.of(json.loads(file.read_text(encoding="utf-8")))

    @classmethod
    def of(cls, content: dict[str, Any]) -> "Calibration":
        """Build a calibration from `content()`."""
        tags = {tag: (line[0], line[1]) for tag, line in content["tags"].items()}
        unseen, seen = ((content[key][0], content[key][1]) for key in ("unseen", "seen"))
        return cls(unseen, seen, tags, content.get("figures", {}))


def probability(scores: np.ndarray, lines: np.ndarray) -> np.ndarray:
    """Convert scores (..., T) to probabilities by the slopes and intercepts (T, 2) of `Calibration.lines`."""
    return _sigmoid(scores * lines[:, 0] + lines[:, 1])


def _sigmoid(values: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-np.clip(values, -60, 60)))


def fit_line(scores: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Fit Platt's slope and offset (J. Platt, 1999) with scikit-learn's logistic regression on the score.

    Args:
        scores: (n,) float.
        labels: (n,) 0/1; both classes must occur.
    """
    from sklearn.linear_model import LogisticRegression

    # Standardise the scores, so that the weak regularisation acts equally on every tag.
    centre, scale = float(scores.mean()), float(max(scores.std(), 1e-6))
    fitted = LogisticRegression(C=1.0).fit(((scores - centre) / scale)[:, None], labels)
    slope = float(fitted.coef_[0, 0]) / scale
    return slope, float(fitted.intercept_[0]) - slope * centre


def fit_calibration(
    scores: np.ndarray,
    labels: "sp.csr_matrix",
    tags: Sequence[str],
    unseen_scores: np.ndarray,
    unseen_labels: "sp.csr_matrix",
) -> Calibration:
    """Fit the sigmoids on held-out photos.

    Unseen words have the sigmoid of all seen tags together if theirs cannot be fitted: no photo has such a tag, all
    have, or a higher score means a lower probability.

    Args:
        scores: (n, S) scores of the seen tags.
        labels: (n, S) 0/1.
        tags: S names.
        unseen_scores: (n, U) scores of tags that the scoring network was not trained on.
        unseen_labels: (n, U) 0/1.
    """
    together = _fit_pooled(scores, labels)
    if together is None:
        positives, count = int(labels.sum()), int(np.prod(labels.shape))
        # Nothing can be fitted: constant at the tags' frequency.
        together = 0.0, float(np.log((positives + 1) / (count - positives + 1)))
    unseen = _fit_pooled(unseen_scores, unseen_labels)
    if unseen is None or unseen[0] <= 0:
        unseen = together
    dense = labels.tocsc()
    own = {}
    for column, tag in enumerate(tags):
        truth = np.zeros(len(scores), dtype=int)
        truth[dense.indices[dense.indptr[column] : dense.indptr[column + 1]]] = 1
        if _MIN_POSITIVES <= truth.sum() < len(truth):
            slope, offset = fit_line(scores[:, column], truth)
            if slope > 0:  # a tag with an uninformative score keeps the pooled sigmoid
                own[tag] = (slope, offset)
    return Calibration(unseen, together, own)


def _fit_pooled(scores: np.ndarray, labels: "sp.csr_matrix") -> tuple[float, float] | None:
    """One sigmoid pooled over all tags; None if only one class occurs."""
    truth = labels.toarray().ravel().astype(int)
    if not 0 < truth.sum() < truth.size:
        return None
    return fit_line(scores.ravel(), truth)


def reliability(probabilities: np.ndarray, labels: np.ndarray, bins: int = 15) -> list[dict[str, float]]:
    """Compute the reliability diagram: the non-empty bins of equal width in probability.

    Args:
        probabilities: (n,) in [0, 1].
        labels: (n,) 0/1.
        bins: number of bins.

    Returns:
        One row per bin: count, mean probability, share of positives.
    """
    place = np.minimum((probabilities * bins).astype(int), bins - 1)
    count = np.bincount(place, minlength=bins)
    mean = np.bincount(place, probabilities, bins)
    positive = np.bincount(place, labels, bins)
    return [
        {"count": int(n), "probability": float(p / n), "share": float(q / n)}
        for n, p, q in zip(count, mean, positive, strict=True)
        if n
    ]


def expected_calibration_error(rows: list[dict[str, float]]) -> float | None:
    """Mean absolute difference of probability and share of positives, weighted by bin count; None without a row."""
    if not rows:
        return None
    return sum(row["count"] * abs(row["probability"] - row["share"]) for row in rows) / sum(
        row["count"] for row in rows
    )
