"""Inputs as people have them: other programs' tables, other systems' file names, other spellings of a tag."""

import json
import unicodedata
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import encoded
from hypothesis import given
from hypothesis import strategies as st

from zerotag.data import sources
from zerotag.data.dataset import Dataset
from zerotag.data.prepare import PrepareSettings, prepare
from zerotag.data.sources.base import Source
from zerotag.data.splits import SplitSettings, split_tags
from zerotag.data.statistics import statistics
from zerotag.errors import ZerotagError
from zerotag.words.lexicon import Lexicon, look_up
from zerotag.words.tables import load_word_vectors
from zerotag.words.tags import normalise_tag, one_spelling, tag_key


def fails(read: Callable[[], object], *parts: str) -> None:
    """The call is refused with a message that has these parts."""
    with pytest.raises(ZerotagError) as caught:
        read()
    for part in parts:
        assert part in str(caught.value), str(caught.value)


def tags_of(source: Source) -> dict[str, list[str]]:
    """Sorted tags of each photo."""
    return {
        name: sorted(source.tags[column] for column in source.labels[row].indices)
        for row, name in enumerate(source.ids)
    }


# Tags.

SPELLINGS = {
    "#sunset": "sunset",
    "car_(sedan)": "car sedan",
    "new year's eve": "new year's eve",
    "new year\u2019s  eve": "new year's eve",
    "black & white": "black white",
    "cafe\u0301": "caf\u00e9",
    " sea\u00a0 side\t": "sea side",
    "sun\u00adset": "sunset",
    "sun\u200bset\ufeff": "sunset",
    "fire_hydrant": "fire hydrant",
    "\u201cgolden gate\u201d": "golden gate",
    "['sea'": "sea",
    "t\u2011shirt": "t-shirt",
    "u.s.": "u.s.",
    "at&t": "at&t",
    "sunset \U0001f305": "sunset",
    "I \u2764\ufe0f NY": "I NY",
    "\U0001f436": "\U0001f436",
    "sea,sand;dog": "sea sand dog",
    "24/7": "24/7",
    "1,000": "1,000",
    "...": "",
    "#": "",
}


@pytest.mark.parametrize(("text", "tag"), SPELLINGS.items())
def test_spelling(text: str, tag: str) -> None:
    assert normalise_tag(text) == tag


@pytest.mark.parametrize(
    "same",
    [["Dog", "dog", "DOG", "#dog", "dog."], ["Caf\u00e9", "CAF\u00c9", "cafe\u0301"], ["stra\u00dfe", "STRASSE"]],
)
def test_one_key(same: list[str]) -> None:
    assert len({tag_key(each) for each in same}) == 1


@given(st.text(max_size=30))
def test_a_spelling_stays(text: str) -> None:
    assert normalise_tag(normalise_tag(text)) == normalise_tag(text)
    assert tag_key(normalise_tag(text)) == tag_key(text)


def test_the_commonest_spelling_is_kept() -> None:
    tags, merged = one_spelling({"Dog": 3, "dog": 2, "#Dog": 1, "cat": 1, "&": 4})
    assert tags == {"Dog": "Dog", "dog": "Dog", "#Dog": "Dog", "cat": "cat"}
    assert merged == {"Dog": ["#Dog", "Dog", "dog"]}
    assert one_spelling({"Dog": 1, "dog": 1})[0] == {"Dog": "dog", "dog": "dog"}


@pytest.mark.parametrize(
    ("text", "made_of"),
    [
        ("#sunset", "sunset"), ("car_(sedan)", "car + sedan"), ("new year's eve", "new + year + eve"),
        ("new year\u2019s eve", "new + year + eve"), ("black & white", "black + white"), ("cafe\u0301", "caf\u00e9"),
        ("caf\u00e9", "caf\u00e9"), ("CAF\u00c9", "caf\u00e9"), ("sun\u00adset!", "sunset"), ("at&t", "at&t"),
        ("sunset \U0001f305", "sunset"), ("new.year", "new + year"),
    ],
)  # fmt: skip
def test_look_up(text: str, made_of: str) -> None:
    words = ["sunset", "car", "sedan", "new", "year", "eve", "black", "white", "caf\u00e9", "and", "&", "at&t"]
    vectors = np.random.default_rng(0).standard_normal((len(words), 8)).astype(np.float32)
    hit = look_up(text, Lexicon({word: row for row, word in enumerate(words)}, vectors))
    assert hit is not None and hit[1] == made_of


