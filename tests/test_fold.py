"""Folding: near-synonyms in one tag, and which word names it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zerotag.serving.fold import LIKENESS, fold


def at(*degrees: float) -> np.ndarray:
    """Unit vectors in the plane, by their angles: words 45 degrees apart have a cosine of 0.71."""
    angles = np.radians(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def folded(words: list[str], scores: list[float], vectors: np.ndarray | None = None) -> list[list[str]]:
    return [[words[place] for place in group] for group in fold(words, vectors, np.array(scores))]


@pytest.mark.parametrize(
    ("words", "groups"),
    [
        (["cars", "road", "car"], [["cars", "car"], ["road"]]),
        (["Cherry", "cherries"], [["Cherry", "cherries"]]),
        (["buses", "bus", "but"], [["buses", "bus"], ["but"]]),
        (["Dog", "dog"], [["Dog", "dog"]]),
        (["car", "carpet"], [["car"], ["carpet"]]),
        (["dog", "poodle"], [["dog"], ["poodle"]]),
    ],
)
def test_without_vectors_forms_of_a_word_are_folded(words: list[str], groups: list[list[str]]) -> None:
    assert folded(words, [5.0 - place for place in range(len(words))]) == groups


def test_near_synonyms_are_folded_into_the_best() -> None:
    words, vectors = ["sea", "boat", "ocean", "ship"], at(0, 90, 20, 120)
    assert folded(words, [4, 3, 2, 1], vectors) == [["sea", "ocean"], ["boat", "ship"]]
    # Vectors of any length; and not by way of another: each word resembles the next only.
    assert folded(words, [4, 3, 2, 1], 7 * vectors) == [["sea", "ocean"], ["boat", "ship"]]
    assert folded(["a b", "c d", "e f"], [3, 2, 1], at(0, 30, 60)) == [["a b", "c d"], ["e f"]]
    assert folded(["a b", "c d"], [3, 2], at(0, np.degrees(np.arccos(LIKENESS)) + 0.1)) == [["a b"], ["c d"]]


def test_a_word_joins_the_first_group_that_it_resembles() -> None:
    assert folded(["left", "right", "middle"], [3, 2, 1], at(0, 60, 30)) == [["left", "middle"], ["right"]]


@pytest.mark.parametrize("sign", [1, -1])
def test_the_word_most_like_the_others_names_a_group(sign: int) -> None:
    """Negative scores too: at most a quarter of the best one's size below it."""
    words, vectors = ["poodle", "spaniel", "dog", "grass"], at(-15, 16, 0, 90)
    near, far = ([1.0, 0.9, 0.8], [1.0, 0.9, 0.7]) if sign > 0 else ([-1.0, -1.1, -1.2], [-1.0, -1.1, -1.3])
    assert folded(words, [*near, -3], vectors) == [["dog", "poodle", "spaniel"], ["grass"]]
    assert folded(words, [*far, -3], vectors) == [["poodle", "spaniel", "dog"], ["grass"]]


def test_the_best_of_two_names_them() -> None:
    assert folded(["polar bear", "bear"], [0.9, 0.3], at(0, 30)) == [["polar bear", "bear"]]
    random = np.random.default_rng(0)
    for _ in range(100):  # however the dot products are rounded
        lake = random.standard_normal(384)
        vectors = np.stack([lake, lake + 0.5 * random.standard_normal(384)]).astype(np.float32)
        assert folded(["lake", "pond"], [0.9, 0.85], vectors) == [["lake", "pond"]]


def test_groups_stand_in_the_order_of_the_scores_that_they_show() -> None:
    words = ["poodle", "lawn", "spaniel", "dog"]
    given = folded(words, [1.0, 0.9, 0.85, 0.8], at(-15, 90, 15, 0))
    assert given == [["lawn"], ["dog", "poodle", "spaniel"]]


def test_nothing_to_fold() -> None:
    assert fold([], None, np.array([])) == [] == fold([], np.zeros((0, 384)), np.array([]))


@given(
    st.lists(st.text(st.sampled_from("aeisy "), max_size=4), max_size=12), st.integers(0, 99), st.booleans(),
    st.sampled_from([0.0, 1.0, -3.0]),
)  # fmt: skip
def test_every_word_is_in_one_group(words: list[str], seed: int, compared: bool, shift: float) -> None:
    random = np.random.default_rng(seed)
    vectors = random.standard_normal((len(words), 2)).astype(np.float32)
    scores = np.sort(random.standard_normal(len(words)))[::-1] + shift
    groups = fold(words, vectors if compared else None, scores)
    assert sorted(place for group in groups for place in group) == list(range(len(words)))
    shown = [scores[group[0]] for group in groups]
    assert shown == sorted(shown, reverse=True)
    for group in groups:
        assert group[1:] == sorted(group[1:])
