"""Which model answers, and the starter: a tagger that needs no training photo."""

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import PROJECT
from typer.testing import CliRunner

from zerotag.cli import app
from zerotag.errors import ZerotagError
from zerotag.registry import served
from zerotag.registry.served import STARTER, package_to_serve, starter_digest, starter_package
from zerotag.samples import samples
from zerotag.serving.package import read_info
from zerotag.serving.tagger import SHOWN, Tagger

# The sample photographs by the names of their files.
SAMPLES = {each.file.stem: each.file.read_bytes() for each in samples()}
# In place of the real build, which takes half a minute.
BUILD = """
import json, sys, time
from pathlib import Path
folder = Path(sys.argv[-1])
with folder.with_suffix(".builds").open("a") as builds:
    builds.write("built\\n")
time.sleep(float(sys.argv[1]))
if sys.argv[2] == "fail":
    sys.exit("no such file: everyday.txt")
folder.mkdir(exist_ok=True)
(folder / "tagger.json").write_text(json.dumps({"starter": sys.argv[2]}))
"""


def write_package(folder: Path, source: str) -> Path:
    """As much of a package as tells what it was trained on."""
    folder.mkdir(parents=True)
    (folder / "tagger.json").write_text(json.dumps({"training": {"data": {"source": source}}}))
    return folder


def promote(project: Path, source: str) -> Path:
    """Make a champion."""
    names = ("id", "backbone", "method", "data", "git", "time", "reason", "previous")
    record = {**dict.fromkeys(names, ""), "id": "one", "metrics": {}}
    (project / "champion.json").write_text(json.dumps(record))
    (project / "champions" / "one" / "model").mkdir(parents=True)
    (project / "champions" / "one" / "model" / "model.json").write_text("{}")
    return write_package(project / "champions" / "one" / "served", source)


