"""Lifted word vectors: what they are, and that everything that scores words lifts them."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import OTHER_WORDS, TAGS, encoded
from hypothesis import given, settings
from hypothesis import strategies as st

from zerotag.errors import ZerotagError
from zerotag.evaluation.calibration import Calibration
from zerotag.training.heads import Head, log_odds, start_head
from zerotag.training.methods import METHODS
from zerotag.words.lexicon import Lexicon
from zerotag.words.lift import Lift, unit
from zerotag.words.vocabulary import Vocabulary


def words(count: int, dimensions: int, seed: int = 0) -> np.ndarray:
    return unit(np.random.default_rng(seed).standard_normal((count, dimensions))).astype(np.float32)


@given(st.integers(2, 30), st.integers(2, 12), st.lists(st.floats(0.5, 12), min_size=1, max_size=3), st.integers(0, 99))
def test_dot_products_of_seen_tags_are_the_kernel(
    count: int, dimensions: int, sharpness: list[float], seed: int
) -> None:
    seen = words(count, dimensions, seed)
    lifted = Lift(seen, tuple(sharpness))(seen)
    assert lifted.shape == (count, count)
    np.testing.assert_allclose(np.linalg.norm(lifted, axis=1), 1, atol=1e-5)
    centred = unit(seen.astype(float) - seen.astype(float).mean(axis=0))
    for first in range(min(count, 4)):
        for second in range(min(count, 4)):
            angle = centred[first] @ centred[second] - 1
            kernel = sum(np.exp(each * angle) for each in sharpness) / len(sharpness)
            # The jitter, which keeps like tags apart, moves it a little.
            assert lifted[first] @ lifted[second] == pytest.approx(kernel, abs=0.02)


def test_a_word_lies_near_the_seen_words_that_it_resembles() -> None:
    seen = words(20, 10)
    near = unit(seen[3] + 0.2 * words(1, 10, 5)[0])
    lift = Lift(seen, (8.0,))
    likeness = lift(near[None])[0] @ lift(seen).T
    assert likeness.argmax() == 3 and likeness[3] > 0.5


def test_more_classifiers_than_dimensions() -> None:
    seen = words(30, 5)
    assert np.linalg.matrix_rank(seen) == 5
    assert np.linalg.matrix_rank(Lift(seen, (8.0,))(seen)) == 30


def test_a_lifted_vocabulary_is_kept_whole(tmp_path: Path) -> None:
    plain = Vocabulary([f"t{number}" for number in range(12)], words(12, 6), np.arange(12) % 3 > 0)
    lifted = plain.lifted(Lift(plain.vectors[plain.seen], (2.0, 8.0)))
    assert plain.lift(words(2, 6), ["a", "b"]).shape == (2, 6)
    assert lifted.vectors.shape == (12, 8) and lifted.dimensions == 6
    lifted.write(tmp_path)
    back = Vocabulary.read(tmp_path, tmp_path / "vocabulary.csv")
    assert back.digest == lifted.digest != plain.digest
    np.testing.assert_array_equal(back.lift(plain.vectors, plain.tags), lifted.vectors)
    np.testing.assert_array_equal(lifted.seeing(np.flatnonzero(plain.seen)).vectors, lifted.vectors)
    assert lifted.seeing(np.array([1, 2, 4])).vectors.shape == (12, 3)
    # Data of the same words, and of others.
    data = Vocabulary(plain.tags, plain.vectors, np.ones(12, dtype=bool))
    np.testing.assert_array_equal(data.seen_by(back).vectors, lifted.vectors)
    with pytest.raises(ZerotagError, match="have 6 dimensions, the data's 7"):
        Vocabulary(plain.tags, words(12, 7), plain.seen).seen_by(back)


# Classes of a classifier as further anchors.


def slow_kernel(first: np.ndarray, second: np.ndarray, sharpness: tuple[float, ...]) -> float:
    """The mean over sharpnesses of exp(sharpness (cos - 1)), of two centred vectors."""
    cosine = sum(first * second) / math.sqrt(sum(first * first) * sum(second * second))
    return sum(math.exp(each * (cosine - 1)) for each in sharpness) / len(sharpness)


def slow_weights(word: np.ndarray, lift: Lift) -> np.ndarray:
    """k(u, A) (K + e I)^-1: weights of the anchors' scores, seen tags before classes."""
    assert lift.classes is not None
    own = lift.seen if len(lift.seen) else lift.classes
    seen = [vector - own.mean(axis=0) for vector in lift.seen.astype(float)]
    anchors = [*seen, *(vector - lift.classes.mean(axis=0) for vector in lift.classes.astype(float))]
    kernel = np.array([[slow_kernel(a, b, lift.sharpness) + 0.3 * (a is b) for b in anchors] for a in anchors])
    near = [slow_kernel(word - own.mean(axis=0), anchor, lift.sharpness) for anchor in anchors]
    return np.linalg.solve(kernel, near)


