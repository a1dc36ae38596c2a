"""Lifted word vectors: what they are, and that everything that scores words lifts them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import OTHER_WORDS, TAGS, encoded
from hypothesis import given
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
    assert plain.lift(words(2, 6)).shape == (2, 6)
    assert lifted.vectors.shape == (12, 8) and lifted.dimensions == 6
    lifted.write(tmp_path)
    back = Vocabulary.read(tmp_path, tmp_path / "vocabulary.csv")
    assert back.digest == lifted.digest != plain.digest
    np.testing.assert_array_equal(back.lift(plain.vectors), lifted.vectors)
    np.testing.assert_array_equal(lifted.seeing(np.flatnonzero(plain.seen)).vectors, lifted.vectors)
    assert lifted.seeing(np.array([1, 2, 4])).vectors.shape == (12, 3)
    # Data of the same words, and of others.
    data = Vocabulary(plain.tags, plain.vectors, np.ones(12, dtype=bool))
    np.testing.assert_array_equal(data.seen_by(back).vectors, lifted.vectors)
    with pytest.raises(ZerotagError, match="have 6 dimensions, the data's 7"):
        Vocabulary(plain.tags, words(12, 7), plain.seen).seen_by(back)


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
    info = {"backbone": "test_efficientnet", "size": 64}
    model = Model(Network(backbone, head).eval(), vocabulary, info)
    export_network(model, tmp_path / "model.onnx")
    names = TAGS + OTHER_WORDS
    lexicon = Lexicon({word: row for row, word in enumerate(names)}, words(len(names), 50, 1))
    calibration = Calibration((1.0, 0.0), (1.0, 0.5), {}, {"method": "made up"})
    write_package(tmp_path / "served", tmp_path / "model.onnx", vocabulary, lexicon, calibration, info)
    tagger = Tagger(tmp_path / "served")
    asked = tagger.words([OTHER_WORDS[0], "dog"])
    expected = vocabulary.lift(lexicon.vectors[[len(TAGS)]])
    np.testing.assert_allclose(asked.vectors, [expected[0], vocabulary.vectors[TAGS.index("dog")]], atol=2e-3)
    principal = tagger.embed(encoded(1), "photo")
    assert principal.shape == (1, int(seen.sum()))
    [first] = tagger.rank(principal, tagger.words([OTHER_WORDS[0]]))
    assert first.score == pytest.approx(float(principal[0] @ expected[0]), rel=2e-2, abs=1e-2)
