"""The data sources: csv, coco and nus-wide, good and bad; `scenes` has tests of its own."""

import csv
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from zerotag.data import sources
from zerotag.data.sources.base import Source, hash_split
from zerotag.data.sources.nus_wide import read_table
from zerotag.data.splits import SplitSettings, split_tags
from zerotag.errors import ZerotagError
from zerotag.settings import read_params


def fails(read: Callable[[], object], *parts: str) -> None:
    """The call is refused with a message that has these parts."""
    with pytest.raises(ZerotagError) as caught:
        read()
    message = str(caught.value)
    for part in parts:
        assert part in message, message


def tags_of(source: Source) -> dict[str, set[str]]:
    """Tags of each photo."""
    return {name: {source.tags[column] for column in source.labels[row].indices} for row, name in enumerate(source.ids)}


# Which source, and its parameters.


def test_unknown_source_and_unknown_parameter(tmp_path: Path) -> None:
    fails(lambda: sources.read("flickr", {}, tmp_path), "params.yaml: source = 'flickr'", "csv", "nus-wide")
    fails(lambda: sources.read("csv", {"tabel": "x"}, tmp_path), "sources.csv.tabel is unknown", "table")
    fails(lambda: sources.read("csv", {"min_photos": "many"}, tmp_path), "sources.csv.min_photos = 'many'")


def test_params_yaml_that_cannot_be_read(tmp_path: Path) -> None:
    file = tmp_path / "params.yaml"
    fails(lambda: read_params(file), str(file), "cannot be read")
    file.write_text("source: [csv")
    fails(lambda: read_params(file), str(file), "line 1")
    file.write_text("- csv")
    fails(lambda: read_params(file), str(file), "mapping")


# csv.


@pytest.fixture
def photo_folder(photo_folder: Path) -> Path:
    """With the photos that the tests' own tables name."""
    for name in "abc":
        (photo_folder / "images" / f"{name}.jpg").touch()
    return photo_folder


def csv_params(folder: Path, **changes: Any) -> dict[str, Any]:
    return {"table": str(folder / "tags.csv"), "photos": str(folder / "images"), **changes}


def read_csv(folder: Path, **changes: Any) -> Source:
    return sources.read("csv", csv_params(folder, **changes), folder)


def test_csv(photo_folder: Path) -> None:
    source = read_csv(photo_folder, test=3)
    assert source.ids == [f"{number:02d}.jpg" for number in range(12)]
    assert source.files[4].path == photo_folder / "images" / "04.jpg"
    assert source.tags == sorted(source.tags) and len(source.tags) == 10
    assert tags_of(source)["04.jpg"] == {"mountain", "tree"}
    assert source.labels.dtype == np.uint8 and source.train.sum() == 9
    assert not source.concepts


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", ["line 1", "image and tags missing", "nothing"]),
        ("image,words\na.jpg,sea\n", ["line 1", "column tags missing", "found image, words", "image,tags"]),
        ("photo,label\na.jpg,sea\n", ["line 1", "image and tags missing"]),
        ("image,tags\na.jpg,sea\nb.jpg,\n", ["line 3", "b.jpg has no tags", "remove the line"]),
        ("image,tags\na.jpg,sea\nb.jpg\n", ["line 3", "b.jpg has no tags"]),
        ("image,tags\na.jpg,sea\n,sky\n", ["line 3", "no image"]),
        ("image,tags\na.jpg,sea\nb.jpg,sky\na.jpg,sun\n", ["line 4", "a.jpg is already on line 2", "one line"]),
        ("image,tags\na.jpg,sea\nb.jpg,sky,sand\n", ["line 3", "more values than columns", "sources.csv.separator"]),
        ("image,tags,part\na.jpg,sea,train\nb.jpg,sky,val\n", ["line 3", "'val'", "train or test"]),
        ("image,tags,part\na.jpg,sea,train\nb.jpg,sky,\n", ["b.jpg has no part"]),
        ("image,tags,part\na.jpg,sea,train\nb.jpg,sky,train\n", ["every photo has part train"]),
        ("image,tags\n", ["lists no photos"]),
    ],
)
def test_csv_that_is_wrong_names_the_line(photo_folder: Path, text: str, parts: list[str]) -> None:
    (photo_folder / "tags.csv").write_text(text)
    fails(lambda: read_csv(photo_folder), str(photo_folder / "tags.csv"), *parts)


