"""Where a cluster's driver, object store and commit become the limit: python -m benchmarks.scale [--quick].

Nothing is decoded: actors sleep for as long as a shard of photos was measured to take (docs/performance.md), while
`zerotag.cluster.spread` and Ray Data do on this machine what they do on a cluster. All figures are measured, on one
machine that runs driver, Ray and actors; docs/scale.md computes from them what a cluster needs.

- scheduling: shards a second through the driver. A Ray of so many cores is started, each an actor, whose sleep is
  shortened by --speed-up. As an actor is a process of some 200 MB, rows with more cores than processes have actors that
  stand for many: each has as many tasks waiting as they, and sleeps for one after the other, as much shorter, so that
  the driver has the tasks in flight, and the tasks a second, of so many cores; 64 photos are sent to them for a shard,
  whatever its size, to save memory here
- commit: of N fragments into the index (`Index.adopt`), and what opening, counting and listing the table takes after it
- listing: what an index says of its photos (`Index.entries`, which each update reads), by the number of photos
- tidy: compaction and the engine's index, which the driver makes after the commit; vectors are random
- duplicates: `find_duplicates`, of random photos, which are alike to no other

Each row is a process of its own. CPU times depend less on what else the machine does than times by the clock do.
"""

import argparse
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from zerotag.cluster.shards import Outcome, Shard, shards_of
from zerotag.serving.duplicates import find_duplicates
from zerotag.serving.index import Entry, Index
from zerotag.serving.update import Photo

# Photos a second of a core: half of what two cores do, `zerotag tag`, 640 x 480 (docs/performance.md).
RATE = 122.6
_PARTS = ("scheduling", "commit", "listing", "tidy", "duplicates")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    arguments.add_argument("--quick", action="store_true", help="few actors, shards and fragments: a minute")
    arguments.add_argument("--only", nargs="+", choices=_PARTS, default=_PARTS)
    arguments.add_argument("--speed-up", type=float, default=20, help="of the sleep, where each core has a process")
    arguments.add_argument("--rate", type=float, default=RATE, help="photos a second of a core")
    options = arguments.parse_args()
    from benchmarks.throughput import processor

    print(f"{date.today()}, {os.cpu_count()} cores, {processor()}, load {os.getloadavg()[0]:.1f}")
    if "scheduling" in options.only:
        scheduling(options.quick, options.rate, options.speed_up)
    if "commit" in options.only:
        commits([(50, 16), (200, 16)] if options.quick else [(100, 16), (1_000, 16), (10_000, 16), (200, 2_560)])
    if "listing" in options.only:
        listings([20_000] if options.quick else [250_000, 500_000])
    if "tidy" in options.only:
        tidying([(60_000, 32)] if options.quick else [(100_000, 384), (200_000, 384)])
    if "duplicates" in options.only:
        duplicates([5_000] if options.quick else [10_000, 20_000, 40_000])


def scheduling(quick: bool, rate: float, speed_up: float) -> None:
    """Print what shards cost the driver, by the number of actors and by the size of a shard."""
    # Cores, processes, photos of a shard, shards: more than three times the cores.
    rows = [(2, 2, 512, 40), (32, 2, 512, 128)] if quick else [
        (4, 4, 512, 300), (12, 12, 512, 600), (400, 8, 512, 2000), (1600, 8, 512, 5600), (1600, 8, 4096, 5600),
    ]  # fmt: skip
    print("\nCPU time is per shard; memory is at most.")
    head("cores", "processes", "photos a shard", "a shard takes", "shards", "offered, shards/s", "done",
         "CPU of the driver", "of Ray's servers", "of the actors", "the first done after", "driver's memory",
         "object store")  # fmt: skip
    for cores, processes, size, count in rows:
        seconds = size / rate / (speed_up if cores == processes else 1)
        got = apart("schedule", cores=cores, processes=processes, size=size, shards=count, seconds=seconds)
        row(cores, processes, size, f"{seconds:.2f} s", count, f"{cores / seconds:.0f}", f"{got['rate']:.1f}",
            ms(got["driver"]), ms(got["ray"]), ms(got["actors"]), f"{got['first']:.0f} s", mb(got["memory"]),
            mb(got["store"]))  # fmt: skip


