"""Shard preparation compared with plain decode, resize and encode: python -m benchmarks.shards FOLDER [--photos 4000].

FOLDER contains photographs (.jpg or .jpeg). They are upscaled to a longer side of 500 pixels ("medium" size on the web)
and 1,600 pixels (camera size), since the cost depends on it. The baselines only decode, resize the shorter side to 256
pixels and encode, with one process per core: Pillow, and libjpeg-turbo through torchvision. zerotag also hashes,
rotates, checks, packs and indexes the photos.
"""

import argparse
import io
import os
import platform
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import PIL
import scipy.sparse as sp
import torch
import torchvision
from PIL import Image
from torchvision.transforms.v2.functional import resize

from zerotag.data.prepare import PrepareSettings, prepare
from zerotag.data.sources.base import PhotoFile, Source

SIDE, QUALITY, TARGET, ROUNDS = 256, 95, 0.8, 3


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    arguments.add_argument("folder", type=Path)
    arguments.add_argument("--photos", type=int, default=4000)
    options = arguments.parse_args()
    originals = sorted(path for path in options.folder.iterdir() if path.suffix in (".jpg", ".jpeg"))[: options.photos]
    machine = f"{os.cpu_count()} cores, {platform.machine()}"
    print(f"Pillow {PIL.__version__}, torchvision {torchvision.__version__}, {machine}\n")
    print("| longer side | implementation | photos/s | ratio to the faster baseline |")
    print("|---|---|---|---|")
    met = True
    for longer in (500, 1600):
        with tempfile.TemporaryDirectory() as folder:
            files = [enlarge(path, Path(folder), longer) for path in originals[:: 1 if longer == 500 else 4]]
            # Interleaved, best of each, to reduce the effect of background load.
            baselines = {"Pillow": with_pillow, "libjpeg-turbo (torchvision)": with_torchvision}
            best = dict.fromkeys([*baselines, "zerotag"], 0.0)
            for _ in range(ROUNDS):
                for name, work in baselines.items():
                    best[name] = max(best[name], len(files) / seconds(partial(in_processes, work, files)))
                best["zerotag"] = max(best["zerotag"], len(files) / seconds(partial(with_zerotag, files, Path(folder))))
            fastest = max(best[name] for name in baselines)
            for name, rate in best.items():
                print(f"| {longer} | {name} | {rate:.0f} | {rate / fastest:.2f} |")
            met = met and best["zerotag"] >= TARGET * fastest
    print(f"\nTarget: at least {TARGET} of the faster baseline: {'met' if met else 'NOT MET'}.")
    raise SystemExit(not met)


def enlarge(path: Path, folder: Path, longer: int) -> Path:
    picture = Image.open(path).convert("RGB")
    scale = longer / max(picture.size)
    target = folder / f"{path.stem}.jpg"
    picture.resize((round(picture.width * scale), round(picture.height * scale))).save(target, quality=90)
    return target


def seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def in_processes(work: Callable[[Path], bytes], files: list[Path]) -> None:
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        for _ in pool.map(work, files, chunksize=50):
            pass


def with_pillow(path: Path) -> bytes:
    picture = Image.open(path)
    picture.load()
    scale = SIDE / min(picture.size)
    size = (round(picture.width * scale), round(picture.height * scale))
    buffer = io.BytesIO()
    picture.resize(size, Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=QUALITY)
    return buffer.getvalue()


def with_torchvision(path: Path) -> bytes:
    torch.set_num_threads(1)
    picture = torchvision.io.decode_jpeg(torchvision.io.read_file(str(path)))
    small = resize(picture, [SIDE], antialias=True)
    return torchvision.io.encode_jpeg(small, quality=QUALITY).numpy().tobytes()


def with_zerotag(files: list[Path], folder: Path) -> None:
    labels = sp.csr_matrix(np.ones((len(files), 1), dtype=np.uint8))
    train = np.arange(len(files)) % 2 == 0
    source = Source([path.name for path in files], [PhotoFile(path) for path in files], ["x"], labels, train)
    shard = -(-len(files) // (2 * (os.cpu_count() or 1)))
    prepare(source, PrepareSettings(SIDE, shard, QUALITY), folder / "prepared", folder / "work")


if __name__ == "__main__":
    main()