@pytest.mark.parametrize("principal_vectors", [1, 3])
def test_an_unseen_words_score_is_interpolated_from_the_anchors(principal_vectors: int) -> None:
    lift = Lift(words(6, 9, 1), (2.0, 8.0), words(5, 9, 2))
    unseen, tags = words(4, 9, 3), lift.lift_seen()
    random = np.random.default_rng(4)
    trained = random.standard_normal((principal_vectors, 6))
    principal = np.hstack([trained, np.tile(random.standard_normal(5), (principal_vectors, 1))])
    for word, lifted in zip(unseen, lift(unseen), strict=True):
        of_seen, of_classes = np.split(slow_weights(word.astype(float), lift), [6])
        for row in principal:  # of one photo
            scores = np.array([row @ tag for tag in tags])  # t_S, with which the trained head scores the seen tags
            expected = sum(of_seen * (scores - scores.mean())) + sum(of_classes * row[6:])
            assert row @ lifted == pytest.approx(expected, abs=1e-4)


def test_seen_tags_are_scored_by_the_trained_head_alone() -> None:
    plain = Vocabulary([f"t{number}" for number in range(9)], words(9, 7), np.arange(9) % 3 > 0)
    without = plain.lifted(Lift(plain.vectors[plain.seen], (2.0, 8.0)))
    joint = plain.lifted(Lift(plain.vectors[plain.seen], (2.0, 8.0), words(5, 7, 2)))
    assert joint.vectors.shape == (9, 6 + 5)
    np.testing.assert_array_equal(joint.vectors[plain.seen, :6], without.vectors[plain.seen])
    np.testing.assert_array_equal(joint.vectors[plain.seen, 6:], 0)
    np.testing.assert_array_equal(joint.targets, without.targets)
    assert (joint.vectors[~plain.seen, 6:] != 0).all()
    principal = np.random.default_rng(0).standard_normal((2, 11)).astype(np.float32)
    np.testing.assert_allclose(
        principal @ joint.vectors[plain.seen].T, principal[:, :6] @ without.vectors[plain.seen].T, atol=1e-6
    )


def test_classes_alone() -> None:
    classes = words(8, 12, 1)
    lift = Lift(classes[:0], (2.0, 4.0, 8.0), classes)
    unseen = words(5, 12, 2)
    for word, lifted in zip(unseen, lift(unseen), strict=True):
        weights = slow_weights(word.astype(float), lift)
        np.testing.assert_allclose(lifted, weights / np.linalg.norm(weights), atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(lift(unseen), axis=1), 1, atol=1e-6)
    assert lift.lift_seen().shape == (0, 8)
    # A class's own name asks for that class before all others, and more than for all others together.
    own = lift(classes)
    assert own.argmax(axis=1).tolist() == list(range(8)) and (own.diagonal() ** 2 > 0.5).all()


