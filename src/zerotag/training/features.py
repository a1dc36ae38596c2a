"""Extract and cache features of photos, in blocks, so that an interrupted run resumes.

torch runs the network on a GPU and for few photos, ONNX Runtime on CPUs, where it is several times as fast.
"""

import logging
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from zerotag.blocks import block_folder, in_blocks, missing_blocks
from zerotag.data.batches import network_batches, pixel_batches
from zerotag.data.dataset import Dataset
from zerotag.data.photos import open_photo, to_pixels
from zerotag.errors import ZerotagError
from zerotag.files import write_aside
from zerotag.runtime import Runtime
from zerotag.training.onnx_export import FromPixels, export_onnx

logger = logging.getLogger(__name__)

_BLOCK = 2000
# Photos from which ONNX Runtime is worth the 5 to 20 s that the export takes.
_EXPORTED = 500
# Outputs of ONNX Runtime and torch may differ by so much, relative to the largest.
_TOLERANCE = 1e-4


def as_input(pixels: np.ndarray, device: torch.device) -> torch.Tensor:
    """(B, S, S, 3) uint8 -> (B, 3, S, S) in [0, 1] on the device, channels last; they are copied to it as bytes."""
    return torch.from_numpy(pixels).to(device).permute(0, 3, 1, 2).float() * (1 / 255)


def photo_batches(
    dataset: Dataset, rows: np.ndarray, size: int, batch: int, device: torch.device
) -> Iterator[torch.Tensor]:
    """Photos in order, (B, 3, S, S) in [0, 1] on the device, channels last; as for `pixels_of`."""
    for pixels in pixels_of(dataset, rows, size, batch):
        yield as_input(pixels, device)


def pixels_of(dataset: Dataset, rows: np.ndarray, size: int, batch: int) -> Iterator[np.ndarray]:
    """Photos in order, (B, S, S, 3) uint8, decoded ahead in threads, as for serving.

    Args:
        dataset: N photos.
        rows: row numbers of usable photos.
        size: S.
        batch: B, but for the last batch.

    Raises:
        ZerotagError: a photo cannot be decoded.
    """
    for decoded in pixel_batches(rows.tolist(), _decoder(dataset, size), batch):
        if decoded.failed:
            raise ZerotagError(decoded.failed[0][1])
        yield np.stack(decoded.results)


def _decoder(dataset: Dataset, size: int) -> Callable[[int], np.ndarray]:
    """Decodes the photo of a row: (S, S, 3) uint8."""

    def decode(row: int) -> np.ndarray:
        picture = open_photo(dataset.photo_bytes(row), str(dataset.photos["file"].iat[row]))
        return to_pixels(picture, size)

    return decode


def features_of(
    network: nn.Module, dataset: Dataset, rows: np.ndarray, size: int, batch: int, device: torch.device
) -> Iterator[np.ndarray]:
    """Yield a network's outputs for the photos of `rows` in order, batch by batch: (B, …) float32."""
    for pictures in photo_batches(dataset, rows, size, batch, device):
        with torch.inference_mode():
            yield network(pictures).float().cpu().numpy()


def exported(network: nn.Module, size: int, file: Path) -> Runtime | None:
    """A network in ONNX Runtime, for one thread per call; None if torch cannot export it, or both disagree.

    Args:
        network: (B, 3, S, S) in [0, 1] -> (B, …), in evaluation mode, on the CPU.
        size: S.
        file: where it is exported to, or was before.
    """
    pixels = np.random.default_rng(0).integers(0, 256, (3, size, size, 3), dtype=np.uint8)
    try:
        if not file.exists():
            export_onnx(network, size, file, "features", {})
        runtime = Runtime(file, threads=1)
        found = runtime(pixels)
    except Exception as error:  # torch's exporter and ONNX Runtime raise many types
        logger.warning("features: torch runs the network, since it cannot be exported (%s)", str(error)[:300])
        return None
    with torch.inference_mode():
        expected = FromPixels(network)(torch.from_numpy(pixels)).float().numpy()
    difference = float(np.abs(found - expected).max() / max(1.0, float(np.abs(expected).max())))
    if difference > _TOLERANCE:
        logger.warning("features: torch runs the network, since ONNX Runtime differs by %.1g", difference)
        return None
    return runtime


