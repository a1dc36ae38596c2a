"""The nightly retrain flow of a team: Prefect on PostgreSQL, a work pool, and workers on two checkouts."""

import getpass
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from conftest import PROJECT, free_port
from prefect_project import Prefect, commit, copy_project, prefect_server, small, until

POSTGRES = max(Path("/usr/lib/postgresql").glob("*/bin"), default=None, key=lambda folder: int(folder.parent.name))

pytestmark = [
    pytest.mark.servers,
    pytest.mark.skipif(POSTGRES is None, reason="needs PostgreSQL: apt-get install postgresql"),
]


@contextmanager
def postgresql() -> Iterator[str]:
    """A PostgreSQL server on a port of its own; the URL of its database for Prefect."""
    assert POSTGRES is not None
    port, data = free_port(), Path(tempfile.mkdtemp(prefix="postgresql-"))  # pytest's folders are the user's alone
    # PostgreSQL refuses to run as root.
    as_user = ["runuser", "-u", "postgres", "--"] if os.getuid() == 0 else []
    user = "postgres" if as_user else getpass.getuser()
    if as_user:
        shutil.chown(data, "postgres")

    def run(program: str, *arguments: str) -> None:
        command = [*as_user, str(POSTGRES / program), "-D", str(data), *arguments]
        subprocess.run(command, check=True, cwd="/", stdout=subprocess.DEVNULL, timeout=60)

    run("initdb", "--auth=trust", "--no-sync", "--encoding=UTF8", "--locale=C")
    options = f"-c listen_addresses=127.0.0.1 -c port={port} -c unix_socket_directories='' -c fsync=off"
    run("pg_ctl", "--wait", "--log", str(data / "log.txt"), "--options", options, "start")
    try:
        yield f"postgresql+asyncpg://{user}@127.0.0.1:{port}/postgres"
    finally:
        run("pg_ctl", "--mode=immediate", "stop")
        shutil.rmtree(data)


def command(project: Path, environment: dict[str, str], *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", *arguments] if arguments[0] in ("dvc", "prefect") else arguments, cwd=project,
        env=environment, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def checkouts(packaged: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Prefect, list[Path]]]:
    """A server on PostgreSQL, and two clones of a repository, with DVC's remote and cache in common."""
    folder = tmp_path_factory.mktemp("servers")
    first = folder / "first"
    copy_project(first, packaged)
    with ExitStack() as stack:
        database = stack.enter_context(postgresql())
        server = stack.enter_context(
            prefect_server(folder, first, PREFECT_API_DATABASE_CONNECTION_URL=database, GIT_CONFIG_GLOBAL="/dev/null")
        )
        server.change(small)
        server.change(lambda params: params.update(backbones=["test_efficientnet"]))
        server.change(lambda params: params["retrain"].update(git_remote="origin"))
        commit(first)
        command(
            first, server.environment, "dvc", "remote", "add", "--quiet", "--default", "store", str(folder / "store")
        )
        command(first, server.environment, "dvc", "cache", "dir", str(folder / "cache"))
        commit(first)
        command(folder, server.environment, "git", "clone", "--quiet", "--bare", str(first), "origin.git")
        command(first, server.environment, "git", "remote", "add", "origin", str(folder / "origin.git"))
        command(folder, server.environment, "git", "clone", "--quiet", str(folder / "origin.git"), "second")
        second = folder / "second"
        (second / "work").mkdir()
        shutil.copytree(first / "work" / "starter", second / "work" / "starter")
        yield server, [first, second]


def nightly(server: Prefect) -> dict[str, Any]:
    """Start the nightly flow now, as the schedule does, and wait for its end; the flow run."""
    deployment = httpx.get(f"{server.api}/deployments/name/retrain/nightly", timeout=30).json()["id"]
    run = server.ask(f"deployments/{deployment}/create_flow_run", {"state": {"type": "SCHEDULED"}})["id"]

    def ended() -> dict[str, Any] | None:
        found = httpx.get(f"{server.api}/flow_runs/{run}", timeout=30).json()
        return found if found["state_type"] in ("COMPLETED", "FAILED", "CRASHED") else None

    return until(ended, 550)


@contextmanager
def worker(server: Prefect, checkout: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A worker of the work pool in a checkout, started as that of the image is."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**server.environment, "ZEROTAG_CHECKOUT": str(checkout), "PYTHONPATH": str(checkout / "src")}
    with (checkout.parent / f"{checkout.name}.txt").open("w") as log:
        process = subprocess.Popen(
            [PROJECT / "deploy" / "worker.sh", "--name", checkout.name], env={**environment, "PATH": path},
            stdout=log, stderr=subprocess.STDOUT,
        )  # fmt: skip
        try:
            yield process
        finally:
            end(process)


def end(process: subprocess.Popen[bytes]) -> None:
    """End a worker that has no flow."""
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:  # it waits for the server's next word
        process.kill()
        process.wait(10)


def test_a_promotion_is_seen_from_the_other_checkout(checkouts: tuple[Prefect, list[Path]]) -> None:
    server, (first, second) = checkouts
    with ExitStack() as stack:
        workers = [stack.enter_context(worker(server, checkout)) for checkout in (first, second)]
        until(lambda: len(server.ask("deployments/filter", {})) == 4, 120)
        until(lambda: len(server.ask("work_pools/zerotag/workers/filter", {})) == 2, 120)
        deployed = {(each["name"], each["entrypoint"]) for each in server.ask("deployments/filter", {})}
        assert deployed == {
            ("on-demand", "flows.train.train"),
            ("on-demand", "flows.evaluate.evaluate_model"),
            ("on-demand", "flows.photos.photos"),
            ("nightly", "flows.retrain.retrain"),
        }
        run = nightly(server)
        assert run["state_name"] == "Promoted", log(first) + log(second)
        trained, other = (first, second) if (first / "champion.json").exists() else (second, first)
        assert not (other / "champion.json").exists() and not (other / "models").exists()
        champion = json.loads((trained / "champion.json").read_text())
        # The next night, the other worker is the one that is there.
        end(workers[trained is second])
        run = nightly(server)
    # It has taken over the champion with what it was made of, and has nothing to do.
    assert run["state_name"] == "Skipped", log(other)
    assert json.loads((other / "champion.json").read_text()) == champion
    assert (other / "champions" / champion["id"] / "served" / "model.onnx").is_file()
    assert "Running stage" not in log(other)
    status = command(other, server.environment, "dvc", "status", "evaluate@test_efficientnet-sdl")
    assert "up to date" in status
    get = ("dvc", "artifacts", "get", str(first.parent / "origin.git"), "zerotag", "--stage", "prod")
    command(first.parent, server.environment, *get)
    assert (first.parent / "served" / "model.onnx").is_file()


def log(checkout: Path) -> str:
    """What a checkout's worker said."""
    return (checkout.parent / f"{checkout.name}.txt").read_text()