def test_with_seen_tags_too_a_classs_name_asks_for_the_class() -> None:
    lift = Lift(words(6, 30, 1), (2.0, 8.0), words(8, 30, 2))
    assert lift.classes is not None
    assert lift(lift.classes)[:, 6:].argmax(axis=1).tolist() == list(range(8))


@settings(deadline=None, max_examples=40)
@given(
    st.integers(0, 6), st.integers(1, 6), st.integers(1, 5), st.booleans(),
    st.lists(st.floats(0, 12), min_size=1, max_size=3), st.integers(0, 99),
)  # fmt: skip
def test_lifted_words_have_a_weight_for_each_anchor(
    seen: int, classes: int, dimensions: int, twins: bool, sharpness: list[float], seed: int
) -> None:
    anchors = words(classes, dimensions, seed)
    if twins:
        anchors[:] = anchors[0]
    lift = Lift(words(seen, dimensions, seed + 1), tuple(sharpness), anchors)
    unseen = np.concatenate([words(3, dimensions, seed + 2), np.zeros((1, dimensions), dtype=np.float32)])
    for lifted, count in ((lift(unseen), 4), (lift.lift_seen(), seen), (lift(unseen[:0]), 0)):
        assert lifted.shape == (count, seen + classes) and lifted.dtype == np.float32 and np.isfinite(lifted).all()
    # A word's vector does not depend on the words beside it.
    np.testing.assert_allclose(lift(unseen)[1], lift(unseen[1:2])[0], atol=1e-5)


@pytest.mark.parametrize("trained", [True, False])
def test_a_vocabulary_with_classes_is_kept_whole(tmp_path: Path, trained: bool) -> None:
    plain = Vocabulary([f"t{number}" for number in range(10)], words(10, 6), np.arange(10) % 3 > 0)
    anchors = plain.vectors[plain.seen] if trained else plain.vectors[:0]
    lifted = plain.lifted(Lift(anchors, (2.0, 8.0), words(4, 6, 2)))
    lifted.write(tmp_path)
    back = Vocabulary.read(tmp_path, tmp_path / "vocabulary.csv")
    assert back.digest == lifted.digest and back.dimensions == 6
    np.testing.assert_array_equal(back.targets, lifted.targets)
    others = words(3, 6, 5)
    np.testing.assert_array_equal(back.lift(others, list("abc")), lifted.lift(others, list("abc")))
    # Had fewer been seen.
    fewer = back.seeing(np.array([1, 2, 4]))
    assert fewer.tags == plain.tags and np.flatnonzero(fewer.seen).tolist() == [1, 2, 4]
    if trained:
        expected = plain.seeing(np.array([1, 2, 4])).lifted(Lift(plain.vectors[[1, 2, 4]], (2.0, 8.0), words(4, 6, 2)))
        assert fewer.targets.shape == (3, 3) and fewer.vectors.shape == (10, 3 + 4)
        np.testing.assert_array_equal(fewer.vectors, expected.vectors)
    else:  # no tag is an anchor
        assert fewer.targets.shape == (3, 0)
        np.testing.assert_array_equal(fewer.vectors, lifted.vectors)
    # Other data of some of the same tags: those that were trained keep their vectors.
    data = Vocabulary(["new", "t1", "t0"], np.concatenate([others[:1], plain.vectors[[1, 0]]]), np.ones(3, dtype=bool))
    seen_by = data.seen_by(back)
    assert seen_by.seen.tolist() == [False, True, False]
    expected_rows = [lifted.lift(others[:1], ["new"])[0], *lifted.vectors[[1, 0]]]
    np.testing.assert_allclose(seen_by.vectors, expected_rows, atol=1e-6)


