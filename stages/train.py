"""Train one backbone with one method: train.py BACKBONE METHOD. torchrun starts it on several GPUs."""

import platform
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch

from zerotag.augment import TrainingPhotos
from zerotag.backbones import build_backbone
from zerotag.dataset import Dataset
from zerotag.errors import plain_exit
from zerotag.features import default_workers, features_of, photo_batches
from zerotag.methods import Head, method, start_head
from zerotag.model import Network, save_model
from zerotag.settings import from_params, read_params
from zerotag.training import TrainSettings, feature_batches, join_processes, tag_frequency, train
from zerotag.vocabulary import Vocabulary

# The features of so many photos tell a head their mean and spread.
START_PHOTOS = {"frozen": 10_000, "end_to_end": 1_000}


def main(backbone_name: str, method_name: str) -> None:
    params = read_params()
    mode = params["train"]["mode"]
    settings = from_params(TrainSettings, {**params["train"][mode], "seed": params["seed"]}, f"train.{mode}")
    chosen = method(method_name, params["method"].get(method_name))
    dataset = Dataset.read(Path("prepared"))
    vocabulary = Vocabulary.read(Path("words"), Path("split.csv")).lifted(chosen.sharpness)
    process, device = join_processes()
    weights = params["weights"].get(backbone_name, params["weights"]["other"])
    size = settings.size if mode == "end_to_end" else params["features"]["size"]

    torch.manual_seed(params["seed"])
    backbone = build_backbone(backbone_name, weights)
    torch.manual_seed(params["seed"])
    network = Network(backbone, Head(backbone.features, chosen, vocabulary.vectors.shape[1]))
    share = len(range(process.rank, settings.batch, process.world))
    seen = [tag for tag, is_seen in zip(vocabulary.tags, vocabulary.seen, strict=True) if is_seen]
    labels = dataset.labels[:, dataset.columns(seen)].tocsr()
    vectors = vocabulary.vectors[vocabulary.seen]
    if mode == "frozen":
        trained: torch.nn.Module = network.head
        features = np.load(f"features/{backbone_name}.npy")
        batches = feature_batches(features, share, device)
    else:
        trained = network.to(memory_format=torch.channels_last)

        def batches(rows, epoch):
            photos = TrainingPhotos(dataset, rows, settings.size, settings.cutout, settings.seed, epoch)
            return photo_batches(photos, share, device, default_workers(device))

    if chosen.standardise or chosen.prior:
        few = dataset.train[:: max(1, dataset.train.size // START_PHOTOS[mode])]
        if mode == "frozen":
            known = features[few]
        else:
            backbone.to(device).eval()
            known = np.concatenate(list(features_of(backbone, dataset, few, settings.size, share, device)))
        frequency = tag_frequency(labels, dataset.train)
        start_head(network.head, torch.from_numpy(known), frequency, torch.from_numpy(vectors))
    started = time.monotonic()
    checkpoint = Path(f"work/checkpoints/{backbone_name}-{method_name}.pt")
    curve = train(
        trained,
        batches,
        dataset.train,
        labels,
        vectors,
        chosen,
        settings,
        checkpoint=checkpoint,
        key=f"{backbone_name} {weights} {mode} {size} {chosen} {settings} {vocabulary.digest} {dataset.digest}",
        device=device,
        process=process,
    )
    if not process.first:
        return
    hardware = torch.cuda.get_device_name() if device.type == "cuda" else f"{torch.get_num_threads()} CPU threads"
    info = {
        "backbone": backbone_name,
        "method": method_name,
        "weights": weights,
        "mode": mode,
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
    checkpoint.unlink(missing_ok=True)  # or training anew (dvc repro --force) would find nothing left to do


if __name__ == "__main__":
    with plain_exit():
        main(*sys.argv[1:])
