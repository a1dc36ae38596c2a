"""ONNX against torch, on the pixels that training sees."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from conftest import picture

import zerotag
from zerotag.data.photos import to_pixels
from zerotag.errors import ZerotagError
from zerotag.packaging.export import check_agreement, compare_with_torch, latency, to_half, to_int8
from zerotag.runtime import Runtime
from zerotag.training.features import as_input
from zerotag.training.model import load_model


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    return np.stack([to_pixels(picture(seed, 200, 90), 64) for seed in range(24)])


def test_pixels_are_those_of_training() -> None:
    for size in ((640, 480), (33, 200), (64, 64)):
        photo = picture(1, *size)
        trained_on = as_input(to_pixels(photo, 64)[None], torch.device("cpu"))[0].permute(1, 2, 0).numpy()
        assert np.array_equal(np.round(trained_on * 255).astype(np.uint8), to_pixels(photo, 64))


def test_onnx_is_torch(trained: Path, packaged: Path, pixels: np.ndarray) -> None:
    runtime = Runtime(packaged / "model.onnx")
    agreement = compare_with_torch(load_model(trained), runtime, pixels)
    assert agreement.same_top10 == agreement.photos == 24
    assert agreement.largest_difference < 1e-3
    check_agreement(agreement)
    # Any batch size, and the same answer in each.
    assert runtime(pixels[:1]).shape == (1, 3, 50)
    assert np.allclose(runtime(pixels)[:5], runtime(pixels[:5]), atol=1e-4)
    assert runtime.metadata["size"] == "64" and "bilinear" in runtime.metadata["resize"]
    assert onnx.load(packaged / "model.onnx").opset_import[0].version >= 20
    assert latency(runtime, pixels, 3) > 0


def test_a_network_that_disagrees_is_not_exported(trained: Path, pixels: np.ndarray) -> None:
    model = load_model(trained)

    class Wrong:
        def __call__(self, given: np.ndarray) -> np.ndarray:
            return np.zeros((len(given), 3, 50), dtype=np.float32)

    with pytest.raises(ZerotagError, match="disagree"):
        check_agreement(compare_with_torch(model, Wrong(), pixels))  # type: ignore[arg-type]


def test_smaller_formats(trained: Path, packaged: Path, pixels: np.ndarray, tmp_path: Path) -> None:
    full = packaged / "model.onnx"
    to_half(full, tmp_path / "fp16.onnx")
    to_int8(full, tmp_path / "int8.onnx", pixels)
    exact = Runtime(full)(pixels)
    for name, bound in (("fp16", 0.02), ("int8", 0.6)):
        runtime = Runtime(tmp_path / f"{name}.onnx")
        assert runtime.metadata["precision"] == name and runtime.size == 64
        given = runtime(pixels)
        assert given.dtype == np.float32
        assert np.abs(given - exact).mean() / np.abs(exact).mean() < bound
        assert (tmp_path / f"{name}.onnx").stat().st_size < full.stat().st_size


def test_what_is_no_package(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(ZerotagError, match="training folder"):
        zerotag.Tagger(trained)
    (tmp_path / "model.onnx").write_bytes(b"nonsense")
    with pytest.raises(ZerotagError, match="ONNX Runtime"):
        Runtime(tmp_path / "model.onnx")


def test_the_library_needs_no_torch() -> None:
    script = (
        "import sys, zerotag; zerotag.Tagger; print([n for n in ('torch', 'pandas', 'gensim') if n in sys.modules])"
    )
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"
