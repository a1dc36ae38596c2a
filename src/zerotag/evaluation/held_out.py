"""Held-out scores of training photos, which calibration is fitted on.

A model's scores of its own training photos are overconfident. With a frozen backbone, a second head is therefore
trained on part of the training photos, and its scores of the held-out rest calibrate the model (like scikit-learn's
CalibratedClassifierCV with ensemble=False). A third head is trained without some of the seen tags; its held-out scores
of these tags calibrate unseen words.
"""

from copy import deepcopy
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from torch import nn

from zerotag.data.dataset import Dataset
from zerotag.evaluation.calibration import Calibration, expected_calibration_error, fit_calibration, reliability
from zerotag.evaluation.evaluate import principal_vectors, score_matrix
from zerotag.training.heads import ClassHead, Head, JointHead, start_head
from zerotag.training.loop import TrainSettings, feature_batches, tag_frequency, train
from zerotag.training.methods import Method
from zerotag.training.model import Model
from zerotag.words.vocabulary import Vocabulary

HELD_OUT_PHOTOS = HELD_OUT_TAGS = 0.2
SCORED_PHOTOS = 10_000
# Enough to fit the sigmoids of a fine-tuned model, whose whole network has to run on each photo.
FINE_TUNED_PHOTOS = 2000


def calibrate_linear_probe(
    model: Model, dataset: Dataset, features: np.ndarray, settings: TrainSettings, device: torch.device
) -> tuple[Calibration, dict[str, Any]]:
    """Calibrate a model with a frozen backbone on photos and tags held out from the training set.

    Args:
        model: a model with T tags.
        dataset: N photos.
        features: (N, F) features of its backbone.
        settings: the model's training settings; the seed selects what is held out.
        device: device to train the heads on.

    Returns:
        The calibration, and a description of how it was fitted.
    """
    random = np.random.default_rng(settings.seed)
    apart = random.random(dataset.train.size) < HELD_OUT_PHOTOS
    # Of a few photos, chance may take all or none.
    if apart.size > 1 and (apart.all() or not apart.any()):
        apart[0] = not apart[0]
    learn, rest = dataset.train[~apart], dataset.train[apart][:SCORED_PHOTOS]
    labels, seen = _seen(model, dataset)
    hidden = random.random(seen.size) < HELD_OUT_TAGS
    if hidden.all():
        hidden[:] = False
    method = Method(**model.info["parameters"])
    scores = []
    for chosen in (seen, seen[~hidden]):
        vocabulary = model.vocabulary.seeing(chosen)
        head = model.network.head
        if method.trained:
            own = head.classes if isinstance(head, JointHead) else None
            rejected = dataset.rejected_of([model.vocabulary.tags[column] for column in chosen])
            its_labels = labels[:, chosen].tocsr()
            head = train_head(method, features, learn, its_labels, vocabulary, own, settings, device, rejected)
        with torch.inference_mode():
            principal = head.to(device)(torch.from_numpy(features[rest]).to(device)).cpu().numpy()
        scores.append(score_matrix(principal, vocabulary.vectors))
    pretend, names = seen[hidden], [model.vocabulary.tags[column] for column in seen]
    truth = labels[rest]
    fitted = fit_calibration(scores[0][:, seen], truth[:, seen], names, scores[1][:, pretend], truth[:, pretend])
    untrained = "training photos, from which the model learnt nothing"
    fitted_on = "held-out training photos, scored by a second head" if method.trained else untrained
    return fitted, {"fitted_on": fitted_on, "photos": int(rest.size)}


