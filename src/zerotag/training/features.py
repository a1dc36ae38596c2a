"""Extract and cache features of photos, in blocks, so that an interrupted run resumes."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import nn

from zerotag.blocks import block_folder, in_blocks
from zerotag.data.batches import pixel_batches
from zerotag.data.dataset import Dataset
from zerotag.data.photos import open_photo, to_pixels
from zerotag.errors import ZerotagError
from zerotag.files import write_aside

_BLOCK = 2000


def as_input(pixels: np.ndarray, device: torch.device) -> torch.Tensor:
    """(B, S, S, 3) uint8 -> (B, 3, S, S) in [0, 1] on the device, channels last; they are copied to it as bytes."""
    return torch.from_numpy(pixels).to(device).permute(0, 3, 1, 2).float() * (1 / 255)


def photo_batches(
    dataset: Dataset, rows: np.ndarray, size: int, batch: int, device: torch.device
) -> Iterator[torch.Tensor]:
    """Photos in order, (B, 3, S, S) in [0, 1] on the device, channels last; decoded ahead in threads, as for serving.

    Args:
        dataset: N photos.
        rows: row numbers of usable photos.
        size: S.
        batch: B, but for the last batch.
        device: of the network.

    Raises:
        ZerotagError: a photo cannot be decoded.
    """

    def decode(row: int) -> np.ndarray:
        picture = open_photo(dataset.photo_bytes(row), str(dataset.photos["file"].iat[row]))
        return to_pixels(picture, size)

    for decoded in pixel_batches(rows.tolist(), decode, batch):
        if decoded.failed:
            raise ZerotagError(decoded.failed[0][1])
        yield as_input(np.stack(decoded.results), device)


def features_of(
    network: nn.Module, dataset: Dataset, rows: np.ndarray, size: int, batch: int, device: torch.device
) -> Iterator[np.ndarray]:
    """Yield a network's outputs for the photos of `rows` in order, batch by batch: (B, …) float32."""
    for pictures in photo_batches(dataset, rows, size, batch, device):
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
