"""What a person accepts and rejects over HTTP are the labels of the next training."""

import asyncio
import runpy
import shutil
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
from conftest import PROJECT
from service.app import create_app
from service.settings import ServeSettings
from test_metadata import keyworded
from test_stages import BACKBONE, small, write_params

from zerotag.data.dataset import Dataset

pytestmark = pytest.mark.skipif(not shutil.which("exiftool"), reason="exiftool is not installed")

WORDS = ("sky", "sea", "beach", "tree", "cat", "boat")


def folder_of_photos(params: dict[str, Any]) -> None:
    """A small training on the keywords of photos."""
    small(params)
    params.update(source="folder", methods=["sdl"])
    params["sources"]["folder"].update(test=2)
    params["split"].update(unseen=1)
    params["train"]["linear_probe"].update(epochs=2, batch=4)


def checkout(folder: Path) -> Path:
    """A folder with the project's parameters, and a dozen photos that have keywords."""
    folder.mkdir()
    shutil.copy(PROJECT / "params.yaml", folder)
    for number in range(12):
        words = {WORDS[number % 6], WORDS[(number + 1) % 6]}
        keyworded(folder / "data" / "images" / f"{number}.jpg", number, sorted(words))
    write_params(folder, folder_of_photos)
    return folder


def decide(packaged: Path, root: Path, decisions: dict[str, dict[str, list[str]]]) -> None:
    """Say so to the service, as the page does."""

    async def post() -> None:
        transport = httpx.ASGITransport(create_app(ServeSettings(str(packaged), root=str(root), log="")))
        async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
            for photo, decision in decisions.items():
                answer = await client.post(f"/tags/{photo}", json=decision)
                assert answer.status_code == 200 and not answer.json()["problem"], answer.text

    asyncio.run(post())


def test_training_learns_what_was_accepted_and_rejected(
    packaged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = checkout(tmp_path / "project")
    decisions = {f"{number}.jpg": {"accept": ["dog"], "reject": ["cat"]} for number in (0, 1, 2, 6, 7, 8)}
    decide(packaged, project / "data" / "images", decisions)
    monkeypatch.chdir(project)

    def run(stage: str, *arguments: str) -> None:
        monkeypatch.setattr(sys, "argv", [f"stages/{stage}.py", *arguments])
        runpy.run_path(str(PROJECT / "stages" / f"{stage}.py"), run_name="__main__")

    for stage in ("download", "prepare", "words", "split"):
        run(stage)
    run("features", BACKBONE)
    run("train", BACKBONE, "sdl")
    dataset = Dataset.read(project / "prepared")
    assert dataset.rejected is not None
    for labels, tag in ((dataset.labels, "dog"), (dataset.rejected, "cat")):
        marked = labels[:, dataset.columns([tag])[0]].toarray().ravel()
        assert set(dataset.photos["id"][marked > 0]) == set(decisions)
    model = project / "models" / BACKBONE / "sdl"
    seen = [line.split(",") for line in (model / "vocabulary.csv").read_text().splitlines()]
    assert {"dog", "cat"} <= {tag for tag, split in seen if split == "seen"}
    # The rejected tag makes another model.
    first = (model / "curve.csv").read_text()
    (project / "prepared" / "rejected.npz").unlink()
    run("train", BACKBONE, "sdl")
    assert (model / "curve.csv").read_text() != first
