"""Photos per second of zerotag against bare loops: python -m benchmarks.throughput [--quick] [--only tag features …].

`zerotag tag` and `zerotag index`, the features stage and the service, for photographs of 640 x 480 and of 12
megapixels (4032 x 3024), scaled up from flickr8k's, or from zerotag.samples where ../shared is missing. Their rivals
read, decode, resize and run the same network, and do nothing else: no words, probabilities, index, colour profiles or
messages. The ratio is to the best of them in the same run.

- Pillow, shared batches: two threads decode, ONNX Runtime runs batches of 16 on all cores
- Pillow, per core: each core decodes and runs the network on 4 photos at a time
- simplejpeg, per core: the same with libjpeg-turbo's binding, if it is installed

JPEGs are decoded at 1/2, 1/4 or 1/8 of their size, but at least twice the network's, by all. Commands and loops are
processes, run in turns; a rate is that of N photos after the first one in the best round, and `start` is the time of
the first one. `ratio` is to the best bare loop of the same round, and of these the median, as a machine's speed may
change from one minute to the next. `cores` is the time of all cores per photo.
"""

import argparse
import io
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import date
from functools import partial
from pathlib import Path
from resource import RUSAGE_CHILDREN, RUSAGE_SELF, getrusage
from statistics import median

import numpy as np
import onnxruntime
from benchmarks.serving import CLIENTS, cores, load, memory, served
from PIL import Image

