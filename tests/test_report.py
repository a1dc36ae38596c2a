"""The report: what it says, that it needs nothing from outside, and what it refuses."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from conftest import PROJECT, encoded
from scipy.sparse import csr_matrix

from zerotag.data.dataset import Dataset
from zerotag.data.prepare import PrepareSettings, prepare
from zerotag.data.sources.base import PhotoFile, Source
from zerotag.errors import ZerotagError
from zerotag.evaluation.behaviour import Check
from zerotag.evaluation.calibration import Calibration
from zerotag.evaluation.report import ReportSettings, Run, Starter, write_behaviour, write_report
from zerotag.registry import served
from zerotag.registry.choice import best_model
from zerotag.samples import samples
from zerotag.words.vocabulary import Vocabulary

RELIABILITY = {"expected_calibration_error": 0.125, "reliability": [{"count": 4, "probability": 0.5, "share": 0.6}]}
CALIBRATION = Calibration(
    (1.0, 0.0), (1.0, 0.0), {},
    {
        "photos": 3, "fitted_on": "held-out photos", "own_line": 2,
        **dict.fromkeys(("seen", "unseen", "ten_best"), RELIABILITY),
    },
)  # fmt: skip
TAGS = ["sky", "sea", "beach", "dog"]
STARTER = Starter(
    [(each, [{"tag": "<cat>", "probability": 0.768, "also": ("kitten", "tabby")}]) for each in samples()[:1]]
    + [(each, []) for each in samples()[1:]],
    {"fitted_on": "held-out photographs", "photos": 1994},
)


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    """Twelve photos, every other one for testing, three tags each."""
    files = []
    for number in range(12):
        files.append(tmp_path / f"{number}.jpg")
        files[-1].write_bytes(encoded(number))
    labels = np.ones((12, 4), dtype=np.uint8)
    labels[np.arange(12), np.arange(12) % 4] = 0
    train = np.arange(12) % 2 == 0
    source = Source([path.name for path in files], [PhotoFile(path) for path in files], TAGS, csr_matrix(labels), train)
    prepare(source, PrepareSettings(workers=1), tmp_path / "prepared", tmp_path / "work")
    return Dataset.read(tmp_path / "prepared")


@pytest.fixture
def vocabulary() -> Vocabulary:
    return Vocabulary(TAGS, np.eye(4, dtype=np.float32), np.array([True, True, True, False]))


def make_run(folder: Path, method: str, gzsl: float | None, source: str = "csv", backbone: str = "vgg19") -> Run:
    """A run's folders with made-up figures."""
    model, evaluation = folder / "models" / backbone / method, folder / "evaluation" / backbone / method
    for each in (model, evaluation):
        each.mkdir(parents=True)
    data = {"source": source, "train_photos": 6, "test_photos": 6, "seen": 3, "unseen": 1}
    info = {
        "backbone": backbone, "method": method, "weights": "none", "mode": "linear_probe", "size": 64, "lambda": 0.3,
        "principal_vectors": 7, "seconds": 1.5, "hardware": "2 CPU threads", "date": "2026-01-02T03:04:05+00:00",
        "data": {**data, "words": "file:x", "dimensions": 4},
    }  # fmt: skip
    (model / "model.json").write_text(json.dumps(info))
    pd.DataFrame({"epoch": [1, 2], "loss": [2.0, 1.0], "learning_rate": [1e-3, 0.0]}).to_csv(model / "curve.csv")
    names = [f"{name}@{k}" for name in ("f1", "precision", "recall") for k in (3, 5)]
    figures = dict.fromkeys(names, 40.0) | {"map": gzsl, "random_map": 5.0, "images": 6, "tags": 4}
    metrics = {"zsl": figures, "gzsl": figures, "seen": figures, "retrieval": {"precision@10": 12.0}}
    (evaluation / "metrics.json").write_text(json.dumps(metrics))
    table = pd.DataFrame({"tag": TAGS, "seen": [1, 1, 1, 0], "positives": [3, 3, 3, 0], "ap": [9, 8, 7, None]})
    table.to_csv(evaluation / "tags.csv", index=False)
    top = [
        {"tag": "dog", "score": 2.0, "seen": False, "correct": True},
        {"tag": "<sky>", "score": 1.0, "seen": True, "correct": False},
    ]
    intervals = {task: {"map": [31.25, 49.5]} for task in ("zsl", "gzsl")}
    (evaluation / "intervals.json").write_text(json.dumps(intervals))
    (evaluation / "examples.json").write_text(json.dumps([{"row": 1, "id": "1.jpg", "tags": ["dog"], "top": top}]))
    return Run.read(evaluation, model)