# Tables.


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """images/ with three photos, one in a folder below and one whose name is decomposed."""
    for name in ("a.jpg", "b.jpg", "below/c.jpg", "Mu\u0308ller.jpg"):
        path = tmp_path / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(len(name), width=48, height=40))
    return tmp_path


def read_csv(folder: Path, table: bytes | str, name: str = "tags.csv", **changes: Any) -> Source:
    (folder / name).write_bytes(table.encode() if isinstance(table, str) else table)
    params = {"table": str(folder / name), "photos": str(folder / "images"), "test": 1, **changes}
    return sources.read("csv", params, folder)


TABLE = "image,tags\r\na.jpg,sea dog\r\nb.jpg,dog\r\n"


@pytest.mark.parametrize(
    "table",
    [
        TABLE,
        TABLE.encode("utf-8-sig"),
        TABLE.encode("utf-16"),
        b"\xfe\xff" + TABLE.encode("utf-16-be"),
        TABLE.encode("utf-32"),
        TABLE.replace("\r\n", "\n"),
        TABLE.replace("\r\n", "\r"),
        "sep=;\r\n" + TABLE.replace(",", ";"),
        b"\xff\xfe" + ("sep=\t\r\n" + TABLE.replace(",", "\t")).encode("utf-16-le"),
        '"sep=;"\n' + TABLE.replace(",", ";"),
        TABLE.replace(",", ";"),
        TABLE.replace(",", "\t"),
        TABLE.replace(",", "|"),
        TABLE.replace("image,tags", "Image, TAGS "),
        TABLE.replace("image,tags", '"image","tags"'),
        "\r\n" + TABLE + "\r\n,\r\n",
        TABLE.replace("dog\r\n", "dog,,\r\n"),
        'id;tags;image\n1;"sea dog";a.jpg\n2;"dog";b.jpg\n',
    ],
    ids=["plain", "byte-order mark", "UTF-16 of Excel", "UTF-16 big-endian", "UTF-32", "Unix", "old Mac", "sep=;",
         "sep=tab in UTF-16", "quoted sep=;", "semicolons", "tabs", "bars", "header in capitals", "quoted header",
         "empty rows", "empty cells", "other columns"],
)  # fmt: skip
def test_tables(folder: Path, table: bytes | str) -> None:
    assert tags_of(read_csv(folder, table)) == {"a.jpg": ["dog", "sea"], "b.jpg": ["dog"]}


@pytest.mark.parametrize(
    ("table", "parts"),
    [
        ("image,tags\na.jpg,sea\nb.jpg,caf\u00e9\n".encode("latin-1"), ["line 3", "UTF-8"]),
        ("image,tags\na.jpg,sea\n".encode("utf-16-le"), ["line 1", "UTF-16", "byte-order mark"]),
        ('image,tags\na.jpg,sea\nb.jpg,"sea\nc.jpg,dog\n', ["line 3", "quote"]),
        ("image,tags,tags\na.jpg,sea,dog\n", ["line 1", "column tags is there twice"]),
        ("sep=;\nimage;words\na.jpg;sea\n", ["line 2", "column tags missing", "found image, words"]),
        ("image,tags\na.jpg,sea\nb.jpg,& - !\n", ["line 3", "b.jpg", "punctuation only"]),
    ],
)
def test_tables_that_are_refused_name_the_line(folder: Path, table: bytes | str, parts: list[str]) -> None:
    fails(lambda: read_csv(folder, table), str(folder / "tags.csv"), *parts)


@pytest.mark.parametrize(
    ("separator", "cell", "named"),
    [
        (" ", '"sea, sand, dog"', '","'), (" ", '"sea,sand,dog"', '","'), (" ", "sea;sand;dog", '";"'),
        (" ", "sea | sand", '"|"'), (",", "sea;sand;dog", '";"'), ("|", '"sea, sand"', '","'),
        (" ", "\"['sea', 'sand']\"", '","'),
    ],
)  # fmt: skip
def test_another_separator_is_named(folder: Path, separator: str, cell: str, named: str) -> None:
    table = f"image,tags\na.jpg,{cell}\nb.jpg,dog\nbelow/c.jpg,{cell}\n"
    fails(
        lambda: read_csv(folder, table, separator=separator),
        "line 2", "sources.csv.separator", repr(separator), named.replace('"', "'"),
    )  # fmt: skip


