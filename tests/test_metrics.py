"""The figures against slow, obvious implementations and scikit-learn."""

import math
from itertools import pairwise, permutations

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import average_precision_score

from zerotag.evaluation import metrics
from zerotag.evaluation.metrics import Counts, average_precision, precision_at, top_k_counts


def slow_ap(scores: np.ndarray, wanted: np.ndarray) -> float:
    """Mean over the positives of the precision among all photos that score at least as high."""
    if not wanted.any():
        return math.nan
    precisions = []
    for place in np.flatnonzero(wanted):
        retrieved = [other for other in range(len(scores)) if scores[other] >= scores[place]]
        precisions.append(sum(bool(wanted[other]) for other in retrieved) / len(retrieved))
    return sum(precisions) / len(precisions)


def slow_top_k(scores: np.ndarray, labels: np.ndarray, k: int) -> tuple[int, int, int, int]:
    """Hits, picked tags, positives and photos, for scores without ties."""
    hits = picked = positives = photos = 0
    for row, wanted in zip(scores.tolist(), labels.tolist(), strict=True):
        if not any(wanted):
            continue
        best = sorted(range(len(row)), key=lambda tag: -row[tag])[:k]
        hits += sum(wanted[tag] for tag in best)
        picked += len(best)
        positives += sum(wanted)
        photos += 1
    return hits, picked, positives, photos


def expected_hits(scores: list[float], wanted: list[int], k: int) -> float:
    """The mean of the hits over every order of the tags that respects the scores."""
    counts = [
        sum(wanted[tag] for tag in order[:k])
        for order in permutations(range(len(scores)))
        if all(scores[a] >= scores[b] for a, b in pairwise(order))
    ]
    return sum(counts) / len(counts)


def as_tuple(counts: Counts) -> tuple[float, int, int, int]:
    return counts.hits, counts.picked, counts.positives, counts.photos


@st.composite
def tables(draw: st.DrawFn, ties: bool, max_photos: int = 12, max_tags: int = 7) -> tuple[np.ndarray, np.ndarray]:
    """Scores and 0/1 labels; whole numbers from a small range where ties are wanted, all different otherwise."""
    shape = draw(st.integers(1, max_photos)), draw(st.integers(1, max_tags))
    labels = draw(arrays(np.uint8, shape, elements=st.integers(0, 1)))
    if ties:
        scores = draw(arrays(np.float32, shape, elements=st.integers(-2, 2).map(float)))
    else:
        order = np.random.default_rng(draw(st.integers(0, 1000))).permutation(shape[0] * shape[1])
        scores = order.reshape(shape).astype(np.float32)
    return scores, labels


@settings(max_examples=60, deadline=None)
@given(tables(ties=False), st.integers(1, 9))
def test_top_k_equals_the_slow_count(table: tuple[np.ndarray, np.ndarray], k: int) -> None:
    scores, labels = table
    hits, picked, positives, photos = slow_top_k(scores, labels, k)
    counts = top_k_counts(scores, sp.csr_matrix(labels), k)
    assert as_tuple(counts) == (hits, picked, positives, photos)
    precision, recall = hits / max(picked, 1), hits / max(positives, 1)
    assert counts.precision == pytest.approx(precision)
    assert counts.recall == pytest.approx(recall)
    harmonic = 2 * precision * recall / (precision + recall) if hits else 0.0
    assert counts.f1 == pytest.approx(harmonic)


@settings(max_examples=60, deadline=None)
@given(tables(ties=True, max_photos=3, max_tags=6), st.integers(1, 7))
def test_ties_count_as_the_mean_over_all_orders(table: tuple[np.ndarray, np.ndarray], k: int) -> None:
    scores, labels = table
    expected = sum(expected_hits(row, wanted, k) for row, wanted in zip(scores.tolist(), labels.tolist(), strict=True))
    assert top_k_counts(scores, sp.csr_matrix(labels), k).hits == pytest.approx(expected)


def test_hand_worked_counts() -> None:
    scores = np.array([[0.9, 0.8, 0.1, 0.0], [0.1, 0.2, 0.3, 0.4], [1.0, 0.0, 0.0, 0.0]], dtype=np.float32)
    labels = sp.csr_matrix(np.array([[1, 0, 1, 1], [0, 0, 0, 1], [0, 0, 0, 0]], dtype=np.uint8))
    # Photo 1 hits one of its two, photo 2 one; photo 3 has no tag and is left out.
    counts = top_k_counts(scores, labels, 2)
    assert as_tuple(counts) == (2, 4, 4, 2)
    assert (counts.precision, counts.recall, counts.f1) == (0.5, 0.5, 0.5)
    # Three tags share the second place and one of them is right.
    tied = np.array([[1.0, 0.5, 0.5, 0.5]], dtype=np.float32)
    assert top_k_counts(tied, sp.csr_matrix([[0, 0, 1, 0]]), 2).hits == pytest.approx(1 / 3)
    # Scores all alike: as good as picking at random.
    assert top_k_counts(np.zeros((1, 4), np.float32), sp.csr_matrix([[1, 1, 0, 0]]), 1).hits == pytest.approx(0.5)


def test_more_tags_asked_than_there_are() -> None:
    scores = np.array([[3.0, 2.0, 1.0]], dtype=np.float32)
    counts = top_k_counts(scores, sp.csr_matrix([[0, 1, 1]]), 5)
    assert as_tuple(counts) == (2, 3, 2, 1)
    assert (counts.precision, counts.recall) == (pytest.approx(2 / 3), 1)


