"""Rejected ideas for sdl_plus: python -m benchmarks.corel5k.ideas FOLDER [--out FILE.md].

Each idea trains a head on the validation split of Corel5K (benchmarks.corel5k --validation), over five splits; the
first row is sdl_plus. Ideas that helped are in zerotag.training.methods.
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import scipy.sparse as sp
import torch
from benchmarks.corel5k.figures import Result, evaluate_scores, measured, table, write_page
from benchmarks.corel5k.protocol import PROJECT, divided, frozen_data, write_table
from benchmarks.corel5k.tables import Row, with_glove_alone
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits, logsigmoid
from tqdm import tqdm

from zerotag.data.dataset import Dataset
from zerotag.settings import from_params, read_params
from zerotag.training.backbones import build_backbone
from zerotag.training.features import photo_batches
from zerotag.training.heads import Head, start_head
from zerotag.training.loop import TrainSettings, feature_batches, tag_frequency, train
from zerotag.training.methods import METHODS, Method
from zerotag.words.lexicon import unit
from zerotag.words.lift import Lift
from zerotag.words.text_encoders import word_encoder
from zerotag.words.vectors import MINILM
from zerotag.words.vocabulary import Vocabulary

SPLITS = 5
SHARPNESS = METHODS["sdl_plus"].sharpness


@dataclass(frozen=True)
class Data:
    """One split of the validation data.

    Attributes:
        dataset: its test photos are the validation photos.
        features: (N, F) features of all photos, or (N, 49, F) of all positions of the last feature map.
        labels: (N, T) labels.
        vocabulary: T tags, not lifted.
        minilm: (T, 384) unit vectors by MiniLM.
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
    """Focal loss (Lin et al., 2017) with gamma = 1, which down-weights easy examples."""
    wrong = torch.where(labels > 0, 1 - logits.sigmoid(), logits.sigmoid()).detach()
    return wrong * cross_entropy(logits, labels)