def test_blanks_where_another_separator_is_set(folder: Path) -> None:
    table = "image,tags\na.jpg,sea sand dog\nb.jpg,dog sea\nbelow/c.jpg,sand dog sea\n"
    fails(lambda: read_csv(folder, table, separator="|"), "line 2", "blanks", "sources.csv.separator")
    tags = read_csv(folder, "image,tags\na.jpg,golden retriever\nb.jpg,german shepherd\n", separator="|").tags
    assert tags == ["german shepherd", "golden retriever"]


@pytest.mark.parametrize(
    ("separator", "cell", "tags"),
    [
        ("|", '"portland, oregon | sea"', ["portland oregon", "sea"]),
        (" ", '"1,000 dogs"', ["1,000", "dogs"]),
        (",", "\"['sea', 'sand']\"", ["sand", "sea"]),
        (", ", '"sea, sand"', ["sand", "sea"]),
    ],
)
def test_what_is_no_other_separator(folder: Path, separator: str, cell: str, tags: list[str]) -> None:
    source = read_csv(folder, f"image,tags\na.jpg,{cell}\nb.jpg,dog\n", separator=separator)
    assert tags_of(source)["a.jpg"] == tags


def test_photos_by_other_paths(folder: Path) -> None:
    source = read_csv(folder, "image,tags\nbelow\\c.jpg,sea\nM\u00fcller.jpg,cafe\u0301\na.jpg,CAF\u00c9\n")
    assert source.ids == ["below/c.jpg", "M\u00fcller.jpg", "a.jpg"]
    assert all(file.path.is_file() for file in source.files)
    assert source.tags in (["CAF\u00c9", "sea"], ["caf\u00e9", "sea"])
    again = read_csv(folder, unicodedata.normalize("NFD", "image,tags\nM\u00fcller.jpg,sea\na.jpg,sea\n"))
    assert again.ids == ["M\u00fcller.jpg", "a.jpg"] and again.files[0].path.is_file()


def test_one_photo_under_two_spellings_of_its_path(folder: Path) -> None:
    table = "image,tags\nbelow\\c.jpg,sea\nbelow/c.jpg,dog\n"
    fails(lambda: read_csv(folder, table), "line 3", "below/c.jpg is already on line 2")


def test_all_photos_are_missing(folder: Path) -> None:
    table = "image,tags\nC:\\photos\\a.jpg,sea\nC:\\photos\\b.jpg,dog\n"
    fails(lambda: read_csv(folder, table), "none of its 2 photos", "C:\\photos\\a.jpg", "sources.csv.photos",
          str(folder / "images"))  # fmt: skip


def test_one_tag_in_all_spellings(folder: Path) -> None:
    source = read_csv(folder, "image,tags\na.jpg,Dog #sunset\nb.jpg,dog sea\nbelow/c.jpg,DOG dog\n")
    assert tags_of(source) == {"a.jpg": ["dog", "sunset"], "b.jpg": ["dog", "sea"], "below/c.jpg": ["dog"]}
    assert source.spellings == {"dog": ["DOG", "Dog", "dog"], "sunset": ["#sunset"]}


def test_json_lines_with_a_byte_order_mark(folder: Path) -> None:
    rows = [{"image": "a.jpg", "tags": ["Dog", "car_(sedan)"]}, {"image": "b.jpg", "tags": "dog #sea"}]
    for encoding in ("utf-8-sig", "utf-16"):
        table = "\r\n".join(json.dumps(row) for row in rows).encode(encoding)
        assert tags_of(read_csv(folder, table, "tags.jsonl")) == {
            "a.jpg": ["car sedan", "dog"],
            "b.jpg": ["dog", "sea"],
        }


def test_what_was_merged_is_told(folder: Path) -> None:
    source = read_csv(folder, "image,tags\na.jpg,Dog sea\nb.jpg,dog sea\n")
    prepare(source, PrepareSettings(workers=1), folder / "prepared", folder / "work")
    dataset = Dataset.read(folder / "prepared")
    assert dataset.spelled_otherwise == {"dog": "Dog | dog"}
    assert "  dog: spelled Dog | dog" in list(statistics(dataset))


