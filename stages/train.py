"""Train a backbone with a method: train.py BACKBONE METHOD. Start it with torchrun for several GPUs."""

import platform
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from zerotag.data.dataset import Dataset
from zerotag.errors import plain_exit
from zerotag.settings import from_params, read_params
from zerotag.training.backbones import Backbone, build_backbone, weights_key
from zerotag.training.classifier import need_classifier
from zerotag.training.heads import ClassHead, Head, JointHead, lift_vocabulary, start_head, untrained_head
from zerotag.training.loop import (
    Batches,
    Process,
    TrainSettings,
    feature_batches,
    join_processes,
    tag_frequency,
    train,
)  # fmt: skip
from zerotag.training.methods import Method, method
from zerotag.training.model import Network, save_model
from zerotag.training.modes import Mode, first_trained_layer, full_fine_tuning, linear_probe, partial_fine_tuning
from zerotag.words.vectors import WordSettings, class_vectors
from zerotag.words.vocabulary import Vocabulary

# The number of photos whose features initialise a head's mean and spread.
START_PHOTOS = {"linear_probe": 10_000, "partial_fine_tuning": 10_000, "full_fine_tuning": 1_000}


@dataclass(frozen=True)
class Task:
    """What is trained on what, as params.yaml and the earlier stages have it; `pixels` is the side of the input."""

    params: dict[str, Any]
    backbone: str
    weights: str
    layer: str
    chosen: Method
    settings: TrainSettings
    dataset: Dataset
    vocabulary: Vocabulary
    checkpoint: Path
    pixels: int

    @property
    def mode(self) -> str:
        """One of zerotag.training.modes.MODES."""
        return self.params["train"]["mode"]


