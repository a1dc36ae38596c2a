"""A service that follows the registry: what it answers while the champion changes."""

import json
import shutil
import threading
import time
from pathlib import Path

import httpx
import numpy as np
import onnx
import pytest
from conftest import PROJECT, encoded, serving
from onnx import numpy_helper

from zerotag.registry.champion import Champion, promote
from zerotag.serving.tagger import Tagger


def kept(project: Path, name: str, packaged: Path) -> Champion:
    """A champion-to-be with a network of its own."""
    record = Champion(name, "b", "m", {}, "d", "g", "t", "r", "")
    (record.folder(project) / "model").mkdir(parents=True)
    (record.folder(project) / "model" / "model.json").write_text("{}")
    served = shutil.copytree(packaged, record.folder(project) / "served")
    info = json.loads((served / "tagger.json").read_text())
    (served / "tagger.json").write_text(json.dumps({**info, "version": name}))
    network = onnx.load(served / "model.onnx")
    weights = next(each for each in reversed(network.graph.initializer) if len(each.dims) == 2)
    scaled = numpy_helper.to_array(weights) * np.float32(1 + len(name))
    weights.CopyFrom(numpy_helper.from_array(scaled, weights.name))
    onnx.save(network, served / "model.onnx")
    return record


def test_no_request_fails_while_the_champion_changes(packaged: Path, tmp_path: Path) -> None:
    shutil.copytree(PROJECT / "service", tmp_path / "service", ignore=shutil.ignore_patterns("__pycache__"))
    one, three = (kept(tmp_path, name, packaged) for name in ("one", "three"))
    promote(one, tmp_path)
    expected = {
        f"zerotag:{each.id}": [tag.score for tag in Tagger(each.folder(tmp_path) / "served").tag(encoded(), "photo")]
        for each in (one, three)
    }
    assert expected["zerotag:one"] != pytest.approx(expected["zerotag:three"], rel=0.01)
    answers: list[tuple[int, str]] = []
    stop = threading.Event()

    with serving("registry", tmp_path, home=tmp_path / "bentoml", workers="1") as running:

        def ask() -> None:
            with httpx.Client(base_url=running.url, timeout=60) as client:
                while not stop.is_set():
                    answer = client.post("/tag", files={"photo": ("photo", encoded())})
                    found = answer.json() if answer.status_code == 200 else {"model": answer.text, "tags": []}
                    answers.append((answer.status_code, found["model"]))
                    # The network and the words are those of the same model.
                    assert [tag["score"] for tag in found["tags"]] == pytest.approx(expected[found["model"]], rel=1e-3)

        def until(model: str) -> None:
            end = time.monotonic() + 60
            while answers[-1:] != [(200, model)]:
                assert time.monotonic() < end and all(thread.is_alive() for thread in threads), answers[-3:]
                time.sleep(0.05)

        threads = [threading.Thread(target=ask) for _ in range(3)]
        for thread in threads:
            thread.start()
        try:
            until("zerotag:one")
            promote(three, tmp_path)
            until("zerotag:three")
            # A champion that cannot be loaded does not take over.
            broken = kept(tmp_path, "broken", packaged)
            (broken.folder(tmp_path) / "served" / "model.onnx").unlink()
            promote(broken, tmp_path)
            count = len(answers)
            time.sleep(2.5)
            until("zerotag:three")
            promote(one, tmp_path)
            until("zerotag:one")
        finally:
            stop.set()
            for thread in threads:
                thread.join(60)
        log = (tmp_path / "output.txt").read_text()
    assert {status for status, _ in answers} == {200} and len(answers) > count
    assert log.count("the champion cannot be loaded") == 1 and "model.onnx" in log
