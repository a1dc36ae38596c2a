"""Training on several nodes, which are processes of this machine: torchrun's agents, and the workers of Ray."""

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from conftest import PROJECT, free_port
from test_training import prepared_project, stage, write_params

MODEL = ("test_resnet", "sdl")
EPOCHS = 250


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with a model trained by one process."""
    folder = tmp_path_factory.mktemp("nodes")
    params = prepared_project(folder, 24)
    params["train"]["mode"] = "linear_probe"
    params["train"]["linear_probe"].update(epochs=EPOCHS, batch=4)
    write_params(folder, params)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "argv", ["features.py", MODEL[0]])
        stage("features")
        stage("train").main(*MODEL)
    (folder / "models").rename(folder / "undisturbed")
    return folder


@pytest.fixture(autouse=True)
def no_models(undisturbed: Path) -> None:
    """Each test trains anew."""
    shutil.rmtree(undisturbed / "models", ignore_errors=True)


def workers(folder: Path) -> list[psutil.Process]:
    """The processes of a project that train as one of several: those that torchrun or Ray started for it."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if process.cwd() == str(folder):
                ray = "RayTrainWorker" in " ".join(process.cmdline())
                found += [process] if ray or process.environ().get("WORLD_SIZE") == "2" else []
    return found


def epochs(folder: Path) -> int:
    """Epochs in the checkpoint."""
    file = folder / "work" / "checkpoints" / f"{'-'.join(MODEL)}.pt"
    return len(torch.load(file, weights_only=True)["curve"]) if file.is_file() else 0


def until(what: Callable[[], Any], process: subprocess.Popen[str], seconds: float = 300) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert process.poll() is None and time.monotonic() < end, "it did not happen"
        time.sleep(0.05)


def start(command: list[str], folder: Path, environment: dict[str, str], log: Path) -> subprocess.Popen[str]:
    """Start Python in a folder."""
    with log.open("w") as output:
        return subprocess.Popen(
            [sys.executable, *command], cwd=folder, env=environment, stdout=output, stderr=subprocess.STDOUT, text=True
        )


def difference(folder: Path) -> float:
    """The largest difference of a weight from the model that one process trains, undisturbed."""
    paths = [folder / name / Path(*MODEL) / "model.pt" for name in ("models", "undisturbed")]
    trained, expected = (torch.load(path, weights_only=True) for path in paths)
    assert trained.keys() == expected.keys()
    return max(float((trained[name].double() - expected[name].double()).abs().max()) for name in expected)


def begun_at(epoch: int, log: str) -> int:
    """How often an epoch began."""
    return len(re.findall(rf"epoch {epoch}/{EPOCHS}: +0%", log))


def test_a_node_of_torchrun_is_killed_and_comes_back(undisturbed: Path, tmp_path: Path) -> None:
    endpoint = f"--rdzv-endpoint=127.0.0.1:{free_port()}"
    launcher = ["-m", "torch.distributed.run", "--nnodes=1:2", "--rdzv-backend=c10d", endpoint, "--max-restarts=3"]
    script = [str(PROJECT / "stages" / "train.py"), *MODEL]
    # With torch's default, a node that joins later waits in vain for the address of the first (pytorch#135712).
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
    nodes: list[subprocess.Popen[str]] = []

    def node(host: bool) -> subprocess.Popen[str]:
        settings = f"--rdzv-conf=is_host={host},keep_alive_interval=1,last_call_timeout=20"
        nodes.append(start([*launcher, settings, *script], undisturbed, environment, tmp_path / f"{len(nodes)}.txt"))
        return nodes[-1]

    def lose(agent: subprocess.Popen[str]) -> None:
        for process in [psutil.Process(agent.pid), *psutil.Process(agent.pid).children(recursive=True)]:
            process.kill()
        agent.wait(20)

    try:
        first, second = node(True), node(False)
        until(lambda: epochs(undisturbed) >= 2 and len(workers(undisturbed)) == 2, first)
        lose(second)
        reached = epochs(undisturbed)
        third = node(False)
        until(lambda: epochs(undisturbed) > reached + 1 and len(workers(undisturbed)) == 2, first)
        assert (first.wait(400), third.wait(60)) == (0, 0), (tmp_path / "0.txt").read_text()
    finally:
        for each in nodes:
            if each.poll() is None:
                lose(each)
    log = "".join(file.read_text() for file in tmp_path.glob("*.txt"))
    assert begun_at(1, log) == begun_at(reached, log) == begun_at(EPOCHS, log) == 1
    assert difference(undisturbed) < 1e-4


def test_a_worker_of_ray_is_killed(undisturbed: Path, tmp_path: Path) -> None:
    command = ["-m", "zerotag.cluster.launch", "--num-workers=2", str(PROJECT / "stages" / "train.py"), *MODEL]
    run = start(command, undisturbed, {**os.environ, "OMP_NUM_THREADS": "1"}, tmp_path / "ray.txt")
    try:
        until(lambda: epochs(undisturbed) >= 2, run)
        worker = workers(undisturbed)[0]
        reached = epochs(undisturbed)
        worker.kill()
        assert run.wait(400) == 0, (tmp_path / "ray.txt").read_text()
    finally:
        run.kill()
    log = (tmp_path / "ray.txt").read_text()
    assert begun_at(1, log) == begun_at(reached, log) == begun_at(EPOCHS, log) == 1, log
    assert difference(undisturbed) < 1e-4
    assert not list((undisturbed / "work" / "ray").iterdir())
