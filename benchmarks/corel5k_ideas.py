"""Ideas for sdl_plus that are not in the library: python -m benchmarks.corel5k_ideas FOLDER [--out FILE.md].

Each trains a head on validation photos' division of Corel5K (benchmarks.corel5k --validation), over five splits, in
one short loop that they share; the first row is sdl_plus itself in that loop. What helped is in zerotag.methods.
"""

import argparse
import os
import platform
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.sparse as sp
import torch
from benchmarks.corel5k import FIGURES, PROJECT, divided, reproduce, write_table
from benchmarks.corel5k_tables import MINILM, Row
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits, logsigmoid
from tqdm import tqdm

from zerotag.backbones import build_backbone
from zerotag.dataset import Dataset
from zerotag.evaluation import evaluate
from zerotag.features import Photos, input_transform, photo_batches
from zerotag.files import write_aside
from zerotag.lexicon import unit
from zerotag.lift import Lift
from zerotag.methods import METHODS, Head, log_odds, start_head
from zerotag.text_encoders import load_encoder
from zerotag.training import tag_frequency
from zerotag.vocabulary import Vocabulary

SPLITS = 5
SHARPNESS = METHODS["sdl_plus"].sharpness
DECAY = METHODS["sdl_plus"].head_decay


@dataclass(frozen=True)
class Data:
    """One split of the validation division.

    Attributes:
        dataset: its test photos are the validation photos.
        features: (N, F) of all photos, or (N, 49, F) of all places of their last map.
        labels: (N, T).
        vocabulary: T tags, not lifted.
        minilm: (T, 384) unit.
    """

    dataset: Dataset
    features: np.ndarray
    labels: sp.csr_matrix
    vocabulary: Vocabulary
    minilm: np.ndarray


# (principal vectors (B, M, d), vectors (T, d)) -> (B, T)
Score = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
# (logits (B, S), labels (B, S)) -> (B, S)
Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def hard_maximum(principal: torch.Tensor, vectors: torch.Tensor) -> torch.Tensor:
    return (principal @ vectors.T).amax(dim=1)


def smooth_maximum(principal: torch.Tensor, vectors: torch.Tensor) -> torch.Tensor:
    return (principal @ vectors.T).logsumexp(dim=1)


