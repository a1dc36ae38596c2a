"""COCO instances JSON: the categories in a photo are its tags."""

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from zerotag.data.sources.base import PhotoFile, Source, hash_split, label_matrix, need
from zerotag.errors import ZerotagError


@dataclass(frozen=True)
class CocoSettings:
    """Attributes:
    train: instances JSON of the training photos, such as instances_train2017.json.
    train_photos: their folder.
    test: instances JSON of the test photos, or empty to hold out `test_share` of the training photos.
    test_photos: their folder.
    test_share: share or number of test photos if `test` is empty.
    """

    train: str = "data/annotations/instances_train2017.json"
    train_photos: str = "data/train2017"
    test: str = "data/annotations/instances_val2017.json"
    test_photos: str = "data/val2017"
    test_share: float = 0.1


def read(settings: CocoSettings) -> Source:
    """Read the annotations; photos without annotations are skipped, as is usual for COCO.

    Raises:
        ZerotagError: a missing file, invalid instances JSON, an annotation of an unknown photo or category, or a
            photo in both files.
    """
    ids, files, tags_of_photos, train = [], [], [], []
    for part in ("train", "test"):
        annotations, folder = getattr(settings, part), getattr(settings, f"{part}_photos")
        if not annotations:
            continue
        photos = need(Path(folder), "folder", f"sources.coco.{part}_photos")
        for name, tags in _instances(need(Path(annotations), "file", f"sources.coco.{part}")).items():
            ids.append(name)
            files.append(PhotoFile(photos / name))
            tags_of_photos.append(tags)
            train.append(part == "train")
    if len(set(ids)) < len(ids):
        twice = Counter(ids).most_common(1)[0][0]
        raise ZerotagError(f"{settings.test}: photo {twice} is in {settings.train} too. Remove it from one of them.")
    split = np.array(train)
    if not settings.test:
        split = hash_split(ids, settings.test_share, "sources.coco.test_share")
    vocabulary = sorted({tag for tags in tags_of_photos for tag in tags})
    return Source(ids, files, vocabulary, label_matrix(tags_of_photos, vocabulary), split)


def _instances(path: Path) -> dict[str, list[str]]:
    """File name -> tags."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        categories = {category["id"]: category["name"] for category in content["categories"]}
        names = {image["id"]: image["file_name"] for image in content["images"]}
        pairs = dict.fromkeys((each["image_id"], each["category_id"]) for each in content["annotations"])
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise ZerotagError(f"{path}: not a COCO instances JSON ({error!r}). Download it again.") from error
    tags_of_photos: dict[str, list[str]] = {}
    for image, category in pairs:
        if image not in names or category not in categories:
            raise ZerotagError(
                f"{path}: an annotation refers to unlisted image {image} or category {category}. "
                "The file is incomplete; download it again."
            )
        tags_of_photos.setdefault(names[image], []).append(categories[category])
    return tags_of_photos