def test_a_model_without_a_lift_scores_other_data_with_the_datas_words() -> None:
    model = Vocabulary(["a", "b"], words(2, 5), np.array([True, False]))
    data = Vocabulary(["b", "a", "c"], words(3, 5, 1), np.ones(3, dtype=bool))
    before = data.vectors.copy()
    seen_by = data.seen_by(model)
    assert seen_by.tags == data.tags and seen_by.seen.tolist() == [False, True, False]
    np.testing.assert_array_equal(seen_by.vectors, [before[0], model.vectors[0], before[2]])
    np.testing.assert_array_equal(data.vectors, before)  # as they were


def test_a_head_begins_with_what_is_frequent() -> None:
    random = np.random.default_rng(0)
    vectors = Lift(words(9, 4), (8.0,))(words(9, 4))
    features = torch.from_numpy(random.random((200, 12)).astype(np.float32))
    frequency = torch.linspace(0.02, 0.6, 9)
    head = Head(12, METHODS["sdl_plus"], 9)
    start_head(head, features, frequency, torch.from_numpy(vectors))
    principal = head(features)
    assert principal.shape == (200, 1, 9)
    scores = (principal @ torch.from_numpy(vectors).T).amax(dim=1)
    assert torch.equal(scores.argsort(dim=1), scores[:1].argsort(dim=1).expand(200, -1))  # not a photo's yet
    assert scores[0].argmax() == 8 and scores[0].argmin() == 0
    roots = (features + 1e-6).sqrt()
    torch.testing.assert_close(head.mean, roots.mean(dim=0))
    assert torch.isfinite(log_odds(torch.tensor([0.0, 1.0]))).all()
    untouched = Head(12, METHODS["sdl"], 9)
    before = untouched.linear.weight.clone()
    start_head(untouched, features, frequency, torch.from_numpy(vectors))
    assert torch.equal(before, untouched.linear.weight)


def test_a_packaged_model_scores_any_word_in_the_lifted_space(tmp_path: Path) -> None:
    from zerotag.packaging.export import export_network
    from zerotag.serving.package import write_package
    from zerotag.serving.tagger import Tagger
    from zerotag.training.backbones import build_backbone
    from zerotag.training.model import Model, Network

    torch.manual_seed(0)
    backbone = build_backbone("test_efficientnet", "none")
    seen = np.array([tag not in ("dog", "sea", "tree") for tag in TAGS])
    plain = Vocabulary(TAGS, words(len(TAGS), 50), seen)
    vocabulary = plain.lifted(Lift(plain.vectors[seen], (2.0, 8.0)))
    head = Head(backbone.features, METHODS["sdl_plus"], vocabulary.vectors.shape[1])
    torch.nn.init.normal_(head.linear.weight)
    info: dict[str, Any] = {"backbone": "test_efficientnet", "size": 64}
    model = Model(Network(backbone, head).eval(), vocabulary, info)
    export_network(model, tmp_path / "model.onnx")
    names = TAGS + OTHER_WORDS
    lexicon = Lexicon({word: row for row, word in enumerate(names)}, words(len(names), 50, 1))
    calibration = Calibration((1.0, 0.0), (1.0, 0.5), {}, {"method": "made up"})
    info |= {"name": "zerotag", "version": "test", "method": "sdl_plus", "training": {"data": {}}}
    info |= {"principal_vectors": 1, "dimensions": vocabulary.vectors.shape[1]}
    write_package(tmp_path / "served", tmp_path / "model.onnx", vocabulary, lexicon, calibration, info)
    tagger = Tagger(tmp_path / "served")
    asked = tagger.words([OTHER_WORDS[0], "dog"])
    expected = vocabulary.lift(lexicon.vectors[[len(TAGS)]], OTHER_WORDS[:1])
    np.testing.assert_allclose(asked.vectors, [expected[0], vocabulary.vectors[TAGS.index("dog")]], atol=2e-3)
    principal = tagger.embed(encoded(1), "photo")
    assert principal.shape == (1, int(seen.sum()))
    [first] = tagger.rank(principal, tagger.words([OTHER_WORDS[0]]))
    assert first.score == pytest.approx(float(principal[0] @ expected[0]), rel=2e-2, abs=1e-2)
