"""Tagging and indexing on a Ray cluster of two nodes of a core each against one machine: python -m benchmarks.cluster.

The nodes are processes of this machine. `zerotag tag` and `zerotag index` run in turns without and with `--cluster`, on
photographs of 640 x 480 as those of `benchmarks.throughput`, and what they wrote is compared row for row. A rate is
that of all photos over the time of the whole command, its start included.

With --kill node, one node is killed with SIGKILL when a third is done; with --kill driver, the command is, and is run
again. Then the results are compared with those of one machine: complete, nothing twice.
"""

import argparse
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import psutil
from benchmarks.throughput import PROJECT, photographs, processor
from pyarrow import parquet

# What a node's object store may hold, in bytes.
_STORE = 128 * 2**20
ZEROTAG = [sys.executable, "-c", "from zerotag.cli import app; app()"]


@dataclass
class Nodes:
    """A cluster of processes of this machine.

    Attributes:
        address: for drivers.
        started: the command of each node, which ends with it.
    """

    address: str
    folder: Path
    started: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def add(self, *options: str, tries: int = 3) -> subprocess.Popen[bytes]:
        """Start a node of one core, and wait until it has joined; on a busy machine a node may give up."""
        head = not self.started
        command = [
            str(Path(sys.executable).with_name("ray")),
            "start",
            "--block",
            "--num-cpus=1",
            "--node-ip-address=127.0.0.1",
            "--disable-usage-stats",
        ]
        command += [f"--object-store-memory={_STORE}", "--include-log-monitor=false"]
        command += ["--head", f"--port={self.address.rpartition(':')[2]}", "--include-dashboard=false",
                    f"--temp-dir={self.folder}"] if head else [f"--address={self.address}"]  # fmt: skip
        path = os.pathsep.join([str(PROJECT / "src"), os.environ.get("PYTHONPATH", "")])
        said = self.folder / f"node{len(self.started)}.txt"
        with said.open("wb") as log:
            node = subprocess.Popen(
                [*command, *options],
                # Workers of Ray give way to all else on a machine, unless told not to.
                env={**os.environ, "PYTHONPATH": path, "RAY_worker_niceness": "0"},
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        self.started.append(node)
        end = time.monotonic() + 120
        while "Ray runtime started" not in said.read_text():
            if node.poll() is not None and tries > 1 and not head:
                return self.add(*options, tries=tries - 1)
            if node.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"a node does not start:\n{said.read_text()[-3000:]}")
            time.sleep(0.1)
        return node

    def kill(self, node: subprocess.Popen[bytes]) -> None:
        """Kill a node and all its processes at once, as a power failure does."""
        if node.poll() is not None:  # its number may be another process's by now
            return
        with suppress(psutil.NoSuchProcess):
            top = psutil.Process(node.pid)
            for each in [top, *top.children(recursive=True)]:
                with suppress(psutil.NoSuchProcess):
                    each.kill()
        node.wait()


@contextmanager
def nodes(count: int, port: int) -> Iterator[Nodes]:
    """A cluster of so many nodes of a core each; killed in the end."""
    folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))  # sockets need a short path
    # Nodes listen to those who know this.
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    cluster = Nodes(f"127.0.0.1:{port}", folder)
    try:
        for _ in range(count):
            cluster.add()
        yield cluster
    finally:
        for node in cluster.started:
            cluster.kill(node)
        shutil.rmtree(folder, ignore_errors=True)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    arguments.add_argument("--photos", type=int, default=500)
    arguments.add_argument("--rounds", type=int, default=1)
    arguments.add_argument("--shard", type=int, default=512, help="photos of a shard")
    arguments.add_argument("--kill", nargs="+", choices=["node", "driver"], help="what is killed, in turns; no rates")
    arguments.add_argument("--only", nargs="+", choices=["tag", "index"], default=["tag", "index"])
    arguments.add_argument("--model", type=Path, help="package folder; the starter if not given")
    options = arguments.parse_args()
    from zerotag.registry.served import starter_package

    model = (options.model or starter_package(PROJECT)).resolve()
    print(
        f"{date.today()}, {os.cpu_count()} cores, {processor()}, {model.name}, {options.photos:,} photos of 640 x 480"
    )
    with tempfile.TemporaryDirectory() as work, socket.socket() as free:
        folder = photographs(Path(work) / "photos", 640, 480, options.photos)
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        with nodes(2, port) as cluster:
            for what in options.only:
                run = Run(what, folder, model, Path(work), cluster, options.shard)
                if options.kill:
                    command, expected = run.local()
                    timed(command, expected)
                    for number, victim in enumerate(options.kill):
                        killed(run, victim, expected, number)
                else:
                    rates(run, options.rounds, options.photos)


