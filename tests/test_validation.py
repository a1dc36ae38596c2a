"""Validation: what fails, which rows it names, and what it leaves behind."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import yaml

from zerotag.data.dataset import Dataset
from zerotag.data.validation import ValidationResult, ValidationSettings, validate
from zerotag.errors import ZerotagError
from zerotag.words.vocabulary import Vocabulary

ROOT = Path(__file__).parents[1]
TAGS = ["cat", "dog", "tree", "car", "boat", "sky"]
SETTINGS = ValidationSettings(
    min_side=32,
    max_problem_share=0.0,
    max_duplicates_across_split=0.0,
    tags_per_photo=(0, 4),
    min_tag_photos=2,
    max_tag_share=0.9,
    mean_tags_per_photo=(1.0, 3.0),
)


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    """Twelve good photos p0 … p11, eight of them for training; photo i has the tags i and i + 1 (modulo 6)."""
    photos = pd.DataFrame({"id": [f"p{number}" for number in range(12)]})
    photos["file"] = "photos/" + photos["id"] + ".jpg"
    photos["train"] = photos.index < 8
    photos["sha256"] = [f"{number:064x}" for number in range(12)]
    photos["width"], photos["height"] = 160, 120
    photos["problem"], photos["shard"], photos["offset"], photos["size"] = "", "00000.tar", 0, 10
    labels = np.zeros((12, 6), dtype=np.uint8)
    for number in range(12):
        labels[number, [number % 6, (number + 1) % 6]] = 1
    tags = pd.DataFrame({"tag": TAGS, "concept": [0, 0, 0, 0, 1, 1]})
    tags["train_photos"], tags["test_photos"] = labels[:8].sum(axis=0), labels[8:].sum(axis=0)
    return Dataset(tmp_path / "prepared", photos, tags, sp.csr_matrix(labels))


@pytest.fixture
def vocabulary() -> Vocabulary:
    """Unit vectors; the last two tags are unseen."""
    return Vocabulary(TAGS, np.eye(6, 8, dtype=np.float32), np.array([True] * 4 + [False] * 2))


@pytest.fixture(autouse=True)
def docs_are_drawn_whole(caplog):
    """Great Expectations only logs what it could not draw."""
    yield
    assert not [record.message for record in caplog.get_records("call") if record.levelname == "ERROR"]


def check(
    dataset: Dataset,
    vocabulary: Vocabulary,
    settings: ValidationSettings = SETTINGS,
    training_tags: list[str] | None = None,
) -> ValidationResult:
    return validate(dataset, vocabulary, training_tags or TAGS[:4], settings, dataset.root.parent / "docs")


def changed(dataset: Dataset, **columns: dict[int, object]) -> Dataset:
    """The data set with some values of its photo table changed: column={row: value}."""
    photos = dataset.photos.copy()
    for column, values in columns.items():
        for row, value in values.items():
            photos.loc[row, column] = value
    return replace(dataset, photos=photos)


def failed(result: ValidationResult, words: str) -> list[str]:
    """The rows of the critical failure whose expectation contains these words."""
    assert not result.passed
    [failure] = [failure for failure in result.failures if words in failure.expectation]
    assert failure.expectation in failure.message
    return failure.rows


def warned(result: ValidationResult, words: str) -> list[str]:
    assert result.passed
    [warning] = [warning for warning in result.warnings if words in warning.expectation]
    return warning.rows


def test_good_data_pass(dataset, vocabulary):
    result = check(dataset, vocabulary)
    assert result == ValidationResult(True, [], [], result.checked)
    assert result.checked >= 20


def test_photo_that_does_not_decode(dataset, vocabulary):
    bad = changed(dataset, problem={3: "photos/p3.jpg: not a photo"}, width={3: 0}, height={3: 0})
    result = check(bad, vocabulary)
    assert failed(result, "Every photo decodes") == ["p3"]
    assert "photos/p3.jpg: not a photo" in result.failures[0].message
    assert len(result.failures) == 1  # it counts as neither tiny nor without tags


def test_tolerated_problems_are_a_warning(dataset, vocabulary):
    bad = changed(dataset, problem={3: "photos/p3.jpg: not a photo"})
    assert warned(check(bad, vocabulary, replace(SETTINGS, max_problem_share=0.1)), "Every photo decodes") == ["p3"]
    result = check(bad, vocabulary, replace(SETTINGS, max_problem_share=0.05))
    assert failed(result, "All photos except 5.0% decode") == ["p3"]


def test_tiny_photo(dataset, vocabulary):
    result = check(changed(dataset, width={5: 1}, height={5: 1}), vocabulary)
    assert failed(result, "at least 32 pixels") == ["p5"]


def test_duplicate_id(dataset, vocabulary):
    result = check(changed(dataset, id={1: "p0"}), vocabulary)
    assert failed(result, "ids are unique") == ["p0"]
    assert result.failures[0].total == 2


def test_id_in_both_train_and_test(dataset, vocabulary):
    assert failed(check(changed(dataset, id={9: "p0"}), vocabulary), "No photo id occurs in both") == ["p0"]


def test_duplicates_across_the_split(dataset, vocabulary):
    result = check(changed(dataset, sha256={9: f"{2:064x}"}), vocabulary)
    assert failed(result, "No photo has a duplicate across") == ["p2", "p9"]
    assert "p2 (photos/p9.jpg)" in result.failures[0].message


def test_some_duplicates_across_the_split_are_tolerated(dataset, vocabulary):
    bad = changed(dataset, sha256={9: f"{2:064x}"})
    allowed = 2 / len(dataset.photos)
    result = check(bad, vocabulary, replace(SETTINGS, max_duplicates_across_split=allowed))
    assert warned(result, "No photo has a duplicate across") == ["p2", "p9"]
    result = check(bad, vocabulary, replace(SETTINGS, max_duplicates_across_split=allowed / 2))
    assert failed(result, "has a duplicate across the train/test split") == ["p2", "p9"]


def test_a_duplicate_within_train_is_a_warning(dataset, vocabulary):
    result = check(changed(dataset, sha256={4: f"{2:064x}"}), vocabulary)
    assert warned(result, "has a duplicate within train or test") == ["p4"]


@pytest.mark.parametrize(("train", "missing"), [(True, "missing: test"), (False, "missing: train")])
def test_empty_split(dataset, vocabulary, train, missing):
    result = check(changed(dataset, train=dict.fromkeys(range(12), train)), vocabulary)
    assert failed(result, "training photos and test photos") == []
    assert any(missing in failure.message for failure in result.failures)


def test_no_photo_decodes(dataset, vocabulary):
    result = check(changed(dataset, problem=dict.fromkeys(range(12), "cannot be read")), vocabulary)
    assert len(failed(result, "Every photo decodes")) == 12
    assert failed(result, "training photos and test photos") == []


def test_too_many_tags_on_a_photo(dataset, vocabulary):
    labels = dataset.labels.tolil()
    labels[7, :5] = 1
    assert failed(check(replace(dataset, labels=labels.tocsr()), vocabulary), "0 to 4 tags") == ["p7"]


def test_mean_tags_out_of_bounds(dataset, vocabulary):
    result = check(dataset, vocabulary, replace(SETTINGS, mean_tags_per_photo=(2.5, 3.0)))
    assert failed(result, "2.5 to 3 tags on average") == []
    assert "found: 2" in result.failures[0].message


def test_photo_without_tags_is_a_warning(dataset, vocabulary):
    labels = dataset.labels.tolil()
    labels[11, :] = 0
    assert warned(check(replace(dataset, labels=labels.tocsr()), vocabulary), "Every photo has at least one tag") == [
        "p11"
    ]


def test_tag_without_vector(dataset, vocabulary):
    result = check(dataset, replace(vocabulary, vectors=vocabulary.vectors[:5]))
    assert failed(result, "Every tag has a word vector") == ["sky"]


@pytest.mark.parametrize(
    ("value", "words"), [(np.nan, "is finite"), (np.inf, "is finite"), (2.0, "unit length"), (0.0, "unit length")]
)
def test_bad_vector(dataset, vocabulary, value, words):
    vectors = vocabulary.vectors.copy()
    vectors[2, 2] = value
    result = check(dataset, replace(vocabulary, vectors=vectors))
    assert failed(result, words) == ["tree"]
    assert len(result.failures) == 1


def test_vectors_of_their_own_length(dataset, vocabulary, tmp_path):
    vectors = 3 * vocabulary.vectors
    vectors[2] = 0
    longer = replace(vocabulary, vectors=vectors)
    assert len(failed(check(dataset, longer), "unit length")) == 6
    seen = [tag for tag, is_seen in zip(longer.tags, longer.seen, strict=True) if is_seen]
    result = validate(dataset, longer, seen, SETTINGS, tmp_path / "docs", unit_length=False)
    assert failed(result, "non-zero length") == ["tree"] and len(result.failures) == 1


def test_tag_both_seen_and_unseen(dataset, vocabulary):
    result = check(dataset, replace(vocabulary, tags=[*TAGS[:5], "cat"]))
    assert failed(result, "Tags are unique") == ["cat"]


def test_one_vector_on_both_sides_of_the_split(dataset, vocabulary):
    vectors = vocabulary.vectors.copy()
    vectors[5] = vectors[1]
    result = check(dataset, replace(vocabulary, vectors=vectors))
    assert failed(result, "word vector of a seen tag") == ["sky"]
    assert "sky (dog)" in result.failures[0].message
    vectors[5] = vectors[4]  # of two unseen tags, none tells of the other
    assert check(dataset, replace(vocabulary, vectors=vectors)).passed


def test_merged_spellings_are_told(dataset, vocabulary):
    tags = dataset.tags.assign(spellings=["", "Dog | dog", "", "", "", ""])
    result = check(replace(dataset, tags=tags), vocabulary)
    assert result.passed and result.notes == ["Tag dog: the source spells it Dog | dog"]
    assert "Dog | dog" in (dataset.root.parent / "docs" / "index.html").read_text()


def test_tag_neither_seen_nor_unseen(dataset, vocabulary):
    assert failed(check(dataset, replace(vocabulary, seen=vocabulary.seen[:5])), "either seen or unseen") == ["sky"]


@pytest.mark.parametrize("seen", [True, False])
def test_no_tag_seen_or_none_unseen(dataset, vocabulary, seen):
    result = check(dataset, replace(vocabulary, seen=np.full(6, seen)))
    assert failed(result, "seen tags and unseen tags") == []


def test_unseen_tag_among_the_training_targets(dataset, vocabulary):
    result = check(dataset, vocabulary, training_tags=["cat", "dog", "boat"])
    assert failed(result, "No unseen tag is a training target") == ["boat"]


def test_training_target_outside_the_vocabulary(dataset, vocabulary):
    result = check(dataset, vocabulary, training_tags=["cat", "unicorn"])
    assert failed(result, "Every tag has a word vector") == ["unicorn"]


def test_rare_and_frequent_tags_are_warnings(dataset, vocabulary):
    labels = dataset.labels.tolil()
    labels[:8, TAGS.index("dog")] = 0
    labels[:8, TAGS.index("cat")] = 1
    labels[8:, TAGS.index("boat")] = 0
    result = check(replace(dataset, labels=labels.tocsr()), vocabulary)
    assert warned(result, "at least 2 training photos") == ["dog"]
    assert warned(result, "more than 90%") == ["cat"]
    assert warned(result, "unseen tag has at least one test photo") == ["boat"]


def test_of_many_rows_twenty_are_named_and_the_docs_show_a_sample(dataset, vocabulary):
    labels = sp.csr_matrix(np.tile(dataset.labels.toarray(), (3, 1)))
    many = replace(dataset, photos=pd.concat([dataset.photos] * 3, ignore_index=True), labels=labels)
    many.photos["id"] = [f"p{number}" for number in range(36)]
    many.photos.loc[30:, "height"] = 90  # not among the first twenty
    result = check(many, vocabulary, replace(SETTINGS, min_side=500))
    assert failed(result, "at least 500 pixels") == [f"p{number}" for number in range(20)]
    [tiny] = [failure for failure in result.failures if "pixels" in failure.expectation]
    assert tiny.total == 36
    assert "and 31 more" in tiny.message
    [page] = (dataset.root.parent / "docs").glob("validations/photos/**/*.html")
    assert "p8, p9, ..." in page.read_text(encoding="utf-8")


def test_data_docs_name_expectation_and_row_and_need_no_network(dataset, vocabulary):
    check(dataset, vocabulary)
    check(changed(dataset, width={5: 1}), vocabulary)  # the docs of a failure replace older ones
    docs = dataset.root.parent / "docs"
    index = (docs / "index.html").read_text(encoding="utf-8")
    assert "validation failed" in index
    assert "p5 (1)" in index
    [page] = docs.glob("validations/photos/**/*.html")
    assert f"href='{page.relative_to(docs).as_posix()}'" in index
    text = page.read_text(encoding="utf-8")
    assert "Every photo has at least 32 pixels on its shorter side" in text
    assert "photos/p5.jpg" in text
    for file in docs.rglob("*.html"):
        assert "src=" not in (text := file.read_text(encoding="utf-8"))
        assert "http" not in text


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"max_problem_share": 1.5}, "max_problem_share = 1.5"),
        ({"tags_per_photo": (5, 1)}, r"tags_per_photo = \[5, 1\]"),
    ],
)
def test_senseless_settings(wrong, words):
    with pytest.raises(ZerotagError, match=words):
        replace(SETTINGS, **wrong)


def write_inputs(folder: Path, dataset: Dataset, vocabulary: Vocabulary) -> None:
    """Write what stages/validate.py reads."""
    for name in ("prepared", "words"):
        (folder / name).mkdir(exist_ok=True)
    dataset.photos.to_parquet(folder / "prepared/photos.parquet", index=False)
    dataset.tags.to_csv(folder / "prepared/tags.csv", index=False)
    sp.save_npz(folder / "prepared/labels.npz", dataset.labels)
    pd.DataFrame({"tag": vocabulary.tags}).to_csv(folder / "words/vocabulary.csv", index=False)
    np.save(folder / "words/vectors.npy", vocabulary.vectors)
    split = np.where(vocabulary.seen, "seen", "unseen")
    pd.DataFrame({"tag": vocabulary.tags, "split": split}).to_csv(folder / "split.csv", index=False)
    params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    (folder / "params.yaml").write_text(yaml.safe_dump({"validate": params["validate"]}), encoding="utf-8")


def run_stage(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, ROOT / "stages/validate.py"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_stage_passes_and_tells_warnings(tmp_path, dataset, vocabulary):
    write_inputs(tmp_path, dataset, vocabulary)
    ran = run_stage(tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert ran.stderr == ""
    assert "warning: Every seen tag has at least 5 training photos" in ran.stdout
    assert json.loads((tmp_path / "validation/result.json").read_text())["passed"] is True
    assert (tmp_path / "validation/docs/index.html").is_file()


def test_stage_stops_the_pipeline(tmp_path, dataset, vocabulary):
    write_inputs(tmp_path, changed(dataset, height={5: 1}), vocabulary)
    ran = run_stage(tmp_path)
    assert ran.returncode == 1
    assert "Traceback" not in ran.stderr
    assert "Every photo has at least 32 pixels on its shorter side; fails for 1 of 12 photos: p5 (1)" in ran.stderr
    assert "validation/docs/index.html" in ran.stderr
    result = json.loads((tmp_path / "validation/result.json").read_text())
    assert result["passed"] is False
    assert result["failures"][0]["rows"] == ["p5"]
    assert (tmp_path / "validation/docs/index.html").is_file()