@pytest.mark.parametrize("text", ["DOG\n", "sep=;\ntag;split\nDog;unseen\nsea;seen\n", "tag\tsplit\n#dog\tUnseen\n"])
def test_split_files(folder: Path, text: str) -> None:
    source = read_csv(folder, "image,tags\na.jpg,dog sea\nb.jpg,dog sea\n")
    prepare(source, PrepareSettings(workers=1), folder / "prepared", folder / "work")
    tags = Dataset.read(folder / "prepared").tags
    for encoding in ("utf-8", "utf-16"):
        (folder / "split.csv").write_bytes(text.encode(encoding))
        table = split_tags(SplitSettings("file", str(folder / "split.csv")), tags, source.tags)
        assert dict(zip(table["tag"], table["split"], strict=True)) == {"dog": "unseen", "sea": "seen"}
    (folder / "split.csv").write_text("tag,split\nDog,seen\ndog,unseen\n")
    fails(
        lambda: split_tags(SplitSettings("file", str(folder / "split.csv")), tags, source.tags), "line 3", "seen before"
    )


# COCO.


def coco_of(names: Iterable[str] = ("a.jpg", "b.jpg")) -> dict[str, Any]:
    return {
        "images": [{"id": place + 1, "file_name": name} for place, name in enumerate(names)],
        "categories": [{"id": 3, "name": "fire_hydrant"}, {"id": 90, "name": "cat"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 3}, {"id": 2, "image_id": 2, "category_id": 90}],
    }


def read_coco(folder: Path, content: bytes) -> Source:
    (folder / "coco.json").write_bytes(content)
    params = {"train": str(folder / "coco.json"), "train_photos": str(folder / "images"), "test": "", "test_share": 1}
    return sources.read("coco", params, folder)


def as_text(text: str, number: int) -> str:
    return text.replace(f'"id": {number}, "file', f'"id": "{number}", "file')


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.encode("utf-8-sig"),
        lambda text: text.encode("utf-16"),
        lambda text: as_text(text, 1).encode(),
        lambda text: text.replace('"category_id": 3', '"category_id": "3"').encode(),
        lambda text: text.replace('"image_id": 2', '"image_id": 2.0').encode(),
        lambda text: text.replace('"a.jpg"', '".\\\\a.jpg"').encode(),
    ],
    ids=["byte-order mark", "UTF-16", "image ids", "category ids", "floats", "backslash"],
)
def test_coco(folder: Path, change: Callable[[str], bytes]) -> None:
    source = read_coco(folder, change(json.dumps(coco_of())))
    assert list(tags_of(source).values()) == [["fire hydrant"], ["cat"]]
    assert all(file.path.is_file() for file in source.files)


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        (lambda coco: coco["annotations"][1].update(image_id=7), ["annotations[1].image_id = 7", "images", "image 7"]),
        (lambda coco: coco["annotations"][1].pop("category_id"), ["annotations[1].category_id", "missing"]),
        (lambda coco: coco["images"][1].update(id=[1]), ["images[1].id", "[1]"]),
        (lambda coco: coco["images"][1].update(id="1"), ["images[1].id", "'a.jpg'"]),
        (lambda coco: coco["images"][0].pop("file_name"), ["images[0].file_name"]),
        (lambda coco: coco["categories"][1].update(name=5), ["categories[1].name", "5"]),
        (lambda coco: coco.pop("categories"), ["instances JSON", "categories", "missing"]),
        (lambda coco: coco.update(images={}), ["images", "dict", "list"]),
        (lambda coco: [each.update(file_name="no\\" + each["file_name"]) for each in coco["images"]],
         ["none of its 2 photos", "no\\a.jpg", "sources.coco.train_photos"]),
    ],
)  # fmt: skip
def test_coco_that_is_refused(folder: Path, change: Callable[[dict[str, Any]], object], parts: list[str]) -> None:
    coco = coco_of()
    change(coco)
    fails(lambda: read_coco(folder, json.dumps(coco).encode()), str(folder / "coco.json"), *parts)


# NUS-WIDE.


