"""What rejected tags do to training, on made-up photos whose truth is known.

A person names half of the tags of each photo. A first head is trained on these; of half of the photos, the wrong ones
of its five best tags are rejected, and a second head is trained. Rejected tags should fall in the ranking of these
photos, and other photos should gain.
"""

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import numpy as np
import scipy.sparse as sp
import torch

from zerotag.evaluation.evaluate import score_matrix
from zerotag.evaluation.metrics import average_precision
from zerotag.training import methods
from zerotag.training.heads import Head, start_head
from zerotag.training.loop import TrainSettings, feature_batches, tag_frequency, train
from zerotag.training.methods import METHODS, Method

PHOTOS, LEARNT, TAGS, DIMENSIONS, FEATURES = 800, 600, 40, 16, 32
SETTINGS = TrainSettings(epochs=15, batch=32, learning_rate=0.02, weight_decay=0.0)
CPU = torch.device("cpu")


def made_up(seed: int) -> tuple[np.ndarray, np.ndarray, sp.csr_matrix, np.ndarray]:
    """Features, true labels, named labels and word vectors."""
    random = np.random.default_rng(seed)
    vectors = random.standard_normal((TAGS, DIMENSIONS)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    truth = np.zeros((PHOTOS, TAGS), dtype=np.uint8)
    for photo in truth:
        photo[random.choice(TAGS, random.integers(1, 5), replace=False)] = 1
    mixing = random.standard_normal((DIMENSIONS, FEATURES))
    features = truth @ vectors @ mixing + 0.5 * random.standard_normal((PHOTOS, FEATURES))
    named = truth * (random.random(truth.shape) < 0.5)
    return features.astype(np.float32), truth, sp.csr_matrix(named), vectors


def scores_of(
    features: np.ndarray, named: sp.csr_matrix, vectors: np.ndarray, method: Method, rejected: sp.csr_matrix | None
) -> np.ndarray:
    torch.manual_seed(0)
    head, rows = Head(FEATURES, method, DIMENSIONS), np.arange(LEARNT)
    start_head(head, torch.from_numpy(features[rows]), tag_frequency(named, rows), torch.from_numpy(vectors))
    batches = feature_batches(features, SETTINGS.batch, CPU)
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Path(folder) / "checkpoint.pt"
        train(head, batches, rows, named, vectors, method, SETTINGS, checkpoint, "", CPU, rejected=rejected)
    with torch.inference_mode():
        return score_matrix(head(torch.from_numpy(features)).numpy(), vectors)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    seeds = parser.parse_args().seeds
    print("| method | weight | mean rank of rejected tags | P@5, others | mAP, others |\n|---|---|---|---|---|")
    for name in ("sdl_plus", "sdl", "fast0tag"):
        method = replace(METHODS[name], sharpness=(), trust=0.0)  # there is no backbone
        figures: dict[float, list[tuple[float, float, float]]] = {}
        for seed in range(seeds):
            features, truth, named, vectors = made_up(seed)
            first = scores_of(features, named, vectors, method, None)
            wrong = ((-first).argsort(axis=1).argsort(axis=1) < 5) & (truth == 0)
            wrong &= np.isin(np.arange(PHOTOS), np.random.default_rng(seed).permutation(LEARNT)[: LEARNT // 2])[:, None]
            for weight in (0.0, 1.0, 3.0, 9.0):
                with patch.object(methods, "REJECTED", weight):
                    scores = scores_of(features, named, vectors, method, sp.csr_matrix(wrong.astype(np.uint8)))
                rank = (-scores).argsort(axis=1).argsort(axis=1) + 1
                other, its = scores[LEARNT:], truth[LEARNT:]
                precision = float(its[rank[LEARNT:] <= 5].sum()) / (5 * len(its))
                mean = 100 * float(np.nanmean(average_precision(other, sp.csr_matrix(its))))
                figures.setdefault(weight, []).append((float(rank[wrong].mean()), 100 * precision, mean))
        for weight, found in figures.items():
            print("| {} | {:g} | {:.2f} | {:.1f} | {:.1f} |".format(name, weight, *np.mean(found, axis=0)))


if __name__ == "__main__":
    main()