PROJECT = Path(__file__).resolve().parents[1]
SIZES = {"640 x 480": (640, 480), "12 megapixels": (4032, 3024)}
PARTS = ["tag", "index", "features", "service"]
# Photos of a request: to /tag, and to /tag/batch.
TOGETHER = (1, 4)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    arguments.add_argument("--quick", action="store_true", help="fewer photos and rounds")
    arguments.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    arguments.add_argument("--model", type=Path, help="package folder; the starter if not given")
    arguments.add_argument("--bare", nargs=4, metavar=("DECODER", "HOW", "FOLDER", "NETWORK"), help=argparse.SUPPRESS)
    options = arguments.parse_args()
    if options.bare:
        decoder, how, folder, network = options.bare
        bare(DECODERS[decoder], how, sorted(Path(folder).iterdir()), Path(network))
        return
    from zerotag.registry.served import starter_package

    model = (options.model or starter_package(PROJECT)).resolve()
    rounds = 2 if options.quick else 5
    print(
        f"{date.today()}, {os.cpu_count()} cores, {processor()}, {model.name}, ONNX Runtime {onnxruntime.__version__}"
    )
    print("\n| photographs | | photos/s | ratio | cores | start |\n|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as work:
        counts = dict(zip(SIZES, (256, 80) if options.quick else (1024, 256), strict=True))
        if {"tag", "index", "service"} & set(options.only):
            for size, count in counts.items():
                folder = photographs(Path(work) / size, *SIZES[size], count)
                if {"tag", "index"} & set(options.only):
                    commands(size, folder, model, rounds, options.only, Path(work))
                if "service" in options.only:
                    service(size, folder, model, rounds, 2 if options.quick else 10)
        if "features" in options.only:
            features(photographs(Path(work) / "features", 640, 480, 64 if options.quick else 1024), rounds)


def processor() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()


def scaled_photos(width: int, height: int, count: int) -> list[bytes]:
    """JPEGs of this size, at most 24, of flickr8k or of zerotag.samples."""
    from zerotag.samples import samples

    shared = sorted((PROJECT.parent / "shared" / "flickr8k" / "images").glob("*.jpg"))
    originals = shared[:: max(1, len(shared) // 24)][:24] or [each.file for each in samples()]
    scaled = []
    for original in originals[:count]:
        with Image.open(original) as photo:
            upright = photo if photo.width >= photo.height else photo.rotate(90, expand=True)
            buffer = io.BytesIO()
            upright.convert("RGB").resize((width, height), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=92)
            scaled.append(buffer.getvalue())
    return scaled


def photographs(folder: Path, width: int, height: int, count: int) -> Path:
    """A folder of JPEGs of this size; no two have the same content."""
    scaled = scaled_photos(width, height, count)
    folder.mkdir()
    for number in range(count):
        # Bytes after the end of a JPEG are ignored.
        (folder / f"{number:05d}.jpg").write_bytes(scaled[number % len(scaled)] + str(number).encode())
    return folder


def with_pillow(data: bytes, size: int) -> np.ndarray:
    picture = Image.open(io.BytesIO(data))
    picture.draft("RGB", (2 * size, 2 * size))
    return np.asarray(picture.resize((size, size), Image.Resampling.BILINEAR))


def with_simplejpeg(data: bytes, size: int) -> np.ndarray:
    import simplejpeg

    pixels = simplejpeg.decode_jpeg(data, "RGB", min_height=2 * size, min_width=2 * size, min_factor=1)
    return np.asarray(Image.fromarray(pixels).resize((size, size), Image.Resampling.BILINEAR))


DECODERS = {"Pillow": with_pillow}
with suppress(ImportError):
    import simplejpeg  # noqa: F401

    DECODERS["simplejpeg"] = with_simplejpeg
LOOPS = [("Pillow", "shared batches"), *((decoder, "per core") for decoder in DECODERS)]


def session(network: Path, threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(str(network), options, providers=["CPUExecutionProvider"])


def bare(decode: Callable[[bytes, int], np.ndarray], how: str, files: Iterable[Path], network: Path) -> None:
    """Run a network on photos and forget the results."""
    run_bare(decode, how, (file.read_bytes for file in files), network)


def run_bare(
    decode: Callable[[bytes, int], np.ndarray], how: str, photos: Iterable[Callable[[], bytes]], network: Path
) -> None:
    shared = how == "shared batches"
    runs = session(network, 0 if shared else 1)
    size = int(runs.get_modelmeta().custom_metadata_map["size"])

    def pixels(read: Callable[[], bytes]) -> np.ndarray:
        return decode(read(), size)

    def embed(group: list[Callable[[], bytes]]) -> None:
        runs.run(None, {"pixels": np.stack([pixels(read) for read in group])})

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        if shared:
            # Decoded one batch ahead.
            ahead: list[list] = []
            for group in groups(photos, 16):
                ahead.append([pool.submit(pixels, read) for read in group])
                if len(ahead) > 1:
                    runs.run(None, {"pixels": np.stack([each.result() for each in ahead.pop(0)])})
            for rest in ahead:
                runs.run(None, {"pixels": np.stack([each.result() for each in rest])})
        else:
            list(pool.map(embed, groups(photos, 4)))


def groups(photos: Iterable[Callable[[], bytes]], count: int) -> Iterator[list[Callable[[], bytes]]]:
    photos = list(photos)
    for start in range(0, len(photos), count):
        yield photos[start : start + count]


@dataclass(frozen=True)
class Cost:
    """Seconds of the clock, and of all cores."""

    clock: float
    cores: float

    def __sub__(self, other: "Cost") -> "Cost":
        return Cost(self.clock - other.clock, self.cores - other.cores)


def now() -> Cost:
    used = [getrusage(who) for who in (RUSAGE_SELF, RUSAGE_CHILDREN)]
    return Cost(time.perf_counter(), sum(each.ru_utime + each.ru_stime for each in used))


def cost(work: Callable[[], object]) -> Cost:
    started = now()
    work()
    return now() - started


@dataclass
class Row:
    """What was measured of a contestant, in rounds: a first photo, and that one with more photos."""

    photos: int
    starts: list[Cost] = field(default_factory=list)
    costs: list[Cost] = field(default_factory=list)

    def measure(self, one: Callable[[], None], all_of_them: Callable[[], None]) -> None:
        """Measure a round."""
        self.starts.append(cost(one))
        self.costs.append(cost(all_of_them))

    @property
    def start(self) -> Cost:
        """Of the first photo."""
        return least(self.starts) if self.starts else Cost(0, 0)

    @property
    def per_photo(self) -> Cost:
        """Of each of the others."""
        rest = least(self.costs) - self.start
        return Cost(rest.clock / self.photos, rest.cores / self.photos)

    @property
    def rate(self) -> float:
        """Photos per second, in the best round, which other work on the machine disturbed least."""
        return 1 / self.per_photo.clock

    @property
    def seconds(self) -> list[float]:
        """Per photo, in each round."""
        return [(all_of_them - self.start).clock / self.photos for all_of_them in self.costs]


def least(costs: list[Cost]) -> Cost:
    return Cost(min(each.clock for each in costs), min(each.cores for each in costs))


def process(*command: object) -> None:
    """Run Python in a process of its own."""
    done = subprocess.run(
        [sys.executable, *map(str, command)], cwd=PROJECT, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{command} failed:\n{done.stderr[-2000:]}")


def bare_loops(model: Path) -> dict[str, Callable[[Path], None]]:
    """By name, functions that run a bare loop on a folder, each in a process of its own."""

    def run(decoder: str, how: str, folder: Path) -> None:
        process("-m", "benchmarks.throughput", "--bare", decoder, how, folder, model / "model.onnx")

    return {f"bare: {decoder}, {how}": partial(run, decoder, how) for decoder, how in LOOPS}


def first_of(folder: Path) -> Path:
    """A folder with the first photo only."""
    first = folder.with_name(f"first of {folder.name}")
    first.mkdir(exist_ok=True)
    shutil.copy(folder / "00000.jpg", first)
    return first


def commands(size: str, folder: Path, model: Path, rounds: int, parts: list[str], work: Path) -> None:
    """`zerotag tag` and `zerotag index` against bare loops."""
    databases = (work / f"{size} {number}" for number in range(10_000))  # a new one each time
    zerotag = ("-c", "from zerotag.cli import app; app()")
    contestants, first = bare_loops(model), first_of(folder)
    if "tag" in parts:
        contestants["zerotag tag"] = lambda photos: process(*zerotag, "tag", photos, "--model", model)
    if "index" in parts:
        contestants["zerotag index"] = lambda photos: process(
            *zerotag, "index", photos, "--model", model, "--database", next(databases)
        )
    more = len(list(folder.iterdir())) - 1
    rows = {name: Row(more) for name in contestants}
    for _ in range(rounds):
        for name, run in contestants.items():
            rows[name].measure(partial(run, first), partial(run, folder))
    table(size, rows)


def table(size: str, rows: dict[str, Row]) -> None:
    """Print the rows of bare loops and of their rivals."""
    best = [
        min(seconds) for seconds in zip(*(row.seconds for name, row in rows.items() if "bare" in name), strict=True)
    ]
    for name, row in rows.items():
        ratio = median(bare / ours for bare, ours in zip(best, row.seconds, strict=True))
        start = f"{row.start.clock:.1f} s" if row.starts else ""
        used = f"{1000 * row.per_photo.cores:.1f} ms"
        print(f"| {size} | {name} | {row.rate:.1f} | {ratio:.2f} | {used} | {start} |", flush=True)


def features(folder: Path, rounds: int) -> None:
    """The features stage on prepared photos, against bare loops and against torch in one loop, as it was before."""
    import scipy.sparse as sp
    import torch

    from zerotag.blocks import block_folder
    from zerotag.data.dataset import Dataset
    from zerotag.data.photos import open_photo, to_pixels
    from zerotag.data.prepare import PrepareSettings, prepare
    from zerotag.data.sources.base import PhotoFile, Source
    from zerotag.training import features as module
    from zerotag.training.backbones import build_backbone
    from zerotag.training.features import as_input, compute_features, exported

    module._EXPORTED = 0  # as for many photos
    files = sorted(folder.iterdir())
    labels = sp.csr_matrix(np.ones((len(files), 1)))
    source = Source([file.name for file in files], [PhotoFile(file) for file in files], ["photo"], labels,
                    np.arange(len(files)) > 0)  # fmt: skip
    prepared, work = folder.with_name("prepared"), folder.with_name("work")
    prepare(source, PrepareSettings(workers=1), prepared, work)
    dataset = Dataset.read(prepared)
    backbone = build_backbone("tf_efficientnet_lite0", "package").eval()
    network = folder.with_name("network.onnx")
    start = cost(partial(exported, backbone, 224, network))
    content, cpu = network.read_bytes(), torch.device("cpu")

    def zerotag(dataset: Dataset) -> None:
        cached = block_folder(work, "a") / "network.onnx"
        cached.parent.mkdir(parents=True)
        cached.write_bytes(content)
        compute_features(backbone, dataset, 224, 64, cpu, folder.with_name("features.npy"), work, "a")

    def in_torch(dataset: Dataset) -> None:
        count = len(dataset.photos)
        for rows in np.array_split(np.arange(count), -(-count // 64)):
            pixels = np.stack([to_pixels(open_photo(dataset.photo_bytes(row), "photo"), 224) for row in rows])
            with torch.inference_mode():
                backbone(as_input(pixels, cpu))

    def run(decoder: str, how: str, dataset: Dataset) -> None:
        reads = [partial(dataset.photo_bytes, row) for row in range(len(dataset.photos))]
        run_bare(DECODERS[decoder], how, reads, network)

    contestants: dict[str, Callable[[Dataset], None]] = {
        f"bare: {decoder}, {how}": partial(run, decoder, how) for decoder, how in LOOPS
    }
    contestants |= {"torch in one loop": in_torch, "features stage": zerotag}
    first = Dataset(dataset.root, dataset.photos[:1], dataset.tags, dataset.labels[:1])
    rows = {name: Row(len(files) - 1) for name in contestants}
    for _ in range(rounds):
        for name, contestant in contestants.items():
            rows[name].measure(partial(contestant, first), partial(contestant, dataset))
    table("prepared, 256 pixels", rows)
    print(f"| prepared, 256 pixels | export of the network, once: {start.clock:.1f} s | | | | |", flush=True)


def service(size: str, folder: Path, model: Path, rounds: int, duration: float) -> None:
    """The service with 16 clients, which use the same cores, against bare loops on the same photos."""
    loops = {name: run for name, run in bare_loops(model).items() if "per core" in name}
    first = first_of(folder)
    pictures = [file.read_bytes() for file in sorted(folder.iterdir())]
    rows = {name: Row(len(pictures) - 1) for name in loops}
    answered = {together: Row(1) for together in TOGETHER}
    with served(model) as (port, start):
        load(port, pictures, duration)
        for _ in range(rounds):
            for name, run in loops.items():
                rows[name].measure(partial(run, first), partial(run, folder))
            for together, row in answered.items():
                before, used = now(), cores(port)
                rate, times, _ = load(port, pictures, duration, together)
                spent = (now() - before).cores + cores(port) - used
                row.costs.append(Cost(1 / rate, spent / (together * len(times))))
        ours = {f"service, {CLIENTS} clients, photos a request: {together}": row for together, row in answered.items()}
        table(size, rows | ours)
        print(f"| {size} | its start: {start:.1f} s; memory of all its processes: {memory(port):.0f} MB | | | | |")


if __name__ == "__main__":
    main()