def write_lists(folder: Path, tags: list[str], concepts: list[str]) -> None:
    for name in ("ConceptsList", "ImageList", "NUS_WID_Tags", "Groundtruth/TrainTestLabels", "photos"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / "ConceptsList" / "Concepts81.txt").write_text("\n".join(concepts))
    (folder / "NUS_WID_Tags" / "TagList1k.txt").write_text("\n".join(tags))
    for part, number in (("Train", 1), ("Test", 2)):
        (folder / "ImageList" / f"{part}Imagelist.txt").write_text(f"actor\\000{number}_210000000{number}.jpg\n")
        row = "\t".join(str((place + number) % 2) for place in range(len(tags)))
        (folder / "NUS_WID_Tags" / f"{part}_Tags1k.dat").write_text(row + "\n")
        for concept in concepts:
            (folder / "Groundtruth" / "TrainTestLabels" / f"Labels_{concept}_{part}.txt").write_text("1\n")


def read_nus_wide(folder: Path) -> Source:
    params = {"folder": str(folder), "photos": str(folder / "photos"), "counts": {}}
    return sources.read("nus-wide", params, folder)


@pytest.mark.parametrize(
    "names",
    [
        ["actor/0001_2100000001.jpg", "actor/0002_2100000002.jpg"],
        ["2100000001.jpg", "2100000002.jpg"],
        ["x/y/2100000001.jpeg", "z/2100000002.JPG"],
        ["2100000001_0a1b2c3d4e.jpg", "2100000002_0a1b2c3d4e_m.jpg"],
        ["0001_2100000001.jpg", "0002_2100000002.jpg"],
    ],
    ids=["as listed", "flat", "folders", "as Flickr names them", "flat as listed"],
)
def test_nus_wide_photos_by_flickr_id(tmp_path: Path, names: list[str]) -> None:
    write_lists(tmp_path, ["sea", "zoo"], ["dog"])
    for name in names:
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "photos" / name).touch()
    assert [file.path for file in read_nus_wide(tmp_path).files] == [tmp_path / "photos" / name for name in names]


def test_nus_wide_photos_in_no_known_layout(tmp_path: Path) -> None:
    write_lists(tmp_path, ["sea", "zoo"], ["dog"])
    (tmp_path / "photos" / "IMG.jpg").touch()
    fails(lambda: read_nus_wide(tmp_path), "none of the 2 photos", "sources.nus-wide.photos",
          "actor/0001_2100000001.jpg", "2100000001.jpg", "IMG.jpg")  # fmt: skip


def test_nus_wide_tags_in_two_spellings(tmp_path: Path) -> None:
    write_lists(tmp_path, ["Dog", "sea", "Sea", "north_sea"], ["dog"])
    (tmp_path / "photos" / "2100000001.jpg").touch()
    source = read_nus_wide(tmp_path)
    assert source.tags == ["sea", "north sea", "dog"] and source.concepts == {"dog"}
    # Train has the user tags Dog and Sea, Test sea and north_sea; the concept takes the place of Dog.
    assert source.labels.toarray().tolist() == [[1, 0, 1], [1, 1, 1]]


# Word vectors.


@pytest.mark.parametrize("header", [False, True])
def test_words_with_blanks(tmp_path: Path, header: bool) -> None:
    rows = "the 0.1 0.2 0.3\n. . . 0.4 0.5 0.6\nat name@domain.com 1 2 -3e-1\nroute 66 0.7 0.8 0.9\n"
    (tmp_path / "vectors.txt").write_text("4 3\n" * header + rows)
    vectors = load_word_vectors(f"file:{tmp_path / 'vectors.txt'}")
    assert vectors.index_to_key == ["the", ". . .", "at name@domain.com", "route 66"]
    assert vectors["route 66"] == pytest.approx([0.7, 0.8, 0.9])
    assert vectors["at name@domain.com"] == pytest.approx([1, 2, -0.3])


def test_words_with_blanks_first(tmp_path: Path) -> None:
    (tmp_path / "glove.txt").write_text(". . . 0.4 0.5 0.6\nthe 0.1 0.2 0.3\nsea 0.7 0.8 0.9\n")
    assert load_word_vectors(f"file:{tmp_path / 'glove.txt'}").index_to_key == [". . .", "the", "sea"]


def test_a_broken_row_among_words_with_blanks(tmp_path: Path) -> None:
    (tmp_path / "glove.txt").write_text("the 0.1 0.2 0.3\n. . . 0.4 0.5 0.6\nsea 0.7 0.8\nsun 0.1 0.1 0.1\n")
    fails(lambda: load_word_vectors(f"file:{tmp_path / 'glove.txt'}"), "line 3", "2 numbers, expected 3")
