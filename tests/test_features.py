"""Features under a frozen backbone: one row a photo, and nothing computed twice after an interruption."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from conftest import encoded
from PIL import Image

from zerotag.data.dataset import Dataset
from zerotag.data.photos import open_photo, to_pixels
from zerotag.data.prepare import PrepareSettings, prepare
from zerotag.data.sources.base import PhotoFile, Source
from zerotag.errors import ZerotagError
from zerotag.training import features as module
from zerotag.training.backbones import Backbone, build_backbone
from zerotag.training.features import as_input, compute_features, exported
from zerotag.training.onnx_export import export_onnx


@pytest.fixture
def dataset(photo_folder: Path, tmp_path: Path) -> Dataset:
    """Twelve photos; number 5 does not decode."""
    files = sorted((photo_folder / "images").iterdir())
    files[5].write_bytes(encoded()[:500])
    source = Source(
        [file.name for file in files],
        [PhotoFile(path) for path in files],
        ["sea"],
        sp.csr_matrix(np.ones((12, 1))),
        np.arange(12) < 8,
    )
    prepare(source, PrepareSettings(workers=1), tmp_path / "prepared", tmp_path / "work" / "prepare")
    return Dataset.read(tmp_path / "prepared")


@pytest.fixture
def backbone() -> Backbone:
    torch.manual_seed(0)
    return build_backbone("test_efficientnet")


@pytest.fixture(scope="module")
def network_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The backbone in ONNX."""
    torch.manual_seed(0)
    file = tmp_path_factory.mktemp("onnx") / "network.onnx"
    export_onnx(build_backbone("test_efficientnet").eval(), 32, file, "features", {})
    return file


@pytest.fixture(autouse=True)
def exported_once(monkeypatch: pytest.MonkeyPatch, network_file: Path) -> None:
    def copy(network: object, size: int, file: Path, *rest: object) -> None:
        file.parent.mkdir(parents=True)
        shutil.copy(network_file, file)

    monkeypatch.setattr(module, "export_onnx", copy)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BLOCK", 4)
    monkeypatch.setattr(module, "_EXPORTED", 1)  # however few photos


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the photos that are decoded."""
    names: list[str] = []

    def counting(data: bytes, name: str) -> Image.Image:
        names.append(Path(name).name)
        return open_photo(data, name)

    monkeypatch.setattr(module, "open_photo", counting)
    return names


def compute(backbone: Backbone, dataset: Dataset, folder: Path, key: str = "a", batch: int = 3) -> np.ndarray:
    device = torch.device("cpu")
    compute_features(backbone, dataset, 32, batch, device, folder / "f.npy", folder / "work" / "f", key)
    return np.load(folder / "f.npy")


def test_a_row_is_the_backbones_answer_to_the_photo(dataset: Dataset, backbone: Backbone, tmp_path: Path) -> None:
    features = compute(backbone, dataset, tmp_path)
    assert features.shape == (12, backbone.features) and features.dtype == np.float32
    for row in (0, 4, 6, 11):
        photo = open_photo(dataset.photo_bytes(row), "photo").resize((32, 32), Image.Resampling.BILINEAR)
        pixels = torch.from_numpy(np.array(photo)).permute(2, 0, 1)[None] / 255
        with torch.inference_mode():
            expected = backbone.eval()(pixels)[0].numpy()
        np.testing.assert_allclose(features[row], expected, rtol=1e-3, atol=1e-4)
    assert not features[5].any() and np.abs(np.delete(features, 5, axis=0)).sum(axis=1).min() > 0
    assert list((tmp_path / "work" / "f").iterdir()) == []


def test_onnx_runtime_computes_what_torch_does(
    dataset: Dataset,
    backbone: Backbone,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    in_onnx = compute(backbone, dataset, tmp_path)
    assert not caplog.records

    def failing(*_: object) -> None:
        raise RuntimeError("no such operator")

    monkeypatch.setattr(module, "export_onnx", failing)
    in_torch = compute(backbone, dataset, tmp_path)
    assert "torch runs the network, since it cannot be exported (no such operator)" in caplog.text
    np.testing.assert_allclose(in_onnx, in_torch, atol=1e-4 * np.abs(in_torch).max())
    assert not np.array_equal(in_onnx, in_torch)  # these were computed by torch

    # For a few photos, the export would take longer than torch.
    monkeypatch.setattr(module, "_EXPORTED", 12)
    caplog.clear()
    assert np.array_equal(compute(backbone, dataset, tmp_path), in_torch) and not caplog.records


def test_a_network_that_onnx_runtime_computes_otherwise_is_left_to_torch(
    backbone: Backbone, tmp_path: Path, network_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert exported(backbone.eval(), 32, network_file) is not None
    torch.nn.init.constant_(next(backbone.parameters()), 0.1)
    assert exported(backbone, 32, network_file) is None
    assert "ONNX Runtime differs by" in caplog.text


def test_the_whole_picture_is_seen(tmp_path: Path) -> None:
    wide = Image.new("RGB", (400, 100), "black")
    wide.paste("white", (0, 0, 100, 100))
    pixels = as_input(to_pixels(wide, 32)[None], torch.device("cpu"))[0]
    assert pixels.shape == (3, 32, 32) and pixels.dtype == torch.float32
    assert pixels[:, :, :6].min() > 0.95 and pixels[:, :, 10:].max() < 0.05


def test_an_interrupted_run_goes_on_with_the_missing_blocks(
    dataset: Dataset, backbone: Backbone, tmp_path: Path, decoded: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    undisturbed = compute(backbone, dataset, tmp_path / "undisturbed")
    decoded.clear()
    with monkeypatch.context() as patch:
        names = iter(range(6))

        def failing(data: bytes, name: str) -> Image.Image:
            if next(names, None) is None:
                raise KeyboardInterrupt
            return open_photo(data, name)

        patch.setattr(module, "open_photo", failing)
        with pytest.raises(KeyboardInterrupt):
            compute(backbone, dataset, tmp_path)
    assert not (tmp_path / "f.npy").exists()
    again = compute(backbone, dataset, tmp_path)
    # Threads decode them, in any order.
    assert sorted(decoded) == [f"{number:02d}.jpg" for number in (4, 6, 7, 8, 9, 10, 11)]
    np.testing.assert_array_equal(again, undisturbed)


def test_blocks_of_another_key_are_not_used(
    dataset: Dataset, backbone: Backbone, tmp_path: Path, decoded: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(np, "concatenate", lambda values: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            compute(backbone, dataset, tmp_path, key="a")
    decoded.clear()
    compute(backbone, dataset, tmp_path, key="b")
    assert len(decoded) == 11


def test_a_full_disk_is_named_and_leaves_no_half_table(
    dataset: Dataset, backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(np, "save", lambda out, values: Path("/dev/full").write_text("x" * 100))
    with pytest.raises(ZerotagError, match="disk is full"):
        compute(backbone, dataset, tmp_path)
    assert [path for path in tmp_path.rglob("*") if path.suffix in (".npy", ".draft")] == []
