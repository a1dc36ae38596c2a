"""Rehearsal of NUS-WIDE at full size on a small machine: python -m benchmarks.rehearsal SHARED [--photos 269648].

SHARED contains groundtruth81-train.zip, groundtruth81-test.zip, tags1006.csv and wordvectors_1006x300.npy. They are
converted to the official layout for all 269,648 photos, with the real labels of the 81 concepts. User tags are
synthetic (1 / rank, 7 per photo), as are the photos (small unique JPEGs in one tar). The DVC stages then run in a
workspace under work/rehearsal: download, prepare, words, split, validate, features with a tiny backbone, one epoch of
the head, and evaluation on 107,859 x 1,006. An interrupted rehearsal resumes from DVC's cache; --fresh starts over.
"""

import argparse
import io
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import yaml
from flows.pipeline import workspace
from gensim.models import KeyedVectors
from PIL import Image
from tqdm import tqdm

from zerotag.data.sources.nus_wide import read_table

PROJECT = Path(__file__).resolve().parents[1]
WORK = PROJECT / "work" / "rehearsal"
BACKBONE, METHOD = "test_efficientnet", "sdl"
MINUTES, GIGABYTES, MEGABYTES_A_SECOND = 45, 8, 150


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    arguments.add_argument("shared", type=Path)
    arguments.add_argument("--photos", type=int, default=269_648)
    arguments.add_argument("--fresh", action="store_true")
    options = arguments.parse_args()
    if options.fresh and WORK.exists():
        shutil.rmtree(WORK)
    official = WORK / f"nus-wide-{options.photos}"
    if not (official / "photos.tar").is_file():
        write_official(options.shared, official, options.photos)
    table = official / "NUS_WID_Tags" / "Train_Tags1k.dat"
    lines = (official / "ImageList" / "TrainImagelist.txt").read_text().count("\n")
    started = time.perf_counter()
    read_table(table, lines, 1000)
    rate = table.stat().st_size / 1e6 / (time.perf_counter() - started)
    folder = workspace(WORK / "checkout", parameters(official, lines, options.photos))
    names = ["download", "prepare", "words", "split", "validate", f"features@{BACKBONE}"]
    names += [f"train@{BACKBONE}-{METHOD}", f"evaluate@{BACKBONE}-{METHOD}"]
    stages = [run_stage(name, folder) for name in names]
    machine = f"{os.cpu_count()} cores, {platform.machine()}"
    print(f"\n{options.photos:,} photos; {machine}, Python {platform.python_version()}\n")
    print("| stage | seconds | peak memory, GB |")
    print("|---|---|---|")
    for stage in stages:
        print(f"| {stage.name} | {stage.seconds:.0f} | {stage.gigabytes:.2f} |")
    minutes, peak = sum(stage.seconds for stage in stages) / 60, max(stage.gigabytes for stage in stages)
    print(f"| all | {60 * minutes:.0f} | {peak:.2f} |")
    print(f"\n{table.name}, {table.stat().st_size / 1e6:,.0f} MB, was read at {rate:.0f} MB/s.")
    met = minutes < MINUTES and peak < GIGABYTES and rate >= MEGABYTES_A_SECOND
    print(
        f"Targets: {MINUTES} minutes, {GIGABYTES} GB, {MEGABYTES_A_SECOND} MB/s: {'met' if met else 'NOT MET'}. "
        "Stages that DVC had already run are not counted; --fresh runs all of them."
    )
    raise SystemExit(not met)


@dataclass(frozen=True)
class Stage:
    """Time and memory of a stage."""

    name: str
    seconds: float
    gigabytes: float


def run_stage(name: str, folder: Path) -> Stage:
    """Run one stage; memory is the total proportional set size (PSS) of its processes."""
    started = time.perf_counter()
    command = [sys.executable, "-m", "dvc", "repro", "--single-item", name]
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    process = subprocess.Popen(command, cwd=folder, env={**os.environ, "PATH": path})
    peak = 0.0

    def watch() -> None:
        nonlocal peak
        while process.poll() is None:
            total = 0
            for one in [process.pid, *(child.pid for child in psutil.Process(process.pid).children(recursive=True))]:
                try:
                    total += psutil.Process(one).memory_full_info().pss
                except psutil.Error:
                    continue  # the process has exited
            peak = max(peak, total / 1e9)
            time.sleep(0.5)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    if process.wait():
        raise SystemExit(f"{name} failed")
    watcher.join(5)
    return Stage(name, time.perf_counter() - started, peak)