def main(backbone_name: str, method_name: str) -> None:
    params = read_params()
    mode, seed = params["train"]["mode"], params["seed"]
    layer = first_trained_layer(mode, params["train"]["first_trained_layer"], backbone_name)
    settings = from_params(TrainSettings, {**params["train"][mode], "seed": seed}, f"train.{mode}")
    chosen = method(method_name, params["method"].get(method_name))
    dataset = Dataset.read(Path("prepared"))
    words = Vocabulary.read(Path("words"), Path("split.csv"))
    weights = params["weights"].get(backbone_name, params["weights"]["other"])
    process, device = join_processes()
    pixels = settings.pixels if mode == "full_fine_tuning" else params["features"]["pixels"]

    torch.manual_seed(seed)
    backbone = build_backbone(backbone_name, weights, pixels)
    classifier, classes = None, None
    if chosen.needs_classifier:
        whole = need_classifier(backbone.classifier, backbone_name, method_name)
        source = from_params(WordSettings, params["words"], "words")
        classes, known = class_vectors(*whole.describe(), source, Path("work/classes"))
        classifier = whole.keep(known)
        print(f"{len(known):,} of {len(whole.bias):,} classes of the backbone's classifier have a word vector")
    vocabulary = lift_vocabulary(words, chosen, classes)
    checkpoint = Path(f"work/checkpoints/{backbone_name}-{method_name}.pt")
    task = Task(params, backbone_name, weights, layer, chosen, settings, dataset, vocabulary, checkpoint, pixels)

    started = time.monotonic()
    head: nn.Module
    if chosen.trained:
        torch.manual_seed(seed)
        trained = Head(backbone.features, chosen, vocabulary.targets.shape[1])
        how, curve = fit(task, backbone, trained, process, device)
        head = trained.cpu().eval()
        if classifier is not None:
            head = JointHead(head, ClassHead.of(classifier))
            features, targets = how.features(some_rows(task)), vocabulary.targets
            head.match_scales(torch.from_numpy(features), torch.from_numpy(targets), chosen.trust)
    else:
        assert classifier is not None and classes is not None
        head = untrained_head(chosen, classifier, classes)
        curve = pd.DataFrame(columns=["epoch", "loss", "learning_rate"])
    if not process.first:
        return
    hardware = torch.cuda.get_device_name() if device.type == "cuda" else f"{torch.get_num_threads()} CPU threads"
    info = {
        "backbone": backbone_name,
        "method": method_name,
        "weights": weights,
        "mode": mode,
        "first_trained_layer": layer,
        "size": task.pixels,
        "mean": backbone.mean.flatten().tolist(),
        "std": backbone.std.flatten().tolist(),
        "principal_vectors": chosen.principal_vectors,
        "lambda": chosen.regularisation,
        "classes": 0 if classifier is None else len(classifier.bias),
        "data": {
            "source": params["source"],
            "digest": dataset.digest,
            "train_photos": len(dataset.train),
            "test_photos": len(dataset.test),
            "seen": int(vocabulary.seen.sum()),
            "unseen": int((~vocabulary.seen).sum()),
            "words": params["words"]["source"],
            "dimensions": vocabulary.dimensions,
        },
        "words": params["words"],
        "device": device.type,
        "hardware": f"{hardware}, {platform.machine()}",
        "seconds": round(time.monotonic() - started, 1),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    network = Network(backbone, head).cpu()
    save_model(Path(f"models/{backbone_name}/{method_name}"), network, vocabulary, chosen, info, curve)
    for file in (checkpoint, checkpoint.with_suffix(".head.pt")):
        file.unlink(missing_ok=True)  # otherwise `dvc repro --force` would resume a finished run


def some_rows(task: Task) -> np.ndarray:
    return task.dataset.train[:: max(1, task.dataset.train.size // START_PHOTOS[task.mode])]


def fit(
    task: Task, backbone: Backbone, head: Head, process: Process, device: torch.device
) -> tuple[Mode, pd.DataFrame]:
    dataset, vectors, share = task.dataset, task.vocabulary.targets, process.share(task.settings.batch)
    cached = Path(f"features/{task.backbone}.npy")
    if task.mode == "full_fine_tuning":
        how = full_fine_tuning(Network(backbone, head), dataset, task.settings, share, device)
    elif task.mode == "partial_fine_tuning":
        how = partial_fine_tuning(backbone, head, task.layer, np.load(cached), share, device)
    else:
        how = linear_probe(head, np.load(cached), share, device)
    seen = [tag for tag, is_seen in zip(task.vocabulary.tags, task.vocabulary.seen, strict=True) if is_seen]
    labels, rejected = dataset.labels[:, dataset.columns(seen)].tocsr(), dataset.rejected_of(seen)

    def learn(part: nn.Module, batches: Batches, settings: TrainSettings, checkpoint: Path) -> pd.DataFrame:
        key = (
            f"{task.backbone} {weights_key(task.weights)} {task.mode} {task.layer} {task.pixels} "
            f"{task.vocabulary.digest} {dataset.digest} {task.chosen} {settings}"
        )
        return train(
            part, batches, dataset.train, labels, vectors, task.chosen, settings, checkpoint, key, device, process,
            rejected=rejected,
        )  # fmt: skip

    head_first = task.settings.head_first
    rows = dataset.train if head_first else some_rows(task)
    if task.chosen.standardise or task.chosen.prior or head_first:
        known = how.features(rows)
        start_head(head, torch.from_numpy(known), tag_frequency(labels, dataset.train), torch.from_numpy(vectors))
    if head_first:
        features = np.zeros((len(dataset.photos), backbone.features), dtype=np.float32)
        features[rows] = known
        probe = {**task.params["train"]["linear_probe"], "seed": task.settings.seed}
        alone = from_params(TrainSettings, probe, "train.linear_probe")
        batches = feature_batches(features, process.share(alone.batch), device)
        learn(head, batches, alone, task.checkpoint.with_suffix(".head.pt"))
    return how, learn(how.trained, how.batches, task.settings, task.checkpoint)


if __name__ == "__main__":
    with plain_exit():
        main(*sys.argv[1:])