def test_csv_of_another_encoding(photo_folder: Path) -> None:
    (photo_folder / "tags.csv").write_bytes("image,tags\na.jpg,café\n".encode("latin-1"))
    fails(lambda: read_csv(photo_folder), str(photo_folder / "tags.csv"), "UTF-8")
    (photo_folder / "tags.csv").write_bytes("image,tags\r\na.jpg,café\r\nb.jpg,thé\r\n".encode("utf-8-sig"))
    assert read_csv(photo_folder, test=1).tags == ["café", "thé"]


def test_csv_files_that_are_missing(photo_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fails(lambda: read_csv(photo_folder, table="no.csv"), "no.csv", "params.yaml: sources.csv.table")
    fails(lambda: read_csv(photo_folder, photos="nowhere"), "nowhere", "params.yaml: sources.csv.photos")
    monkeypatch.chdir(tmp_path / "data")
    fails(lambda: sources.read("csv", {}, tmp_path), "data/tags.csv", "dvc add data")


@pytest.mark.parametrize(
    ("separator", "tags"),
    [(" ", "sea  big"), ("|", "sea| big|"), (";", "sea;big"), (",", '"sea,big"'), (" ", "sea\tbig sea")],
)
def test_csv_separator(photo_folder: Path, separator: str, tags: str) -> None:
    (photo_folder / "tags.csv").write_text(f"image,tags\na.jpg,{tags}\nb.jpg,sea\n")
    assert tags_of(read_csv(photo_folder, separator=separator, test=1))["a.jpg"] == {"sea", "big"}


def test_csv_tags_of_several_words(photo_folder: Path) -> None:
    for separator in ("|", "\t"):
        (photo_folder / "tags.csv").write_text(f"image,tags\na.jpg,northern lights{separator}sea\nb.jpg,sea\n")
        assert read_csv(photo_folder, separator=separator, test=1).tags == ["northern lights", "sea"]


def test_csv_min_photos(photo_folder: Path) -> None:
    (photo_folder / "tags.csv").write_text("image,tags\na.jpg,sea sky\nb.jpg,sea\nc.jpg,sun sun\n")
    source = read_csv(photo_folder, min_photos=2, test=1)
    assert tags_of(source) == {"a.jpg": {"sea"}, "b.jpg": {"sea"}, "c.jpg": set()}
    fails(lambda: read_csv(photo_folder, min_photos=3), "sources.csv.min_photos", "3 photos", "Lower it")


def test_csv_part_column(photo_folder: Path) -> None:
    (photo_folder / "tags.csv").write_text("image,tags,part\na.jpg,sea,test\nb.jpg,sea,train\nc.jpg,sea,test\n")
    assert read_csv(photo_folder).train.tolist() == [False, True, False]


def test_rejected_tags_of_a_table(photo_folder: Path) -> None:
    (photo_folder / "tags.csv").write_text(
        "image,tags,rejected\na.jpg,sea,#Sun  boat\nb.jpg,sea Sun,\nc.jpg,sun,Sea sun\n"
    )
    source = read_csv(photo_folder, test=1)
    assert source.tags == ["sea", "sun"] and source.rejected is not None
    # Nobody has a boat; and a photo's own tag is not rejected.
    assert source.rejected.toarray().tolist() == [[0, 1], [0, 0], [1, 0]]
    rows = [{"image": "a.jpg", "tags": ["sea"], "rejected": ["sun"]}, {"image": "b.jpg", "tags": "sun"}]
    rows += [{"image": "c.jpg", "tags": "sea sun", "rejected": None}]
    (photo_folder / "tags.jsonl").write_text("\n".join(map(json.dumps, rows)))
    source = read_csv(photo_folder, table=str(photo_folder / "tags.jsonl"), test=1)
    assert source.rejected is not None and source.rejected.toarray().tolist() == [[0, 1], [0, 0], [0, 0]]
    (photo_folder / "tags.csv").write_text("image,tags,rejected\na.jpg,sea,\nb.jpg,sea,\nc.jpg,sun,moon\n")
    assert read_csv(photo_folder, test=1).rejected is None


def test_json_lines(photo_folder: Path) -> None:
    table = photo_folder / "tags.jsonl"
    rows = [
        {"image": "a.jpg", "tags": ["northern lights", "sea"], "part": "train"},
        {"image": "b.jpg", "tags": "sea sun", "part": "test", "camera": "old\u2028one"},
    ]
    table.write_text("\n\n".join(json.dumps(row, ensure_ascii=False) for row in rows))
    source = read_csv(photo_folder, table=str(table))
    assert tags_of(source) == {"a.jpg": {"northern lights", "sea"}, "b.jpg": {"sea", "sun"}}
    assert source.train.tolist() == [True, False]


@pytest.mark.parametrize(
    "line", ['{"image": "b.jpg", "tags": ["sea"', '{"image": "b.jpg"}', '{"tags": ["sea"]}', '["b.jpg"]', "b.jpg,sea",
             '{"image": 7, "tags": ["sea"]}', '{"image": "b.jpg", "tags": [7]}', '{"image": "b.jpg", "tags": []}',
             '{"image": "b.jpg", "tags": ["sea"], "part": 1}', '{"image": "", "tags": "sea"}'],
)  # fmt: skip
def test_json_lines_with_a_broken_line(photo_folder: Path, line: str) -> None:
    table = photo_folder / "tags.jsonl"
    table.write_text('{"image": "a.jpg", "tags": ["sea"]}\n' + line + "\n")
    fails(lambda: read_csv(photo_folder, table=str(table)), f"{table}, line 2: ")


@given(st.lists(st.text(min_size=1, max_size=8), min_size=2, max_size=60, unique=True), st.data())
def test_hash_split_does_not_depend_on_the_order(ids: list[str], data: st.DataObject) -> None:
    test = data.draw(st.integers(1, len(ids) - 1))
    train = hash_split(ids, test, "x")
    assert (~train).sum() == test
    shuffled = data.draw(st.permutations(ids))
    assert dict(zip(ids, train, strict=True)) == dict(zip(shuffled, hash_split(shuffled, test, "x"), strict=True))
    # The same number of test photos of more photos: who was in training stays there.
    more = hash_split([*ids, "new photo.jpg"], test, "x")
    assert not (train & ~more[:-1]).any()


@pytest.mark.parametrize(("test", "count"), [(0.1, 10), (0.5, 50), (1, 1), (99, 99)])
def test_hash_split_counts(test: float, count: int) -> None:
    assert (~hash_split([str(number) for number in range(100)], test, "x")).sum() == count


@pytest.mark.parametrize("test", [0, 0.001, 100, 500, -3])
def test_hash_split_that_leaves_a_part_empty(test: float) -> None:
    ids = [str(number) for number in range(100)]
    fails(lambda: hash_split(ids, test, "sources.csv.test"), "params.yaml: sources.csv.test", "of 100")


def test_csv_division_is_the_same_in_any_order(photo_folder: Path) -> None:
    before = read_csv(photo_folder, test=0.25)
    header, *lines = (photo_folder / "tags.csv").read_text().splitlines()
    random.Random(3).shuffle(lines)
    (photo_folder / "tags.csv").write_text("\n".join([header, *lines]))
    after = read_csv(photo_folder, test=0.25)
    assert before.ids != after.ids and tags_of(before) == tags_of(after)
    assert dict(zip(before.ids, before.train, strict=True)) == dict(zip(after.ids, after.train, strict=True))


def test_corel5k(corel: Path) -> None:
    source = read_csv(corel, test=500, photos=str(corel / "images"))
    assert source.labels.shape == (4500, 371)  # of 374 words, 3 tag no photo
    assert source.train.sum() == 4000
    assert 3.4 < source.labels.sum() / 4500 < 3.6
    assert all(file.path.is_file() for file in source.files)


def test_fetch_lists_the_photos_and_their_sizes(photo_folder: Path, tmp_path: Path) -> None:
    (photo_folder / "images" / "03.jpg").unlink()
    raw = tmp_path / "raw"
    for _ in range(2):  # a second time replaces the first
        sources.fetch("csv", csv_params(photo_folder), raw, tmp_path / "work", tmp_path / "downloads.lock")
    with (raw / "inventory.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    sizes = {Path(row["file"]).name: row["bytes"] for row in rows}
    assert len(sizes) == 12 and sizes["03.jpg"] == "missing"
    assert int(sizes["00.jpg"]) == (photo_folder / "images" / "00.jpg").stat().st_size
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_fetch_that_fails_writes_nothing(tmp_path: Path) -> None:
    fails(
        lambda: sources.fetch(
            "csv", csv_params(tmp_path), tmp_path / "raw", tmp_path / "work", tmp_path / "downloads.lock"
        ),
        "tags.csv",
    )
    assert not (tmp_path / "raw").exists()


# coco.


def instances(photos: dict[str, list[str]], categories: tuple[str, ...] = ("dog", "cat", "fire hydrant")) -> dict:
    """An instances JSON, with COCO's gaps in the ids and an object twice."""
    numbers = {name: 3 * place + 1 for place, name in enumerate(categories)}
    images = [{"id": 100 + place, "file_name": name} for place, name in enumerate(photos)]
    annotations = [
        {"id": 0, "image_id": image["id"], "category_id": numbers[tag], "bbox": [0, 0, 1, 1]}
        for image, tags in zip(images, photos.values(), strict=True)
        for tag in [*tags, *tags[:1]]
    ]
    return {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": number, "name": name} for name, number in numbers.items()],
    }


@pytest.fixture
def coco(tmp_path: Path) -> dict[str, Any]:
    """Parameters of a small COCO."""
    for part, photos in (
        ("train", {"1.jpg": ["dog"], "2.jpg": ["dog", "cat"], "3.jpg": []}),
        ("test", {"4.jpg": ["fire hydrant"]}),
    ):
        (tmp_path / part).mkdir()
        for name in photos:
            (tmp_path / part / name).touch()
        (tmp_path / f"{part}.json").write_text(json.dumps(instances(photos)))
    return {
        "train": str(tmp_path / "train.json"), "train_photos": str(tmp_path / "train"),
        "test": str(tmp_path / "test.json"), "test_photos": str(tmp_path / "test"),
    }  # fmt: skip


def test_coco(coco: dict[str, Any], tmp_path: Path) -> None:
    source = sources.read("coco", coco, tmp_path)
    assert tags_of(source) == {"1.jpg": {"dog"}, "2.jpg": {"dog", "cat"}, "4.jpg": {"fire hydrant"}}
    assert source.train.tolist() == [True, True, False]
    assert source.files[2].path == tmp_path / "test" / "4.jpg"
    assert source.labels.max() == 1


def test_coco_without_test_file(coco: dict[str, Any], tmp_path: Path) -> None:
    source = sources.read("coco", {**coco, "test": "", "test_share": 0.5}, tmp_path)
    assert sorted(source.ids) == ["1.jpg", "2.jpg"] and source.train.sum() == 1


@pytest.mark.parametrize(
    "content", ['{"images": [', "[]", '{"images": []}', '{"images": 1, "annotations": 1, "categories": 1}', "7",
                '{"images": [{"id": []}], "annotations": [], "categories": []}', "\x00\x01"],
)  # fmt: skip
def test_coco_that_is_no_instances_json(coco: dict[str, Any], tmp_path: Path, content: str) -> None:
    Path(coco["train"]).write_text(content)
    fails(lambda: sources.read("coco", coco, tmp_path), coco["train"], "instances JSON")


@pytest.mark.parametrize("key", ["categories", "images"])
def test_coco_with_an_unknown_category_or_photo(coco: dict[str, Any], tmp_path: Path, key: str) -> None:
    content = instances({"1.jpg": ["dog"]})
    content[key] = content[key][1:]
    Path(coco["train"]).write_text(json.dumps(content))
    fails(lambda: sources.read("coco", coco, tmp_path), coco["train"], "image 100", "category 1", "download it again")


def test_coco_with_a_photo_in_both_files(coco: dict[str, Any], tmp_path: Path) -> None:
    Path(coco["test"]).write_text(json.dumps(instances({"4.jpg": ["cat"], "2.jpg": ["dog"]})))
    fails(lambda: sources.read("coco", coco, tmp_path), coco["test"], coco["train"], "2.jpg")


def test_coco_with_a_missing_file(coco: dict[str, Any], tmp_path: Path) -> None:
    for key in coco:
        fails(lambda key=key: sources.read("coco", {**coco, key: "gone"}, tmp_path), "gone", f"sources.coco.{key}")


# nus-wide.


def write_nus_wide(
    folder: Path,
    user_tags: list[str],
    concepts: list[str],
    tables: dict[str, tuple[np.ndarray, np.ndarray]],
) -> None:
    """Write the official layout, with the published files' backslashes, line ends and trailing tabs.

    Args:
        folder: where to.
        user_tags, concepts: the lists.
        tables: for Train and Test, user tags (photos, user tags) and ground truth (photos, concepts).
    """
    for name in ("ConceptsList", "ImageList", "NUS_WID_Tags", "Groundtruth/TrainTestLabels", "images"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / "ConceptsList" / "Concepts81.txt").write_text("\n".join(concepts) + "\n")
    (folder / "NUS_WID_Tags" / "TagList1k.txt").write_text("\r\n".join(user_tags) + "\r\n", newline="")
    number = 0
    for part, (tags, truth) in tables.items():
        lines = []
        for _ in tags:
            lines.append(f"actor\\{number:04d}_{2_000_000 + number}.jpg\r\n")
            photo = folder / "images" / "actor" / f"{number:04d}_{2_000_000 + number}.jpg"
            photo.parent.mkdir(exist_ok=True)
            photo.touch()
            number += 1
        (folder / "ImageList" / f"{part}Imagelist.txt").write_text("".join(lines), newline="")
        rows = "".join("".join(f"{value}\t" for value in row) + "\r\n" for row in tags)
        (folder / "NUS_WID_Tags" / f"{part}_Tags1k.dat").write_text(rows, newline="")
        for column, concept in enumerate(concepts):
            label = folder / "Groundtruth" / "TrainTestLabels" / f"Labels_{concept}_{part}.txt"
            label.write_text("".join(f"{value}\n" for value in truth[:, column]))


def nus_wide(folder: Path) -> Source:
    return sources.read("nus-wide", {"folder": str(folder), "photos": str(folder / "images"), "counts": {}}, folder)


USER_TAGS = ["abandoned", "sky", "beach", "dog", "zoo"]
CONCEPTS = ["dog", "sky", "tower"]


@pytest.fixture
def layout(tmp_path: Path) -> Path:
    """A small NUS-WIDE: 6 training and 4 test photos."""
    generator = np.random.default_rng(0)
    tables = {
        part: (generator.integers(0, 2, (photos, 5)), generator.integers(0, 2, (photos, 3)))
        for part, photos in (("Train", 6), ("Test", 4))
    }
    write_nus_wide(tmp_path, USER_TAGS, CONCEPTS, tables)
    return tmp_path


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**32 - 1))
def test_nus_wide_round_trip(tmp_path: Path, train: int, test: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    tables = {
        part: (generator.integers(0, 2, (photos, 5)), generator.integers(0, 2, (photos, 3)))
        for part, photos in (("Train", train), ("Test", test))
    }
    write_nus_wide(tmp_path, USER_TAGS, CONCEPTS, tables)
    source = nus_wide(tmp_path)
    assert source.tags == ["abandoned", "beach", "zoo", "dog", "sky", "tower"]
    assert source.concepts == {"dog", "sky", "tower"}
    # The user tags `dog` and `sky` give way to the concepts' ground truth.
    expected = np.vstack([np.hstack([tags[:, [0, 2, 4]], truth]) for tags, truth in tables.values()])
    assert np.array_equal(source.labels.toarray(), expected)
    assert source.train.tolist() == [True] * train + [False] * test
    assert source.ids[0] == "actor/0000_2000000.jpg"
    assert source.files[0].path == tmp_path / "images" / "actor" / "0000_2000000.jpg"


FILES = [
    "ConceptsList/Concepts81.txt",
    "NUS_WID_Tags/TagList1k.txt",
    "ImageList/TestImagelist.txt",
    "NUS_WID_Tags/Train_Tags1k.dat",
    "Groundtruth/TrainTestLabels/Labels_sky_Test.txt",
]


@pytest.mark.parametrize("name", FILES)
def test_nus_wide_with_a_missing_file(layout: Path, name: str) -> None:
    (layout / name).unlink()
    fails(lambda: nus_wide(layout), str(layout / name), "missing", "Unpack")


def test_nus_wide_without_its_folder(tmp_path: Path) -> None:
    fails(lambda: nus_wide(tmp_path / "none"), str(tmp_path / "none"), "sources.nus-wide.folder")


@pytest.mark.parametrize("name", FILES[3:])
@pytest.mark.parametrize("change", [lambda lines: lines[:-1], lambda lines: [*lines, lines[0]]])
def test_nus_wide_with_a_line_less_or_more(layout: Path, name: str, change: Callable[[list], list]) -> None:
    lines = (layout / name).read_bytes().splitlines(keepends=True)
    (layout / name).write_bytes(b"".join(change(lines)))
    listed = "6" if "Train_" in name else "4"
    fails(
        lambda: nus_wide(layout),
        str(layout / name),
        f"{len(change(lines))} lines",
        f"has {listed}",
        "download it again",
    )


def test_nus_wide_with_a_photo_list_one_line_short(layout: Path) -> None:
    listed = layout / "ImageList" / "TrainImagelist.txt"
    listed.write_bytes(b"".join(listed.read_bytes().splitlines(keepends=True)[:-1]))
    fails(lambda: nus_wide(layout), str(layout / "NUS_WID_Tags" / "Train_Tags1k.dat"), "6 lines", "has 5")


@pytest.mark.parametrize(
    "garbage", [b"0\t1\t2\t0\t1\t\r\n", b"<html>\n", b"0 1\n", b"0 1 0 0 1 1\n", b"10 1 0 0 1\n", b"\xff\xfe"]
)
def test_nus_wide_with_a_wrong_line_names_it(layout: Path, garbage: bytes) -> None:
    file = layout / "NUS_WID_Tags" / "Train_Tags1k.dat"
    lines = file.read_bytes().splitlines(keepends=True)
    lines[2] = garbage
    file.write_bytes(b"".join(lines))
    fails(lambda: nus_wide(layout), f"{file}, line 3: expected 5 values of 0 or 1")


def test_nus_wide_with_a_short_and_a_long_line(layout: Path) -> None:
    file = layout / "NUS_WID_Tags" / "Train_Tags1k.dat"
    lines = [line.split() for line in file.read_bytes().splitlines()]
    lines[4].append(lines[1].pop())  # the number of values is right, the rows between would be shifted
    file.write_bytes(b"".join(b"\t".join(line) + b"\n" for line in lines))
    fails(lambda: nus_wide(layout), f"{file}, line 2: expected 5 values of 0 or 1, found 4")


def test_a_wrong_label_is_taken_from_the_whole_list(layout: Path) -> None:
    """The published Labels_lake_Train.txt has -1130179 on one line."""
    expected = nus_wide(layout)
    truth = layout / "Groundtruth"
    (truth / "AllLabels").mkdir()
    lists = {part: (layout / "ImageList" / f"{part}Imagelist.txt").read_text().split() for part in ("Train", "Test")}
    labels = {part: (truth / "TrainTestLabels" / f"Labels_sky_{part}.txt").read_text().split() for part in lists}
    # The whole list has an order of its own.
    rows = sorted(zip(lists["Train"] + lists["Test"], labels["Train"] + labels["Test"], strict=True), reverse=True)
    (layout / "ImageList" / "Imagelist.txt").write_text("".join(f"{name}\r\n" for name, _ in rows))
    (truth / "AllLabels" / "Labels_sky.txt").write_text("".join(f"{value}\n" for _, value in rows))
    wrong = truth / "TrainTestLabels" / "Labels_sky_Train.txt"
    wrong.write_text("\n".join([*labels["Train"][:3], "-1130179", *labels["Train"][4:]]) + "\n")
    with pytest.warns(UserWarning, match=r"Labels_sky_Train\.txt, line 4: .*AllLabels"):
        source = nus_wide(layout)
    assert (source.labels != expected.labels).nnz == 0
    (truth / "AllLabels" / "Labels_sky.txt").unlink()
    fails(lambda: nus_wide(layout), "Labels_sky_Train.txt, line 4")


def test_nus_wide_with_a_binary_list(layout: Path) -> None:
    file = layout / "NUS_WID_Tags" / "TagList1k.txt"
    file.write_bytes(b"\x1f\x8b\xff\xfe\x00")
    fails(lambda: nus_wide(layout), str(file), "UTF-8")


def test_tables_larger_than_a_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = sp.random(200, 30, 0.1, "csr", random_state=0)
    expected.data[:] = 1
    file = tmp_path / "table.dat"
    file.write_text("".join("\t".join(str(int(value)) for value in row) + "\t\r\n" for row in expected.toarray()))
    for block in (7, 64, 1001):
        monkeypatch.setattr("zerotag.data.sources.nus_wide._BLOCK", block)
        assert (read_table(file, 200, 30) != expected).nnz == 0


def test_the_real_names_give_the_925_and_81_of_the_literature(shared: Path, tmp_path: Path) -> None:
    listed = pd.read_csv(shared / "nus-wide" / "tags1006.csv", keep_default_na=False)
    seen = listed["tag"][listed["split"] == "seen"].tolist()
    concepts = listed["tag"][listed["split"] == "unseen"].tolist()
    user_tags = sorted(seen + concepts[:75])
    assert (len(seen), len(concepts), len(user_tags)) == (925, 81, 1000)
    generator = np.random.default_rng(0)
    tables = {
        part: (generator.integers(0, 2, (3, 1000)), generator.integers(0, 2, (3, 81))) for part in ("Train", "Test")
    }
    write_nus_wide(tmp_path, user_tags, concepts, tables)
    source = nus_wide(tmp_path)
    table = pd.DataFrame({"tag": source.tags, "concept": [int(tag in source.concepts) for tag in source.tags]})
    split = split_tags(SplitSettings("nus-wide"), table, source.tags)
    assert dict(zip(split["tag"], split["split"], strict=True)) == dict(
        zip(listed["tag"], listed["split"], strict=True)
    )
    assert split["tag"].is_unique and split["split"].value_counts().to_dict() == {"seen": 925, "unseen": 81}
