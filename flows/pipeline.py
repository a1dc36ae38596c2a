"""DVC operations for flows: run stages with their output in the flow's log, query changes, version a folder.

The current folder is the checkout.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml
from prefect.artifacts import create_table_artifact
from prefect.logging import get_run_logger

from zerotag.errors import ZerotagError
from zerotag.files import write_aside
from zerotag.stores import s3_remedy

# Only one flow at a time runs in a checkout.
LOCK = Path("work/flow.lock")
_DVC = [sys.executable, "-m", "dvc"]
# Interval at which progress bars are logged, in seconds.
_PROGRESS_SECONDS = 10.0
# As zerotag.cluster.shards writes it.
_SHARD = re.compile(r"zerotag: (?P<shard>shard \d+ of \d+):? (?P<what>.+)")


def stamped(name: str) -> Callable[[], str]:
    """Return a generator of flow run names: NAME and the time."""
    return lambda: f"{name} {datetime.now():%Y-%m-%d %H:%M:%S}"


def repro(
    *targets: str, options: tuple[str, ...] = (), folder: Path = Path(), environment: dict[str, str] | None = None
) -> None:
    """Run `dvc repro TARGETS` and stream its output to the flow's log.

    If this process is killed, its stages are killed too.

    Args:
        targets: stages to run, with their changed dependencies.
        options: options of `dvc repro`.
        folder: a checkout.
        environment: additional environment variables for the stages.

    Raises:
        ZerotagError: a stage failed; the message contains the last lines of its output.
    """
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    child = subprocess.Popen(
        [*_DVC, "--wait-for-lock", "repro", *options, *targets],
        cwd=folder,
        env={**os.environ, "PATH": path, "PYTHONUNBUFFERED": "1", **(environment or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    # Blocks on the pipe while this process is alive, and kills the stages when it closes.
    watch = subprocess.Popen(
        ["sh", "-c", f"read _; kill -KILL -{child.pid}"], stdin=subprocess.PIPE, start_new_session=True
    )
    shards: list[dict[str, str]] = []
    try:
        said = _follow(child, shards)
        if child.wait():
            raise ZerotagError(f"dvc repro {' '.join(targets)} failed:\n" + "\n".join(said[-8:]))
    finally:
        watch.kill()
        watch.communicate()
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGTERM)
        # Last: the server may not answer.
        if shards:
            create_table_artifact(shards, key="shards", description=f"on the cluster: {' '.join(targets)}")


def _follow(child: subprocess.Popen[str], shards: list[dict[str, str]]) -> list[str]:
    """Log a process's output and return its last lines; what it says of shards is added to `shards`."""
    log, said, bar = get_run_logger(), [""], 0.0
    for line in child.stdout or ():
        line = line.rstrip()
        if "%|" in line:
            if time.monotonic() < bar + _PROGRESS_SECONDS:
                continue
            bar = time.monotonic()
        elif line:
            said = [*said[-20:], line]
            if shard := _SHARD.match(line):
                shards.append(shard.groupdict())
        if line:
            log.info(line)
    return said


def changes(targets: list[str]) -> list[str]:
    """Changed files, parameters and commands of stages according to `dvc status`; empty if they are up to date.

    Raises:
        ZerotagError: `dvc status` failed.
    """
    found: list[str] = []
    for stage, parts in json.loads(_dvc("status", "--json", "--with-deps", *targets)).items():
        for part in parts:
            if isinstance(part, str):
                found.append(f"{stage}: {part}")
                continue
            for kind, names in part.items():
                flat = [f"{name} {state}" for name, state in _flatten(names)]
                found.append(f"{stage}: {kind}: {', '.join(flat)}")
    return found


def _flatten(names: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for name, state in names.items():
        if isinstance(state, dict):
            yield from ((f"{name}: {inner}", its) for inner, its in _flatten(state))
        else:
            yield name, state


def add(folder: Path) -> None:
    """Version a folder with `dvc add`; Git tracks FOLDER.dvc."""
    _dvc("add", str(folder))


def push() -> None:
    """Push all outputs and champions to DVC's remote."""
    _dvc("push")


def pull(targets: list[str], champion: Path) -> None:
    """Fetch a champion, and the outputs of stages and those before as dvc.lock has them, from DVC's cache or remote."""
    _dvc("pull", "--force", "--with-deps", f"{champion}.dvc", *targets)


def workspace(folder: Path, params: dict[str, Any]) -> Path:
    """Create a second workspace with other parameters, which shares DVC's cache and the data with this checkout."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("src", "stages"):
        shutil.copytree(name, folder / name, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("dvc.yaml", "data.dvc", ".dvcignore"):
        shutil.copyfile(name, folder / name)
    if Path("downloads.lock").is_file():
        shutil.copyfile("downloads.lock", folder / "downloads.lock")
    for name, target in (("data.version", Path("data.dvc")), ("data", Path("data").resolve())):
        if not (folder / name).is_symlink():
            (folder / name).symlink_to(target)
    with write_aside(folder / "params.yaml") as draft:
        draft.write_text(yaml.safe_dump(params, sort_keys=False), encoding="utf-8")
    if not (folder / ".dvc").exists():
        cache = Path(".dvc/cache").resolve()
        for arguments in (["init", "--no-scm", "--quiet"], ["cache", "dir", "--quiet", str(cache)]):
            _dvc(*arguments, folder=folder)
    return folder


def fetch_model(model: str, revision: str, target: Path) -> None:
    """Download a model from a Git revision with `dvc get`."""
    _dvc("get", ".", model, "--rev", revision, "--out", str(target))


def _dvc(*arguments: str, folder: Path = Path()) -> str:
    done = subprocess.run([*_DVC, *arguments], cwd=folder, capture_output=True, text=True)
    if done.returncode:
        said = done.stderr.strip()
        raise ZerotagError(f"dvc {' '.join(arguments)} failed:\n{said}\n{s3_remedy(said)}".rstrip())
    return done.stdout
