"""Corel5K's protocol: who is a test photo, what its tables change, and what they show of models."""

import csv
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
import torch
import yaml
from benchmarks.corel5k import classes
from benchmarks.corel5k.figures import FIGURES, Result, differences, evaluate_scores
from benchmarks.corel5k.folds import PARTS, fold_of
from benchmarks.corel5k.protocol import TEST, divided, write_table
from benchmarks.corel5k.tables import SECTIONS, TABLES, Row, changed_params
from benchmarks.corel5k.trials import Trial
from conftest import PROJECT

from zerotag.data.sources.csv_table import CsvSettings, read
from zerotag.evaluation.evaluate import evaluate
from zerotag.settings import from_params, read_params
from zerotag.training.classifier import Classifier
from zerotag.training.heads import ClassHead, Head, JointHead, lift_vocabulary
from zerotag.training.loop import TrainSettings
from zerotag.training.methods import METHODS, method
from zerotag.words.lexicon import unit
from zerotag.words.vocabulary import Vocabulary

PHOTOS = 1400


def a_folder(folder: Path, names: list[str], parts: list[str] | None = None) -> Path:
    folder.mkdir()
    with (folder / "tags.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["image", "tags", *(["part"] if parts else [])])
        for number, name in enumerate(names):
            table.writerow([name, f"tag{number % 7} sea", *([parts[number]] if parts else [])])
    return folder


@pytest.fixture
def corel5k(tmp_path: Path) -> Path:
    return a_folder(tmp_path / "corel", [f"{number}.jpeg" for number in range(PHOTOS)])


def names(photos: list[tuple[str, str, str]], part: str) -> set[str]:
    return {file for file, _, its in photos if its == part}


def test_validation_photos_are_training_photos(corel5k: Path) -> None:
    photos = list(divided(corel5k, None, validation=False))
    assert len(photos) == PHOTOS and len(names(photos, "test")) == TEST
    chosen_by = list(divided(corel5k, None, validation=True))
    assert len(names(chosen_by, "test")) == TEST
    assert names(chosen_by, "train") | names(chosen_by, "test") == names(photos, "train")
    assert photos == list(divided(corel5k, None, validation=False))  # no seed, no clock


def test_a_division_of_the_tables_own(tmp_path: Path) -> None:
    parts = ["test" if number % 2 else "train" for number in range(PHOTOS)]
    folder = a_folder(tmp_path / "corel", [f"{number}.jpeg" for number in range(PHOTOS)], parts)
    photos = list(divided(folder, None, validation=False))
    assert [part for _, _, part in photos] == parts
    chosen_by = list(divided(folder, None, validation=True))
    assert names(chosen_by, "train") | names(chosen_by, "test") == names(photos, "train")


def test_another_folders_photos_as_test_photos(corel5k: Path, tmp_path: Path) -> None:
    other = a_folder(tmp_path / "other", ["1.jpeg", "9999.jpeg"])  # a name that both have is two photos
    photos = list(divided(corel5k, other, validation=False))
    assert len(names(photos, "train")) == PHOTOS
    assert names(photos, "test") == {str(other / "images" / name) for name in ("1.jpeg", "9999.jpeg")}
    write_table(tmp_path / "table.csv", iter(photos))
    (other / "images").mkdir()
    (other / "images" / "9999.jpeg").touch()  # a table of missing photos only is refused
    source = read(CsvSettings(table=str(tmp_path / "table.csv"), photos=str(tmp_path)))
    assert source.train.sum() == PHOTOS and len(source.ids) == PHOTOS + 2
    assert source.files[-1].path == other / "images" / "9999.jpeg"
    assert names(list(divided(corel5k, other, validation=True)), "test").isdisjoint(names(photos, "test"))


def test_folds_are_about_equal() -> None:
    folds = np.bincount([fold_of(f"{number}.jpeg") for number in range(4000)], minlength=PARTS)
    assert folds.size == PARTS and folds.min() > 900


@pytest.mark.parametrize("rows", [*TABLES.values(), *SECTIONS.values()], ids=[*TABLES, *SECTIONS])
def test_rows_change_what_there_is(rows: dict[str, Row]) -> None:
    there = read_params(PROJECT / "params.yaml")
    for name, row in rows.items():
        assert row.against is None or row.against in rows, name
        params = changed_params(there, row)
        method(row.method, params["method"].get(row.method))
        mode = params["train"]["mode"]
        from_params(TrainSettings, params["train"][mode], f"train.{mode}")
        for parameter in row.changes:
            section, *rest = parameter.split(".")
            assert section in there and (section in ("method", "train") or rest[-1] in there[section]), name
    assert yaml.safe_dump({name: row.changes for name, row in rows.items()})  # plain values


def test_figures_are_those_of_the_evaluate_stage() -> None:
    random = np.random.default_rng(0)
    scores = random.normal(size=(80, 12)).astype(np.float32)
    labels = sp.csr_matrix((random.random((80, 12)) < 0.2).astype(np.uint8))
    seen = np.arange(12) % 3 > 0
    result = evaluate_scores(scores, labels, seen, seconds=2.5)
    # Scores as they are: as if each tag's vector were a coordinate of its own.
    vocabulary = Vocabulary([f"tag{number}" for number in range(12)], np.eye(12, dtype=np.float32), seen)
    metrics = evaluate(scores[:, None], labels, vocabulary, [""] * 80, np.arange(80), 0).metrics
    np.testing.assert_allclose(result.figures, [metrics[task][name] for task, name in FIGURES], rtol=1e-5)
    assert result.seconds == 2.5


def test_a_difference_is_paired() -> None:
    noise = np.random.default_rng(0).normal(size=(6, 400))
    worse = [Result(np.full(6, 20.0 + each), 20 + each + 5 * noise, 1) for each in range(3)]
    better = [Result(one.figures + 1, one.resampled + 1 + 0.01 * noise[::-1], 1) for one in worse]
    for cell in differences(better, worse):
        assert cell == "+1.0 [+1.0, +1.0]"  # what both share, ten points of it, does not count


@pytest.mark.parametrize("seen_tags", [6, 0])
def test_a_trials_defaults_are_the_librarys(monkeypatch: pytest.MonkeyPatch, seen_tags: int) -> None:
    random = np.random.default_rng(0)
    words, vectors, features = (unit(random.standard_normal((n, 8))) for n in (9, 12, 20))
    features = np.float32(features)
    classifier = Classifier(torch.randn(12, 8), torch.randn(12))
    monkeypatch.setattr(classes, "word_vectors", lambda *_: (words, vectors, np.arange(12)))
    monkeypatch.setattr(classes, "classifier_of", lambda _: classifier)
    seen = np.arange(9) < seen_tags
    tags = [f"tag{number}" for number in range(9)]
    photos = classes.Photos(tuple(map(str, range(20))), features, sp.csr_matrix((20, 9)), tuple(tags), seen)
    chosen = METHODS["sdl_plus" if seen_tags else "classifier"]
    vocabulary = lift_vocabulary(Vocabulary(tags, np.float32(words), seen), chosen, np.float32(vectors))
    if not seen_tags:
        expected = ClassHead.of(classifier)(torch.from_numpy(features))[:, 0].numpy() @ vocabulary.vectors.T
        found = classes.tag_scores(Trial("", of_unit_length=True), photos, None, np.arange(20))
        return np.testing.assert_allclose(found, expected, atol=1e-5)
    trained = Head(8, chosen, seen_tags)
    torch.nn.init.normal_(trained.linear.weight)
    head = JointHead(trained, ClassHead.of(classifier))
    head.match_scales(torch.from_numpy(features), torch.from_numpy(vocabulary.targets), chosen.trust)
    with torch.inference_mode():
        expected = head(torch.from_numpy(features))[:, 0].numpy() @ vocabulary.vectors.T
        alone = trained(torch.from_numpy(features))[:, 0].numpy() @ np.pad(vocabulary.targets, ((0, 3), (0, 0))).T
    found = classes.tag_scores(Trial(), photos, alone, np.arange(20))
    np.testing.assert_allclose(found, expected, atol=1e-3)  # torch's spreads are over one photo less