def hard_negatives(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Asymmetric loss (Ridnik et al., 2021), which down-weights easy negatives only."""
    return torch.where(labels > 0, -logsigmoid(logits), logits.sigmoid().detach() * -logsigmoid(-logits))


def positives_threefold(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return (1 + 2 * labels) * cross_entropy(logits, labels)


def smooth_labels(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return cross_entropy(logits, 0.9 * labels + 0.002)


class Places(nn.Module):
    """Learned pooling: M queries attend to positions of the feature map, and one head maps each to a principal vector.

    Args:
        head: maps features to a principal vector.
        queries: number of queries M.
        features: number of features F.
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
    """Train a head like sdl_plus, and return scores (n, T) of the validation photos.

    Args:
        data: data of the split.
        vectors: (T, d) lifted vectors of the tags.
        score: scoring function.
        loss: loss per tag.
        rows: number of principal vectors M.
        queries: queries of learned pooling; 0 for none.
        seed: seed of initialisation and order.
    """
    torch.manual_seed(seed)
    seen = np.flatnonzero(data.vocabulary.seen)
    labels = data.labels[:, seen].tocsr()
    photos = data.dataset.train[np.diff(labels.indptr)[data.dataset.train] > 0]
    inputs, words, targets = torch.from_numpy(data.features), torch.from_numpy(vectors), vectors[seen]
    method = replace(METHODS["sdl_plus"], principal_vectors=rows)
    network: nn.Module = Head(inputs.shape[-1], method, vectors.shape[1])
    pooled = inputs[photos].float()
    pooled = pooled.mean(dim=1) if queries else pooled
    start_head(network, pooled, tag_frequency(labels, photos), torch.from_numpy(targets))
    if queries:
        network = Places(network, queries, inputs.shape[-1])

    def criterion(
        principal: torch.Tensor, wanted: torch.Tensor, targets: torch.Tensor, method: Method, offset: float
    ) -> torch.Tensor:
        return 2 * loss(score(principal, targets) + offset, wanted.float()).sum(dim=1).mean()

    params = read_params(PROJECT / "params.yaml")["train"]["linear_probe"]
    settings, cpu = from_params(TrainSettings, {**params, "seed": seed}, "train.linear_probe"), torch.device("cpu")
    batches = feature_batches(data.features, settings.batch, cpu)
    with TemporaryDirectory() as work:
        checkpoint = Path(work) / "checkpoint.pt"
        train(network, batches, photos, labels, targets, method, settings, checkpoint, "", cpu, criterion=criterion)
    network.eval()
    with torch.inference_mode():
        parts = [score(network(inputs[part].float()), words) for part in np.array_split(data.dataset.test, 8)]
    return torch.cat(parts).numpy()


def lifted(data: Data) -> np.ndarray:
    return data.vocabulary.lifted(Lift(data.vocabulary.vectors[data.vocabulary.seen], SHARPNESS)).vectors


def lifted_otherwise(
    data: Data, centre: bool = True, own_length: bool = False, centre_kernel: bool = False
) -> np.ndarray:
    """A variant of the lift in zerotag.words.lift.

    Args:
        data: data of the split.
        centre: subtract the seen tags' mean from the word vectors first.
        own_length: do not normalise lifted vectors, which are shorter the farther a word is from all seen tags.
        centre_kernel: also subtract the seen tags' mean from the lifted vectors (Schölkopf et al., 1998).
    """
    seen = data.vocabulary.seen
    words = data.vocabulary.vectors.astype(np.float64)
    words = unit(words - words[seen].mean(axis=0) * centre)
    angle = words @ words[seen].T - 1
    kernel = np.mean([np.exp(sharpness * angle) for sharpness in SHARPNESS], axis=0)
    if centre_kernel:
        mean = kernel[seen].mean(axis=0)
        kernel = kernel - kernel.mean(axis=1, keepdims=True) - mean + mean.mean()
    values, vectors = np.linalg.eigh(kernel[seen] + 1e-3 * np.eye(int(seen.sum())))
    coordinates = kernel @ (vectors / np.sqrt(values)) @ vectors.T
    return (coordinates if own_length else unit(coordinates)).astype(np.float32)


def both_sources(data: Data) -> np.ndarray:
    """GloVe and MiniLM concatenated, which averages their cosines."""
    seen = data.vocabulary.seen
    parts = [unit(words - words[seen].mean(axis=0)) for words in (data.vocabulary.vectors, data.minilm)]
    words = unit(np.concatenate(parts, axis=1))
    return Lift(words[seen], SHARPNESS)(words)


def relatives(data: Data, scores: np.ndarray) -> np.ndarray:
    """Graph smoothing: add a third of the mean score of an unseen tag's five nearest seen tags to its score."""
    words = unit(data.vocabulary.vectors - data.vocabulary.vectors[data.vocabulary.seen].mean(axis=0))
    likeness = words @ words[data.vocabulary.seen].T
    nearest = np.argsort(-likeness, axis=1)[:, :5]
    related = scores[:, data.vocabulary.seen][:, nearest].mean(axis=2)
    return np.where(data.vocabulary.seen, scores, scores + related / 3).astype(np.float32)


def stacked(data: Data, scores: np.ndarray, bonus: float) -> np.ndarray:
    """Calibrated stacking (Chao et al., 2016): add a bonus to unseen tags."""
    return (scores + bonus * ~data.vocabulary.seen).astype(np.float32)


def equalised(data: Data, scores: np.ndarray, means: float, spreads: float) -> np.ndarray:
    """Move unseen tags' score means and spreads over photos towards their average; 1 makes them equal."""
    unseen = ~data.vocabulary.seen
    mean, spread = scores.mean(axis=0), scores.std(axis=0)
    common, width = mean[unseen].mean(), spread[unseen].mean()
    equal = (scores - mean) * (width / spread) ** spreads + mean + means * (common - mean)
    return np.where(unseen, equal, scores).astype(np.float32)


IDEAS: dict[str, Callable[[Data], np.ndarray]] = {
    "sdl_plus": lambda data: fit(data, lifted(data), hard_maximum, cross_entropy),
    "M = 3": lambda data: fit(data, lifted(data), hard_maximum, cross_entropy, rows=3),
    "M = 3, smooth maximum": lambda data: fit(data, lifted(data), smooth_maximum, cross_entropy, rows=3),
    "focal loss": lambda data: fit(data, lifted(data), hard_maximum, hard_examples),
    "asymmetric loss": lambda data: fit(data, lifted(data), hard_maximum, hard_negatives),
    "positives weighted 3x": lambda data: fit(data, lifted(data), hard_maximum, positives_threefold),
    "label smoothing": lambda data: fit(data, lifted(data), hard_maximum, smooth_labels),
    "unnormalised lifted vectors": lambda data: fit(
        data, lifted_otherwise(data, own_length=True), hard_maximum, cross_entropy
    ),
    "no centring": lambda data: fit(data, lifted_otherwise(data, centre=False), hard_maximum, cross_entropy),
    "centred kernel": lambda data: fit(data, lifted_otherwise(data, centre_kernel=True), hard_maximum, cross_entropy),
    "GloVe and MiniLM": lambda data: fit(data, both_sources(data), hard_maximum, cross_entropy),
}
# Post-processing of the scores of the first row.
AFTERWARDS: dict[str, Callable[[Data, np.ndarray], np.ndarray]] = {
    "graph smoothing of scores": relatives,
    **{f"calibrated stacking, {bonus:+}": partial(stacked, bonus=bonus) for bonus in (-0.5, 0.5, 1.0)},
    **{
        f"unseen tags' means equalised to {share:.0%}": partial(equalised, means=share, spreads=0.0)
        for share in (0.25, 0.5, 1.0)
    },
    "unseen tags' spreads equalised": partial(equalised, means=0.0, spreads=1.0),
    "unseen tags' means and spreads equalised": partial(equalised, means=1.0, spreads=1.0),
}
# On the positions of the last feature map instead of their mean.
POOLING: dict[str, Callable[[Data], np.ndarray]] = {
    f"learned pooling, {queries} queries": lambda data, queries=queries: fit(
        data, lifted(data), hard_maximum, cross_entropy, queries=queries
    )
    for queries in (1, 3)
}


def last_maps(dataset: Dataset, backbone: str, size: int) -> np.ndarray:
    """Last feature maps before global pooling, (N, 49, F) float16."""
    network = build_backbone(backbone, "package").to(memory_format=torch.channels_last).eval()
    maps = np.zeros((len(dataset.photos), (size // 32) ** 2, network.features), dtype=np.float16)
    rows, device = np.flatnonzero(dataset.usable), torch.device("cpu")
    with torch.inference_mode():
        batches = tqdm(photo_batches(dataset, rows, size, 32, device), desc="maps", unit="batch")
        for number, pictures in enumerate(batches):
            places = network.network.forward_features((pictures - network.mean) / network.std)
            maps[rows[32 * number : 32 * (number + 1)]] = places.flatten(2).transpose(1, 2).numpy()
    return maps


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    arguments.add_argument("folder", type=Path)
    arguments.add_argument("--out", type=Path)
    options = arguments.parse_args()
    work = PROJECT / "work" / "corel5k"
    photos, place = work / "validation.csv", work / "ideas"
    write_table(photos, divided(options.folder.resolve(), None, validation=True))
    [row] = with_glove_alone({"": Row("sdl_plus")}).values()
    results: dict[str, list[Result]] = {name: [] for name in (*IDEAS, *AFTERWARDS, *POOLING)}
    maps: np.ndarray | None = None
    for split in range(SPLITS):
        dataset, vocabulary, labels, features = frozen_data(place, photos, row, split)
        minilm = unit(word_encoder(MINILM)(vocabulary.tags)).astype(np.float32)
        data = Data(dataset, features, labels, vocabulary, minilm)
        if maps is None:
            maps = last_maps(dataset, *read_params(PROJECT / "params.yaml")["backbones"], 224)
        on_maps = replace(data, features=maps)
        trials: dict[str, Callable[[], np.ndarray]] = {name: partial(idea, data) for name, idea in IDEAS.items()}
        trials |= {name: partial(idea, on_maps) for name, idea in POOLING.items()}
        for name, trial in tqdm(trials.items(), desc=f"split {split}"):
            started = time.monotonic()
            scores = trial()
            seconds = time.monotonic() - started
            results[name].append(evaluate_scores(scores, labels[dataset.test], vocabulary.seen, seconds))
            if name == "sdl_plus":
                for other, idea in AFTERWARDS.items():
                    changed = idea(data, scores)
                    results[other].append(evaluate_scores(changed, labels[dataset.test], vocabulary.seen, seconds))
    text = f"""{measured("python -m benchmarks.corel5k.ideas FOLDER")}
3,500 training and 500 validation photos, 60 unseen tags, linear probe on lite0 at 224 pixels, GloVe 6B 50-d;
mean ± standard deviation over {SPLITS} splits.

{table(results, dict.fromkeys(results, "sdl_plus"))}"""
    print(text)
    if options.out:
        write_page(options.out, "ideas", text)


if __name__ == "__main__":
    main()
