"""Input pipeline throughput: python -m benchmarks.input_pipeline [--photos 96] [--batch 16] [--workers 1].

For each of the paper's backbones, the training throughput in photos/s of the input pipeline alone (decode, augment,
batch, copy to the device), of the training loop alone on a batch already on the device, and of both together. Photos
come from prepared/ (run `dvc repro prepare` first); weights are random, which does not affect speed. On a GPU, use
more photos: --photos 20000 --batch 192.
"""

import argparse
import os
import platform
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.sparse as sp
import torch

from zerotag.data.dataset import Dataset
from zerotag.training.augment import TrainingPhotos, default_workers, training_batches
from zerotag.training.backbones import build_backbone
from zerotag.training.heads import Head
from zerotag.training.loop import Batches, TrainSettings, train
from zerotag.training.methods import METHODS
from zerotag.training.model import Network
from zerotag.words.lexicon import unit

TAGS, DIMENSIONS = 925, 300


@dataclass
class Clock:
    """Times a loop from its second batch on, as the first one includes the start-up of workers and kernels."""

    device: torch.device
    photos: int = 0
    started: float = 0.0

    def over(self, batches: Batches) -> Batches:
        """Wrap batches with timing."""

        def watched(rows: np.ndarray, epoch: int) -> Iterator[tuple[torch.Tensor, np.ndarray]]:
            for number, (inputs, chosen) in enumerate(batches(rows, epoch)):
                if number:
                    self.photos += len(chosen)
                yield inputs, chosen
                if not number:
                    self.started = self.now()

        return watched

    def now(self) -> float:
        """Time in seconds, after synchronising the device."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    def rate(self) -> float:
        """Throughput so far, in photos/s."""
        return self.photos / (self.now() - self.started)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    arguments.add_argument("--backbones", nargs="+", default=["vgg19", "resnet50", "tresnet_m"])
    arguments.add_argument("--photos", type=int, default=96)
    arguments.add_argument("--batch", type=int, default=16)
    arguments.add_argument("--size", type=int, default=224)
    arguments.add_argument("--workers", type=int)
    options = arguments.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    workers = default_workers(device) if options.workers is None else options.workers
    dataset = Dataset.read(Path("prepared"))
    rows = np.resize(np.flatnonzero(dataset.usable), options.photos)
    hardware = torch.cuda.get_device_name() if device.type == "cuda" else "no GPU"
    print(f"{hardware}, {os.cpu_count()} cores, {platform.machine()}, torch {torch.__version__}; {workers} workers,")
    print(f"{options.size} pixels, batch {options.batch}, training photos/s\n")
    print("| backbone | input alone | network alone | both | ratio to the slower | bottleneck |")
    print("|---|---|---|---|---|---|")

    def photos(rows: np.ndarray, epoch: int) -> Iterator[tuple[torch.Tensor, np.ndarray]]:
        augmented = TrainingPhotos(dataset, rows, options.size, 0.5, 0, epoch)
        return training_batches(augmented, options.batch, device, workers)

    def same(rows: np.ndarray, epoch: int) -> Iterator[tuple[torch.Tensor, np.ndarray]]:
        batch = torch.rand(options.batch, 3, options.size, options.size, device=device)
        batch = batch.to(memory_format=torch.channels_last)
        for start in range(0, rows.size - options.batch + 1, options.batch):
            yield batch, rows[start : start + options.batch]

    for name in options.backbones:
        clock = Clock(device)
        for _ in clock.over(photos)(rows, 0):
            pass
        rates = {"input": clock.rate()}
        for part, batches in (("network", same), ("both", photos)):
            rates[part] = training_rate(name, batches, rows, options.batch, device)
        slower = min(rates["input"], rates["network"])
        bottleneck = "input" if rates["input"] < rates["network"] else "network"
        cells = " | ".join(f"{rate:.1f}" for rate in rates.values())
        print(f"| {name} | {cells} | {rates['both'] / slower:.2f} | {bottleneck} |", flush=True)


def training_rate(backbone: str, batches: Batches, rows: np.ndarray, batch: int, device: torch.device) -> float:
    """Throughput of the training loop, in photos/s."""
    torch.manual_seed(0)
    built = build_backbone(backbone, "none")
    method = METHODS["sdl"]
    network = Network(built, Head(built.features, method, DIMENSIONS))
    labels = sp.random(int(rows.max()) + 1, TAGS, 0.01, "csr", np.float32, random_state=0)
    labels[:, 0] = 1
    labels.data[:] = 1
    vectors = unit(np.random.default_rng(0).standard_normal((TAGS, DIMENSIONS))).astype(np.float32)
    clock = Clock(device)
    with tempfile.TemporaryDirectory() as folder:
        train(
            network.to(memory_format=torch.channels_last), clock.over(batches), rows,
            labels.astype(np.uint8).tocsr(), vectors, method,
            TrainSettings(epochs=1, batch=batch, learning_rate=1e-5), Path(folder) / "checkpoint.pt", "", device,
        )  # fmt: skip
        return clock.rate()


if __name__ == "__main__":
    main()