@dataclass
class Run:
    """A command with all that it is given."""

    what: str
    photos: Path
    model: Path
    work: Path
    cluster: Nodes
    shard: int

    def local(self, number: int = 0) -> tuple[list[str], Path]:
        """The command on one machine, and what it writes."""
        target = self.work / f"{self.what}-local-{number}"
        command = [*ZEROTAG, self.what, str(self.photos), "--model", str(self.model)]
        return [*command, *(["--json"] if self.what == "tag" else ["--database", str(target)])], target

    def spread(self, number: int = 0) -> tuple[list[str], Path]:
        """The command on the cluster, and what it writes."""
        target = self.work / f"{self.what}-cluster-{number}"
        command = [*ZEROTAG, self.what, str(self.photos), "--model", str(self.model)]
        command += ["--cluster", self.cluster.address, "--shard", str(self.shard)]
        return [*command, "--output" if self.what == "tag" else "--database", str(target)], target

    def finished(self, target: Path) -> int:
        """Number of the shards that a run on the cluster has finished."""
        return len(list(target.glob("*.parquet" if self.what == "tag" else "pending-*/*.json")))


def rates(run: Run, rounds: int, photos: int) -> None:
    """Print the rates of both, in turns, and whether the results are the same."""
    times: dict[str, list[float]] = {"one machine": [], "two nodes": []}
    for number in range(rounds):
        command, expected = run.local(number)
        times["one machine"].append(timed(command, expected))
        command, target = run.spread(number)
        times["two nodes"].append(timed(command, None))
        compare(run, target, expected)
    best = {name: min(each) for name, each in times.items()}
    print(f"\n| zerotag {run.what} | photos/s | ratio | seconds |\n|---|---|---|---|")
    for name, seconds in best.items():
        ratio = best["one machine"] / seconds
        print(f"| {name} | {photos / seconds:.1f} | {ratio:.2f} | {seconds:.1f} |", flush=True)


def killed(run: Run, victim: str, expected: Path, number: int) -> None:
    """Kill a node or the driver when a third is done, and compare the results with those of one machine."""
    command, target = run.spread(number)
    shards = -(-len(list(run.photos.iterdir())) // run.shard)
    if victim == "node":
        run.cluster.add()  # in place of one that an earlier run killed, or the one that is killed
    started = time.monotonic()
    driver = subprocess.Popen(command, cwd=PROJECT, stderr=subprocess.PIPE, text=True)
    while run.finished(target) < shards / 3 and driver.poll() is None:
        time.sleep(0.05)
    done, at = run.finished(target), time.monotonic() - started
    if driver.poll() is not None:
        raise SystemExit(f"{command} ended too soon:\n{driver.communicate()[1]}")
    if victim == "node":
        run.cluster.kill(run.cluster.started[-1])
    else:
        driver.send_signal(signal.SIGKILL)
    _, said = driver.communicate()
    if victim == "driver":
        timed(command, None)
    elif driver.returncode:
        raise SystemExit(said)
    seconds = time.monotonic() - started
    print(
        f"zerotag {run.what}: {victim} killed after {at:.1f} s with {done} of {shards} shards done; "
        f"all after {seconds:.1f} s"
    )
    compare(run, target, expected)


def timed(command: list[str], output: Path | None) -> float:
    """Seconds of a command, whose output goes to a file if it writes none itself."""
    started = time.perf_counter()
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - started
    if done.returncode:
        raise SystemExit(f"{command} failed:\n{done.stderr[-3000:]}")
    if output and not output.exists():
        output.write_text(done.stdout, encoding="utf-8")
    return seconds


def compare(run: Run, target: Path, expected: Path) -> None:
    """Compare what a run on the cluster wrote with what one machine writes, row for row.

    Raises:
        SystemExit: it is not the same.
    """
    if run.what == "tag":
        ours = [row for file in sorted(target.glob("*.parquet")) for row in parquet.read_table(file).to_pylist()]
        theirs = [json.loads(line) for line in expected.read_text(encoding="utf-8").splitlines()]
        names = ("tag", "score", "probability", "seen", "also")
        plain: list[Any] = [
            {"photo": each["photo"], "tags": [{name: tag[name] for name in names} for tag in each["tags"]]}
            for each in theirs
        ]
        same = [{"photo": row["photo"], "tags": row["tags"]} for row in ours] == plain
        count = len(ours)
    else:
        from zerotag.serving.index import open_index
        from zerotag.serving.tagger import Tagger

        tables = [
            open_index(str(database), Tagger(run.model))
            ._table.to_arrow()
            .sort_by([("root", "ascending"), ("photo", "ascending"), ("row", "ascending")])
            for database in (target, expected)
        ]
        same, count = tables[0].equals(tables[1]), len(tables[0])
    if not same:
        raise SystemExit(f"zerotag {run.what}: the results differ; see {target} and {expected}")
    print(f"zerotag {run.what}: {count:,} rows, the same as those of one machine", flush=True)


if __name__ == "__main__":
    main()