@pytest.fixture
def build(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """How the build of a starter goes: its digest, or fail."""
    how: dict[str, Any] = {"digest": starter_digest(), "seconds": 0.0}
    run = subprocess.run

    def fake(command: list[str], **options: Any) -> subprocess.CompletedProcess:
        assert command[:3] == [sys.executable, "-m", "zerotag.packaging.starter"] and len(command) == 4
        return run([sys.executable, "-c", BUILD, str(how["seconds"]), how["digest"], command[3]], **options)

    monkeypatch.setattr(served.subprocess, "run", fake)
    return how


def builds(project: Path) -> int:
    file = project / "work" / "starter.builds"
    return len(file.read_text().splitlines()) if file.is_file() else 0


def test_what_was_trained_on_photographs_goes_first(build: dict[str, Any], tmp_path: Path) -> None:
    starter = tmp_path / "work" / "starter"
    assert package_to_serve(tmp_path) == starter and builds(tmp_path) == 1
    own = write_package(tmp_path / "served", "csv")
    assert package_to_serve(tmp_path) == own
    champion = promote(tmp_path, "coco")
    assert package_to_serve(tmp_path) == champion
    assert builds(tmp_path) == 1


def test_what_was_trained_on_scenes_answers_only_when_it_is_named(
    build: dict[str, Any], packaged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_package(tmp_path / "served", "scenes")
    assert package_to_serve(tmp_path) == tmp_path / "work" / "starter"
    promote(tmp_path, "scenes")
    assert package_to_serve(tmp_path) == tmp_path / "work" / "starter"
    # The command line does not ask for the starter where a model is named.
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("zerotag.registry.served.package_to_serve", None)
    (tmp_path / "a.jpg").write_bytes(SAMPLES["cat"])
    done = CliRunner().invoke(app, ["tag", "a.jpg", "--model", str(packaged)])
    assert done.exit_code == 0 and done.stdout.startswith("a.jpg: ")


def test_a_starter_is_built_once_and_again_after_a_change(
    build: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(3):
        starter_package(tmp_path)
    assert builds(tmp_path) == 1
    assert capsys.readouterr().err.count("building the starter tagger, once") == 1
    monkeypatch.setattr(served, "starter_digest", lambda: "other")
    build["digest"] = "other"
    for _ in range(2):
        starter_package(tmp_path)
    assert builds(tmp_path) == 2


def test_the_digest_is_of_what_a_starter_is_made_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = starter_digest()
    assert len(before) == 12 and starter_digest() == before
    for name in served._STARTER_FILES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes((PROJECT / "src" / "zerotag" / name).read_bytes())
    monkeypatch.setattr(served, "_SOURCES", tmp_path)
    assert starter_digest() == before
    for name in served._STARTER_FILES:
        content = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(content + b"\n")
        assert starter_digest() != before, name
        (tmp_path / name).write_bytes(content)


def test_a_build_that_fails(build: dict[str, Any], tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    build["digest"] = "fail"
    with pytest.raises(ZerotagError, match=r"The starter tagger cannot be built; see above\. Name a model"):
        starter_package(tmp_path)
    assert "no such file: everyday.txt" in capfd.readouterr().err
    assert not (tmp_path / "work" / "starter").exists()
    build["digest"] = starter_digest()
    assert starter_package(tmp_path).is_dir() and builds(tmp_path) == 2


TWO = f"""
import subprocess, sys, time
from pathlib import Path
sys.argv = sys.argv[:2]
from zerotag.registry import served
run = subprocess.run
served.subprocess.run = lambda command, **options: run(
    [sys.executable, "-c", {BUILD!r}, "1", served.starter_digest(), command[3]], **options)
Path(sys.argv[1], f"ready{{time.time_ns()}}").touch()
while len(list(Path(sys.argv[1]).glob("ready*"))) < 2:
    time.sleep(0.01)
print(served.starter_package(Path(sys.argv[1])))
"""


def test_two_processes_build_one_starter(tmp_path: Path) -> None:
    both = [
        subprocess.Popen([sys.executable, "-c", TWO, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]  # fmt: skip
    answers = [process.communicate(timeout=120)[0].strip() for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert answers == [str(tmp_path / "work" / "starter")] * 2 and builds(tmp_path) == 1


# The real one.


@pytest.fixture(scope="session")
def starter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The starter, as a user gets it at first use; the checkout's own, if it was built from these files."""
    project = tmp_path_factory.mktemp("starter")
    built = PROJECT / STARTER
    if (built / "tagger.json").is_file() and read_info(built).get("starter") == starter_digest():
        return shutil.copytree(built, project / STARTER)
    started = time.monotonic()
    folder = package_to_serve(project)
    print(f"built in {time.monotonic() - started:.0f} s")
    return folder


@pytest.fixture(scope="session")
def tagger(starter: Path) -> Tagger:
    return Tagger(starter)


def test_what_it_is(starter: Path, tagger: Tagger) -> None:
    assert starter_package(starter.parents[1]) == starter
    assert tagger.info["starter"] == starter_digest() and tagger.info["name"] == "zerotag-starter"
    assert 1900 < len(tagger.vocabulary.tags) < 2500 and not tagger.vocabulary.seen.any()
    assert tagger.lexicon_words == len(tagger.vocabulary.tags)
    assert tagger.info["training"]["data"]["source"].startswith("none")
    assert sum(file.stat().st_size for file in starter.rglob("*") if file.is_file()) < 100e6


@pytest.mark.parametrize(("photo", "best"), [("cat", {"cat"}), ("coffee", {"coffee", "espresso", "cup", "latte"})])
def test_what_it_sees(tagger: Tagger, photo: str, best: set[str]) -> None:
    found = tagger.tag(SAMPLES[photo], photo)
    assert found[0].tag in best and found[0].probability > 0.5
    assert 1 <= len(found) <= 10 and all(each.probability >= SHOWN for each in found)
    scores = [each.score for each in found]
    assert scores == sorted(scores, reverse=True)
    every = tagger.tag(SAMPLES[photo], photo, top=5000, everything=True)
    assert sorted(each.tag for each in every) == sorted(tagger.vocabulary.tags)
    assert {each.tag for each in found} <= {each.tag for each in every}


@pytest.mark.parametrize(
    ("phrase", "photo"),
    [
        ("a cup of coffee on a table", "coffee"),
        ("a small cat looking up", "cat"),
        ("a rocket launch at night", "rocket"),
    ],
)
def test_any_phrase(tagger: Tagger, phrase: str, photo: str) -> None:
    scores = {}
    for name, content in SAMPLES.items():
        [tag] = tagger.tag(content, name, [phrase])
        assert (tag.understood, tag.seen) == ("encoded", None)
        scores[name] = tag.score
    assert max(scores, key=lambda name: scores[name]) == photo, scores


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("海滩上的狗", "The text encoder knows Latin letters only, not 海滩上的狗. Try other words."),
        ("🐕", "The text encoder knows Latin letters only, not 🐕. Try other words."),
        ("a" * 300, "A word is longer than 100 characters."),
    ],
)
def test_what_is_no_word(
    starter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: str, message: str
) -> None:
    monkeypatch.chdir(starter.parents[1])
    (tmp_path / "cat.jpg").write_bytes(SAMPLES["cat"])
    done = CliRunner().invoke(app, ["tag", str(tmp_path / "cat.jpg"), "--tags", words])
    assert (done.exit_code, done.stdout, done.stderr) == (1, "", f"zerotag: {message}\n")


def test_on_the_command_line(starter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is what answers where nothing was trained; no word was seen in training, so none is marked."""
    monkeypatch.chdir(starter.parents[1])
    (tmp_path / "cat.jpg").write_bytes(SAMPLES["cat"])
    done = CliRunner().invoke(app, ["tag", str(tmp_path / "cat.jpg"), "--top", "1"])
    assert done.exit_code == 0 and done.stderr == ""
    file, _, tag = done.stdout.partition(": ")
    assert Path(file).name == "cat.jpg" and tag.startswith("cat ") and "%" in tag and "*" not in tag


def test_its_principal_vector_is_over_the_classes(tagger: Tagger) -> None:
    """A vector of unit length and mean 0 for likeness, and the classes' probabilities for their kinds."""
    for name, content in SAMPLES.items():
        [row] = tagger.embed(content, name)
        likeness, shares = np.split(row, 2)
        assert len(shares) == 1000 and np.linalg.norm(likeness) == pytest.approx(1, abs=1e-4)
        assert likeness.mean() == pytest.approx(0, abs=1e-6)
        assert shares.min() >= 0 and shares.sum() == pytest.approx(1, abs=1e-4)


def test_a_starter_without_words() -> None:
    from zerotag.packaging.starter import starter_model

    with pytest.raises(ZerotagError, match="The vocabulary holds no word"):
        starter_model([])
