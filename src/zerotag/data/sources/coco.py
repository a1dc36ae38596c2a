"""COCO instances JSON: the categories in a photo are its tags."""

import json
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from zerotag.data.sources.base import PhotoFile, Source, find_files, hash_split, label_matrix, need
from zerotag.data.tables import read_text
from zerotag.errors import ZerotagError
from zerotag.words.tags import with_one_spelling


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
        ZerotagError: a missing file, invalid instances JSON, an annotation of an unknown photo or category, a photo in
            both files, or no photo of a file exists.
    """
    parts = [part for part in ("train", "test") if getattr(settings, part)]
    folders = {
        part: need(Path(getattr(settings, f"{part}_photos")), "folder", f"sources.coco.{part}_photos") for part in parts
    }
    instances = {
        part: _instances(need(Path(getattr(settings, part)), "file", f"sources.coco.{part}")) for part in parts
    }
    _once(settings, [name for part in parts for name in instances[part]])
    ids: list[str] = []
    files: list[PhotoFile] = []
    for part in parts:
        found = find_files(folders[part], list(instances[part]), getattr(settings, part), f"sources.coco.{part}_photos")
        ids += found[0]
        files += found[1]
    _once(settings, ids)
    train = [part == "train" for part in parts for _ in instances[part]]
    split = np.array(train)
    if not settings.test:
        split = hash_split(ids, settings.test_share, "sources.coco.test_share")
    tags_of_photos, spellings = with_one_spelling([tags for part in parts for tags in instances[part].values()])
    vocabulary = sorted({tag for tags in tags_of_photos for tag in tags})
    return Source(ids, files, vocabulary, label_matrix(tags_of_photos, vocabulary), split, spellings=spellings)


def _once(settings: CocoSettings, names: list[str]) -> None:
    if len(set(names)) < len(names):
        twice = Counter(names).most_common(1)[0][0]
        raise ZerotagError(f"{settings.test}: photo {twice} is in {settings.train} too. Remove it from one of them.")


def _instances(path: Path) -> dict[str, list[str]]:
    """File name -> tags."""
    try:
        content = json.loads(read_text(path, "a COCO instances JSON in UTF-8"))
    except json.JSONDecodeError as error:
        raise ZerotagError(
            f"{path}, line {error.lineno}: not a COCO instances JSON ({error.msg}). Download it again."
        ) from error
    categories = _by_id(path, content, "categories", "name")
    names = _by_id(path, content, "images", "file_name")
    tags_of_photos: dict[str, list[str]] = {}
    for place, each in enumerate(_list(path, content, "annotations")):
        image, category = (_id(path, "annotations", place, each, key) for key in ("image_id", "category_id"))
        for key, number, known, where in (
            ("image_id", image, names, "images"),
            ("category_id", category, categories, "categories"),
        ):
            if number not in known:
                raise ZerotagError(
                    f"{path}: annotations[{place}].{key} = {each[key]!r}: {where} has no such id (image {image}, "
                    f"category {category}). The file is incomplete; download it again."
                )
        tags = tags_of_photos.setdefault(names[image], [])
        if categories[category] not in tags:
            tags.append(categories[category])
    return tags_of_photos


def _list(path: Path, content: Any, name: str) -> list[Any]:
    found = content.get(name) if isinstance(content, dict) else None
    if not isinstance(found, list):
        what = "missing" if found is None else f"a {type(found).__name__}, not a list"
        raise ZerotagError(f"{path}: not a COCO instances JSON: {name} is {what}. Download it again.")
    return found


def _by_id(path: Path, content: Any, name: str, key: str) -> dict[int | str, str]:
    """The `key` of each entry of a list, by its id."""
    values: dict[int | str, str] = {}
    for place, each in enumerate(_list(path, content, name)):
        number = _id(path, name, place, each, "id")
        value = each.get(key)
        if not isinstance(value, str) or not value.strip():
            raise ZerotagError(
                f"{path}: not a COCO instances JSON: {name}[{place}].{key} is {value!r}; it must be a text."
            )
        if values.setdefault(number, value) != value:
            raise ZerotagError(f"{path}: {name}[{place}].id = {each['id']!r} is the id of {values[number]!r} too.")
    return values


def _id(path: Path, name: str, place: int, entry: Any, key: str) -> int | str:
    """An id; whole numbers are equal as text and as number, since programs write both."""
    value = entry.get(key) if isinstance(entry, dict) else None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int | str):
        what = "missing" if value is None else f"{value!r}; it must be a number or a text"
        raise ZerotagError(f"{path}: not a COCO instances JSON: {name}[{place}].{key} is {what}.")
    if isinstance(value, str):
        value = value.strip()
        return int(value) if re.fullmatch(r"-?[0-9]{1,30}", value) else value
    return value