@pytest.mark.parametrize("shape", [(3, 4), (0, 4), (3, 0)])
def test_no_positive_at_all(shape: tuple[int, int]) -> None:
    counts = top_k_counts(np.zeros(shape, np.float32), sp.csr_matrix(shape, dtype=np.uint8), 3)
    assert as_tuple(counts) == (0, 0, 0, 0)
    assert (counts.precision, counts.recall, counts.f1) == (0, 0, 0)
    assert np.isnan(average_precision(np.zeros(shape, np.float32), sp.csr_matrix(shape, dtype=np.uint8))).all()
    assert precision_at(np.zeros(shape, np.float32), sp.csr_matrix(shape, dtype=np.uint8), 3) == 0


@settings(max_examples=40, deadline=None)
@given(tables(ties=True), st.integers(1, 7), st.integers(0, 12))
def test_blocks_add_up_to_the_whole(table: tuple[np.ndarray, np.ndarray], k: int, cut: int) -> None:
    scores, labels = table
    parts = [top_k_counts(scores[part], sp.csr_matrix(labels[part]), k) for part in (slice(cut), slice(cut, None))]
    whole, added = top_k_counts(scores, sp.csr_matrix(labels), k), parts[0] + parts[1]
    assert as_tuple(added) == pytest.approx(as_tuple(whole))


def test_own_blocks_are_invisible(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    scores = random.integers(0, 6, (50, 9)).astype(np.float32)
    labels = sp.csr_matrix(random.random((50, 9)) < 0.2)
    whole = top_k_counts(scores, labels, 3)
    monkeypatch.setattr(metrics, "_SCORES", 7 * 9)
    assert as_tuple(top_k_counts(scores, labels, 3)) == pytest.approx(as_tuple(whole))


@settings(max_examples=60, deadline=None)
@given(st.booleans().flatmap(lambda ties: tables(ties=ties)))
def test_average_precision_equals_the_slow_one_and_scikit_learn(table: tuple[np.ndarray, np.ndarray]) -> None:
    scores, labels = table
    result = average_precision(scores, sp.csr_matrix(labels))
    for tag, value in enumerate(result):
        assert value == pytest.approx(slow_ap(scores[:, tag], labels[:, tag]), nan_ok=True)
        if labels[:, tag].any():
            assert value == pytest.approx(average_precision_score(labels[:, tag], scores[:, tag]))


def test_average_precision_on_many_tags_and_either_layout() -> None:
    random = np.random.default_rng(1)
    scores = random.standard_normal((300, 150)).astype(np.float32)
    labels = sp.csr_matrix((random.random((300, 150)) < 0.05).astype(np.uint8))
    dense = labels.toarray()
    expected = [average_precision_score(dense[:, tag], scores[:, tag]) for tag in range(150)]
    for given_labels in (labels, labels.tocsc()):
        assert average_precision(scores, given_labels) == pytest.approx(expected)


def test_hand_worked_average_precision() -> None:
    # Positives at ranks 1 and 3: (1/1 + 2/3) / 2. A tag without a positive has none.
    scores = np.array([[4.0, 1.0], [3.0, 2.0], [2.0, 3.0], [1.0, 4.0]], dtype=np.float32)
    labels = np.array([[1, 0], [0, 0], [1, 0], [0, 0]], dtype=np.uint8)
    assert average_precision(scores, sp.csr_matrix(labels)) == pytest.approx([5 / 6, math.nan], nan_ok=True)
    # All photos alike: the share of positives.
    assert average_precision(np.zeros((4, 1), np.float32), sp.csr_matrix(labels[:, :1])) == pytest.approx([0.5])
    perfect = np.array([[1.0], [0.0], [1.0], [0.0]], dtype=np.float32)
    assert average_precision(perfect, sp.csr_matrix(labels[:, :1])) == pytest.approx([1.0])


@settings(max_examples=60, deadline=None)
@given(tables(ties=True), st.integers(1, 7), st.integers(0, 1000))
def test_no_figure_depends_on_the_order(table: tuple[np.ndarray, np.ndarray], k: int, seed: int) -> None:
    scores, labels = table
    random = np.random.default_rng(seed)
    photos, tags = random.permutation(scores.shape[0]), random.permutation(scores.shape[1])
    mixed, mixed_labels = scores[photos][:, tags], sp.csr_matrix(labels[photos][:, tags])
    straight = sp.csr_matrix(labels)
    assert as_tuple(top_k_counts(mixed, mixed_labels, k)) == pytest.approx(as_tuple(top_k_counts(scores, straight, k)))
    assert average_precision(mixed, mixed_labels) == pytest.approx(
        average_precision(scores, straight)[tags], nan_ok=True
    )
    assert precision_at(mixed, mixed_labels, k) == pytest.approx(precision_at(scores, straight, k))


@settings(max_examples=40, deadline=None)
@given(tables(ties=False), st.integers(1, 14))
def test_retrieval_precision_equals_the_slow_one(table: tuple[np.ndarray, np.ndarray], k: int) -> None:
    scores, labels = table
    shares = []
    for tag in range(scores.shape[1]):
        if labels[:, tag].any():
            best = sorted(range(len(scores)), key=lambda photo: -scores[photo, tag])[:k]
            shares.append(sum(int(labels[photo, tag]) for photo in best) / len(best))
    expected = sum(shares) / len(shares) if shares else 0.0
    assert precision_at(scores, sp.csr_matrix(labels), k) == pytest.approx(expected)
