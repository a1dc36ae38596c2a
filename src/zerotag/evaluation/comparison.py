"""Compare a challenger with the champion on the same test photos and tags."""

import math
from dataclasses import dataclass

import numpy as np
import torch

from zerotag.data.dataset import Dataset
from zerotag.errors import ZerotagError
from zerotag.evaluation.bootstrap import draw_weights, interval, resampled_figures
from zerotag.evaluation.evaluate import principal_vectors, score_matrix
from zerotag.evaluation.metrics import average_precision
from zerotag.training.model import Model


@dataclass(frozen=True)
class Difference:
    """mAP of both models on one task, in percent, and the 95% confidence interval of challenger - champion.

    All are NaN if no test photo has a tag of the task.
    """

    champion: float
    challenger: float
    low: float
    high: float

    @property
    def gain(self) -> float:
        """Points by which the challenger is better."""
        return self.challenger - self.champion

    def __str__(self) -> str:
        return "none" if math.isnan(self.gain) else f"{self.gain:+.2f} ({self.low:+.2f} to {self.high:+.2f})"


@dataclass(frozen=True)
class Comparison:
    """Attributes:
    photos: number of test photos.
    tags: number of tags in both vocabularies.
    unseen: how many of them neither model was trained on.
    zsl: difference over the unseen tags.
    gzsl: difference over all tags.
    """

    photos: int
    tags: int
    unseen: int
    zsl: Difference
    gzsl: Difference

    def verdict(self, margin: float, zsl_tolerance: float) -> tuple[bool, str]:
        """Decide whether to promote the challenger.

        Args:
            margin: minimum gain in GZSL mAP points; the confidence interval must also lie above 0.
            zsl_tolerance: maximum loss in ZSL mAP points.

        Returns:
            Whether to promote it, and the reason.
        """
        shown = f"GZSL mAP {self.gzsl}, ZSL mAP {self.zsl}"
        # An undefined gain is none.
        if not (self.gzsl.gain >= margin and self.gzsl.low > 0):
            return False, f"{shown}: not better by {margin} points of GZSL mAP with an interval above 0"
        if self.zsl.gain < -zsl_tolerance:
            return False, f"{shown}: worse in ZSL mAP by more than {zsl_tolerance} points"
        return True, f"{shown}: better"


def compare(
    champion: Model,
    challenger: Model,
    dataset: Dataset,
    batch: int = 64,
    repeats: int = 200,
    seed: int = 0,
) -> Comparison:
    """Evaluate two models on the data set's test photos, over the tags of both vocabularies.

    Each model scores with its own word vectors, which may come from different sources. A tag is unseen if neither
    model was trained on it.

    Args:
        champion: the deployed model.
        challenger: the model that may replace it.
        dataset: its test photos are used.
        batch: batch size of the networks.
        repeats: resamples of the paired bootstrap over photos.
        seed: seed of the bootstrap.

    Raises:
        ZerotagError: the models have no tag, or no unseen tag, in common.
    """
    known = set(dataset.tags["tag"]) & set(champion.vocabulary.tags)
    tags = [tag for tag in challenger.vocabulary.tags if tag in known]
    seen_by = [dict(zip(model.vocabulary.tags, model.vocabulary.seen, strict=True)) for model in (champion, challenger)]
    unseen = np.array([not any(seen[tag] for seen in seen_by) for tag in tags], dtype=bool)
    if not unseen.any():
        raise ZerotagError(
            "Champion and challenger have no unseen tag in common, so ZSL metrics cannot be compared. "
            "Keep the split (params.yaml: split), or remove champion.json to start over."
        )
    labels = dataset.labels[dataset.test][:, dataset.columns(tags)].tocsr()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    scores = []
    for model in (champion, challenger):
        row = {tag: place for place, tag in enumerate(model.vocabulary.tags)}
        vectors = model.vocabulary.vectors[[row[tag] for tag in tags]]
        # Run the whole network: cached features may come from another backbone or other weights.
        principal = principal_vectors(model, dataset, dataset.test, device, batch, None)
        scores.append(score_matrix(principal, vectors))
    weights = draw_weights(len(dataset.test), repeats, seed)
    differences = []
    for columns in (np.flatnonzero(unseen), np.arange(len(tags))):
        truth = labels[:, columns].tocsr()
        kept = np.flatnonzero(np.diff(truth.indptr))
        figures, resampled = [], []
        for table in scores:
            part = np.ascontiguousarray(table[:, columns])
            precisions = average_precision(part, truth, kept)
            figures.append(100 * float(np.nanmean(precisions)) if kept.size else math.nan)
            resampled.append(100 * resampled_figures(part, truth, weights, {})["map"])
        first, second = figures
        differences.append(Difference(first, second, *interval(resampled[1] - resampled[0], second - first)))
    return Comparison(len(dataset.test), len(tags), int(unseen.sum()), *differences)
