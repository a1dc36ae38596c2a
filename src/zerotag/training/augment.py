"""Training augmentation: reproducible RandAugment and Cutout."""

import os
from collections.abc import Iterator
from functools import partial

import numpy as np
import torch
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset
from torchvision.transforms import v2

from zerotag.data.dataset import Dataset
from zerotag.data.photos import open_photo, to_pixels


def cutout(picture: torch.Tensor, share: float) -> torch.Tensor:
    """Replace a random square by grey (DeVries and Taylor, 2017).

    Args:
        picture: (3, S, S) in [0, 1].
        share: the square's side as a share of S; it may extend beyond the border.
    """
    side = picture.shape[-1]
    half = int(side * share / 2)
    row, column = (int(place) for place in torch.randint(side, (2,)))
    picture[:, max(0, row - half) : row + half, max(0, column - half) : column + half] = 0.5
    return picture


class TrainingPhotos(TorchDataset):
    """Augmented photos of one epoch, in the order of `rows`: (3, S, S) in [0, 1] with their row.

    The augmentation of a photo depends only on (seed, epoch, row), not on the number of workers or on
    interruptions.
    """

    def __init__(self, dataset: Dataset, rows: np.ndarray, size: int, cutout_share: float, seed: int, epoch: int):
        self.dataset = dataset
        self.rows = rows
        resize = partial(to_pixels, size=size)
        to_float = v2.ToDtype(torch.float32, scale=True)
        self.transform = v2.Compose([v2.RandomHorizontalFlip(), v2.RandAugment(), resize, v2.ToImage(), to_float])
        self.cutout_share = cutout_share
        self.seed = seed
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        row = int(self.rows[index])
        with torch.random.fork_rng(devices=[]):
            entropy = np.random.SeedSequence([self.seed, self.epoch, row])
            torch.manual_seed(int(entropy.generate_state(1, np.uint64)[0] >> 1))
            photo = open_photo(self.dataset.photo_bytes(row), str(self.dataset.photos["file"].iat[row]))
            picture = self.transform(photo)
            return (cutout(picture, self.cutout_share) if self.cutout_share else picture), row


def training_batches(
    photos: TrainingPhotos, batch: int, device: torch.device, workers: int
) -> Iterator[tuple[torch.Tensor, np.ndarray]]:
    """Batches in order: (B, 3, S, S) on the device, channels last, and the (B,) rows.

    Args:
        photos: the photos to load.
        batch: batch size.
        device: memory is pinned for a GPU.
        workers: processes that decode and augment; 0 for this process.
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