def cross_entropy(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return binary_cross_entropy_with_logits(logits, labels, reduction="none")


def hard_examples(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Focal loss (Lin et al., 2017) with gamma = 1: what is right already counts less."""
    wrong = torch.where(labels > 0, 1 - logits.sigmoid(), logits.sigmoid()).detach()
    return wrong * cross_entropy(logits, labels)


def hard_negatives(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Of the negatives alone (asymmetric loss, Ridnik et al., 2021)."""
    return torch.where(labels > 0, -logsigmoid(logits), logits.sigmoid().detach() * -logsigmoid(-logits))


def smooth_labels(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return cross_entropy(logits, 0.9 * labels + 0.002)


class Places(nn.Module):
    """Learned pooling: M queries weigh the places of the map, one head makes a principal vector of each.

    Args:
        head: features to a principal vector.
        queries: M.
        features: F.
    """

    def __init__(self, head: Head, queries: int, features: int):
        super().__init__()
        self.head = head
        self.queries = nn.Linear(features, queries, bias=False)
        nn.init.normal_(self.queries.weight, std=0.01)

    def forward(self, places: torch.Tensor) -> torch.Tensor:
        """(B, 49, F) -> (B, M, d)."""
        weights = self.queries(places).softmax(dim=1)
        return self.head(weights.transpose(1, 2) @ places).squeeze(2)


def fit(
    data: Data, vectors: np.ndarray, score: Score, loss: Loss, rows: int = 1, queries: int = 0, seed: int = 0
) -> np.ndarray:
    """Train a head as stages/train.py does sdl_plus; its scores of the validation photos, (n, T).

    Args:
        data: of the split.
        vectors: (T, d) of the tags, lifted.
        score: of a tag.
        loss: of a tag.
        rows: M.
        queries: of learned pooling; 0 for none.
        seed: of weights and order.
    """
    torch.manual_seed(seed)
    seen = np.flatnonzero(data.vocabulary.seen)
    labels = data.labels[:, seen].tocsr()
    train = data.dataset.train[np.diff(labels.indptr)[data.dataset.train] > 0]
    words, targets = torch.from_numpy(vectors), torch.from_numpy(vectors[seen])
    inputs = torch.from_numpy(data.features)
    method = replace(METHODS["sdl_plus"], principal_vectors=rows)
    network: nn.Module = Head(inputs.shape[-1], method, vectors.shape[1])
    frequency = tag_frequency(labels, train)
    pooled = inputs[train].float()
    start_head(network, pooled.mean(dim=1) if queries else pooled, frequency, targets)
    if queries:
        network = Places(network, queries, inputs.shape[-1])
    offset = float(log_odds(frequency).mean())
    matrices = [weight for weight in network.parameters() if weight.ndim > 1]
    others = [weight for weight in network.parameters() if weight.ndim == 1]
    groups = [{"params": matrices, "weight_decay": DECAY}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.Adam(groups, lr=3e-3)
    steps = 10 * -(-train.size // 32)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps + 1, pct_start=0.1)
    for epoch in range(10):
        order = np.random.default_rng([seed, epoch]).permutation(train)
        for start in range(0, order.size, 32):
            chosen = order[start : start + 32]
            wanted = torch.from_numpy(labels[chosen].toarray()).float()
            logits = score(network(inputs[chosen].float()), targets) + offset
            value = 2 * loss(logits, wanted).sum(dim=1).mean()
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
            schedule.step()
    with torch.inference_mode():
        parts = [score(network(inputs[part].float()), words) for part in np.array_split(data.dataset.test, 8)]
    return torch.cat(parts).numpy()


def lifted(data: Data) -> np.ndarray:
    return data.vocabulary.lifted(SHARPNESS).vectors


def lifted_otherwise(data: Data, centre: bool = True, own_length: bool = False) -> np.ndarray:
    """The lift as zerotag.lift has it, but for one thing.

    Args:
        data: of the split.
        centre: take the seen tags' mean off the words first.
        own_length: leave lifted words as long as they are: shorter the farther they are from all seen tags.
    """
    seen = data.vocabulary.seen
    words = data.vocabulary.vectors.astype(np.float64)
    words = unit(words - words[seen].mean(axis=0) * centre)
    angle = words @ words[seen].T - 1
    kernel = np.mean([np.exp(sharpness * angle) for sharpness in SHARPNESS], axis=0)
    values, vectors = np.linalg.eigh(kernel[seen] + 1e-3 * np.eye(int(seen.sum())))
    coordinates = kernel @ (vectors / np.sqrt(values)) @ vectors.T
    return (coordinates if own_length else unit(coordinates)).astype(np.float32)


def both_sources(data: Data) -> np.ndarray:
    """GloVe and MiniLM side by side: the mean of their cosines."""
    seen = data.vocabulary.seen
    parts = [unit(words - words[seen].mean(axis=0)) for words in (data.vocabulary.vectors, data.minilm)]
    words = unit(np.concatenate(parts, axis=1))
    return Lift(words[seen], SHARPNESS)(words)


def relatives(data: Data, scores: np.ndarray) -> np.ndarray:
    """Graph smoothing: a tag's score and, to a third, the mean of the five seen tags that are most like it."""
    words = unit(data.vocabulary.vectors - data.vocabulary.vectors[data.vocabulary.seen].mean(axis=0))
    likeness = words @ words[data.vocabulary.seen].T
    nearest = np.argsort(-likeness, axis=1)[:, :5]
    related = scores[:, data.vocabulary.seen][:, nearest].mean(axis=2)
    return np.where(data.vocabulary.seen, scores, scores + related / 3).astype(np.float32)


def stacked(data: Data, scores: np.ndarray) -> np.ndarray:
    """Calibrated stacking (Chao et al., 2016): unseen tags are given 0.5 more."""
    return (scores + 0.5 * ~data.vocabulary.seen).astype(np.float32)


def standardised(data: Data, scores: np.ndarray) -> np.ndarray:
    """Every unseen tag has the mean and the spread of the others over the photos."""
    unseen = ~data.vocabulary.seen
    mean, spread = scores.mean(axis=0), scores.std(axis=0)
    equal = (scores - mean) / spread * spread[unseen].mean() + mean[unseen].mean()
    return np.where(unseen, equal, scores).astype(np.float32)


IDEAS: dict[str, Callable[[Data], np.ndarray]] = {
    "sdl_plus": lambda data: fit(data, lifted(data), hard_maximum, cross_entropy),
    "M = 3": lambda data: fit(data, lifted(data), hard_maximum, cross_entropy, rows=3),
    "M = 3, smooth maximum": lambda data: fit(data, lifted(data), smooth_maximum, cross_entropy, rows=3),
    "hard examples weigh more": lambda data: fit(data, lifted(data), hard_maximum, hard_examples),
    "hard negatives weigh more": lambda data: fit(data, lifted(data), hard_maximum, hard_negatives),
    "smooth labels": lambda data: fit(data, lifted(data), hard_maximum, smooth_labels),
    "lifted words of their own length": lambda data: fit(
        data, lifted_otherwise(data, own_length=True), hard_maximum, cross_entropy
    ),
    "words not centred": lambda data: fit(data, lifted_otherwise(data, centre=False), hard_maximum, cross_entropy),
    "GloVe and MiniLM": lambda data: fit(data, both_sources(data), hard_maximum, cross_entropy),
}
# What is done to the scores of the first.
AFTERWARDS: dict[str, Callable[[Data, np.ndarray], np.ndarray]] = {
    "scores smoothed over related tags": relatives,
    "calibrated stacking": stacked,
    "unseen tags' scores standardised": standardised,
}
# On the places of the last map, not on their mean.
POOLING: dict[str, Callable[[Data], np.ndarray]] = {
    f"learned pooling, {queries} queries": lambda data, queries=queries: fit(
        data, lifted(data), hard_maximum, cross_entropy, queries=queries
    )
    for queries in (1, 3)
}


def last_maps(dataset: Dataset, backbone: str, size: int) -> np.ndarray:
    """(N, 49, F) float16: what global pooling takes the mean of."""
    network = build_backbone(backbone, "package").to(memory_format=torch.channels_last).eval()
    maps = np.zeros((len(dataset.photos), (size // 32) ** 2, network.features), dtype=np.float16)
    photos = Photos(dataset, np.flatnonzero(dataset.usable), input_transform(size))
    with torch.inference_mode():
        for pictures, rows in tqdm(photo_batches(photos, 32, torch.device("cpu"), 1), desc="maps", unit="batch"):
            places = network.network.forward_features((pictures - network.mean) / network.std)
            maps[rows] = places.flatten(2).transpose(1, 2).numpy()
    return maps


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    arguments.add_argument("folder", type=Path)
    arguments.add_argument("--out", type=Path)
    options = arguments.parse_args()
    work = PROJECT / "work" / "corel5k"
    table, place = work / "validation.csv", work / "ideas"
    write_table(table, divided(options.folder.resolve(), None, validation=True))
    results: dict[str, list[list[float]]] = {name: [] for name in (*IDEAS, *AFTERWARDS, *POOLING)}
    maps: np.ndarray | None = None
    for split in range(SPLITS):
        backbone = reproduce(place, table, Row("sdl_plus"), split, 0, "features@{backbone}")
        reproduce(place, table, Row("sdl_plus"), split, 0, "split")
        dataset, vocabulary = Dataset.read(place / "prepared"), Vocabulary.read(place / "words", place / "split.csv")
        labels = dataset.labels[:, dataset.columns(vocabulary.tags)].tocsr()
        minilm = unit(load_encoder(MINILM)(vocabulary.tags)).astype(np.float32)
        data = Data(dataset, np.load(place / "features" / f"{backbone}.npy"), labels, vocabulary, minilm)
        if maps is None:
            maps = last_maps(dataset, backbone, 224)
        scores = {name: idea(data) for name, idea in tqdm(IDEAS.items(), desc=f"split {split}")}
        scores |= {name: idea(data, scores["sdl_plus"]) for name, idea in AFTERWARDS.items()}
        scores |= {name: idea(replace(data, features=maps)) for name, idea in tqdm(POOLING.items(), desc="pooling")}
        for name, its in scores.items():
            results[name].append(figures(data, its))
    text = report(results)
    print(text)
    if options.out:
        with write_aside(options.out) as draft:
            draft.write_text(f"# Corel5K: ideas\n\n{text}\n", encoding="utf-8")


def figures(data: Data, scores: np.ndarray) -> list[float]:
    # Scores that come as they are: as if each tag's vector were a coordinate of its own.
    vocabulary = replace(data.vocabulary, vectors=np.eye(len(data.vocabulary.tags), dtype=np.float32))
    rows = data.dataset.test
    metrics = evaluate(scores[:, None], data.labels[rows], vocabulary, [""] * rows.size, rows, 0).metrics
    return [metrics[task][name] for task, name in FIGURES]


def report(results: dict[str, list[list[float]]]) -> str:
    columns = [f"{task.upper()} {'mAP' if name == 'map' else name.upper()}" for task, name in FIGURES]
    means = pd.DataFrame({name: np.mean(values, axis=0) for name, values in results.items()}, index=columns).T
    change = means - means.iloc[0]
    lines = [
        f"`python -m benchmarks.corel5k_ideas FOLDER`, {date.today()}, {os.cpu_count()} CPU cores "
        f"({platform.machine()}): 3,500 training and 500 validation photos,",
        f"60 unseen tags, lite0 frozen at 224 pixels, GloVe 6B 50-d; mean over {SPLITS} splits, and the change.",
        "",
        "| | " + " | ".join(columns) + " |",
        "|---" * (len(columns) + 1) + "|",
    ]
    for name in means.index:
        cells = [f"{means.loc[name, column]:.1f} ({change.loc[name, column]:+.1f})" for column in columns]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
