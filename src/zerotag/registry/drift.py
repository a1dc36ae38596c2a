"""Drift of current photos and tags from a model's training data."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from zerotag.data.photos import open_photo
from zerotag.registry.requests import logged

if TYPE_CHECKING:  # the service watches drift without a dataset's dependencies
    from zerotag.data.dataset import Dataset

# Minimum sample size for drift of photos.
ENOUGH = 50
# In a package, or beside it in a champion's folder.
PROFILE = "profile.json"


@dataclass(frozen=True)
class Profile:
    """Attributes:
    tags: share of photos by tag.
    brightness: mean pixel value, 0 to 1, of a sample of photos.
    contrast: standard deviation of the pixel values, 0 to 1, of the same photos.
    """

    tags: dict[str, float]
    brightness: list[float]
    contrast: list[float]

    def write(self, file: Path) -> None:
        """Write JSON."""
        file.write_text(json.dumps(asdict(self)) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, file: Path) -> "Profile":
        """Read JSON."""
        return cls(**json.loads(file.read_text(encoding="utf-8")))


def profile(dataset: "Dataset", photos: int = 500, seed: int = 0) -> Profile:
    """The profile of a dataset's training photos.

    Args:
        dataset: of N photos.
        photos: sample size for brightness and contrast.
        seed: of the sample.
    """
    rows = dataset.train
    shares = np.asarray(dataset.labels[rows].mean(axis=0, dtype=np.float64)).ravel()
    some = np.sort(np.random.default_rng(seed).choice(rows, min(photos, rows.size), replace=False))
    levels = [brightness_and_contrast(np.asarray(open_photo(dataset.photo_bytes(row), str(row)))) for row in some]
    return Profile(
        {tag: round(float(share), 6) for tag, share in zip(dataset.tags["tag"], shares, strict=True)},
        [round(brightness, 4) for brightness, _ in levels],
        [round(contrast, 4) for _, contrast in levels],
    )


def brightness_and_contrast(pixels: np.ndarray) -> tuple[float, float]:
    """Mean and standard deviation of a photo's uint8 pixels, in [0, 1]."""
    levels = pixels[::4].astype(np.float32).ravel()  # a quarter of the pixels says the same, whole rows the soonest
    mean = float(levels.mean())
    return mean / 255, math.sqrt(max(0.0, float(levels @ levels) / levels.size - mean**2)) / 255


def training_profile(package: Path) -> Profile | None:
    """The profile of the photos that a packaged model was trained on; None if the package does not have it."""
    for file in (package / PROFILE, package.parent / PROFILE):
        if file.is_file():
            return Profile.read(file)
    return None


def request_profile(log: Path, since: date) -> Profile:
    """The profile of photos tagged by the service; without tags, as requests are unlabelled.

    Args:
        log: the service's request log, a folder of JSON Lines per day.
        since: the first day to include.
    """
    lines = list(logged(log, "tag", since))
    return Profile({}, [line["brightness"] for line in lines], [line["contrast"] for line in lines])


def tag_drift(then: Profile, now: Profile) -> float:
    """Total variation distance of the tag frequencies, 0 (equal) to 1 (disjoint)."""
    first, second = (np.array([each.tags.get(tag, 0.0) for tag in {**then.tags, **now.tags}]) for each in (then, now))
    if not first.sum() or not second.sum():
        return 0.0
    return float(np.abs(first / first.sum() - second / second.sum()).sum() / 2)


def photo_drift(then: Profile, now: Profile) -> float:
    """The larger Kolmogorov-Smirnov statistic of brightness and contrast, 0 to 1; 0 with too few photos."""
    if min(len(then.brightness), len(now.brightness)) < ENOUGH:
        return 0.0
    return max(distance(then.brightness, now.brightness), distance(then.contrast, now.contrast))


def distance(first: Sequence[float], second: Sequence[float]) -> float:
    """The Kolmogorov-Smirnov statistic of two samples: the largest difference of their shares below a value, 0 to 1."""
    values = np.concatenate([first, second])
    below = [np.searchsorted(np.sort(each), values, side="right") / len(each) for each in (first, second)]
    return float(np.abs(below[0] - below[1]).max())


def drift_reasons(then: Profile, now: Profile, asked: Profile, most_tags: float, most_photos: float) -> list[str]:
    """Descriptions of the drifts that exceed their thresholds.

    Args:
        then: profile of the champion's training data.
        now: profile of the current training data.
        asked: profile of the service's requests.
        most_tags: threshold for tag drift.
        most_photos: threshold for photo drift.
    """
    found = [
        ("tag frequencies", tag_drift(then, now), most_tags),
        ("training photos", photo_drift(then, now), most_photos),
        ("request photos", photo_drift(then, asked), most_photos),
    ]
    return [f"drift: {name} by {value:.2f}, threshold {most}" for name, value, most in found if value > most]