def test_says_what_was_measured(tmp_path: Path, dataset: Dataset, vocabulary: Vocabulary) -> None:
    runs = [make_run(tmp_path, "sdl", 43.21), make_run(tmp_path, "fast0tag", 33.21)]
    settings = ReportSettings(title="My <photos>")
    write_report(tmp_path / "report", runs, runs[0], CALIBRATION, dataset, vocabulary, STARTER, settings)
    page = (tmp_path / "report/index.html").read_text()
    assert "My &lt;photos&gt;" in page
    assert '<td class="best">43.2' in page and "<td>33.2" in page
    assert "<small>31.2–49.5</small>" in page
    assert page.count('<tr class="measured">') == 2 and page.count('<tr class="paper">') == 5
    assert "another data set, not to be compared" in page and "rendered, not photographs" not in page
    assert "<b>dog*</b>" in page and "&lt;sky&gt;" in page and "<b>&lt;sky" not in page
    # Two of four orthogonal tags' pairs are all at distance 1.
    assert "1.00 ±" in page and "0.53 ± 0.20" in page
    assert "Best run: vgg19 · sdl" in page and "<td>12.50</td>" in page
    assert sorted(path.name for path in (tmp_path / "report/curves").iterdir()) == [
        "vgg19-fast0tag.csv",
        "vgg19-sdl.csv",
    ]
    assert pd.read_csv(tmp_path / "report/table1.csv")["gzsl map"].tolist() == [43.21, 33.21]


def test_undefined_figures(tmp_path: Path, dataset: Dataset, vocabulary: Vocabulary) -> None:
    run = make_run(tmp_path, "sdl", None)
    nothing = dict.fromkeys(run.metrics["zsl"])
    run.metrics.update(zsl=nothing, gzsl=nothing, seen=nothing, retrieval={"precision@10": None})
    run = replace(run, intervals={"zsl": {}, "gzsl": {}, "seen": {}}, tags=run.tags.assign(ap=np.nan))
    undefined = {"expected_calibration_error": None, "reliability": []}
    calibration = replace(CALIBRATION, figures={**CALIBRATION.figures, "unseen": undefined})
    write_report(tmp_path / "report", [run], run, calibration, dataset, vocabulary, STARTER, ReportSettings())
    page = (tmp_path / "report/index.html").read_text()
    assert "<b>none</b>ZSL mAP" in page and '"best"' not in page and "<td>none</td></tr>" in page
    assert pd.read_csv(tmp_path / "report/table1.csv")["gzsl map"].isna().all()


def test_needs_nothing_from_outside(tmp_path: Path, dataset: Dataset, vocabulary: Vocabulary) -> None:
    run = make_run(tmp_path, "sdl", 1.0)
    write_report(tmp_path / "report", [run], run, CALIBRATION, dataset, vocabulary, STARTER, ReportSettings())
    page = (tmp_path / "report/index.html").read_text()
    assert not re.findall(r"<(?:script|link)\b|@import|url\(http", page)
    # Of credits, to follow or not, and of the page beside it.
    page = re.sub(r'<a href="(https://[^"]+|../behaviour/index.html)">', "", page)
    sources = re.findall(r'(?:src|xlink:href|href)="([^"]*)"', page)
    assert sources and all(source.startswith(("data:", "#")) for source in sources)
    assert all(re.findall(r'<img [^>]*alt="[^"]+"', page))


@pytest.mark.parametrize("source", ["scenes", "csv"])
def test_photographs_come_first(tmp_path: Path, dataset: Dataset, vocabulary: Vocabulary, source: str) -> None:
    run = make_run(tmp_path, "sdl", 1.0, source=source)
    write_report(tmp_path / "report", [run], run, CALIBRATION, dataset, vocabulary, STARTER, ReportSettings())
    page = (tmp_path / "report/index.html").read_text()
    headings = [found.partition(".")[0] for found in re.findall("<h2>(.*)</h2>", page)]
    starter = "Real photographs: the starter"
    if source == "scenes":
        assert "rendered scenes, not photographs" in page
        assert headings[:4] == [starter, "Table 1", "Figure 1", "Figure 2"]
    else:
        assert "rendered" not in page
        assert headings[:4] == ["Figure 2", starter, "Table 1", "Figure 1"]


def test_the_starter_on_the_samples(tmp_path: Path, dataset: Dataset, vocabulary: Vocabulary) -> None:
    run = make_run(tmp_path, "sdl", 1.0)
    write_report(tmp_path / "report", [run], run, CALIBRATION, dataset, vocabulary, STARTER, ReportSettings())
    page = (tmp_path / "report/index.html").read_text()
    for each in samples():
        assert f'<a href="{each.source}">{each.title}</a>, {each.credit}' in page
    assert "<b>&lt;cat&gt;</b> 77% <small>also kitten, tabby</small>" in page
    assert page.count("no probable tag") == len(samples()) - 1
    assert "fitted on 1,994 photographs (held-out photographs)" in page


