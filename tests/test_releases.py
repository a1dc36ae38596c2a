"""Champions as versions and stages of DVC's registry, in Git tags."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from conftest import PROJECT

from zerotag.errors import ZerotagError
from zerotag.registry import champion
from zerotag.registry.champion import Champion, challenge, promote, read_challenger, roll_back
from zerotag.registry.releases import release


def git(project: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=a", "-c", "user.email=a@b.c")
    done = subprocess.run(["git", *identity, *arguments], cwd=project, check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A repository with one commit."""
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "dvc.lock").write_text("first")
    git(folder, "init", "--quiet")
    git(folder, "add", "dvc.lock")
    git(folder, "commit", "--quiet", "--message", "start")
    return folder


def kept(project: Path, name: str, previous: str = "") -> Champion:
    """A model that can be promoted."""
    record = Champion(name, "b", "m", {}, "d", "g", "t", "r", previous)
    (record.folder(project) / "model").mkdir(parents=True)
    (record.folder(project) / "model" / "model.json").write_text("{}")
    (record.folder(project) / "record.json").write_text(json.dumps(record.__dict__))
    Path(f"{record.folder(project)}.dvc").write_text(f"desc: {name}\nouts: []\n")
    return record


def test_each_champion_is_a_version_and_the_last_stage_is_in_production(project: Path) -> None:
    before = git(project, "rev-parse", "HEAD")
    promote(kept(project, "one"), project)
    (project / "dvc.lock").write_text("second")
    (project / "note.txt").write_text("not of the model")
    status = git(project, "status", "--porcelain")
    promote(kept(project, "two", "one"), project)
    assert roll_back(project).id == "one"
    assert git(project, "tag").split() == [
        "zerotag#prod#1", "zerotag#prod#2", "zerotag#prod#3", "zerotag@v1.0.0", "zerotag@v2.0.0"
    ]  # fmt: skip
    commits = [git(project, "rev-parse", f"{tag}^{{commit}}") for tag in ("zerotag@v1.0.0", "zerotag#prod#3")]
    assert commits[0] == commits[1]
    shown = {path: git(project, "show", f"zerotag@v2.0.0:{path}") for path in ("dvc.lock", "champions/two.dvc")}
    assert shown == {"dvc.lock": "second", "champions/two.dvc": "desc: two\nouts: []"}
    assert json.loads(git(project, "show", "zerotag@v2.0.0:champion.json"))["id"] == "two"
    assert "note.txt" not in git(project, "ls-tree", "-r", "--name-only", "zerotag@v2.0.0")
    # Neither the branch nor the index has changed.
    assert git(project, "rev-parse", "HEAD") == before
    assert git(project, "status", "--porcelain") == status


def test_what_was_promoted_without_a_tag_gets_none_of_other_files(project: Path) -> None:
    first = kept(project, "one")
    promote(kept(project, "two", "one"), project)
    assert roll_back(project) == first
    assert git(project, "tag").split() == ["zerotag#prod#1", "zerotag@v1.0.0"]


def test_a_challenger_is_a_version_before_it_is_promoted(project: Path) -> None:
    promote(kept(project, "one"), project)
    challenge(two := kept(project, "two", "one"), project)
    assert read_challenger(project) == two
    assert git(project, "tag").split() == ["zerotag#prod#1", "zerotag#shadow#2", "zerotag@v1.0.0", "zerotag@v2.0.0"]
    # As it will be promoted.
    assert json.loads(git(project, "show", "zerotag#shadow#2:champion.json"))["id"] == "two"
    assert json.loads((project / "champion.json").read_text())["id"] == "one"
    (project / "dvc.lock").write_text("later")  # no longer what made it
    promote(two, project)
    assert read_challenger(project) is None
    commits = {git(project, "rev-parse", f"{tag}^{{commit}}") for tag in ("zerotag#prod#3", "zerotag@v2.0.0")}
    assert len(commits) == 1 and len(git(project, "tag").split()) == 5


def test_outside_a_repository_there_are_no_tags(tmp_path: Path) -> None:
    assert release("one", [], tmp_path) == ""
    git(tmp_path, "init", "--quiet")
    assert release("one", [], tmp_path) == ""  # there is no commit yet


def test_git_that_fails_is_reported_and_the_champion_stays(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (project / ".git" / "refs" / "tags").rmdir()
    (project / ".git" / "refs" / "tags").write_text("")
    with pytest.raises(ZerotagError, match="git tag failed, so that the champion has no tag"):
        promote(kept(project, "one"), project)
    assert (project / champion.RECORD).is_file()


def test_dvc_gets_the_package_from_another_folder(tmp_path: Path, project: Path) -> None:
    from dvc.repo import Repo
    from dvc.repo.artifacts import Artifacts

    git(project, "rm", "--quiet", "dvc.lock")  # which is none
    artifacts = yaml.safe_load((PROJECT / "dvc.yaml").read_text())["artifacts"]
    (project / "dvc.yaml").write_text(yaml.safe_dump({"artifacts": artifacts}))
    with Repo.init(str(project)) as repo:
        with repo.config.edit() as config:
            config["remote"]["store"] = {"url": str(tmp_path / "store")}
            config["core"] |= {"remote": "store", "analytics": False}
        for name in ("one", "two"):
            shutil.rmtree(project / "served", ignore_errors=True)
            (project / "served").mkdir()
            (project / "served" / "tagger.json").write_text(json.dumps({"version": name}))
            repo.add(str(project / "served"))
            git(project, "add", "dvc.yaml", "served.dvc", ".dvc/config")
            promote(kept(project, name, "one" if name == "two" else ""), project)
            repo.push()
    roll_back(project)
    git(tmp_path, "clone", "--quiet", "--bare", str(project), "remote.git")

    def got(**wanted: str) -> str:
        out = tmp_path / "got"
        shutil.rmtree(out, ignore_errors=True)
        Artifacts.get(str(tmp_path / "remote.git"), "zerotag", out=str(out), **wanted)
        return json.loads((out / "tagger.json").read_text())["version"]

    assert got(stage="prod") == "one" and got() == "two" and got(version="v1.0.0") == "one"
