"""Behaviour tests on pictures of one colour and models that look at colours."""

from collections.abc import Sequence

import numpy as np
import pytest
import scipy.sparse as sp
from PIL import Image

from zerotag.data.dataset import Dataset
from zerotag.data.prepare import PrepareSettings, prepare
from zerotag.data.sources.base import PhotoFile, Source
from zerotag.evaluation.behaviour import BehaviourSettings, Check, SamplePhoto, check_behaviour, more_specific

COLOURS = {"red": (200, 0, 0), "green": (0, 200, 0), "blue": (0, 0, 200)}
# Never shown, so that the five and ten best are not all there are.
OTHERS = [f"other {number}" for number in range(15)]
TAGS = [*COLOURS, *OTHERS]
VECTORS = np.eye(18, dtype=np.float32)
SEEN = np.ones(18, dtype=bool)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Two training and ten test pictures: half red and half green, or all blue, tagged with their colours."""
    folder = tmp_path_factory.mktemp("behaviour")
    labels, files = np.zeros((12, len(TAGS)), dtype=np.uint8), []
    for number in range(12):
        left, right = ("red", "green") if number % 2 else ("blue", "blue")
        picture = np.zeros((40, 60, 3), dtype=np.uint8)
        picture[:, :30], picture[:, 30:] = COLOURS[left], COLOURS[right]
        labels[number, [TAGS.index(left), TAGS.index(right)]] = 1
        files.append(folder / f"{number}.png")
        Image.fromarray(picture).save(files[-1])
    train = np.arange(12) < 2
    source = Source(
        [each.stem for each in files], [PhotoFile(each) for each in files], TAGS, sp.csr_matrix(labels), train
    )
    prepare(source, PrepareSettings(workers=1), folder / "prepared", folder / "work")
    return Dataset.read(folder / "prepared")


def colours(pictures: Sequence[Image.Image]) -> np.ndarray:
    """The mean colour, and less than nothing for the other tags, in their order."""
    means = [np.asarray(picture, dtype=np.float32).mean(axis=(0, 1)) for picture in pictures]
    return np.stack([[*mean, *-np.arange(1.0, 16.0)] for mean in means]).astype(np.float32)[:, None]


def left_or_nothing(pictures: Sequence[Image.Image]) -> np.ndarray:
    """The other tags, in an order that depends on which side is red, before the colours."""
    order = np.arange(1.0, 16.0)
    red = [np.asarray(picture)[0, 0, 0] > 100 for picture in pictures]
    return np.stack([[0, 0, 0, *(order if each else order[::-1])] for each in red]).astype(np.float32)[:, None]


def last_tag_first(pictures: Sequence[Image.Image]) -> np.ndarray:
    """The same for every picture."""
    return np.tile(np.arange(18, dtype=np.float32), (len(pictures), 1, 1))


def checks(model: object, dataset: Dataset, **settings: float) -> dict[str, Check]:
    samples = [SamplePhoto(Image.new("RGB", (8, 8), COLOURS["red"]), "red", VECTORS[0])]
    rendered = bool(settings.pop("rendered", False))
    return check_behaviour(
        model, TAGS, VECTORS, SEEN, dataset, samples, rendered, BehaviourSettings(**settings)  # type: ignore[arg-type]
    )  # fmt: skip


def test_a_model_that_sees_what_is_there_passes(dataset: Dataset) -> None:
    found = checks(colours, dataset)
    assert all(check.passed for check in found.values())
    assert {name for name in found if name.startswith("invariance")} == {
        "invariance.flip", "invariance.brightness", "invariance.jpeg", "invariance.resize"
    }  # fmt: skip
    assert found["invariance.flip"] == Check(1.0, 0.7, 10) and found["invariance.brightness"].cases == 20
    assert found["minimal.photos"] == Check(1.0, 0.8, 3) and found["minimal.samples"] == Check(1.0, 0.5, 1)
    assert found["direction"].figure is None  # colours have no kinds
    assert found["slices.all"].figure == 1 and found["slices.many_tags"].least == pytest.approx(0.7)


def test_a_model_that_does_not_fails(dataset: Dataset) -> None:
    found = checks(left_or_nothing, dataset)
    failed = {name for name, check in found.items() if not check.passed}
    assert failed == {"invariance.flip", "minimal.photos", "minimal.samples"}
    assert found["invariance.flip"].figure == pytest.approx(0.5)  # the blue pictures are the same from both sides
    assert found["slices.all"].figure == 0
    assert checks(left_or_nothing, dataset, rendered=True)["minimal.samples"] == Check(0.0, None, 1)
    assert checks(left_or_nothing, dataset, flip=0.5, photos=5)["invariance.flip"].passed


def test_a_more_specific_word_far_ahead(dataset: Dataset) -> None:
    """The tag of the blue pictures is "animal"; one of the others is "dog"."""
    tags = ["cat", "plant", "animal", *OTHERS[:-1], "dog"]
    assert more_specific(tags)[2] == [0, 17] and 0 not in more_specific(tags)
    renamed = dataset.tags.assign(tag=tags)
    photos = Dataset(dataset.root, dataset.photos, renamed, dataset.labels)
    settings = BehaviourSettings()
    for model, share in ((colours, 1.0), (last_tag_first, 0.0)):
        found = check_behaviour(model, tags, VECTORS, SEEN, photos, [], False, settings)
        assert found["direction"] == Check(share, 0.7, 5)


def test_no_photo_says_nothing(dataset: Dataset) -> None:
    empty = Dataset(dataset.root, dataset.photos, dataset.tags, sp.csr_matrix(dataset.labels.shape, dtype=np.uint8))
    assert checks(colours, empty) == {}
