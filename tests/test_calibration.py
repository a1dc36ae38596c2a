"""Probabilities from scores."""

import json
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp

from zerotag.evaluation.calibration import (
    Calibration,
    expected_calibration_error,
    fit_calibration,
    fit_line,
    reliability,
)


def sigmoid(values: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-values))


def test_fit_line_finds_the_line() -> None:
    random = np.random.default_rng(0)
    scores = random.normal(4, 2, 50_000)
    labels = random.random(50_000) < sigmoid(1.5 * scores - 7)
    assert fit_line(scores, labels) == pytest.approx((1.5, -7), rel=0.05)


def test_each_tag_has_its_own_line_and_rare_ones_the_common_one(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    scores = random.normal(0, 1, (20_000, 3))
    truth = random.random(scores.shape) < sigmoid(np.array([1.0, 3.0, 1.0]) * scores + np.array([-1.0, -4.0, -1.0]))
    truth[:, 2] = False
    truth[:3, 2] = True
    labels = sp.csr_matrix(truth.astype(np.uint8))
    fitted = fit_calibration(scores, labels, ["a", "b", "rare"], scores[:, :1] - 1, labels[:, :1])
    assert set(fitted.tags) == {"a", "b"}
    assert fitted.tags["b"] == pytest.approx((3, -4), rel=0.1)
    assert fitted.unseen == pytest.approx((1, 0), abs=0.15)

    words, seen = ["a", "rare", "new", "own"], [True, True, False, None]
    given = fitted.probabilities(words, seen, np.full((2, 4), 0.5))
    lines = [fitted.tags["a"], fitted.seen, fitted.unseen, fitted.unseen]
    assert given[1] == pytest.approx([sigmoid(0.5 * slope + offset) for slope, offset in lines])
    (tmp_path / "calibration.json").write_text(json.dumps(fitted.content()))
    back = Calibration.read(tmp_path / "calibration.json")
    assert back == fitted


def test_nothing_to_fit() -> None:
    none = sp.csr_matrix((10, 2), dtype=np.uint8)
    fitted = fit_calibration(np.zeros((10, 2)), none, ["a", "b"], np.zeros((10, 0)), none[:, :0])
    assert 0 < fitted.probabilities(["a"], [True], np.array([5.0]))[0] < 0.1


@pytest.mark.parametrize("unseen", ["no positive", "no tag", "all positive", "upside down"])
def test_unseen_words_have_the_line_of_all_seen_tags_where_they_have_none(unseen: str) -> None:
    random = np.random.default_rng(2)
    scores = random.normal(0, 1, (500, 2))
    labels = sp.csr_matrix((random.random(scores.shape) < sigmoid(2 * scores - 1)).astype(np.uint8))
    truth = {"all positive": np.ones((500, 2)), "upside down": scores < 0}.get(unseen, np.zeros((500, 2)))
    columns = 0 if unseen == "no tag" else 2
    fitted = fit_calibration(scores, labels, ["a", "b"], scores[:, :columns], sp.csr_matrix(truth[:, :columns]))
    assert fitted.unseen == fitted.seen and fitted.unseen[0] > 1
    low, high = fitted.probabilities(["new", "new"], [None, None], np.array([-3.0, 3.0]))
    assert low < 0.05 and high > 0.95


def test_scores_far_out_give_no_warning() -> None:
    with np.errstate(all="raise"):
        given = Calibration((1.0, 0.0), (1.0, 0.0), {}).probabilities(["a", "b"], [False, True], np.array([-1e6, 1e6]))
    assert given == pytest.approx([0, 1])


def test_reliability_and_error() -> None:
    probabilities = np.array([0.05, 0.05, 0.95, 0.95, 1.0])
    rows = reliability(probabilities, np.array([0, 1, 1, 1, 1]), bins=10)
    assert [row["count"] for row in rows] == [2, 3]
    assert rows[0] == pytest.approx({"count": 2, "probability": 0.05, "share": 0.5})
    # By hand: 2/5 * |0.05 - 0.5| + 3/5 * |2.9/3 - 1|.
    assert expected_calibration_error(rows) == pytest.approx(0.4 * 0.45 + 0.6 * (1 - 2.9 / 3))
    assert expected_calibration_error(reliability(np.zeros(0), np.zeros(0))) is None
    random = np.random.default_rng(0)
    honest = random.random(200_000)
    assert expected_calibration_error(reliability(honest, random.random(200_000) < honest)) < 0.01