def calibrate_fine_tuned(
    model: Model, dataset: Dataset, batch: int, seed: int, device: torch.device
) -> tuple[Calibration, dict[str, Any]]:
    """Calibrate a fine-tuned model on its own training photos, since training a second network is too expensive.

    Args:
        model: a model with T tags.
        dataset: N photos.
        batch: batch size.
        seed: seed of the choice of photos.
        device: device of the network.

    Returns:
        The calibration, and a description of how it was fitted.
    """
    random = np.random.default_rng(seed)
    rows = np.sort(random.choice(dataset.train, min(FINE_TUNED_PHOTOS, dataset.train.size), replace=False))
    labels, seen = _seen(model, dataset)
    principal = principal_vectors(model, dataset, rows, device, batch, None)
    scores = score_matrix(principal, model.vocabulary.vectors)[:, seen]
    truth = labels[rows][:, seen]
    fitted = fit_calibration(scores, truth, [model.vocabulary.tags[column] for column in seen], scores, truth)
    way = "training photos, scored by the model itself, so its probabilities are too high"
    return fitted, {"fitted_on": way, "photos": int(rows.size)}


def evaluate_calibration(
    fitted: Calibration, model: Model, scores: np.ndarray, labels: sp.csr_matrix
) -> dict[str, Any]:
    """Compute reliability on test photos, for seen tags, unseen tags, and the ten top predictions of each photo.

    Args:
        fitted: the model's calibration.
        model: a model with T tags.
        scores: (n, T) scores of the test photos.
        labels: (n, T) their labels.
    """
    probabilities = fitted.probabilities(model.vocabulary.tags, model.vocabulary.seen, scores)
    truth = labels.toarray()
    best = np.argsort(-scores, axis=1)[:, :10]
    parts = {
        "seen": [table[:, model.vocabulary.seen] for table in (probabilities, truth)],
        "unseen": [table[:, ~model.vocabulary.seen] for table in (probabilities, truth)],
        "ten_best": [np.take_along_axis(table, best, axis=1) for table in (probabilities, truth)],
    }
    rows = {name: reliability(given.ravel(), true.ravel()) for name, (given, true) in parts.items()}
    return {
        name: {"expected_calibration_error": expected_calibration_error(row), "reliability": row}
        for name, row in rows.items()
    }


def _seen(model: Model, dataset: Dataset) -> tuple[sp.csr_matrix, np.ndarray]:
    """Labels (N, T) of the model's tags, and the columns of the seen ones."""
    labels = dataset.labels[:, dataset.columns(model.vocabulary.tags)].tocsr()
    return labels, np.flatnonzero(model.vocabulary.seen)


def train_head(
    method: Method,
    features: np.ndarray,
    rows: np.ndarray,
    labels: sp.csr_matrix,
    vocabulary: Vocabulary,
    classes: ClassHead | None,
    settings: TrainSettings,
    device: torch.device,
    rejected: sp.csr_matrix | None = None,
) -> nn.Module:
    """Train a head on cached features, as the train stage does for a frozen backbone.

    Args:
        method: method of the head.
        features: (N, F) cached features.
        rows: rows of the training photos.
        labels: (N, S) CSR 0/1 of the seen tags.
        vocabulary: of T tags, lifted if the method lifts.
        classes: the backbone's own classifier, for a method that trusts it.
        settings: training settings.
        device: device to train on.
        rejected: (N, S) CSR 0/1 of the seen tags that a person rejected; None for none.
    """
    vectors = vocabulary.targets
    torch.manual_seed(settings.seed)
    head = Head(features.shape[1], method, vectors.shape[1])
    start_head(head, torch.from_numpy(features[rows]), tag_frequency(labels, rows), torch.from_numpy(vectors))
    with TemporaryDirectory() as work:
        train(
            head,
            feature_batches(features, settings.batch, device),
            rows,
            labels,
            vectors,
            method,
            settings,
            checkpoint=Path(work) / "checkpoint.pt",
            key="held out",
            device=device,
            rejected=rejected,
        )
    head.eval()
    if classes is None:
        return head
    joint = JointHead(head.cpu(), deepcopy(classes).cpu())
    joint.match_scales(torch.from_numpy(features[rows]), torch.from_numpy(vectors), method.trust)
    return joint
