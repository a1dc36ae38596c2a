"""evaluate() against slow versions of its figures, and the bootstrap."""

import json

import numpy as np
import pytest
import scipy.sparse as sp
from sklearn.metrics import average_precision_score

import zerotag.evaluation.evaluate as evaluation
from zerotag.evaluation.bootstrap import draw_weights, interval, resampled_figures
from zerotag.evaluation.evaluate import Evaluation, evaluate, score_matrix
from zerotag.evaluation.metrics import average_precision, expected_average_precision, top_k_counts, top_k_hits
from zerotag.words.vocabulary import Vocabulary

PHOTOS, TAGS, ROWS, DIMENSIONS = 40, 16, 3, 8


@pytest.fixture(scope="module")
def case() -> tuple[np.ndarray, np.ndarray, Vocabulary]:
    """Random principal vectors, labels and a vocabulary whose seen and unseen tags are mixed."""
    random = np.random.default_rng(5)
    vectors = random.standard_normal((TAGS, DIMENSIONS)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    labels = (random.random((PHOTOS, TAGS)) < 0.12).astype(np.uint8)
    labels[0] = 0  # a photo without tags
    labels[:, 2] = 0  # a tag without photos
    seen = np.arange(TAGS) % 3 != 0
    tags = [f"tag {number}" for number in range(TAGS)]
    principal = random.standard_normal((PHOTOS, ROWS, DIMENSIONS)).astype(np.float32)
    return principal, labels, Vocabulary(tags, vectors, seen)


@pytest.fixture(scope="module")
def evaluated(case: tuple[np.ndarray, np.ndarray, Vocabulary]) -> Evaluation:
    principal, labels, vocabulary = case
    ids = [f"photo {number}" for number in range(PHOTOS)]
    return evaluate(principal, sp.csr_matrix(labels), vocabulary, ids, np.arange(PHOTOS) + 100, examples=4)


def slow_scores(principal: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    return np.einsum("nmd,td->nmt", principal.astype(np.float64), vectors.astype(np.float64)).max(axis=1)


def slow_figures(scores: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    kept = labels.any(axis=1)
    scores, labels = scores[kept], labels[kept]
    figures: dict[str, float] = {"images": len(scores), "tags": int(labels.any(axis=0).sum())}
    for k in (3, 5):
        hits = sum(labels[photo, tag] for photo in range(len(scores)) for tag in np.argsort(-scores[photo])[:k])
        precision, recall = hits / (k * len(scores)), hits / labels.sum()
        figures[f"precision@{k}"] = 100 * precision
        figures[f"recall@{k}"] = 100 * recall
        figures[f"f1@{k}"] = 100 * 2 * precision * recall / (precision + recall)
    tags = np.flatnonzero(labels.any(axis=0))
    figures["map"] = 100 * float(np.mean([average_precision_score(labels[:, tag], scores[:, tag]) for tag in tags]))
    return figures


def test_scores_equal_einsum_over_several_blocks(
    case: tuple[np.ndarray, np.ndarray, Vocabulary], monkeypatch: pytest.MonkeyPatch
) -> None:
    principal, _, vocabulary = case
    monkeypatch.setattr(evaluation, "_BLOCK", 7)
    scores = score_matrix(principal, vocabulary.vectors)
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, slow_scores(principal, vocabulary.vectors), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("task", ["zsl", "gzsl", "seen"])
def test_every_task_equals_the_slow_figures(
    case: tuple[np.ndarray, np.ndarray, Vocabulary], evaluated: Evaluation, task: str
) -> None:
    principal, labels, vocabulary = case
    columns = {"zsl": ~vocabulary.seen, "gzsl": np.ones(TAGS, dtype=bool), "seen": vocabulary.seen}[task]
    expected = slow_figures(slow_scores(principal, vocabulary.vectors)[:, columns], labels[:, columns])
    for name, value in expected.items():
        assert evaluated.metrics[task][name] == pytest.approx(value), name
    assert set(evaluated.metrics[task]) == {*expected, "random_map"}


def test_retrieval_and_the_table_of_tags(
    case: tuple[np.ndarray, np.ndarray, Vocabulary], evaluated: Evaluation
) -> None:
    principal, labels, vocabulary = case
    scores = slow_scores(principal, vocabulary.vectors)
    table = evaluated.tags.set_index("tag")
    assert sorted(table.index) == sorted(vocabulary.tags)
    kept = labels.any(axis=1)
    shares = []
    for number, tag in enumerate(vocabulary.tags):
        row = table.loc[tag]
        assert row["seen"] == vocabulary.seen[number]
        assert row["positives"] == labels[:, number].sum()
        if labels[:, number].any():
            expected = average_precision_score(labels[kept, number], scores[kept, number])
            assert row["ap"] == pytest.approx(100 * expected)
            shares.append(labels[np.argsort(-scores[:, number])[:10], number].mean())
        else:
            assert np.isnan(row["ap"])
    assert evaluated.metrics["retrieval"]["precision@10"] == pytest.approx(100 * np.mean(shares))


def test_examples_show_true_and_best_tags(
    case: tuple[np.ndarray, np.ndarray, Vocabulary], evaluated: Evaluation
) -> None:
    principal, labels, vocabulary = case
    scores = slow_scores(principal, vocabulary.vectors)
    assert len(evaluated.examples) == 4
    for example in evaluated.examples:
        photo = example["row"] - 100
        assert example["id"] == f"photo {photo}"
        true = {vocabulary.tags[tag] for tag in np.flatnonzero(labels[photo])}
        assert set(example["tags"]) == true
        assert any(not vocabulary.seen[vocabulary.tags.index(tag)] for tag in true)
        best = np.argsort(-scores[photo])[:10]
        assert [top["tag"] for top in example["top"]] == [vocabulary.tags[tag] for tag in best]
        for top, tag in zip(example["top"], best, strict=True):
            assert top["score"] == pytest.approx(scores[photo, tag], rel=1e-5)
            assert (top["seen"], top["correct"]) == (bool(vocabulary.seen[tag]), top["tag"] in true)


def test_rejected_tags_are_to_be_below_the_photos_own(case: tuple[np.ndarray, np.ndarray, Vocabulary]) -> None:
    principal, labels, vocabulary = case
    rejected = np.zeros_like(labels)
    rejected[0], rejected[3] = 1 - labels[0], 1 - labels[3]
    scores = score_matrix(principal, vocabulary.vectors)
    pairs = [
        scores[photo, right] > scores[photo, wrong]
        for photo in (0, 3)
        for right in np.flatnonzero(labels[photo])
        for wrong in np.flatnonzero(rejected[photo])
    ]
    ids, rows = [str(row) for row in range(len(labels))], np.arange(len(labels))
    arguments = principal, sp.csr_matrix(labels), vocabulary, ids, rows, 0
    found = evaluate(*arguments, rejected=sp.csr_matrix(rejected)).metrics
    assert found.pop("rejected") == {"below_tags": pytest.approx(100 * np.mean(pairs)), "pairs": len(pairs)}
    assert found == evaluate(*arguments).metrics


def test_a_perfect_model_gets_everything_right() -> None:
    # Each photo's principal vectors are the vectors of its tags, which are orthogonal.
    vectors = np.eye(6, dtype=np.float32)
    principal = np.stack([vectors[[photo % 6, (photo + 1) % 6]] for photo in range(12)])
    labels = np.zeros((12, 6), dtype=np.uint8)
    for photo in range(12):
        labels[photo, [photo % 6, (photo + 1) % 6]] = 1
    vocabulary = Vocabulary(list("abcdef"), vectors, np.arange(6) < 4)
    evaluated = evaluate(principal, sp.csr_matrix(labels), vocabulary, list("abcdefghijkl"), np.arange(12), 3)
    assert [evaluated.metrics[task]["map"] for task in ("zsl", "gzsl", "seen")] == [100, 100, 100]
    assert evaluated.metrics["gzsl"]["recall@3"] == 100


def test_without_unseen_tags_the_figures_are_empty_not_wrong(
    case: tuple[np.ndarray, np.ndarray, Vocabulary],
) -> None:
    principal, labels, vocabulary = case
    all_seen = Vocabulary(vocabulary.tags, vocabulary.vectors, np.ones(TAGS, dtype=bool))
    evaluated = evaluate(principal, sp.csr_matrix(labels), all_seen, ["photo"] * PHOTOS, np.arange(PHOTOS), 2)
    assert evaluated.metrics["zsl"]["images"] == 0
    undefined = ("map", "random_map", "f1@3", "precision@3", "recall@5")
    assert all(evaluated.metrics["zsl"][name] is None for name in undefined)
    nothing = sp.csr_matrix(labels.shape, dtype=np.uint8)
    evaluated_nothing = evaluate(principal, nothing, vocabulary, ["photo"] * PHOTOS, np.arange(PHOTOS), 2, resamples=3)
    assert evaluated_nothing.metrics["gzsl"]["map"] is evaluated_nothing.metrics["retrieval"]["precision@10"] is None
    assert evaluated_nothing.intervals["gzsl"] == {} and "NaN" not in json.dumps(evaluated_nothing.metrics)
    assert evaluated.metrics["gzsl"]["map"] == pytest.approx(evaluated.metrics["seen"]["map"])
    assert len(evaluated.examples) == 2


def test_random_scores_find_about_the_share_of_positives() -> None:
    random = np.random.default_rng(0)
    labels = sp.csr_matrix((random.random((2000, 10)) < 0.2).astype(np.uint8))
    vectors = np.eye(10, dtype=np.float32)
    principal = random.standard_normal((2000, 1, 10)).astype(np.float32)
    vocabulary = Vocabulary(list("abcdefghij"), vectors, np.arange(10) < 5)
    evaluated = evaluate(principal, labels, vocabulary, [""] * 2000, np.arange(2000), 1)
    share = 100 * labels.mean() * 2000 / evaluated.metrics["gzsl"]["images"]
    assert evaluated.metrics["gzsl"]["random_map"] == pytest.approx(share, abs=2)
    assert evaluated.metrics["gzsl"]["map"] == pytest.approx(share, abs=2)


def test_the_interval_of_a_difference() -> None:
    random = np.random.default_rng(0)
    labels = sp.csr_matrix((random.random((300, 4)) < 0.3).astype(np.uint8))
    first = labels.toarray() + random.normal(0, 1, (300, 4))
    weights = draw_weights(300, 300, seed=0)
    base = resampled_figures(first, labels, weights, {})["map"]

    def difference(scores: np.ndarray) -> tuple[float, float]:
        return interval(resampled_figures(scores, labels, weights, {})["map"] - base)

    assert difference(first) == (0, 0)
    low, high = difference(first + random.normal(0, 0.05, first.shape))
    assert low < 0 < high and high - low < 0.05
    low, _ = difference(first + 0.5 * labels.toarray())
    assert low > 0


def test_resampled_figures_equal_slow_ones_on_repeated_photos() -> None:
    random = np.random.default_rng(3)
    photos, tags = 60, 9
    scores = random.integers(0, 12, (photos, tags)).astype(np.float32)  # with many ties
    labels = (random.random((photos, tags)) < 0.2).astype(np.uint8)
    labels[:5] = 0
    labels[:, 4] = 0
    weights = draw_weights(photos, 6, seed=1)
    assert weights.sum(axis=0).tolist() == [photos] * 6
    hits = {k: top_k_hits(scores, sp.csr_matrix(labels), k) for k in (3, 5)}
    found = resampled_figures(scores, sp.csr_matrix(labels), weights, hits)
    for repeat in range(6):
        rows = np.repeat(np.arange(photos), weights[:, repeat].astype(int))
        rows = rows[labels[rows].any(axis=1)]
        present = [tag for tag in range(tags) if labels[rows][:, tag].any()]
        precisions = [average_precision_score(labels[rows][:, tag], scores[rows][:, tag]) for tag in present]
        assert found["map"][repeat] == pytest.approx(np.mean(precisions))
        for k in (3, 5):
            repeated = top_k_counts(scores[rows], sp.csr_matrix(labels[rows]), k)
            assert found[f"f1@{k}"][repeat] == pytest.approx(repeated.f1)


def test_intervals_hold_the_figures(case: tuple[np.ndarray, np.ndarray, Vocabulary], evaluated: Evaluation) -> None:
    principal, labels, vocabulary = case
    ids = [""] * PHOTOS
    with_intervals = evaluate(principal, sp.csr_matrix(labels), vocabulary, ids, np.arange(PHOTOS), 1, resamples=200)
    assert with_intervals.metrics == evaluated.metrics and evaluated.intervals["gzsl"] == {}
    for task in ("zsl", "gzsl", "seen"):
        assert set(with_intervals.intervals[task]) == {"f1@3", "f1@5", "map"}
        for name in ("f1@3", "f1@5", "map"):
            low, high = with_intervals.intervals[task][name]
            assert low < evaluated.metrics[task][name] < high and high - low > 1


def test_the_average_precision_of_random_scores() -> None:
    random = np.random.default_rng(0)
    positives, photos = np.array([0, 1, 4, 30, 50]), 50
    labels = np.zeros((photos, positives.size), dtype=np.uint8)
    for tag, count in enumerate(positives):
        labels[:count, tag] = 1
    drawn = [average_precision(random.random(labels.shape), sp.csr_matrix(labels)) for _ in range(3000)]
    expected = expected_average_precision(positives, photos)
    assert np.isnan(expected[0]) and expected[4] == pytest.approx(1)
    np.testing.assert_allclose(np.mean(drawn, axis=0)[1:], expected[1:], atol=0.01)


def test_average_precision_of_some_photos() -> None:
    random = np.random.default_rng(0)
    scores = random.random((200, 70))
    labels = sp.csr_matrix((random.random((200, 70)) < 0.05) * (np.arange(200) % 3 > 0)[:, None])
    photos = np.flatnonzero(np.arange(200) % 3)
    np.testing.assert_allclose(
        average_precision(scores, labels, photos), average_precision(scores[photos], labels[photos])
    )
