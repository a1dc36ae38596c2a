"""Extract and cache features of photos, in blocks, so that an interrupted run resumes."""

import os
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset
from torchvision.transforms import v2

from zerotag.blocks import block_folder, in_blocks
from zerotag.data.dataset import Dataset
from zerotag.data.photos import open_photo, to_pixels
from zerotag.files import write_aside

_BLOCK = 2000


def input_transform(size: int) -> v2.Transform:
    """Resize the whole image to size x size pixels, without cropping; float in [0, 1]."""
    resize = partial(to_pixels, size=size)
    return v2.Compose([resize, v2.ToImage(), v2.ToDtype(torch.float32, scale=True)])


class Photos(TorchDataset):
    """Photos of a dataset by row number, as (3, S, S) float tensors with their row."""

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
        photos: the photos to load.
        batch: batch size.
        device: memory is pinned for a GPU.
        workers: decoding processes; 0 decodes in this process.
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
    """Decoding processes: all cores but one with a GPU; one if the network runs on the CPU."""
    return max(1, (os.cpu_count() or 2) - 1) if device.type == "cuda" else 1


def features_of(
    network: nn.Module, dataset: Dataset, rows: np.ndarray, size: int, batch: int, device: torch.device
) -> Iterator[np.ndarray]:
    """Yield a network's outputs for the photos of `rows` in order, batch by batch: (B, …) float32."""
    photos = Photos(dataset, rows, input_transform(size))
    for pictures, _ in photo_batches(photos, batch, device, default_workers(device)):
        with torch.inference_mode():
            yield network(pictures).float().cpu().numpy()


def compute_features(
    network: nn.Module,
    dataset: Dataset,
    size: int,
    batch: int,
    device: torch.device,
    file: Path,
    work: Path,
    key: str,
    kind: type[np.floating] = np.float32,
) -> None:
    """Compute and cache a network's outputs for all usable photos.

    Args:
        network: (B, 3, S, S) in [0, 1] -> (B, …); moved to the device and set to evaluation mode.
        dataset: N photos.
        size: input side in pixels.
        batch: batch size.
        device: device of the network.
        file: the (N, …) output array, written atomically; rows of unusable photos are zero.
        work: keeps finished blocks, so that an interrupted run resumes; removed at the end.
        key: identifies everything the outputs depend on; blocks of other keys are ignored.
        kind: dtype of the output.
    """
    network = network.to(device).to(memory_format=torch.channels_last).eval()
    with torch.inference_mode():
        shape = network(torch.zeros(1, 3, size, size, device=device)).shape[1:]
    usable = np.flatnonzero(dataset.usable)
    folder = block_folder(work, key)

    def compute(rows: slice) -> Iterator[np.ndarray]:
        for part in features_of(network, dataset, usable[rows], size, batch, device):
            yield part.astype(kind)

    with write_aside(file) as draft:
        # Memory-mapped: activations of a large dataset do not fit in memory.
        table = np.lib.format.open_memmap(draft, mode="w+", dtype=kind, shape=(len(dataset.photos), *shape))
        for rows, block in in_blocks(usable.size, _BLOCK, compute, folder, "features", "photo"):
            table[usable[rows]] = block
        table.flush()
    shutil.rmtree(folder)