def test_a_method_without_training(tmp_path: Path, dataset: Dataset, vocabulary: Vocabulary) -> None:
    runs = [make_run(tmp_path, "sdl", 43.21), make_run(tmp_path, "classifier", 53.21)]
    no_curve = pd.DataFrame(columns=["epoch", "loss", "learning_rate"])
    no_curve.to_csv(runs[1].model / "curve.csv", index=False)  # as stages/train.py
    runs[1] = Run.read(tmp_path / "evaluation/vgg19/classifier", runs[1].model)
    write_report(tmp_path / "report", runs, runs[1], CALIBRATION, dataset, vocabulary, STARTER, ReportSettings())
    page = (tmp_path / "report/index.html").read_text()
    assert page.count('<tr class="measured">') == 2 and page.count("no training, weights") == 1
    assert "Trained on" not in page.partition("</header>")[0]
    assert "classifier" not in page.partition("Learning curves")[2]
    assert [path.name for path in (tmp_path / "report/curves").iterdir()] == ["vgg19-sdl.csv"]
    assert len(pd.read_csv(tmp_path / "report/table1.csv")) == 2

    alone = [replace(run, curve=no_curve) for run in runs]
    write_report(tmp_path / "alone", alone, alone[0], CALIBRATION, dataset, vocabulary, STARTER, ReportSettings())
    assert "Learning curves" not in (tmp_path / "alone/index.html").read_text()


def test_dvc_knows_what_the_starter_is_made_from() -> None:
    stage = yaml.safe_load((PROJECT / "dvc.yaml").read_text())["stages"]["report"]
    for name in served._STARTER_FILES:
        file = Path("src/zerotag", name)
        assert {str(each) for each in (file, *file.parents)} & set(stage["deps"]), f"{file} is no dependency"


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    make_run(tmp_path, "sdl", 1.0)
    (tmp_path / "evaluation/vgg19/sdl/tags.csv").unlink()
    with pytest.raises(ZerotagError, match=r"tags\.csv is missing.*dvc repro"):
        Run.read(tmp_path / "evaluation/vgg19/sdl", tmp_path / "models/vgg19/sdl")


def test_the_best_model(tmp_path: Path) -> None:
    for method, gzsl in (("sdl", 30.0), ("fast0tag", 20.0), ("old", 90.0)):
        make_run(tmp_path, method, gzsl, backbone="vgg19")
    folder = tmp_path / "evaluation"
    assert best_model(folder, ["vgg19"], ["fast0tag", "sdl"], "gzsl.map") == ("vgg19", "sdl")
    for method in ("none", "undefined"):
        make_run(tmp_path, method, None, backbone="vgg19")
    assert best_model(folder, ["vgg19"], ["none", "sdl", "undefined"], "gzsl.map") == ("vgg19", "sdl")
    assert best_model(folder, ["vgg19"], ["none", "undefined"], "gzsl.map") == ("vgg19", "none")
    with pytest.raises(ZerotagError, match=r"best_by = 'gzsl\.nothing'"):
        best_model(folder, ["vgg19"], ["sdl"], "gzsl.nothing")
    with pytest.raises(ZerotagError, match=r"resnet50/sdl/metrics\.json is missing.*dvc repro"):
        best_model(folder, ["vgg19", "resnet50"], ["sdl"], "gzsl.map")
    with pytest.raises(ZerotagError, match="backbones or methods is empty"):
        best_model(folder, [], ["sdl"], "gzsl.map")


def test_behaviour_has_a_page_that_the_report_links(tmp_path: Path, dataset: Dataset, vocabulary: Vocabulary) -> None:
    run = make_run(tmp_path, "sdl", 1.0)
    settings = ReportSettings(title="My <photos>")
    write_report(tmp_path / "report", [run], run, CALIBRATION, dataset, vocabulary, STARTER, settings)
    assert 'href="../behaviour/index.html"' in (tmp_path / "report/index.html").read_text()
    checks = {
        "invariance.flip": Check(0.891, 0.7, 192),
        "direction": Check(0.123, 0.7, 1279),
        "minimal.samples": Check(0.67, None, 6),
        "slices.rare_tags": Check(None, 0.3, 0),
    }
    (tmp_path / "behaviour").mkdir()
    file = tmp_path / "behaviour/index.html"
    contents = {name: check.content() for name, check in checks.items()}
    write_behaviour(file, "0f3a", contents, settings.title)
    page = file.read_text()
    assert "Model 0f3a. It fails 1 of 3 tests" in page and "My &lt;photos&gt;" in page and "<photos>" not in page
    rows = [re.sub(r"<[^>]*>", " ", row).split() for row in re.findall(r"<tr.*?</tr>", page, re.DOTALL)]
    figures = [row for row in rows if row[0] != "test"]
    assert figures == [
        ["flip", "0.89", "0.70", "192", "passed"],
        ["direction", "0.12", "0.70", "1,279", "FAILED"],
        ["samples", "0.67", "6"],
        ["rare", "tags", "none", "0.30", "0", "passed"],
    ]
    assert re.findall("<h2>(.*)</h2>", page) == ["Invariance", "Direction", "Minimal function", "Slices"]
    links = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert links == ["../report/index.html"] and not re.findall(r"<(?:script|link)\b|@import", page)
    write_behaviour(file, "0f3a", {"invariance.flip": contents["invariance.flip"]}, "a title")
    assert "It passes the tests that have a bound, 1 of 1" in file.read_text()
