"""Behaviour tests of a model: what a person expects of its tags, whatever its mAP is.

Invariance
    Mirrored, darker or brighter, compressed or smaller, a photo keeps its best tags.
Direction
    On a photo of a word (animal), what is more specific (horse) and not there is not far ahead of the word.
Minimal function
    Of one clear test photo for each of the commonest seen tags, and of the sample photographs, the tag is among the
    ten best.
Slices
    Rare tags, photos of few or many tags, and dark or bright photos are not left behind.
"""

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageEnhance, ImageOps, ImageStat

from zerotag.data.dataset import Dataset
from zerotag.data.photos import open_photo
from zerotag.evaluation.evaluate import score_matrix
from zerotag.words.kinds import read_kinds
from zerotag.words.lexicon import singular_and_plural

# Best tags that an altered photo keeps, and best tags that hold what a photo shows.
_KEPT, _BEST = 5, 10
# Places by which a more specific word is far ahead.
_FAR = 10


@dataclass(frozen=True)
class BehaviourSettings:
    """Shares in [0, 1], of which `slices` is a maximum and the others are minima.

    Attributes:
        photos: maximum number of test photos.
        tags: number of tags in the test of minimal function, each on one photo.
        flip: mean share of the five best tags that stay when photos are mirrored.
        brightness: likewise, at 0.7 and 1.3 times the brightness.
        jpeg: likewise, as JPEG of quality 40.
        resize: likewise, at half the side.
        direction: share of photos of a word on which nothing more specific is far ahead of it.
        minimal: share of tags that are among the ten best of their photo.
        samples: likewise, of the sample photographs; only reported for a model trained on rendered scenes.
        slices: by how much a slice's share of tags among the ten best may be below all photos'.
    """

    photos: int = 200
    tags: int = 20
    flip: float = 0.7
    brightness: float = 0.7
    jpeg: float = 0.7
    resize: float = 0.7
    direction: float = 0.7
    minimal: float = 0.8
    samples: float = 0.5
    slices: float = 0.3


@dataclass(frozen=True)
class Check:
    """Attributes:
    figure: a share in [0, 1]; None if no photo says anything about it.
    least: its minimum; None if it is only reported.
    cases: number of photos, or of photos and tags, that it is a share of.
    """

    figure: float | None
    least: float | None
    cases: int

    @property
    def passed(self) -> bool:
        """Whether the figure is at least its minimum; one that is not known does not fail."""
        return self.figure is None or self.least is None or self.figure >= self.least

    def content(self) -> dict[str, Any]:
        """As JSON has it."""
        return {**asdict(self), "passed": self.passed}


@dataclass(frozen=True)
class SamplePhoto:
    """A photograph, the word for what it shows, and the word's vector, (d,)."""

    picture: Image.Image
    word: str
    vector: np.ndarray