def sleeping(seconds: float) -> Callable[[Shard], Outcome]:
    """A function in place of tagging a shard, as long as it takes."""

    def work(shard: Shard) -> Outcome:
        time.sleep(seconds)
        return Outcome(len(shard.photos), {})

    return work


def schedule(cores: int, processes: int, size: int, shards: int, seconds: float) -> dict[str, float]:
    """Send shards through a Ray of sleeping actors.

    Args:
        cores: that Ray is told of; each stands for an actor.
        processes: that these actors are in.
        size: photos of a shard.
        shards: their number.
        seconds: that an actor sleeps for a shard.

    Returns:
        rate (shards/s) and the CPU seconds a shard of driver, Ray and actors, while each shard that is done is
        followed by another one; the seconds to the first result; and bytes of the driver's memory and of the object
        store.
    """
    from zerotag.cluster import spread as module
    from zerotag.cluster.connect import connected

    at_once = cores // processes
    if at_once > 1:
        # An actor for many: it has as many tasks as they, and takes them in turns, so much faster.
        module._IN_FLIGHT *= at_once
    listed = size if at_once == 1 else 64
    photos = [photo(number) for number in range(listed * shards)]
    items = shards_of(photos, "benchmark", listed)
    with own_ray(processes), connected("local") as spread:
        assert spread
        started = time.monotonic()
        first = 0.0
        marks = []
        seen: set[str] = set()
        store = 0
        # From when all actors have worked, to when all shards are given to actors, one at work and one that waits.
        end = shards - 2 * cores - 1
        for number, done in enumerate(spread(partial(sleeping, seconds / at_once), items)):
            if done.error:
                raise RuntimeError(done.error)
            first = first or time.monotonic() - started
            seen.add(done.node)
            if (not marks and len(seen) == processes and number >= cores) or number == end:
                marks.append((number, time.monotonic(), *cpu_times()))
            if number % max(1, shards // 20) == 0:
                store = max(store, stored())
        memory = peak()
    (from_, since, *before), (to, until, *after) = marks[0], marks[-1]
    driver, ray_, actors = (max(0.0, (b - a) / (to - from_)) for a, b in zip(before, after, strict=True))
    return {"rate": (to - from_) / (until - since), "driver": driver, "ray": ray_, "actors": actors, "first": first,
            "memory": memory, "store": store}  # fmt: skip


def photo(number: int) -> Photo:
    """A photo with a path of 50 letters."""
    name = f"2024/album {number // 1000:06d} of the archive/IMG_{number:09d}.jpg"
    stamp = f"{2_000_000 + number}-{1_700_000_000_000_000_000 + number}"
    return Photo(name, f"/photos/{name}", stamp, datetime.fromtimestamp(1_700_000_000 + number))


@contextmanager
def own_ray(cores: int) -> Iterator[None]:
    """A Ray that is told of so many cores."""
    import ray

    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_BACKEND_LOG_LEVEL": "fatal"}
    folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp")  # sockets need a short path
    ray.init("local", _node_ip_address="127.0.0.1", num_cpus=cores, include_dashboard=False,
             object_store_memory=2**30, _temp_dir=folder,
             logging_level="ERROR", log_to_driver=False)  # fmt: skip
    try:
        yield
    finally:
        ray.shutdown()
        shutil.rmtree(folder, ignore_errors=True)


def cpu_times() -> tuple[float, float, float]:
    """CPU seconds so far of this process, of Ray's servers, and of its workers."""
    servers = workers = 0.0
    for process in psutil.Process().children(recursive=True):
        try:
            used, name = process.cpu_times(), process.name()
        except psutil.NoSuchProcess:
            continue
        if name in ("raylet", "gcs_server"):
            servers += used.user + used.system
        elif name.startswith("ray::"):
            workers += used.user + used.system
    return time.process_time(), servers, workers


def stored() -> int:
    """Bytes in Ray's object store, and those that it has moved to a disk."""
    from ray._private.internal_api import get_memory_info_reply
    from ray._private.state import state

    stats = get_memory_info_reply(state).store_stats
    return int(stats.object_store_bytes_used + stats.spilled_bytes_total)


def peak() -> int:
    """The most memory that this process had, in bytes, without what it shares with Ray's store."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split("VmHWM:")[1].split()[0])


def commits(counts: list[tuple[int, int]]) -> None:
    """Print what the commit of fragments costs, and what the table costs with so many of them.

    Args:
        counts: numbers of fragments, and of photos in each, with vectors of 8 dimensions.
    """
    head("fragments", "photos of each", "CPU to write one", "read the records", "commit", "CPU of both", "manifest",
         "memory of both", "open", "count", "list", "compact")  # fmt: skip
    for count, photos in counts:
        with tempfile.TemporaryDirectory() as folder:
            each = apart("write_fragments", folder=folder, count=count, photos=photos)["each"]
            got = apart("commit", folder=folder)
            after = apart("reopen", folder=folder)
        row(count, photos, ms(each), f"{got['records']:.2f} s", f"{got['commit']:.2f} s", f"{got['cpu']:.2f} s",
            f"{got['manifest'] / 1000:.0f} kB", mb(got["memory"]),
            *(f"{after[name]:.2f} s" for name in ("open", "count", "list", "tidy")))  # fmt: skip


def empty_index(folder: str, dimensions: int = 8) -> Index:
    return Index(folder, "benchmark", (1, dimensions))


def entries_of(start: int, count: int) -> tuple[list[str], list[Entry]]:
    """Paths of photos, and what an index knows of them."""
    photos = [photo(number) for number in range(start, start + count)]
    random = np.random.default_rng(start)
    entries = [Entry(each.stamp, random.bytes(32).hex(), each.modified, random.bytes(64)) for each in photos]
    return [each.name for each in photos], entries


def write_fragments(folder: str, count: int, photos: int) -> dict[str, float]:
    """Write fragments and their records, as the actors of a cluster do."""
    index, random = empty_index(folder), np.random.default_rng(0)
    pending = Path(folder) / "pending"
    pending.mkdir()
    used = 0.0
    for number in range(count):
        names, entries = entries_of(number * photos, photos)
        matrices = random.standard_normal((photos, 1, 8), dtype=np.float32)
        started = time.process_time()
        written = index.write_apart(index.rows("/photos", names, entries, matrices))
        used += time.process_time() - started
        digests = [each.digest for each in entries]
        record = {"fragments": written, "photos": names, "digests": digests, "failed": {}}
        (pending / f"{number:06d}-{number:016x}.json").write_text(json.dumps(record))
    return {"each": used / count}


def commit(folder: str) -> dict[str, float]:
    """Commit fragments, as the driver does."""
    from zerotag.cluster.index import _recorded, _Target

    index = empty_index(folder)
    before, cpu, started = peak(), time.process_time(), time.monotonic()
    records = [*_recorded(index, _Target(folder, "/photos", str(Path(folder) / "pending"))).values()]
    read = time.monotonic()
    photos = [name for record in records for name in record["photos"]]
    index.adopt("/photos", photos, [fragment for record in records for fragment in record["fragments"]])
    done = time.monotonic()
    if len(index) != len(photos):
        raise RuntimeError(f"{len(index)} photos are in the table, not {len(photos)}")
    versions = (Path(folder) / "gallery-benchmark.lance" / "_versions").iterdir()
    return {"records": read - started, "commit": done - read, "cpu": time.process_time() - cpu,
            "manifest": max(file.stat().st_size for file in versions), "memory": peak() - before}  # fmt: skip


def reopen(folder: str) -> dict[str, float]:
    """Use a table of many fragments, then compact it."""
    import lancedb  # noqa: F401 (not to be measured)

    times = [time.monotonic()]
    index = empty_index(folder)
    times.append(time.monotonic())
    count = len(index)
    times.append(time.monotonic())
    if sum(len(photos) for photos in index.entries().values()) != count:
        raise RuntimeError("photos are missing from the listing")
    times.append(time.monotonic())
    index.tidy()
    times.append(time.monotonic())
    return dict(zip(("open", "count", "list", "tidy"), np.diff(times).tolist(), strict=True))


def listings(counts: list[int]) -> None:
    """Print what the listing of an index costs."""
    head("photos", "entries()", "CPU", "memory", "a photo", "a photo, with contents and a listing")
    for count in counts:
        with tempfile.TemporaryDirectory() as folder:
            apart("fill", folder=folder, count=count, dimensions=8)
            got = apart("listing", folder=folder)
        row(count, f"{got['seconds']:.1f} s", f"{got['cpu']:.1f} s", mb(got["memory"]),
            f"{got['memory'] / count:.0f} bytes", f"{got['update'] / count:.0f} bytes")  # fmt: skip


def fill(folder: str, count: int, dimensions: int) -> dict[str, float]:
    """Fill an index with photos that have random vectors and looks; as fragments of 20,000."""
    index, random = empty_index(folder, dimensions), np.random.default_rng(0)
    for start in range(0, count, 20_000):
        size = min(20_000, count - start)
        names, entries = entries_of(start, size)
        matrices = random.standard_normal((size, 1, dimensions), dtype=np.float32)
        index._table.add(index.rows("/photos", names, entries, matrices))
    return {}


def listing(folder: str) -> dict[str, float]:
    """List an index, and then what a cluster's update has in memory beside this."""
    index = empty_index(folder)
    before, cpu, started = peak(), time.process_time(), time.monotonic()
    entries = index.entries()
    seconds, cpu, memory = time.monotonic() - started, time.process_time() - cpu, peak() - before
    contents = {entry.digest for photos in entries.values() for entry in photos.values()}
    there = [photo(number) for number in range(len(contents))]
    names = {each.name for each in there}
    update = peak() - before
    assert len(names) == len(contents)
    return {"seconds": seconds, "cpu": cpu, "memory": memory, "update": update}


def tidying(rows: list[tuple[int, int]]) -> None:
    """Print what `Index.tidy` costs after a first import."""
    head("photos", "dimensions", "on disk before", "after", "tidy", "CPU", "memory")
    for count, dimensions in rows:
        with tempfile.TemporaryDirectory() as folder:
            apart("fill", folder=folder, count=count, dimensions=dimensions)
            before = size_of(folder)
            got = apart("tidy", folder=folder, dimensions=dimensions)
            after = size_of(folder)
        row(
            count,
            dimensions,
            mb(before),
            mb(after),
            f"{got['seconds']:.0f} s",
            f"{got['cpu']:.1f} s",
            mb(got["memory"]),
        )


def tidy(folder: str, dimensions: int) -> dict[str, float]:
    """Compact a table and make the engine's index."""
    index = empty_index(folder, dimensions)
    before, cpu, started = peak(), time.process_time(), time.monotonic()
    index.tidy()
    return {"seconds": time.monotonic() - started, "cpu": time.process_time() - cpu, "memory": peak() - before}


def duplicates(counts: list[int], dimensions: int = 384) -> None:
    """Print what the search for duplicates costs."""
    head("photos", "duplicates", "CPU", "CPU a pair")
    for count in counts:
        with tempfile.TemporaryDirectory() as folder:
            apart("fill", folder=folder, count=count, dimensions=dimensions)
            got = apart("find", folder=folder, dimensions=dimensions)
        pairs = count * (count - 1) / 2
        row(count, f"{got['seconds']:.1f} s", f"{got['cpu']:.1f} s", f"{1e9 * got['cpu'] / pairs:.1f} ns")


def find(folder: str, dimensions: int) -> dict[str, float]:
    """Find duplicates."""
    index = empty_index(folder, dimensions)
    cpu, started = time.process_time(), time.monotonic()
    groups = list(find_duplicates(index))
    return {"seconds": time.monotonic() - started, "cpu": time.process_time() - cpu, "groups": len(groups)}


def size_of(folder: str) -> int:
    return sum(file.stat().st_size for file in Path(folder).rglob("*") if file.is_file())


def head(*names: str) -> None:
    print(f"\n| {' | '.join(names)} |\n{'|---' * len(names)}|", flush=True)


def row(*cells: Any) -> None:
    print(f"| {' | '.join(f'{cell:,}' if isinstance(cell, int) else str(cell) for cell in cells)} |", flush=True)


def ms(seconds: float) -> str:
    return f"{1000 * seconds:.1f} ms"


def mb(size: float) -> str:
    return f"{size / 1e6:,.0f} MB"


def apart(function: str, **given: Any) -> dict[str, float]:
    """Call a function of this module in a process of its own.

    Raises:
        SystemExit: it fails.
    """
    code = (
        "import json, sys; from benchmarks import scale\n"
        "print(json.dumps(getattr(scale, sys.argv[1])(**json.loads(sys.argv[2]))))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, function, json.dumps(given)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{function}({given}) ended with {done.returncode}:\n{done.stderr[-3000:]}")
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    if any(math.isnan(value) for value in result.values()):
        raise SystemExit(f"{function}({given}) measured nothing")
    return result


if __name__ == "__main__":
    main()
