"""Heads of a backbone's own classifier: by hand, against loops, exported, and kept."""

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import timm
import torch
from conftest import TAGS, picture

from zerotag.data.photos import to_pixels
from zerotag.errors import ZerotagError
from zerotag.packaging.export import check_agreement, compare_with_torch, export_network
from zerotag.runtime import Runtime
from zerotag.training.backbones import build_backbone
from zerotag.training.classifier import Classifier, need_classifier
from zerotag.training.heads import ClassHead, ConseHead, Head, JointHead, lift_vocabulary, untrained_head
from zerotag.training.methods import METHODS, Method, method
from zerotag.training.model import Model, Network, load_model, save_model
from zerotag.words.vocabulary import Vocabulary

BACKBONE = "test_efficientnet"
PHOTOS, FEATURES, CLASSES, DIMENSIONS = 5, 7, 13, 6


def random_classifier(classes: int = CLASSES, features: int = FEATURES) -> Classifier:
    random = torch.Generator().manual_seed(0)
    return Classifier(
        torch.randn(classes, features, generator=random), 0.3 * torch.randn(classes, generator=random)
    )  # fmt: skip


def unit_vectors(count: int, dimensions: int, seed: int = 0) -> np.ndarray:
    vectors = np.random.default_rng(seed).standard_normal((count, dimensions)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def softmax(logits: list[float], temperature: float = 1.0) -> list[float]:
    weights = [math.exp(logit / temperature) for logit in logits]
    return [weight / sum(weights) for weight in weights]


def logits_of(classifier: Classifier, photo: torch.Tensor) -> list[float]:
    return [float(sum(row * photo) + bias) for row, bias in zip(classifier.weight, classifier.bias, strict=True)]


def test_a_photos_classes_by_hand() -> None:
    # Two features, three classes: logits 8 ln 2, 4 ln 2 and 0, at a temperature of 4: shares of 4, 2 and 1 sevenths.
    classifier = Classifier(torch.tensor([[8.0, 0], [0, 2], [0, 0]]), torch.tensor([0.0, math.log(4), 0]))
    photo = torch.tensor([[math.log(2), math.log(2)]])
    centred = [4 / 7 - 1 / 3, 2 / 7 - 1 / 3, 1 / 7 - 1 / 3]
    length = math.sqrt(sum(each**2 for each in centred))
    head = ClassHead.of(classifier)
    assert head(photo)[0, 0].tolist() == pytest.approx([each / length for each in centred], abs=1e-6)
    head.scale.fill_(2.5)
    assert head(photo)[0, 0].tolist() == pytest.approx([2.5 * each / length for each in centred], abs=1e-6)


def test_a_photos_classes_are_its_probabilities_less_their_mean() -> None:
    classifier, photos = random_classifier(), torch.randn(PHOTOS, FEATURES)
    given = ClassHead.of(classifier)(photos)
    assert given.shape == (PHOTOS, 1, CLASSES)
    for photo, [row] in zip(photos, given, strict=True):
        shares = softmax(logits_of(classifier, photo), 4)
        centred = [share - 1 / CLASSES for share in shares]
        length = math.sqrt(sum(each**2 for each in centred))
        assert row.tolist() == pytest.approx([each / length for each in centred], abs=1e-5)
    assert not list(ClassHead.of(classifier).parameters())  # nothing for an optimiser to change


def test_logits_that_are_alike_or_huge() -> None:
    head = ClassHead.of(Classifier(torch.eye(3), torch.zeros(3)))
    given = head(torch.tensor([[0.0, 0, 0], [1e4, 0, 0], [-1e4, -1e4, 0]]))
    assert given.isfinite().all() and given[0].abs().max() == 0
    assert given[1:, 0].argmax(dim=1).tolist() == [0, 2]


@pytest.mark.parametrize("principal_vectors", [1, 3])
def test_trained_and_classes_side_by_side(principal_vectors: int) -> None:
    torch.manual_seed(0)
    trained, classes = Head(FEATURES, Method(principal_vectors), DIMENSIONS), ClassHead.of(random_classifier())
    photos = torch.randn(PHOTOS, FEATURES)
    joint = JointHead(trained, classes)(photos)
    assert joint.shape == (PHOTOS, principal_vectors, DIMENSIONS + CLASSES)
    torch.testing.assert_close(joint[..., :DIMENSIONS], trained(photos))
    for row in range(principal_vectors):
        torch.testing.assert_close(joint[:, row, DIMENSIONS:], classes(photos)[:, 0])


@pytest.mark.parametrize("trust", [0.5, 2.0])
def test_the_classes_spread_is_a_share_of_the_seen_tags(trust: float) -> None:
    torch.manual_seed(0)
    head = JointHead(Head(FEATURES, Method(3), DIMENSIONS), ClassHead.of(random_classifier()))
    photos, seen = torch.randn(40, FEATURES), torch.from_numpy(unit_vectors(9, DIMENSIONS))
    for _ in range(2):  # from whatever scale it had
        head.match_scales(photos, seen, trust)
        joint = head(photos).detach().numpy()
        centred = []
        for photo in joint[..., :DIMENSIONS]:
            scores = [max(float(row @ tag) for row in photo) for tag in seen.numpy()]
            centred += [score - np.mean(scores) for score in scores]
        assert joint[..., DIMENSIONS:].std() / np.std(centred) == pytest.approx(trust, rel=0.01)


def test_conse_is_the_mean_of_the_ten_best_classes() -> None:
    classifier, vectors = random_classifier(), unit_vectors(CLASSES, DIMENSIONS)
    photos = torch.randn(PHOTOS, FEATURES)
    given = ConseHead.of(classifier, torch.from_numpy(vectors))(photos)
    assert given.shape == (PHOTOS, 1, DIMENSIONS)
    for photo, [row] in zip(photos, given, strict=True):
        shares = softmax(logits_of(classifier, photo))
        best = sorted(range(CLASSES), key=lambda place, shares=shares: -shares[place])[:10]
        mean = sum(shares[place] * vectors[place] for place in best)
        assert row.tolist() == pytest.approx((mean / np.linalg.norm(mean)).tolist(), abs=1e-5)


def test_conse_with_fewer_than_ten_classes() -> None:
    classifier = random_classifier(classes=3)
    [[row]] = ConseHead.of(classifier, torch.eye(3))(torch.randn(1, FEATURES))
    assert float(row.norm()) == pytest.approx(1) and (row > 0).all()


# A classifier in a whole model.


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights of a tiny backbone with a classifier over ImageNet's classes."""
    torch.manual_seed(3)
    file = tmp_path_factory.mktemp("weights") / "weights.pth"
    torch.save(timm.create_model(BACKBONE, num_classes=1000).state_dict(), file)
    return file


def model_of(name: str, weights: Path) -> tuple[Model, Method]:
    backbone = build_backbone(BACKBONE, str(weights)).eval()
    chosen = method(name)
    classifier = need_classifier(backbone.classifier, BACKBONE, name).keep(np.arange(0, 1000, 20))
    classes = unit_vectors(50, DIMENSIONS, 1)
    plain = Vocabulary(TAGS, unit_vectors(len(TAGS), DIMENSIONS), np.arange(len(TAGS)) % 3 > 0)
    vocabulary = lift_vocabulary(plain, chosen, classes)
    torch.manual_seed(0)
    if chosen.trained:
        head = JointHead(Head(backbone.features, chosen, vocabulary.targets.shape[1]), ClassHead.of(classifier))
        head.match_scales(torch.rand(8, backbone.features), torch.from_numpy(vocabulary.targets), chosen.trust)
    else:
        head = untrained_head(chosen, classifier, classes)
    info = {
        "backbone": BACKBONE,
        "size": 32,
        "mean": backbone.mean.flatten().tolist(),
        "std": backbone.std.flatten().tolist(),
        "classes": 50,
    }
    return Model(Network(backbone, head).eval(), vocabulary, info), chosen


LENGTHS = {"classifier": 50, "conse": DIMENSIONS, "sdl_plus": 8 + 50}


@pytest.mark.parametrize("name", LENGTHS)
def test_a_model_with_classes_is_kept_and_exported(name: str, weights: Path, tmp_path: Path) -> None:
    model, chosen = model_of(name, weights)
    pixels = np.stack([to_pixels(picture(seed), 32) for seed in range(6)])
    photos = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
    with torch.inference_mode():
        expected = model.network(photos)
    assert expected.shape == (6, 1, LENGTHS[name]) and expected.std() > 0
    assert model.vocabulary.vectors.shape == (len(TAGS), LENGTHS[name])

    save_model(tmp_path / "model", model.network, model.vocabulary, chosen, model.info, pd.DataFrame())
    back = load_model(tmp_path / "model")
    assert back.vocabulary.digest == model.vocabulary.digest
    with torch.inference_mode():
        torch.testing.assert_close(back.network(photos), expected)
        without = load_model(tmp_path / "model", from_features=True).network
        torch.testing.assert_close(without(back.network.backbone(photos)), expected)

    export_network(back, tmp_path / "model.onnx")
    runtime = Runtime(tmp_path / "model.onnx")
    np.testing.assert_allclose(runtime(pixels), expected.numpy(), atol=1e-4)
    check_agreement(compare_with_torch(back, runtime, pixels))

    # With another number of classes the file does not match.
    content = json.loads((tmp_path / "model" / "model.json").read_text())
    (tmp_path / "model" / "model.json").write_text(json.dumps({**content, "classes": 49}))
    with pytest.raises(ZerotagError, match=r"model\.pt: does not match .*model\.json"):
        load_model(tmp_path / "model")


def test_lifting_a_vocabulary_as_a_method_does() -> None:
    plain = Vocabulary(TAGS, unit_vectors(len(TAGS), DIMENSIONS), np.arange(len(TAGS)) % 3 > 0)
    classes = unit_vectors(4, DIMENSIONS, 1)
    assert lift_vocabulary(plain, METHODS["conse"], classes) is plain
    assert lift_vocabulary(plain, METHODS["sdl"]) is plain
    alone = lift_vocabulary(plain, METHODS["classifier"], classes)
    assert alone.space is not None and len(alone.space.seen) == 0 and alone.vectors.shape == (len(TAGS), 4)
    without = lift_vocabulary(plain, METHODS["sdl_plus"])
    assert without.vectors.shape == (len(TAGS), 8)


def test_a_method_that_needs_a_classifier() -> None:
    backbone = build_backbone(BACKBONE, "none")
    with pytest.raises(ZerotagError, match=rf"method conse needs weights with a classifier .* those of {BACKBONE}"):
        need_classifier(backbone.classifier, BACKBONE, "conse")
    classifier = random_classifier()
    assert need_classifier(classifier, BACKBONE, "conse") is classifier
    kept = classifier.keep(np.array([4, 1]))
    torch.testing.assert_close(kept.weight, classifier.weight[[4, 1]])
    torch.testing.assert_close(kept.bias, classifier.bias[[4, 1]])
