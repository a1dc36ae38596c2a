"""Corel5K's protocol: who is a test photo, and what its tables change."""

import csv
from pathlib import Path

import pytest
import yaml
from benchmarks.corel5k import TEST, divided, write_table
from benchmarks.corel5k_tables import TABLES
from conftest import PROJECT

from zerotag.settings import read_params
from zerotag.sources.csv_table import CsvSettings, read

PHOTOS = 1400


def a_folder(folder: Path, names: list[str], parts: list[str] | None = None) -> Path:
    folder.mkdir()
    with (folder / "tags.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["image", "tags", *(["part"] if parts else [])])
        for number, name in enumerate(names):
            table.writerow([name, f"tag{number % 7} sea", *([parts[number]] if parts else [])])
    return folder


@pytest.fixture
def corel5k(tmp_path: Path) -> Path:
    return a_folder(tmp_path / "corel", [f"{number}.jpeg" for number in range(PHOTOS)])


def names(photos: list[tuple[str, str, str]], part: str) -> set[str]:
    return {file for file, _, its in photos if its == part}


def test_validation_photos_are_training_photos(corel5k: Path) -> None:
    photos = list(divided(corel5k, None, validation=False))
    assert len(photos) == PHOTOS and len(names(photos, "test")) == TEST
    chosen_by = list(divided(corel5k, None, validation=True))
    assert len(names(chosen_by, "test")) == TEST
    assert names(chosen_by, "train") | names(chosen_by, "test") == names(photos, "train")
    assert photos == list(divided(corel5k, None, validation=False))  # no seed, no clock


def test_a_division_of_the_tables_own(tmp_path: Path) -> None:
    parts = ["test" if number % 2 else "train" for number in range(PHOTOS)]
    folder = a_folder(tmp_path / "corel", [f"{number}.jpeg" for number in range(PHOTOS)], parts)
    photos = list(divided(folder, None, validation=False))
    assert [part for _, _, part in photos] == parts
    chosen_by = list(divided(folder, None, validation=True))
    assert names(chosen_by, "train") | names(chosen_by, "test") == names(photos, "train")


def test_another_folders_photos_as_test_photos(corel5k: Path, tmp_path: Path) -> None:
    other = a_folder(tmp_path / "other", ["1.jpeg", "9999.jpeg"])  # a name that both have is two photos
    photos = list(divided(corel5k, other, validation=False))
    assert len(names(photos, "train")) == PHOTOS
    assert names(photos, "test") == {str(other / "images" / name) for name in ("1.jpeg", "9999.jpeg")}
    write_table(tmp_path / "table.csv", iter(photos))
    source = read(CsvSettings(table=str(tmp_path / "table.csv"), photos=str(tmp_path)))
    assert source.train.sum() == PHOTOS and len(source.ids) == PHOTOS + 2
    assert source.files[-1].path == other / "images" / "9999.jpeg"
    assert names(list(divided(corel5k, other, validation=True)), "test").isdisjoint(names(photos, "test"))


@pytest.mark.parametrize("table", list(TABLES))
def test_rows_change_what_there_is(table: str) -> None:
    params = read_params(PROJECT / "params.yaml")
    for name, row in TABLES[table].items():
        assert row.method in params["methods"]
        assert row.against is None or row.against in TABLES[table], name
        for parameter in row.changes:
            *sections, last = parameter.split(".")
            section = params
            for each in sections:
                section = section[each]
            assert last in section or sections[0] == "method", name
    assert yaml.safe_dump({name: row.changes for name, row in TABLES[table].items()})  # plain values
