"""From a trained torch network to ONNX: exact, half precision, or 8-bit.

The graph takes decoded pictures, uint8 (B, S, S, 3), and gives principal vectors, float32 (B, M, d). Scaling to
[0, 1] and the backbone's mean and deviation are in the graph; how a photo becomes S x S pixels is in the model's
metadata, and `zerotag.serving.runtime` does it.
"""

import json
import logging
import time
import warnings
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
from torch import nn

from zerotag.errors import ZerotagError
from zerotag.evaluation.evaluate import score_matrix
from zerotag.evaluation.metrics import average_precision
from zerotag.files import write_aside
from zerotag.serving.runtime import INPUT, OUTPUT, Runtime
from zerotag.serving.scoring import score
from zerotag.training.model import Model, Network

Precision = Literal["fp32", "fp16", "int8"]

# The newest that both torch's exporter and ONNX Runtime's graph optimisations know well.
OPSET = 23


@dataclass(frozen=True)
class ExportSettings:
    """Attributes:
    precision: which network is served: fp32, fp16 or int8.
    compare: the other precisions that are tried and measured beside it.
    check_photos: pictures on which ONNX must agree with torch.
    calibration_photos: training photos that set the ranges of int8.
    judge_photos: at most this many test photos measure what a precision loses.
    max_loss: an int8 network that loses more mAP points than this is not offered.
    """

    precision: Precision = "fp32"
    compare: tuple[Precision, ...] = ("fp16", "int8")
    check_photos: int = 16
    calibration_photos: int = 128
    judge_photos: int = 500
    max_loss: float = 0.5


@dataclass(frozen=True)
class Trial:
    """What a number format costs and brings, on the test photos; loss (mAP points) and speed are against fp32."""

    precision: str
    map: float
    loss: float
    seconds: float
    speed: float
    megabytes: float
    offered: bool

    def __str__(self) -> str:
        return (
            f"{self.precision}: GZSL mAP {self.map:.2f} ({-self.loss:+.2f}), {1000 * self.seconds:.1f} ms a photo "
            f"({self.speed:.2f} times as fast), {self.megabytes:.1f} MB"
            + ("" if self.offered else ": loses too much, not offered")
        )


class _FromPixels(nn.Module):
    """(B, S, S, 3) uint8 -> (B, M, d): what a decoder gives, as it lies in memory."""

    def __init__(self, network: Network):
        super().__init__()
        self.network = network

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.network(pixels.permute(0, 3, 1, 2).float() / 255)


def export_network(model: Model, file: Path) -> None:
    """Write a trained network as ONNX, with a dynamic batch and its input's description as metadata."""
    size = model.info["size"]
    example = torch.zeros((2, size, size, 3), dtype=torch.uint8)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            _FromPixels(model.network).eval(),
            (example,),
            dynamo=True,
            opset_version=OPSET,
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_shapes={"pixels": {0: torch.export.Dim("batch")}},
            optimize=True,
            verbose=False,
        )
    assert program is not None
    proto = program.model_proto
    describe(proto, {**_transform(size), "precision": "fp32", "backbone": model.info["backbone"]})
    onnx.checker.check_model(proto)
    with write_aside(file) as draft:
        onnx.save(proto, draft)


def _transform(size: int) -> dict[str, Any]:
    """How a photo becomes the input, for `zerotag.serving.runtime` and for anyone with another runtime."""
    return {
        "size": size,
        "resize": "whole picture to size x size, antialiased bilinear, no crop",
        "layout": "NHWC RGB uint8",
        "scaling": "in the graph",
    }


def describe(proto: onnx.ModelProto, facts: dict[str, Any]) -> None:
    """Set a model's metadata."""
    known = {entry.key: entry.value for entry in proto.metadata_props}
    known.update({key: value if isinstance(value, str) else json.dumps(value) for key, value in facts.items()})
    onnx.helper.set_model_props(proto, known)


def to_half(source: Path, file: Path) -> None:
    """Write an fp16 network; its input and output keep their types."""
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
    """Write an 8-bit network by static quantisation (QDQ, per channel).

    Args:
        source: the fp32 network.
        file: where to.
        pixels: (n, S, S, 3) uint8 training photos, which set the ranges of activations.
    """
    with TemporaryDirectory() as folder:
        prepared = Path(folder) / "prepared.onnx"
        quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
        quantised = Path(folder) / "int8.onnx"
        # Shrinking the range of activations to 7 bits of weights avoids saturation on CPUs without VNNI.
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
    """How close ONNX is to torch on the same pictures.

    Attributes:
        photos: how many pictures were compared.
        largest_difference: of a tag's score.
        same_top10: pictures with the same ten best tags in the same order; tags closer to each other than
            the largest difference may change places.
    """

    photos: int
    largest_difference: float
    same_top10: int


def compare_with_torch(model: Model, runtime: Runtime, pixels: np.ndarray) -> Agreement:
    """Score pictures with torch and with ONNX Runtime.

    Args:
        model: the torch network and its vocabulary.
        runtime: the exported network.
        pixels: (n, S, S, 3) uint8.
    """
    with torch.inference_mode():
        expected = _FromPixels(model.network)(torch.from_numpy(pixels)).numpy()
    given = runtime(pixels)
    largest, same = 0.0, 0
    for one, other in zip(expected, given, strict=True):
        first, second = (score(each, model.vocabulary.vectors)[0] for each in (one, other))
        difference = float(np.abs(first - second).max())
        best, found = (np.argsort(-each, kind="stable")[:10] for each in (first, second))
        # Compared by the tags' scores, so that a tie within rounding is no difference.
        same += bool(np.all(np.abs(first[best] - first[found]) <= 2 * difference)) and set(best) == set(found)
        largest = max(largest, difference)
    return Agreement(len(pixels), largest, same)


def latency(runtime: Runtime, pixels: np.ndarray, repeats: int = 15) -> float:
    """Median seconds of one picture, batch 1."""
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
    """Measure a network: mAP over all tags, seconds of a picture, size.

    Args:
        file: the network.
        precision: its number format.
        pixels: (n, S, S, 3) uint8 test photos.
        labels: (n, T) of them.
        vectors: (T, d) of the tags.
        fp32: what it is compared with; None for fp32 itself.
        max_loss: int8 that loses more mAP points is not offered.
    """
    runtime = Runtime(file)
    principal = np.concatenate([runtime(part) for part in np.array_split(pixels, -(-len(pixels) // 16))])
    figure = 100 * float(np.nanmean(average_precision(score_matrix(principal, vectors), labels)))
    seconds = latency(runtime, pixels)
    loss = fp32.map - figure if fp32 else 0.0
    speed = fp32.seconds / seconds if fp32 else 1.0
    offered = precision != "int8" or loss <= max_loss
    return Trial(precision, figure, loss, seconds, speed, file.stat().st_size / 1e6, offered)


def check_agreement(agreement: Agreement, tolerance: float = 1e-2) -> None:
    """Stop where ONNX Runtime and torch disagree.

    Raises:
        ZerotagError: a score differs by more than the tolerance, or a picture has other best tags.
    """
    if agreement.largest_difference > tolerance or agreement.same_top10 < agreement.photos:
        raise ZerotagError(
            f"ONNX and torch disagree: scores by up to {agreement.largest_difference:.2g}, the ten best tags of "
            f"{agreement.photos - agreement.same_top10} of {agreement.photos} pictures. Nothing was exported."
        )