def _in_onnx(
    runtime: Runtime, dataset: Dataset, rows: np.ndarray, batch: int, threads: int = 0
) -> Iterator[np.ndarray]:
    """Like `features_of`, on CPUs."""
    decode = _decoder(dataset, runtime.size)
    for done in network_batches(
        rows.tolist(), decode, lambda pixels: list(runtime(np.stack(pixels))), batch, runtime.at_once, threads
    ):
        if done.failed:
            raise ZerotagError(done.failed[0][1])
        yield np.stack(done.results)


@dataclass(frozen=True)
class FeatureJob:
    """What the features of photos depend on.

    Attributes:
        network: (B, 3, S, S) in [0, 1] -> (B, …), in evaluation mode.
        root: folder of the dataset.
        size: input side in pixels.
        batch: batch size.
        kind: dtype of the output.
        folder: keeps finished blocks, and the network if ONNX Runtime runs it.
    """

    network: nn.Module
    root: Path
    size: int
    batch: int
    kind: type[np.floating]
    folder: Path

    @property
    def exported(self) -> Path:
        """The network for ONNX Runtime, if it can run it."""
        return self.folder / "network.onnx"


# Has the blocks of a job computed that are not there yet: slices of the usable photos.
Elsewhere = Callable[[FeatureJob, list[slice]], None]


def block_computer(
    job: FeatureJob, dataset: Dataset, device: torch.device, runtime: Runtime | None, threads: int = 0
) -> Callable[[slice], Iterator[np.ndarray]]:
    """A function that computes the outputs of a slice of the usable photos, in parts.

    Args:
        job: what to compute.
        dataset: that of the job.
        device: device of the network.
        runtime: runs the network in place of torch.
        threads: as for `network_batches`.
    """
    usable = np.flatnonzero(dataset.usable)

    def compute(rows: slice) -> Iterator[np.ndarray]:
        parts = (
            _in_onnx(runtime, dataset, usable[rows], job.batch, threads)
            if runtime
            else features_of(job.network, dataset, usable[rows], job.size, job.batch, device)
        )
        for part in parts:
            yield part.astype(job.kind)

    return compute


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
    elsewhere: Elsewhere | None = None,
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
        elsewhere: computes missing blocks first, such as on a cluster, into the folder that keeps them.
    """
    network = network.to(device).to(memory_format=torch.channels_last).eval()
    usable = np.flatnonzero(dataset.usable)
    folder = block_folder(work, key)
    job = FeatureJob(network, dataset.root, size, batch, kind, folder)
    runtime = exported(network, size, job.exported) if device.type == "cpu" and usable.size >= _EXPORTED else None
    if runtime:
        shape = runtime(np.zeros((1, size, size, 3), dtype=np.uint8)).shape[1:]
    else:
        job.exported.unlink(missing_ok=True)  # of no use, or left by a run on a CPU
        with torch.inference_mode():
            shape = tuple(network(torch.zeros(1, 3, size, size, device=device)).shape[1:])
    if elsewhere:
        elsewhere(job, missing_blocks(usable.size, _BLOCK, folder))
    compute = block_computer(job, dataset, device, runtime)
    with write_aside(file) as draft:
        # Memory-mapped: activations of a large dataset do not fit in memory.
        table = np.lib.format.open_memmap(draft, mode="w+", dtype=kind, shape=(len(dataset.photos), *shape))
        for rows, block in in_blocks(usable.size, _BLOCK, compute, folder, "features", "photo"):
            table[usable[rows]] = block
        table.flush()
    shutil.rmtree(folder)
