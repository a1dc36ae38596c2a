"""Features of photos under a frozen backbone, computed once, in blocks that survive an interruption."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset
from torchvision.transforms import v2

from zerotag.backbones import Backbone
from zerotag.blocks import block_folder, in_blocks
from zerotag.dataset import Dataset
from zerotag.files import write_aside
from zerotag.photos import open_photo

_BLOCK = 2000


def input_transform(size: int) -> v2.Transform:
    """Whole picture, squeezed to size x size pixels (nothing at the edges is cut off), float in [0, 1]."""
    return v2.Compose([v2.Resize((size, size), antialias=True), v2.ToImage(), v2.ToDtype(torch.float32, scale=True)])


class Photos(TorchDataset):
    """Photos of a data set by row number, as (3, S, S) float tensors with their row."""

    def __init__(self, dataset: Dataset, rows: np.ndarray, transform: v2.Transform):
        self.dataset = dataset
        self.rows = rows
        self.transform = transform

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        row = int(self.rows[index])
        picture = open_photo(self.dataset.photo_bytes(row), str(self.dataset.photos["file"].iat[row]))
        return self.transform(picture), row


def photo_batches(
    photos: Photos, batch: int, device: torch.device, workers: int
) -> Iterator[tuple[torch.Tensor, np.ndarray]]:
    """Batches in order: (B, 3, S, S) on the device, channels last, and the (B,) rows.

    Args:
        photos: what to load.
        batch: photos in a batch.
        device: pinned memory is used for a GPU.
        workers: decoding processes; 0 decodes in this one.
    """
    loader = DataLoader(
        photos, batch_size=batch, num_workers=workers, pin_memory=device.type == "cuda",
        prefetch_factor=4 if workers else None,
    )  # fmt: skip
    for pictures, rows in loader:
        yield (
            pictures.to(device, non_blocking=True, memory_format=torch.channels_last),
            rows.numpy(),
        )


def default_workers(device: torch.device) -> int:
    """Decoding processes: as many as cores feed a GPU; beside a network on the CPU one is enough."""
    return max(1, (os.cpu_count() or 2) - 1) if device.type == "cuda" else 1


def features_of(
    backbone: Backbone, dataset: Dataset, rows: np.ndarray, size: int, batch: int, device: torch.device
) -> Iterator[np.ndarray]:
    """Features of the photos of `rows`, in order, a batch at a time: (B, F) float32."""
    photos = Photos(dataset, rows, input_transform(size))
    for pictures, _ in photo_batches(photos, batch, device, default_workers(device)):
        with torch.inference_mode():
            yield backbone(pictures).float().cpu().numpy()


def compute_features(
    backbone: Backbone,
    dataset: Dataset,
    size: int,
    batch: int,
    device: torch.device,
    file: Path,
    work: Path,
    key: str,
) -> np.ndarray:
    """Compute the features of every usable photo.

    Args:
        backbone: is put on the device and in evaluation mode.
        dataset: N photos.
        size: pixels of the input's side.
        batch: photos in a batch.
        device: where the network runs.
        file: receives the features, written aside and renamed.
        work: keeps finished blocks while the work is interrupted; emptied at the end.
        key: names what the features depend on; blocks of another key are not used.

    Returns:
        (N, F) float32; rows of photos that do not decode are zero.
    """
    backbone = backbone.to(device).to(memory_format=torch.channels_last).eval()
    usable = np.flatnonzero(dataset.usable)
    features = np.zeros((len(dataset.photos), backbone.features), dtype=np.float32)
    folder = block_folder(work, key)

    def compute(rows: slice) -> Iterator[np.ndarray]:
        return features_of(backbone, dataset, usable[rows], size, batch, device)

    for rows, block in in_blocks(usable.size, _BLOCK, compute, folder, "features", "photo"):
        features[usable[rows]] = block
    with write_aside(file) as draft, draft.open("wb") as out:
        np.save(out, features)
    shutil.rmtree(folder)
    return features
