"""Kill `zerotag index` again and again: python -m benchmarks.killed [--photos 100000] [--kills 5] [--seed 0].

The indexer of a folder of photographs (flickr8k's, or zerotag.samples' where ../shared is missing, at 320 x 240, each
with bytes of its own) is killed with SIGKILL at random moments and started again. Then every photo must be in the index
once, and have the vectors that the network computes for it.
"""

import argparse
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
from benchmarks.throughput import PROJECT, scaled_photos

from zerotag.registry.served import starter_package
from zerotag.serving.index import open_index
from zerotag.serving.tagger import Tagger


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    arguments.add_argument("--photos", type=int, default=100_000)
    arguments.add_argument("--kills", type=int, default=5)
    arguments.add_argument("--seed", type=int, default=0)
    arguments.add_argument("--work", type=Path, help="folder for the photographs and the index")
    arguments.add_argument("--model", type=Path, help="package folder; the starter if not given")
    options = arguments.parse_args()
    model = (options.model or starter_package(PROJECT)).resolve()
    with tempfile.TemporaryDirectory(dir=options.work) as work:
        folder, database = Path(work) / "photos", Path(work) / "index"
        originals = scaled_photos(320, 240, 24)
        for number in range(options.photos):
            place = folder / f"{number // 1000:04d}" / f"{number:06d}.jpg"
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(originals[number % len(originals)] + str(number).encode())
        killed_again_and_again(folder, database, model, options.photos, options.kills, random.Random(options.seed))
        check(database, model, originals, options.photos)


def killed_again_and_again(
    folder: Path, database: Path, model: Path, photos: int, kills: int, chance: random.Random
) -> None:
    tagger = Tagger(model, threads=1)
    command = [sys.executable, "-c", "from zerotag.cli import app; app()", "index", folder, "--database", database,
               "--model", model]  # fmt: skip
    moments = sorted(chance.randrange(photos) for _ in range(kills))
    for moment in [*moments, photos]:
        started = time.perf_counter()
        process = subprocess.Popen([str(each) for each in command], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        while process.poll() is None and moment < photos:
            time.sleep(chance.uniform(0.2, 2))
            if database.exists() and len(index := open_index(str(database), tagger)) >= moment:
                process.send_signal(signal.SIGKILL)
                print(f"killed with {len(index):,} photos in the index", flush=True)
                break
        out = process.communicate()[0].decode().strip()
        print(f"after {time.perf_counter() - started:.0f} s: {out or 'killed'}", flush=True)


def check(database: Path, model: Path, originals: list[bytes], photos: int) -> None:
    tagger = Tagger(model)
    index = open_index(str(database), tagger)
    pixels = [tagger.pixels(original, "photo") for original in originals]
    expected = np.concatenate([tagger.principal_vectors(each[None])[0, :1] for each in pixels])
    counts: Counter[str] = Counter()
    wrong = 0
    for keys, _, _, vectors in index.first_rows():
        names = [photo for _, photo in keys]
        counts.update(names)
        of = np.array([int(Path(name).stem) % len(originals) for name in names])
        wrong += int((np.abs(vectors[:, : expected.shape[1]] - expected[of]).max(axis=1) > 2e-3).sum())
    twice = sum(count > 1 for count in counts.values())
    print(f"{len(counts):,} of {photos:,} photos in the index, {twice} twice, {wrong} with other vectors")
    if len(counts) != photos or twice or wrong:
        raise SystemExit("The index is not what it should be.")


if __name__ == "__main__":
    main()
