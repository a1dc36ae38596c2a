"""Kinds: which classes of ImageNet-1k say a word, and the head and the word vectors that use it."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from zerotag.training.classifier import Classifier
from zerotag.training.heads import ClassHead, KindHead
from zerotag.words.kinds import CLASSES, kinds_of, read_kinds
from zerotag.words.lexicon import unit
from zerotag.words.lift import Lift
from zerotag.words.vocabulary import Vocabulary

DOGS, POODLE, TABBY, SPEEDBOAT, SEASHORE = range(151, 269), 267, 281, 814, 978


def test_every_word_has_classes_and_every_class_exists() -> None:
    for word, classes in read_kinds().items():
        assert classes == sorted(set(classes)), word
        assert classes and classes[0] >= 0 and classes[-1] < CLASSES, word


def test_a_word_covers_its_kinds() -> None:
    table = read_kinds()
    assert table["dog"] == list(DOGS)
    for word, place in [
        ("animal", POODLE), ("pet", POODLE), ("poodle", POODLE), ("cat", TABBY), ("boat", SPEEDBOAT),
        ("vehicle", SPEEDBOAT), ("beach", SEASHORE), ("water", SEASHORE),
    ]:  # fmt: skip
        assert place in table[word], word
    for word in ("vehicle", "wildlife", "cat", "spaniel"):
        assert POODLE not in table[word], word


def test_words_in_any_form() -> None:
    dog, dogs, upper, berries, unknown = kinds_of(["dog", "dogs", "Dog", "strawberries", "zeitgeist"])
    assert np.flatnonzero(dog > 0).tolist() == list(DOGS)
    np.testing.assert_array_equal(dog, dogs)
    np.testing.assert_array_equal(dog, upper)
    assert (berries > 0).sum() == 1 and not unknown.any()
    assert kinds_of([]).shape == (0, CLASSES)


def test_classes_that_say_a_word_together_have_to_beat_chance() -> None:
    blind = np.full(CLASSES, 1 / CLASSES, dtype=np.float32)
    animal, dog, poodle = kinds_of(["animal", "dog", "poodle"]) @ blind
    assert animal == pytest.approx(0.7 * 0.398, abs=1e-3)
    assert animal > dog > poodle > 0
    sure = np.zeros(CLASSES, dtype=np.float32)
    sure[POODLE] = 1
    assert kinds_of(["animal"]) @ sure < kinds_of(["dog"]) @ sure < kinds_of(["poodle"]) @ sure <= 1


@given(st.integers(0, 99))
def test_the_head_has_the_cosine_and_the_probabilities_side_by_side(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    classifier = Classifier(torch.randn(7, 4, generator=generator), torch.randn(7, generator=generator))
    photos = torch.randn(3, 4, generator=generator)
    given = KindHead.of(classifier)(photos)
    assert given.shape == (3, 1, 14)
    torch.testing.assert_close(given[..., :7], ClassHead.of(classifier)(photos))
    expected = (photos @ classifier.weight.T + classifier.bias).softmax(dim=-1)
    torch.testing.assert_close(given[:, 0, 7:], expected)


def test_a_word_scores_its_kinds_probability_beside_its_cosine(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    classes = unit(random.standard_normal((CLASSES, 6))).astype(np.float32)
    vectors = unit(random.standard_normal((3, 6))).astype(np.float32)
    tags = ["dog", "dream", "seashore"]
    plain = Vocabulary(tags, vectors, np.zeros(3, dtype=bool))
    without = plain.lifted(Lift(vectors[:0], (2.0,), classes))
    lifted = plain.lifted(Lift(vectors[:0], (2.0,), classes, kinds=1.5))
    assert without.vectors.shape == (3, CLASSES) and lifted.vectors.shape == (3, 2 * CLASSES)
    classifier = Classifier(torch.eye(CLASSES), torch.zeros(CLASSES))
    photo = torch.zeros(1, CLASSES)
    photo[0, list(DOGS)] = 12.0
    scores = lifted.vectors @ KindHead.of(classifier)(photo)[0, 0].numpy()
    cosines = without.vectors @ ClassHead.of(classifier)(photo)[0, 0].numpy()
    np.testing.assert_allclose(scores - cosines, [1.5, 0, 0], atol=0.06)
    lifted.write(tmp_path)
    back = Vocabulary.read(tmp_path, tmp_path / "vocabulary.csv")
    np.testing.assert_array_equal(back.lift(vectors, tags), lifted.vectors)
    np.testing.assert_array_equal(back.lift(vectors[:1], ["dogs"]), lifted.vectors[:1])
    np.testing.assert_array_equal(back.lift(vectors[:1], ["dream"])[:, CLASSES:], np.zeros((1, CLASSES)))


def test_edits(tmp_path: Path) -> None:
    pytest.importorskip("timm")
    from vocabulary import kinds

    class Four:
        """Of a hierarchy of four classes."""

        def classes(self, name: str) -> set[int]:
            return {"dog": {0, 1}, "cat": {2}, "animal": {0, 1, 2}, "car": {3}, "toy": {1}}.get(name, set())

    file = tmp_path / "kinds.txt"
    file.write_text("# comment\n[group]\n- toy\npet = dog, cat\nwild = animal, not dog\n", encoding="utf-8")
    made = kinds.kinds(Four(), ["dog", "toy", "dream"], *kinds.read_edits(file))
    assert made == {"dog": [0, 1], "pet": [0, 1, 2], "wild": [2]}
    for edits, reason in (("- dream", "dream"), ("dog = dog", "delete the line"), ("pet = unicorn", "unicorn")):
        file.write_text(edits, encoding="utf-8")
        with pytest.raises(ValueError, match=reason):
            kinds.kinds(Four(), ["dog", "toy", "dream"], *kinds.read_edits(file))
    file.write_text("nonsense", encoding="utf-8")
    with pytest.raises(ValueError, match="line 1"):
        kinds.read_edits(file)