def parameters(official: Path, train: int, photos: int) -> dict:
    params = yaml.safe_load((PROJECT / "params.yaml").read_text())
    counts = {"train": train, "test": photos - train, "concepts": 81, "user_tags": 1000, "seen": 925}
    params["source"] = "nus-wide"
    params["sources"]["nus-wide"] = {"folder": str(official), "photos": str(official / "photos.tar"), "counts": counts}
    params["words"] = {"source": f"file:{official / 'words.kv'}", "max_missing_share": 0.0}
    params["split"] = {"kind": "nus-wide"}
    params["backbones"], params["methods"] = [BACKBONE], [METHOD]
    params["weights"][BACKBONE] = "none"
    params["features"] = {"size": 32, "batch": 256}
    params["method"][METHOD] = {"principal_vectors": 7}
    params["train"]["linear_probe"]["epochs"] = 1
    params["train"]["linear_probe"]["batch"] = 256
    return params


def write_official(shared: Path, folder: Path, photos: int) -> None:
    """Write the official layout, with photos.tar and words.kv next to it."""
    for name in ("ConceptsList", "ImageList", "NUS_WID_Tags", "Groundtruth/TrainTestLabels", "Groundtruth/AllLabels"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    tags = pd.read_csv(shared / "tags1006.csv", keep_default_na=False)
    concepts = tags["tag"][tags["split"] == "unseen"].tolist()
    user_tags = sorted(tags["tag"][tags["split"] == "seen"].tolist() + concepts[:75])
    (folder / "ConceptsList" / "Concepts81.txt").write_text("\n".join(concepts) + "\n")
    (folder / "NUS_WID_Tags" / "TagList1k.txt").write_text("\n".join(user_tags) + "\n")
    words = KeyedVectors(300)
    words.add_vectors(tags["tag"].tolist(), np.load(shared / "wordvectors_1006x300.npy"))
    words.save(str(folder / "words.kv"))
    random = np.random.default_rng(0)
    everything: list[str] = []
    lake: list[int] = []
    for part, share in (("Train", 161_789 / 269_648), ("Test", 107_859 / 269_648)):
        [name] = (archive := zipfile.ZipFile(shared / f"groundtruth81-{part.lower()}.zip")).namelist()
        truth = pd.read_csv(archive.open(name)).iloc[: round(share * photos)]
        rows = range(len(everything), len(everything) + len(truth))
        names = [f"folder{row % 704:03d}\\{row:06d}_{10_000_000 + row}.jpg" for row in rows]
        (folder / "ImageList" / f"{part}Imagelist.txt").write_text("".join(f"{name}\r\n" for name in names))
        for concept in concepts:
            # Includes the invalid value -1130179 of the published Labels_lake_Train.txt.
            values = "".join(f"{value}\n" for value in truth[concept])
            (folder / "Groundtruth" / "TrainTestLabels" / f"Labels_{concept}_{part}.txt").write_text(values)
        everything += names
        lake += [int(value == 1) for value in truth["lake"]]
        write_user_tags(folder / "NUS_WID_Tags" / f"{part}_Tags1k.dat", len(truth), random)
    (folder / "ImageList" / "Imagelist.txt").write_text("".join(f"{name}\r\n" for name in everything))
    (folder / "Groundtruth" / "AllLabels" / "Labels_lake.txt").write_text("".join(f"{value}\n" for value in lake))
    write_photos(folder / "photos.tar", everything, random)


def write_user_tags(file: Path, rows: int, random: np.random.Generator) -> None:
    share = 1 / np.arange(1, 1001)
    share = random.permutation(np.minimum(7 * share / share.sum(), 0.5))
    with file.open("wb") as out:
        for start in range(0, rows, 10_000):
            values = (random.random((min(10_000, rows - start), 1000)) < share).astype(np.uint8)
            lines = np.full((len(values), 2001), ord(" "), dtype=np.uint8)
            lines[:, 0:2000:2] = values + ord("0")
            lines[:, 2000] = ord("\n")
            out.write(lines.tobytes())


def write_photos(archive: Path, names: list[str], random: np.random.Generator) -> None:
    """Write 500 small images repeatedly, each time with a different JPEG comment."""
    pictures = []
    for _ in range(500):
        colours = random.integers(0, 256, (6, 8, 3), dtype=np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(colours).resize((64, 48), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=80)
        pictures.append(buffer.getvalue())
    draft = archive.with_suffix(".draft")
    with tarfile.open(draft, "w", format=tarfile.USTAR_FORMAT) as tar:
        for row, name in enumerate(tqdm(names, desc="photos", unit="photo")):
            comment, picture = name.encode(), pictures[row % len(pictures)]
            data = picture[:2] + b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment + picture[2:]
            member = tarfile.TarInfo("Flickr/" + name.replace("\\", "/"))
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    draft.rename(archive)


if __name__ == "__main__":
    main()