def check_behaviour(
    principal: Callable[[Sequence[Image.Image]], np.ndarray],
    tags: Sequence[str],
    vectors: np.ndarray,
    seen: np.ndarray,
    dataset: Dataset,
    samples: Sequence[SamplePhoto],
    rendered: bool,
    settings: BehaviourSettings,
) -> dict[str, Check]:
    """Run all tests.

    Args:
        principal: n pictures -> (n, M, d) principal vectors.
        tags: the model's T tags.
        vectors: (T, d), their vectors.
        seen: (T,) bool, whether the model was trained on a tag.
        dataset: its test photos are used.
        samples: the sample photographs; words that are not tags compete with all tags.
        rendered: whether the model was trained on rendered scenes, and so knows nothing of photographs.
        settings: bounds.

    Returns:
        Checks by name.
    """
    rows = dataset.test[dataset.labels[dataset.test][:, dataset.columns(list(tags))].getnnz(axis=1) > 0]
    rows = rows[:: max(1, -(-rows.size // settings.photos))]
    labels = dataset.labels[rows][:, dataset.columns(list(tags))].toarray().astype(bool)
    pictures = [open_photo(dataset.photo_bytes(int(row)), str(dataset.photos["id"].iloc[row])) for row in rows]
    if not pictures:
        return {}

    def places(altered: Sequence[Image.Image]) -> np.ndarray:
        return _places(score_matrix(principal(altered), vectors))

    plain = places(pictures)
    checks = {}
    for name, changes in _CHANGES.items():
        kept = [((places(list(map(change, pictures))) < _KEPT) & (plain < _KEPT)).sum(axis=1) for change in changes]
        shares = np.concatenate(kept) / min(_KEPT, len(tags))
        checks[f"invariance.{name}"] = Check(float(shares.mean()), getattr(settings, name), shares.size)
    checks["direction"] = _share(_direction(plain, labels, more_specific(tags)), settings.direction)
    checks["minimal.photos"] = _share(_minimal(plain, labels & seen, settings.tags), settings.minimal)
    found = [_is_found(principal([each.picture])[0], each, tags, vectors) for each in samples]
    checks["minimal.samples"] = _share(found, None if rendered else settings.samples)
    everything = float((plain < _BEST)[labels].mean())
    frequency = dataset.tags["train_photos"].to_numpy()[dataset.columns(list(tags))]
    brightness = np.array([ImageStat.Stat(picture.convert("L")).mean[0] for picture in pictures])
    checks["slices.all"] = Check(everything, None, int(labels.sum()))
    for name, chosen in _slices(labels, frequency, brightness).items():
        checks[f"slices.{name}"] = _share((plain < _BEST)[labels & chosen], everything - settings.slices)
    return checks


def more_specific(tags: Sequence[str]) -> dict[int, list[int]]:
    """Of each tag that has some, the tags that are more specific: dog, not cat, for animal.

    A word is more specific than another if the classes of ImageNet that are kinds of it are some of the other's.
    """
    table = read_kinds()
    forms = [(tag.lower(), *singular_and_plural(tag.lower())) for tag in tags]
    classes = [set(next((table[form] for form in each if form in table), ())) for each in forms]
    kin = {
        place: [other for other, fewer in enumerate(classes) if fewer and fewer < own]
        for place, own in enumerate(classes)
    }
    return {place: others for place, others in kin.items() if others}


def _compressed(picture: Image.Image) -> Image.Image:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=40)
    return Image.open(buffer).convert("RGB")


def _darker(picture: Image.Image) -> Image.Image:
    return ImageEnhance.Brightness(picture).enhance(0.7)


def _brighter(picture: Image.Image) -> Image.Image:
    return ImageEnhance.Brightness(picture).enhance(1.3)


def _smaller(picture: Image.Image) -> Image.Image:
    return picture.resize((max(1, picture.width // 2), max(1, picture.height // 2)), Image.Resampling.BICUBIC)


_CHANGES: dict[str, list[Callable[[Image.Image], Image.Image]]] = {
    "flip": [ImageOps.mirror],
    "brightness": [_darker, _brighter],
    "jpeg": [_compressed],
    "resize": [_smaller],
}


def _places(scores: np.ndarray) -> np.ndarray:
    """(n, T) scores -> the place of each tag, from 0 for the best."""
    return np.argsort(np.argsort(-scores, axis=1, kind="stable"), axis=1, kind="stable")


def _share(passed: Sequence[bool] | np.ndarray, least: float | None) -> Check:
    return Check(float(np.mean(passed)) if len(passed) else None, least, len(passed))


def _direction(places: np.ndarray, labels: np.ndarray, kin: Mapping[int, list[int]]) -> list[bool]:
    """For each photo of a word with more specific kin that is not there: whether none of it is far ahead."""
    passed = []
    for word, others in kin.items():
        for photo in np.flatnonzero(labels[:, word]):
            absent = [other for other in others if not labels[photo, other]]
            if absent:
                passed.append(bool(places[photo, absent].min() >= places[photo, word] - _FAR))
    return passed


def _minimal(places: np.ndarray, labels: np.ndarray, count: int) -> list[bool]:
    """For each of the commonest tags: whether it is among the best of that photo of it that has fewest tags."""
    common = [tag for tag in np.argsort(-labels.sum(axis=0), kind="stable")[:count] if labels[:, tag].any()]
    clear = [min(np.flatnonzero(labels[:, tag]), key=lambda photo: labels[photo].sum()) for tag in common]
    return [bool(places[photo, tag] < _BEST) for photo, tag in zip(clear, common, strict=True)]


def _is_found(principal: np.ndarray, sample: SamplePhoto, tags: Sequence[str], vectors: np.ndarray) -> bool:
    others = vectors[[tag != sample.word for tag in tags]]
    scores = score_matrix(principal[None], np.concatenate([sample.vector[None], others]))
    return bool(_places(scores)[0, 0] < _BEST)


def _slices(labels: np.ndarray, frequency: np.ndarray, brightness: np.ndarray) -> dict[str, np.ndarray]:
    """Masks of labels, (n, T) or what broadcasts to it: halves of the labels or photos."""
    own = frequency[np.nonzero(labels)[1]]
    count = labels.sum(axis=1)
    rare = frequency[None] <= np.median(own)
    few, dark = (count <= np.median(count))[:, None], (brightness <= np.median(brightness))[:, None]
    halves = {"rare_tags": rare, "common_tags": ~rare, "few_tags": few, "many_tags": ~few}
    return {**halves, "dark": dark, "bright": ~dark}
