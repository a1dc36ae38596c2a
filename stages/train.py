"""Train a backbone with a method: train.py BACKBONE METHOD. Start it with torchrun for several GPUs."""

import platform
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from zerotag.data.dataset import Dataset
from zerotag.errors import plain_exit
from zerotag.settings import from_params, read_params
from zerotag.training.backbones import build_backbone
from zerotag.training.loop import Batches, TrainSettings, feature_batches, join_processes, tag_frequency, train
from zerotag.training.methods import Head, method, start_head
from zerotag.training.model import Network, save_model
from zerotag.training.modes import first_trained_layer, full_fine_tuning, linear_probe, partial_fine_tuning
from zerotag.words.vocabulary import Vocabulary

# Sample size for the mean and scale that initialise a head.
START_PHOTOS = {"linear_probe": 10_000, "partial_fine_tuning": 10_000, "full_fine_tuning": 1_000}


def main(backbone_name: str, method_name: str) -> None:
    params = read_params()
    mode, seed = params["train"]["mode"], params["seed"]
    layer = first_trained_layer(mode, params["train"]["first_trained_layer"], backbone_name)
    settings = from_params(TrainSettings, {**params["train"][mode], "seed": seed}, f"train.{mode}")
    chosen = method(method_name, params["method"].get(method_name))
    dataset = Dataset.read(Path("prepared"))
    vocabulary = Vocabulary.read(Path("words"), Path("split.csv")).lifted(chosen.sharpness)
    process, device = join_processes()
    weights = params["weights"].get(backbone_name, params["weights"]["other"])
    size = settings.pixels if mode == "full_fine_tuning" else params["features"]["pixels"]

    torch.manual_seed(seed)
    backbone = build_backbone(backbone_name, weights)
    torch.manual_seed(seed)
    head = Head(backbone.features, chosen, vocabulary.vectors.shape[1])
    network = Network(backbone, head)
    share = process.share(settings.batch)
    if mode == "full_fine_tuning":
        how = full_fine_tuning(network, dataset, settings, share, device)
    elif mode == "partial_fine_tuning":
        how = partial_fine_tuning(backbone, head, layer, np.load(f"features/{backbone_name}.npy"), share, device)
    else:
        how = linear_probe(head, np.load(f"features/{backbone_name}.npy"), share, device)
    seen = [tag for tag, is_seen in zip(vocabulary.tags, vocabulary.seen, strict=True) if is_seen]
    labels = dataset.labels[:, dataset.columns(seen)].tocsr()
    vectors = vocabulary.vectors[vocabulary.seen]
    checkpoint = Path(f"work/checkpoints/{backbone_name}-{method_name}.pt")
    head_checkpoint = checkpoint.with_suffix(".head.pt")
    data = f"{backbone_name} {weights} {mode} {layer} {size} {vocabulary.digest} {dataset.digest}"

    def learn(part: torch.nn.Module, batches: Batches, settings: TrainSettings, checkpoint: Path) -> pd.DataFrame:
        key = f"{data} {chosen} {settings}"
        return train(
            part, batches, dataset.train, labels, vectors, chosen, settings, checkpoint, key, device, process
        )  # fmt: skip

    started = time.monotonic()
    few = dataset.train if settings.head_first else dataset.train[:: max(1, dataset.train.size // START_PHOTOS[mode])]
    if chosen.standardise or chosen.prior or settings.head_first:
        known = how.features(few)
        frequency = tag_frequency(labels, dataset.train)
        start_head(head, torch.from_numpy(known), frequency, torch.from_numpy(vectors))
    if settings.head_first:
        features = np.zeros((len(dataset.photos), backbone.features), dtype=np.float32)
        features[few] = known
        alone = from_params(TrainSettings, {**params["train"]["linear_probe"], "seed": seed}, "train.linear_probe")
        learn(head, feature_batches(features, process.share(alone.batch), device), alone, head_checkpoint)
    curve = learn(how.trained, how.batches, settings, checkpoint)
    if not process.first:
        return
    hardware = torch.cuda.get_device_name() if device.type == "cuda" else f"{torch.get_num_threads()} CPU threads"
    info = {
        "backbone": backbone_name,
        "method": method_name,
        "weights": weights,
        "mode": mode,
        "first_trained_layer": layer,
        "size": size,
        "mean": backbone.mean.flatten().tolist(),
        "std": backbone.std.flatten().tolist(),
        "principal_vectors": chosen.principal_vectors,
        "lambda": chosen.regularisation,
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
    save_model(Path(f"models/{backbone_name}/{method_name}"), network.cpu(), vocabulary, chosen, info, curve)
    for file in (checkpoint, head_checkpoint):
        file.unlink(missing_ok=True)  # otherwise `dvc repro --force` would resume a finished run


if __name__ == "__main__":
    with plain_exit():
        main(*sys.argv[1:])
