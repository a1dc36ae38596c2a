"""Export a trained torch network to ONNX in fp32, fp16 or int8.

The graph maps decoded images, uint8 (B, S, S, 3), to principal vectors, float32 (B, M, d). It includes scaling to
[0, 1] and normalisation by the backbone's mean and standard deviation. The model's metadata describes how a photo is
resized to S x S pixels, which `zerotag.data.photos.to_pixels` does.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import numpy as np
import onnx
import scipy.sparse as sp
import torch
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process
from onnxruntime.transformers.float16 import convert_float_to_float16

from zerotag.errors import ZerotagError
from zerotag.evaluation.evaluate import score_matrix
from zerotag.evaluation.metrics import average_precision
from zerotag.files import write_aside
from zerotag.runtime import INPUT, Runtime
from zerotag.serving.scoring import score
from zerotag.training.model import Model
from zerotag.training.onnx_export import FromPixels, describe, export_onnx

Precision = Literal["fp32", "fp16", "int8"]

# Name of the output in the graph.
OUTPUT = "principal_vectors"


@dataclass(frozen=True)
class ExportSettings:
    """Attributes:
    precision: precision of the deployed network: fp32, fp16 or int8.
    compare: other precisions to benchmark.
    check_photos: number of photos on which ONNX must agree with torch.
    calibration_photos: number of training photos that set the activation ranges of int8.
    eval_photos: maximum number of test photos on which precisions are evaluated.
    max_loss: maximum loss of an int8 network in mAP points; above it the network is refused.
    """

    precision: Precision = "fp32"
    compare: tuple[Precision, ...] = ("fp16", "int8")
    check_photos: int = 16
    calibration_photos: int = 128
    eval_photos: int = 500
    max_loss: float = 0.5


@dataclass(frozen=True)
class Trial:
    """mAP, latency and size of a precision on test photos; loss (mAP points) and speed-up are relative to fp32.

    mAP and loss are None if no photo has a tag; then int8 is not offered.
    """

    precision: str
    map: float | None
    loss: float | None
    seconds: float
    speed: float
    megabytes: float
    offered: bool

    def __str__(self) -> str:
        known = self.map is not None and self.loss is not None
        figures = f"{self.map:.2f} ({-self.loss:+.2f})" if known else "none"  # type: ignore[operator]
        why = "loss above export.max_loss" if known else "its loss is unknown, as no photo has a tag"
        return (
            f"{self.precision}: GZSL mAP {figures}, {1000 * self.seconds:.1f} ms per photo "
            f"({self.speed:.2f}x the speed of fp32), {self.megabytes:.1f} MB"
            + ("" if self.offered else f": {why}, not offered")
        )


def export_network(model: Model, file: Path) -> None:
    """Export a trained network to ONNX, with a dynamic batch size and preprocessing metadata."""
    facts = {
        **_transform(model.info["size"], model.info.get("crop", 0.0)),
        "precision": "fp32",
        "backbone": model.info["backbone"],
    }
    export_onnx(model.network, model.info["size"], file, OUTPUT, facts)


def _transform(size: int, crop: float) -> dict[str, Any]:
    """Preprocessing metadata, for `zerotag.runtime` and for other runtimes."""
    cut = f"longer side cut to shorter^{crop} * longer^{1 - crop}, centred" if crop else "no crop"
    return {
        "size": size,
        "crop": crop,
        "resize": f"whole image to size x size, antialiased bilinear, {cut}",
        "layout": "NHWC RGB uint8",
        "scaling": "in the graph",
    }


def to_half(source: Path, file: Path) -> None:
    """Convert a network to fp16; input and output types stay the same."""
    proto = convert_float_to_float16(onnx.load(source), keep_io_types=True)
    describe(proto, {"precision": "fp16"})
    with write_aside(file) as draft:
        onnx.save(proto, draft)


class _Reader(CalibrationDataReader):
    def __init__(self, batches: Iterator[np.ndarray]):
        self._batches = batches

    def get_next(self) -> dict[str, np.ndarray] | None:
        batch = next(self._batches, None)
        return None if batch is None else {INPUT: batch}


def to_int8(source: Path, file: Path, pixels: np.ndarray) -> None:
    """Convert a network to int8 by static quantisation (QDQ, per channel).

    Args:
        source: the fp32 network.
        file: output file.
        pixels: (n, S, S, 3) uint8 training photos that set the activation ranges.
    """
    with TemporaryDirectory() as folder:
        prepared = Path(folder) / "prepared.onnx"
        quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
        quantised = Path(folder) / "int8.onnx"
        # reduce_range quantises weights to 7 bits, which avoids saturation on CPUs without VNNI.
        quantize_static(
            str(prepared),
            str(quantised),
            _Reader(iter(np.array_split(pixels, max(1, len(pixels) // 16)))),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
        )
        proto = onnx.load(quantised)
    known = {entry.key: entry.value for entry in onnx.load(source, load_external_data=False).metadata_props}
    describe(proto, {**known, "precision": "int8"})
    with write_aside(file) as draft:
        onnx.save(proto, draft)


@dataclass(frozen=True)
class Agreement:
    """Agreement of ONNX Runtime with torch on the same photos.

    Attributes:
        photos: number of photos compared.
        largest_difference: largest absolute difference of a score.
        same_top10: photos with the same top ten tags in the same order; tags closer to each other than
            the largest difference may swap places.
    """

    photos: int
    largest_difference: float
    same_top10: int


def compare_with_torch(model: Model, runtime: Runtime, pixels: np.ndarray) -> Agreement:
    """Compare the scores of torch and ONNX Runtime.

    Args:
        model: the torch network and its vocabulary.
        runtime: the exported network.
        pixels: (n, S, S, 3) uint8.
    """
    with torch.inference_mode():
        expected = FromPixels(model.network)(torch.from_numpy(pixels)).numpy()
    given = runtime(pixels)
    largest, same = 0.0, 0
    for one, other in zip(expected, given, strict=True):
        first, second = (score(each, model.vocabulary.vectors)[0] for each in (one, other))
        difference = float(np.abs(first - second).max())
        best, found = (np.argsort(-each, kind="stable")[:10] for each in (first, second))
        # Compare by score, so that ties within rounding error do not count as differences.
        same += bool(np.all(np.abs(first[best] - first[found]) <= 2 * difference)) and set(best) == set(found)
        largest = max(largest, difference)
    return Agreement(len(pixels), largest, same)


def latency(runtime: Runtime, pixels: np.ndarray, repeats: int = 15) -> float:
    """Median latency in seconds at batch size 1."""
    times = []
    for number in range(repeats + 3):
        one = pixels[number % len(pixels)][None]
        started = time.perf_counter()
        runtime(one)
        times.append(time.perf_counter() - started)
    return float(np.median(times[3:]))


def try_precision(
    file: Path,
    precision: Precision,
    pixels: np.ndarray,
    labels: sp.csr_matrix,
    vectors: np.ndarray,
    fp32: Trial | None,
    max_loss: float,
) -> Trial:
    """Evaluate a network: mAP over all tags, latency and file size.

    Args:
        file: the network.
        precision: its precision.
        pixels: (n, S, S, 3) uint8 test photos.
        labels: (n, T) their labels.
        vectors: (T, d) word vectors of the tags.
        fp32: the fp32 baseline; None for fp32 itself.
        max_loss: maximum loss of int8 in mAP points.
    """
    runtime = Runtime(file)
    principal = np.concatenate([runtime(part) for part in np.array_split(pixels, -(-len(pixels) // 16))])
    precisions = average_precision(score_matrix(principal, vectors), labels)
    figure = 100 * float(np.nanmean(precisions)) if labels.nnz else None
    seconds = latency(runtime, pixels)
    loss = 0.0 if figure is not None else None
    if fp32 and fp32.map is not None and figure is not None:
        loss = fp32.map - figure
    speed = fp32.seconds / seconds if fp32 else 1.0
    offered = precision != "int8" or (loss is not None and loss <= max_loss)
    return Trial(precision, figure, loss, seconds, speed, file.stat().st_size / 1e6, offered)


def check_agreement(agreement: Agreement, tolerance: float = 1e-2) -> None:
    """Check that ONNX Runtime agrees with torch.

    Raises:
        ZerotagError: a score differs by more than the tolerance, or a photo has other top ten tags.
    """
    if agreement.largest_difference > tolerance or agreement.same_top10 < agreement.photos:
        raise ZerotagError(
            f"ONNX Runtime and torch disagree: scores differ by up to {agreement.largest_difference:.2g}, top ten tags "
            f"differ on {agreement.photos - agreement.same_top10} of {agreement.photos} photos. Nothing was exported."
        )
