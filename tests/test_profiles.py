"""Profiles over params.yaml."""

import shutil
from dataclasses import replace
from pathlib import Path

import open_clip
import pytest
import timm
import yaml
from conftest import PROJECT
from dvc_data.hashfile.meta import Meta
from typer.testing import CliRunner

from zerotag.cli import app
from zerotag.data.sources.nus_wide import NusWideSettings
from zerotag.data.validation import ValidationSettings
from zerotag.errors import ZerotagError
from zerotag.profiles import apply_profile
from zerotag.settings import from_params
from zerotag.training.loop import TrainSettings
from zerotag.training.methods import method
from zerotag.words.text_encoders import is_encoder


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(PROJECT / "profiles", tmp_path / "profiles")
    shutil.copyfile(PROJECT / "params.yaml", tmp_path / "params.yaml")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_papers_setting(project: Path) -> None:
    before = (project / "params.yaml").read_text()
    said = CliRunner().invoke(app, ["profile", "paper"])
    assert said.exit_code == 0 and "source: scenes -> nus-wide" in said.output
    after = (project / "params.yaml").read_text()
    assert [line.split("#", 1)[1] for line in before.splitlines() if "#" in line] == [
        line.split("#", 1)[1] for line in after.splitlines() if "#" in line
    ]
    params = yaml.safe_load(after)
    assert params["backbones"] == ["vgg19", "resnet50", "tresnet_m"] and params["methods"] == ["sdl", "fast0tag"]
    assert method("sdl", params["method"]["sdl"]).principal_vectors == 7
    settings = from_params(TrainSettings, params["train"]["full_fine_tuning"], "train.full_fine_tuning")
    assert (params["train"]["mode"], settings.pixels, settings.learning_rate) == ("full_fine_tuning", 224, 2.5e-5)
    assert settings == replace(settings, head_learning_rate=None, head_first=False, batch_statistics=True)
    assert from_params(ValidationSettings, params["validate"], "validate").max_problem_share == 0.3
    source = from_params(NusWideSettings, params["sources"]["nus-wide"], "sources.nus-wide")
    assert source.counts["train"] + source.counts["test"] == 269_648 and source.web.per_host == 16
    assert CliRunner().invoke(app, ["profile", "paper"]).output == "no changes\n"
    assert (project / "params.yaml").read_text() == after


def named(section: object) -> set[str]:
    """The names of all parameters, of sections and of what is in them."""
    if not isinstance(section, dict):
        return set()
    return set(section).union(*map(named, section.values()))


def test_no_parameter_has_a_name_that_dvc_does_not_see() -> None:
    # DVC's run cache takes a parameter of these names for a file's record, and gives the outputs of another value
    # (its issue 10296).
    for file in (PROJECT / "params.yaml", *(PROJECT / "profiles").glob("*.yaml")):
        assert not named(yaml.safe_load(file.read_text())) & {Meta.PARAM_SIZE, Meta.PARAM_NFILES}, file


def test_a_clips_two_towers(project: Path) -> None:
    apply_profile("clip")
    params = yaml.safe_load((project / "params.yaml").read_text())
    [backbone] = params["backbones"]
    hub, _, tag = params["weights"]["other"].partition(":")
    assert hub == "hub" and timm.list_pretrained(f"{backbone}.{tag}")
    kind, _, name = params["words"]["source"].partition(":")
    assert kind == "open_clip" and tuple(name.split("/")) in open_clip.list_pretrained()
    assert is_encoder(params["words"]["source"])
    # An image tower has no classifier over named classes.
    chosen = [method(name, params["method"][name]) for name in params["methods"]]
    assert len(chosen) == 3 and not any(each.needs_classifier for each in chosen)


def test_profiles_that_are_wrong(project: Path) -> None:
    with pytest.raises(ZerotagError, match=r"profiles/other.yaml: no such profile; use one of: .*paper"):
        apply_profile("other")
    (project / "profiles" / "bad.yaml").write_text("train: {linear_probe: {epoch: 3}}\n")
    before = (project / "params.yaml").read_bytes()
    with pytest.raises(ZerotagError, match=r"bad\.yaml: train\.linear_probe\.epoch is not a parameter"):
        apply_profile("bad")
    (project / "profiles" / "bad.yaml").write_text("train: {linear_probe: [\n")
    with pytest.raises(ZerotagError, match=r"bad\.yaml or params\.yaml: not valid YAML"):
        apply_profile("bad")
    assert (project / "params.yaml").read_bytes() == before
