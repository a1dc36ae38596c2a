"""What was tried with the classes of the backbone's classifier: python -m benchmarks.corel5k.classes FOLDER OTHER.

FOLDER holds Corel5K, OTHER another set of photographs; both have tags.csv (image,tags) and images/. The first table
varies sdl_plus by cross-validation on the training photos of Corel5K, as benchmarks.corel5k.folds does; the second the
classes alone, without training, on OTHER and on half a fold of Corel5K's. The rows are those of
benchmarks.corel5k.trials. Features, heads and figures are cached in work/, so that the command can be interrupted and
repeated.

--tables  print only one of them.
--splits  random splits into seen and unseen tags, with four folds each.
--out     write the tables to this file.
"""

import argparse
import hashlib
import inspect
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import scipy.sparse as sp
import torch
from benchmarks.corel5k import trials
from benchmarks.corel5k.figures import measured, write_page
from benchmarks.corel5k.folds import PARTS, WORK, code, fold_of
from benchmarks.corel5k.protocol import PROJECT, UNSEEN, divided, frozen_data, write_table
from benchmarks.corel5k.tables import Row
from benchmarks.corel5k.trials import TRIALS, UNTRAINED, Trial
from joblib import Memory
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits
from tqdm import tqdm

from zerotag.data.batches import pixel_batches
from zerotag.data.photos import open_photo, to_pixels
from zerotag.data.sources import csv_table
from zerotag.evaluation.bootstrap import draw_weights, interval, resampled_figures
from zerotag.evaluation.evaluate import score_matrix
from zerotag.evaluation.held_out import train_head
from zerotag.evaluation.metrics import top_k_hits
from zerotag.settings import from_params, read_params
from zerotag.training.backbones import build_backbone
from zerotag.training.classifier import Classifier, need_classifier
from zerotag.training.features import as_input
from zerotag.training.heads import ClassHead, ConseHead, Head, JointHead, lift_vocabulary, start_head
from zerotag.training.loop import TrainSettings, feature_batches, tag_frequency, train
from zerotag.training.methods import Method, method
from zerotag.words.kinds import kinds_of, read_kinds
from zerotag.words.lexicon import look_up, unit
from zerotag.words.lift import Lift
from zerotag.words.text_encoders import PROMPTS, in_prompts, load_encoder
from zerotag.words.vectors import GLOVE, MINILM, WordSettings, class_vectors, load_lexicon
from zerotag.words.vocabulary import Vocabulary

MEMORY = Memory(WORK / "classes-cache", verbose=0)
CPU, RESAMPLES = torch.device("cpu"), 200
PIXELS = {"tf_efficientnet_lite0": 224, "tf_efficientnet_lite2": 260}
# Crop, and whether the photo is mirrored.
VIEWS = {"squeezed": (0.0, False), "half": (0.5, False), "half mirrored": (0.5, True), "central": (1.0, False)}
_PROMPTS = {"both": PROMPTS, "alone": PROMPTS[:1], "caption": PROMPTS[1:]}


