"""The embedded data set: repeatable, in NUS-WIDE's layout, with the tags that it promises."""

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from zerotag.data.sources import read
from zerotag.data.sources.scenes import draw_scene, render
from zerotag.data.sources.scenes_catalogue import ALL_TAGS, CONCEPTS, PLACES
from zerotag.errors import ZerotagError


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scenes") / "raw"
    render(folder, photos=40, size=48, seed=3, workers=2, progress=False)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_same_bytes_from_any_number_of_workers(scenes: Path, tmp_path: Path) -> None:
    render(tmp_path / "again", photos=40, size=48, seed=3, workers=1, progress=False)
    assert contents(tmp_path / "again") == contents(scenes)


def test_another_seed_gives_other_pictures(scenes: Path, tmp_path: Path) -> None:
    render(tmp_path / "other", photos=40, size=48, seed=4, workers=2, progress=False)
    assert not set(contents(tmp_path / "other").values()) & {
        data for name, data in contents(scenes).items() if name.endswith(".jpg")
    }


def test_layout_is_nus_wides(scenes: Path) -> None:
    listed = (scenes / "ImageList/Imagelist.txt").read_bytes()
    assert listed.count(b"\\") == listed.count(b"\r\n") == 40
    train = (scenes / "ImageList/TrainImagelist.txt").read_text().split()
    test = (scenes / "ImageList/TestImagelist.txt").read_text().split()
    assert sorted(train + test) == sorted(listed.decode().split())
    assert len((scenes / "Groundtruth/TrainTestLabels/Labels_sky_Test.txt").read_text().split()) == len(test)
    assert len(list((scenes / "Groundtruth/AllLabels").iterdir())) == len(CONCEPTS) == 81
    assert "rendered" in (scenes / "LICENCE.txt").read_text() and "CC-BY" in (scenes / "LICENCE.txt").read_text()


def test_the_real_reader_reads_it(scenes: Path) -> None:
    source = read("scenes", None, scenes)
    assert len(source.ids) == 40 and source.concepts == frozenset(CONCEPTS)
    count = np.asarray(source.labels.sum(axis=1)).ravel()
    assert count.min() >= 2 and count.max() <= 8
    for path in source.files:
        with Image.open(path) as picture:
            assert picture.size == (48, 48)


def test_tags_of_a_scene_name_its_place_and_light() -> None:
    for number in range(60):
        _, place, tags = draw_scene(np.random.default_rng([7, number]), 32)
        assert 2 <= len(tags) <= 8 and len(set(tags)) == len(tags)
        assert next(each for each in PLACES if each.name == place).tags[0] in tags


def test_tags_are_nus_wides(shared: Path) -> None:
    with (shared / "nus-wide/tags1006.csv").open() as file:
        split = {row["tag"]: row["split"] for row in csv.DictReader(file)}
    assert set(ALL_TAGS) <= set(split) and len(ALL_TAGS) >= 60
    unseen = {tag for tag, part in split.items() if part == "unseen"}
    assert unseen == set(CONCEPTS)
    assert len(unseen & set(ALL_TAGS)) >= 12


@pytest.mark.parametrize(("wrong", "named"), [({"photos": 3}, "photos = 3"), ({"size": 8}, "pixels = 8")])
def test_too_little_is_refused(wrong: dict[str, int], named: str, tmp_path: Path) -> None:
    with pytest.raises(ZerotagError, match=named):
        render(tmp_path / "raw", **wrong)
    assert not list(tmp_path.iterdir())
