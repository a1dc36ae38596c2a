"""Seen and unseen: random, from a file, and NUS-WIDE's."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zerotag.data.splits import SplitSettings, split_tags
from zerotag.errors import ZerotagError
from zerotag.words.vocabulary import Vocabulary


def tag_table(count: int = 40, concepts: tuple[int, ...] = ()) -> pd.DataFrame:
    """Tags t00 … of falling frequency."""
    return pd.DataFrame(
        {
            "tag": [f"t{number:02d}" for number in range(count)],
            "concept": [int(number in concepts) for number in range(count)],
            "train_photos": [1000 // (number + 1) for number in range(count)],
            "test_photos": [100 // (number + 1) for number in range(count)],
        }
    )


def unseen(settings: SplitSettings, tags: pd.DataFrame | None = None, vocabulary: list[str] | None = None) -> list[str]:
    tags = tag_table() if tags is None else tags
    names = tags["tag"].tolist() if vocabulary is None else vocabulary
    table = split_tags(settings, tags, names)
    assert table["tag"].tolist() == names and set(table["split"]) == {"seen", "unseen"}
    return table["tag"][table["split"] == "unseen"].tolist()


def fails(call: Callable[[], object], *parts: str) -> None:
    with pytest.raises(ZerotagError) as caught:
        call()
    for part in parts:
        assert part in str(caught.value), str(caught.value)


# random.


@given(st.integers(1, 39), st.integers(0, 1000))
def test_random_draws_one_tag_of_each_stratum_of_frequency(count: int, seed: int) -> None:
    drawn = unseen(SplitSettings("random", unseen=count, seed=seed))
    assert len(drawn) == count
    assert drawn == unseen(SplitSettings("random", unseen=count, seed=seed))
    # The tags fall in frequency: the k-th stratum is the k-th run of neighbours.
    strata = np.array_split(np.arange(40), count)
    for tag, stratum in zip(drawn, strata, strict=True):
        assert int(tag[1:]) in stratum


def test_random_share_and_seeds() -> None:
    assert len(unseen(SplitSettings("random", unseen=0.2))) == 8
    assert len({tuple(unseen(SplitSettings("random", unseen=0.2, seed=seed))) for seed in range(8)}) > 4


def test_random_does_not_depend_on_the_order_of_the_tags() -> None:
    settings = SplitSettings("random", unseen=10, seed=3)
    shuffled = tag_table().sample(frac=1, random_state=0)
    assert sorted(unseen(settings, shuffled)) == sorted(unseen(settings))


def test_random_draws_from_the_vocabulary_only() -> None:
    vocabulary = tag_table()["tag"].tolist()[::3]
    assert set(unseen(SplitSettings("random", unseen=5), vocabulary=vocabulary)) <= set(vocabulary)


@pytest.mark.parametrize("share", [0, 0.001, 40, 100, -1])
def test_random_that_leaves_a_part_empty(share: float) -> None:
    fails(lambda: unseen(SplitSettings("random", unseen=share)), f"params.yaml: split.unseen = {share}", "of 40")


# file.


@pytest.mark.parametrize(
    "text",
    [
        "t03\nt01\n",
        "\ufefft03\r\n\r\nt01\r\n",
        "tag,split\nt03,unseen\nt00,seen\nt01,unseen\n",
        "tag, split\r\nt03, unseen\r\nt01 ,unseen",
    ],
    ids=["list", "list of Windows", "table", "table with blanks"],
)
def test_file(tmp_path: Path, text: str) -> None:
    (tmp_path / "split.txt").write_text(text, newline="")
    assert unseen(SplitSettings("file", str(tmp_path / "split.txt"))) == ["t01", "t03"]


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("t01\nzebra\n", ["line 2", "'zebra'", "Remove the line"]),
        ("t01\nt39\n", ["line 2", "unseen tag 't39' has no word vector", "words.source"]),
        ("tag,split\nt01,unseen\nt39,unseen\n", ["line 3", "'t39' has no word vector"]),
        ("tag,split\nt01,unseen\nt02,hidden\n", ["line 3", "'t02,hidden'", "seen or unseen"]),
        ("tag,split\nt01\n", ["line 2", "'t01'", "seen or unseen"]),
    ],
)
def test_file_that_is_wrong_names_the_line(tmp_path: Path, text: str, parts: list[str]) -> None:
    file = tmp_path / "split.csv"
    file.write_text(text)
    vocabulary = tag_table()["tag"].tolist()[:-1]
    fails(lambda: unseen(SplitSettings("file", str(file)), vocabulary=vocabulary), str(file), *parts)


def test_file_missing_or_empty_or_binary(tmp_path: Path) -> None:
    fails(lambda: unseen(SplitSettings("file", "none.csv")), "none.csv", "split.file")
    fails(lambda: unseen(SplitSettings("file")), "split.file")
    (tmp_path / "split.csv").write_text("")
    fails(lambda: unseen(SplitSettings("file", str(tmp_path / "split.csv"))), "split.kind = file leaves no unseen tag")
    (tmp_path / "split.csv").write_bytes(b"\x1f\x8bt01\n")
    fails(lambda: unseen(SplitSettings("file", str(tmp_path / "split.csv"))), str(tmp_path / "split.csv"), "UTF-8")


# nus-wide.


def test_nus_wide_concepts_are_unseen() -> None:
    assert unseen(SplitSettings("nus-wide"), tag_table(concepts=(2, 30))) == ["t02", "t30"]


def test_nus_wide_needs_concepts() -> None:
    fails(lambda: unseen(SplitSettings("nus-wide")), "split.kind = nus-wide", "concepts", "random or file")
    everything = tag_table(3, concepts=(0, 1, 2))
    fails(lambda: unseen(SplitSettings("nus-wide"), everything), "split.kind", "leaves no seen tag")


def test_unknown_kind() -> None:
    fails(lambda: unseen(SplitSettings("alphabet")), "split.kind = 'alphabet'", "nus-wide, file or random")


# The vocabulary that joins words and split.


@pytest.fixture
def words(tmp_path: Path) -> Path:
    vocabulary = Vocabulary(
        ["sea", "null", "fire, hydrant"], np.eye(3, dtype=np.float32), np.array([True, False, True])
    )
    vocabulary.write(tmp_path)
    return tmp_path


def test_vocabulary_round_trip(words: Path) -> None:
    vocabulary = Vocabulary.read(words, words / "vocabulary.csv")
    assert vocabulary.tags == ["sea", "null", "fire, hydrant"]
    assert vocabulary.seen.tolist() == [True, False, True]
    assert vocabulary.digest == Vocabulary.read(words, words / "vocabulary.csv").digest


def test_an_unseen_tag_without_a_vector_and_a_tag_without_a_split(words: Path) -> None:
    split = words / "split.csv"
    split.write_text('tag,split\nsea,seen\nnull,unseen\n"fire, hydrant",seen\nzebra,unseen\n')
    fails(lambda: Vocabulary.read(words, split), str(split), "no word vector for zebra", "missing.txt")
    split.write_text("tag,split\nsea,seen\nnull,unseen\n")
    fails(lambda: Vocabulary.read(words, split), str(split), "neither seen nor unseen: fire, hydrant")