@MEMORY.cache
def view_features(files: tuple[str, ...], backbone: str, view: str) -> np.ndarray:
    """(N, F) features of a view of photos."""
    crop, mirrored = VIEWS[view]
    network = build_backbone(backbone, "package").to(memory_format=torch.channels_last).eval()

    def pixels(file: str) -> np.ndarray:
        picture = to_pixels(open_photo(Path(file).read_bytes(), file), PIXELS[backbone], crop)
        return picture[:, ::-1] if mirrored else picture

    batches = pixel_batches(files, pixels, 32, threads=1)
    with torch.inference_mode():
        shown = tqdm(batches, desc=f"{backbone} {view}", unit="batch", total=-(-len(files) // 32))
        return np.concatenate([network(as_input(np.stack(batch.results), CPU)).numpy() for batch in shown])


@cache
def classifier_of(backbone: str) -> Classifier:
    return need_classifier(build_backbone(backbone, "package").classifier, backbone, "")


@MEMORY.cache
def encoded(texts: list[str], prompts: tuple[str, ...]) -> np.ndarray:
    """(n, d) unit vectors of texts by MiniLM, the mean over prompts."""
    return unit(in_prompts(load_encoder(MINILM), texts, prompts))


@lru_cache(32)
def tag_vectors(trial_words: str, tags: tuple[str, ...]) -> np.ndarray:
    """(T, d) unit vectors of tags."""
    if trial_words == "glove":
        found = [look_up(tag, load_lexicon(GLOVE)) for tag in tags]
        return unit(np.stack([hit[0] for hit in found if hit]))
    return encoded(list(tags), _PROMPTS[trial_words])


@lru_cache(32)
def vectors_of_classes(trial_words: str, text: str) -> tuple[np.ndarray, np.ndarray]:
    """(K, d) unit vectors of the classes that have one, and their (K,) places."""
    names, definitions = classifier_of("tf_efficientnet_lite0").describe()
    if trial_words == "glove":
        return class_vectors(names, definitions, WordSettings(GLOVE))
    kinds: list[list[str]] = [[] for _ in names]
    for word, places in read_kinds().items():
        for place in places:
            kinds[place].append(word)
    texts = [
        text.format(names=name, first=name.partition(",")[0], definition=what, kinds=", ".join(its))
        for name, what, its in zip(names, definitions, kinds, strict=True)
    ]
    return encoded(texts, ("{}",)), np.arange(len(names))


def word_vectors(trial: Trial, tags: tuple[str, ...], seen: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Vectors of tags (T, d) and of classes (K, d), and the classes' places (K,)."""
    if trial.words != "glove and minilm":
        return tag_vectors(trial.words, tags), *vectors_of_classes(trial.words, trial.text)
    glove, minilm = ((tag_vectors(name, tags), *vectors_of_classes(name, trial.text)) for name in ("glove", "both"))
    known = glove[2]  # MiniLM knows all
    sides = [(glove[0], glove[1]), (minilm[0], minilm[1][known])]
    # Centred each on its own, so that the cosines are averaged.
    both = [[unit(side - (side[seen] if side is words and seen.any() else side).mean(axis=0)) for side in (words, of)]
            for words, of in sides]  # fmt: skip
    return unit(np.hstack([words for words, _ in both])), unit(np.hstack([of for _, of in both])), known


def kernel(one: np.ndarray, other: np.ndarray, sharpness: tuple[float, ...]) -> np.ndarray:
    cosines = one @ other.T
    return np.mean([np.exp(each * (cosines - 1)) for each in sharpness], axis=0) if sharpness else cosines


def class_targets(trial: Trial, logits: np.ndarray, train: np.ndarray) -> np.ndarray:
    """(N, K) logits -> (N, K): g, what the classes say of photos."""
    if trial.g == "less means":
        logits = logits - logits[train].mean(axis=0)
    if trial.g == "standardised":
        logits = (logits - logits[train].mean(axis=0)) / logits[train].std(axis=0)
    if trial.g in ("softmax", "less means"):
        logits = softmax(logits / trial.temperature)
    g = logits - logits.mean(axis=1, keepdims=True)
    if trial.g == "squares":
        g = np.sign(g) * g * g
        g -= g.mean(axis=1, keepdims=True)
    return unit(g) if trial.unit else g


def softmax(logits: np.ndarray) -> np.ndarray:
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    return shares / shares.sum(axis=1, keepdims=True)


def weights(
    trial: Trial, words: np.ndarray, classes: np.ndarray, seen: np.ndarray, targets: np.ndarray | None = None
) -> np.ndarray:
    """Weights of the anchors, the S seen tags and then the K classes, for the words that are not seen: (U, S + K).

    Args:
        trial: the row.
        words: (T, d) of the tags.
        classes: (K, d) of the classes.
        seen: (T,) bool.
        targets: (N, S + K) the anchors' own scores, for noise by anchor.
    """
    own = classes.mean(axis=0)
    centre = words[seen].mean(axis=0) if seen.any() else own
    if trial.centre != "none":
        words, classes = unit(words - centre), unit(classes - (own if trial.centre == "own" else centre))
    anchors = np.concatenate([words[seen], classes])
    of = kernel(words[~seen], anchors, trial.sharpness)
    used = np.arange(len(anchors)) < seen.sum() if trial.anchors == "seen" else np.arange(len(anchors)) >= seen.sum()
    used |= trial.anchors == "both"
    result = np.zeros_like(of)
    if not trial.inverse:
        result[:, used] = of[:, used]
    else:
        matrix, noise = kernel(anchors[used], anchors[used], trial.sharpness), np.full(used.sum(), trial.noise)
        if trial.by_anchor and targets is not None:
            inverse = np.linalg.inv(matrix + np.diag(noise))
            error = (targets @ inverse / np.diag(inverse)).std(axis=0) / targets.std(axis=0)
            noise = noise * (error / np.exp(np.log(error).mean())) ** 2
        result[:, used] = np.linalg.solve(matrix + np.diag(noise), of[:, used].T).T
    return unit(result) if trial.of_unit_length else result


@dataclass(frozen=True, eq=False)
class Photos:
    """Photos with tags.

    Attributes:
        files: N names.
        features: (N, F) of lite0, by the pipeline; None where only views are used.
        labels: (N, T) CSR 0/1.
        tags: T.
        seen: (T,) bool.
    """

    files: tuple[str, ...]
    features: np.ndarray | None
    labels: sp.csr_matrix
    tags: tuple[str, ...]
    seen: np.ndarray

    def of_view(self, backbone: str, view: str) -> np.ndarray:
        """(N, F) features of a view; `pipeline` for the given ones."""
        if view == "pipeline":
            assert self.features is not None
            return self.features
        folds = folds_of(self.files)
        features = np.empty((len(self.files), classifier_of(backbone).weight.shape[1]), dtype=np.float32)
        for fold in np.unique(folds):  # each is cached, so that an interrupted run resumes
            rows = np.flatnonzero(folds == fold)
            features[rows] = view_features(tuple(self.files[row] for row in rows), backbone, view)
        return features


def folds_of(files: Sequence[str]) -> np.ndarray:
    """(N,) fold of each photo."""
    return np.array([fold_of(Path(file).name) for file in files])


def class_scores(trial: Trial, photos: Photos, train: np.ndarray, known: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """g and the probabilities of the classes, (N, K) each, averaged over views."""
    own = classifier_of(trial.backbone)
    weight, bias = own.weight.numpy()[known], own.bias.numpy()[known]
    views = [photos.of_view(trial.backbone, view) for view in trial.views]
    logits = [(features @ weight.T + bias).astype(np.float64) for features in views]
    g = np.mean([class_targets(trial, each, train) for each in logits], axis=0)
    return g, np.mean([softmax(each) for each in logits], axis=0)


@MEMORY.cache(ignore=["photos", "train"])
def head_scores(key: str, trial: Trial, photos: Photos, train: np.ndarray) -> np.ndarray:
    """Scores of all tags by a head that is trained on the seen ones, with unseen ones lifted: (N, T) float32.

    Args:
        key: of code, data, split and fold.
        trial: the row; `trained_like` of it, so that rows share heads.
        photos: N photos.
        train: rows of the training photos.
    """
    words, classes, known = word_vectors(trial, photos.tags, photos.seen)
    params = read_params(PROJECT / "params.yaml")
    chosen = method(trial.method, {**params["method"][trial.method], "trust": 0.0})
    settings = from_params(TrainSettings, {**params["train"]["linear_probe"], "seed": 0}, "train.linear_probe")
    plain = Vocabulary(list(photos.tags), words.astype(np.float32), photos.seen)
    vocabulary = lift_vocabulary(plain, chosen)
    features = photos.of_view(trial.backbone, trial.views[0])
    labels = photos.labels[:, np.flatnonzero(photos.seen)].tocsr()
    with Path(os.devnull).open("w") as nowhere, redirect_stderr(nowhere):  # hide progress bars
        if trial.taught:
            of = classifier_of(trial.backbone).keep(known)
            lifted = Lift(words[photos.seen], chosen.sharpness)(classes)
            plain_scores = head_scores(key, replace(trial, taught=0.0), photos, train)[:, photos.seen][train]
            spread = trial.trust * float((plain_scores - plain_scores.mean(axis=1, keepdims=True)).std())
            head: nn.Module = taught_head(
                trial.taught, spread, chosen, settings, features, train, labels, vocabulary, of, lifted
            )
        else:
            head = train_head(chosen, features, train, labels, vocabulary, None, settings, CPU)
    with torch.inference_mode():
        return score_matrix(head(torch.from_numpy(features)).numpy(), vocabulary.vectors)


def taught_head(
    weight: float, spread: float, chosen: Method, settings: TrainSettings, features: np.ndarray, rows: np.ndarray,
    labels: sp.csr_matrix, vocabulary: Vocabulary, classifier: Classifier, lifted: np.ndarray,
) -> Head:  # fmt: skip
    """A head that also learns g, of this spread, as the scores of the classes, (K, S) in the lifted space."""
    targets = torch.from_numpy(vocabulary.targets)
    torch.manual_seed(settings.seed)
    head = Head(features.shape[1], chosen, targets.shape[1])
    sample = torch.from_numpy(features[rows])
    start_head(head, sample, tag_frequency(labels, rows), targets)
    joint = JointHead(head, ClassHead.of(classifier))
    joint.classes.scale.copy_(spread / joint.classes(sample).std())
    own = torch.from_numpy(lifted)

    def criterion(
        principal: torch.Tensor, wanted: torch.Tensor, targets: torch.Tensor, method: Method, offset: float
    ) -> torch.Tensor:
        learnt, known = principal[:, 0].split([targets.shape[1], len(own)], dim=1)
        entropy = binary_cross_entropy_with_logits(learnt @ targets.T + offset, wanted.float(), reduction="none")
        return 2 * (entropy.sum(dim=1) + weight * (learnt @ own.T - known).square().sum(dim=1)).mean()

    batches = feature_batches(features, settings.batch, CPU)
    with TemporaryDirectory() as work:
        checkpoint = Path(work) / "checkpoint.pt"
        vectors = vocabulary.targets
        train(joint, batches, rows, labels, vectors, chosen, settings, checkpoint, "", CPU, criterion=criterion)
    return head.eval()


def trained_like(trial: Trial) -> Trial:
    """What a row's head is trained with, whatever its anchors are."""
    return Trial(trial.method, trial.words, taught=trial.taught)


def tag_scores(trial: Trial, photos: Photos, heads: np.ndarray | None, train: np.ndarray) -> np.ndarray:
    """Scores of all tags, (N, T).

    Args:
        trial: the row.
        photos: N photos.
        heads: (N, T) `head_scores`; None without training.
        train: rows of the training photos.
    """
    if trial.anchors == "none" and heads is not None:
        return heads
    words, classes, known = word_vectors(trial, photos.tags, photos.seen)
    if trial.anchors == "conse":
        head = ConseHead.of(classifier_of(trial.backbone), torch.from_numpy(classes.astype(np.float32)))
        views = [torch.from_numpy(photos.of_view(trial.backbone, view)) for view in trial.views]
        return np.mean([head(features).numpy()[:, 0] for features in views], axis=0) @ words.T
    g, shares = class_scores(trial, photos, train, known)
    kinds = kinds_of([tag for tag, is_seen in zip(photos.tags, photos.seen, strict=True) if not is_seen])[:, known]
    if heads is None:
        return g @ weights(trial, words, classes, photos.seen).T + trial.kinds * shares @ kinds.T
    of_seen = heads[:, photos.seen].astype(np.float64)
    mean = of_seen.mean(axis=1, keepdims=True)
    scale = trial.trust * (of_seen - mean)[train].std() / g[train].std()
    targets = np.hstack([of_seen - mean, scale * g])
    scores = heads.copy()
    unseen = targets @ weights(trial, words, classes, photos.seen, targets[train] if trial.by_anchor else None).T
    scores[:, ~photos.seen] = (
        unseen + scale * trial.kinds * shares @ kinds.T + trial.bonus + (mean if trial.mean_back else 0)
    )
    return scores


def judged(scores: np.ndarray, labels: sp.csr_matrix, parts: list[np.ndarray], seed: int) -> np.ndarray:
    """F1@3 and mAP of each part of the tags, of all photos and of each resample: (2 parts, 1 + R), in percent.

    Only the first part is resampled.
    """
    rows = []
    once = np.ones((len(scores), 1), dtype=np.float32)
    for number, part in enumerate(parts):
        drawn = [] if number else [draw_weights(len(scores), RESAMPLES, seed)]
        its, true = np.ascontiguousarray(scores[:, part], dtype=np.float32), labels[:, part].tocsr()
        figures = resampled_figures(its, true, np.hstack([once, *drawn]), {3: top_k_hits(its, true, 3)})
        rows += [np.broadcast_to(100 * figures[name], RESAMPLES + 1) for name in ("f1@3", "map")]
    return np.stack(rows)


@MEMORY.cache(ignore=["photos"])
def split_figures(key: str, heads_key: str, trial: Trial, photos: Photos) -> np.ndarray:
    """Figures of a row on each fold of a split, ZSL and GZSL: (PARTS, 4, 1 + R); keys are digests of code and data."""
    folds, parts = folds_of(photos.files), [np.flatnonzero(~photos.seen), np.arange(photos.seen.size)]
    figures = []
    for fold in range(PARTS):
        train, held_out = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
        heads = head_scores(f"{heads_key} {fold}", trained_like(trial), photos, train)
        scores = tag_scores(trial, photos, heads, train)[held_out]
        figures.append(judged(scores, photos.labels[held_out], parts, fold))
    return np.stack(figures)


@MEMORY.cache(ignore=["photos"])
def untrained_figures(key: str, trial: Trial, photos: Photos) -> np.ndarray:
    """Figures (2, 1 + R) of a row without training, all tags ranked."""
    scores = tag_scores(trial, photos, None, np.arange(len(photos.files)))
    return judged(scores, photos.labels, [np.arange(len(photos.tags))], 0)


def lines(columns: list[str], figures: dict[str, list[np.ndarray]], compared: Sequence[int]) -> str:
    """A table: the mean over cases of each figure, and the difference of some of them to the first row."""
    header = [*columns, *(f"{columns[each]} − first row" for each in compared)]
    text = ["| | " + " | ".join(header) + " |", "|---" * (len(header) + 1) + "|"]
    first = np.mean(next(iter(figures.values())), axis=0)
    for name, cases in figures.items():
        mean = np.mean(cases, axis=0)
        cells = [f"{value:.1f}" for value in mean[:, 0]]
        for each in compared:
            difference = mean[each] - first[each]
            low, high = interval(difference[1:], difference[0])
            cells.append(f"{difference[0]:+.1f} [{low:+.1f}, {high:+.1f}]")
        text.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(text)


def digest(*functions: Callable[..., object]) -> str:
    """Digest of the library's code and of functions of this module."""
    texts = [code(), inspect.getsource(trials.Trial), *map(inspect.getsource, functions)]
    return hashlib.sha256("".join(texts).encode()).hexdigest()[:16]


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    arguments.add_argument("folder", type=Path)
    arguments.add_argument("other", type=Path)
    arguments.add_argument("--tables", nargs="+", choices=["anchors", "untrained"], default=["anchors", "untrained"])
    arguments.add_argument("--splits", type=int, default=2)
    arguments.add_argument("--out", type=Path)
    options = arguments.parse_args()
    torch.set_num_threads(1)
    WORK.mkdir(parents=True, exist_ok=True)
    table = WORK / "validation.csv"
    write_table(table, divided(options.folder.resolve(), None, validation=True))
    of_heads = digest(word_vectors, taught_head, head_scores)
    of_figures = digest(word_vectors, kernel, class_targets, softmax, weights, class_scores, tag_scores, judged)
    text = f"""{measured(f"python -m benchmarks.corel5k.classes FOLDER OTHER --splits {options.splits}")}
lite0 at 224 pixels; 95% intervals of differences, by a paired bootstrap over photos."""
    if "anchors" in options.tables:
        results: dict[str, list[np.ndarray]] = {name: [] for name in TRIALS}
        for split in range(options.splits):
            photos = training_photos(table, split)
            assert photos.features is not None
            data = f"{hashlib.sha256(photos.features.tobytes()).hexdigest()[:16]} {split}"
            for name, trial in tqdm(TRIALS.items(), desc=f"split {split}"):
                results[name] += list(split_figures(f"{of_figures} {data}", f"{of_heads} {data}", trial, photos))
        text += f"""

## As anchors

{len(photos.files):,} training photos in {PARTS} folds, {options.splits} random splits with {UNSEEN} unseen tags each.

{lines(["ZSL F1@3", "ZSL mAP", "GZSL F1@3", "GZSL mAP"], results, [0, 1])}"""
    if "untrained" in options.tables:
        untrained: dict[str, list[np.ndarray]] = {name: [] for name in UNTRAINED}
        sets = []
        for name, photos in sets_of_photos(table, options.other):
            sets.append(f"{len(photos.files):,} photos and {len(photos.tags)} words of {name}")
            for row, trial in tqdm(UNTRAINED.items(), desc=name):
                untrained[row].append(untrained_figures(f"{of_figures} {name} {len(photos.files)}", trial, photos))
        columns = [f"{name} {figure}" for name in (options.other.name, "Corel5K") for figure in ("mAP", "F1@3")]
        both = {name: [np.concatenate(figures)[[1, 0, 3, 2]]] for name, figures in untrained.items()}
        text += f"""

## Without training

{" and ".join(sets)}; all words are ranked.

{lines(columns, both, range(4))}

## A second view of the starter

{lines(columns, {name: both[name] for name, trial in UNTRAINED.items() if trial.kinds == 1.5}, range(4))}"""
    print(text)
    if options.out:
        write_page(options.out, "classes", text)


def sets_of_photos(table: Path, other: Path) -> Iterator[tuple[str, Photos]]:
    """The other set of photos, and half a fold of Corel5K's training photos; no tag is seen."""
    for name, settings in (
        (other.name, csv_table.CsvSettings(str(other / "tags.csv"), str(other / "images"))),
        ("Corel5K", csv_table.CsvSettings(str(table), str(table.parent))),
    ):
        source = csv_table.read(settings)
        files = np.array([str(file.path) for file in source.files])
        rows = np.flatnonzero(folds_of(files.tolist()) == 0)[::2] if name == "Corel5K" else np.arange(len(files))
        unseen = np.zeros(len(source.tags), dtype=bool)
        yield name, Photos(tuple(files[rows].tolist()), None, source.labels[rows].tocsr(), tuple(source.tags), unseen)


def training_photos(table: Path, split: int) -> Photos:
    """The photos of the protocol's folds, with the features of the pipeline."""
    dataset, vocabulary, labels, features = frozen_data(WORK / "classes", table, Row("sdl_plus"), split)
    rows = np.flatnonzero(dataset.usable)
    files = tuple(str(Path(table.parent, name)) for name in dataset.photos["id"].iloc[rows])
    return Photos(files, features[rows], labels[rows].tocsr(), tuple(vocabulary.tags), vocabulary.seen)


if __name__ == "__main__":
    main()
