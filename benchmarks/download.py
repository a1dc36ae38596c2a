"""Photo download compared with aria2c and wget: python -m benchmarks.download [--photos 5000] [--kilobytes 100].

A local server serves JPEGs of equal size. zerotag, with rate limits disabled, downloads, checks, hashes and packs
them; aria2c (16 connections) and wget (sequential) only write files. Both must be installed.
"""

import argparse
import contextlib
import io
import os
import platform
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from zerotag.data import sources

TARGET, ROUNDS = 0.5, 3
SERVER = """
import sys
from aiohttp import web
app = web.Application()
app.router.add_static("/", sys.argv[1])
web.run_app(app, host="127.0.0.1", port=int(sys.argv[2]), print=None, access_log=None)
"""


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    arguments.add_argument("--photos", type=int, default=5000)
    arguments.add_argument("--kilobytes", type=int, default=100)
    options = arguments.parse_args()
    for program in ("aria2c", "wget"):
        if not shutil.which(program):
            raise SystemExit(f"{program} is not installed.")
    with tempfile.TemporaryDirectory() as name, socket.socket() as probe:
        folder = Path(name)
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        probe.close()
        write_photos(folder / "www", options.photos, options.kilobytes * 1000)
        urls = [f"http://127.0.0.1:{port}/{number}.jpg" for number in range(options.photos)]
        (folder / "urls.txt").write_text("\n".join(urls) + "\n")
        write_lists(folder / "official", urls)
        server = subprocess.Popen([sys.executable, "-c", SERVER, str(folder / "www"), str(port)])
        time.sleep(3)
        tools: dict[str, Callable[[], object]] = {
            "aria2c -j16": lambda: run(
                ["aria2c", "-q", "-j16", "-x1", "-d", folder / "aria2c", "-i", folder / "urls.txt"]
            ),
            "wget": lambda: run(["wget", "-q", "-P", folder / "wget", "-i", folder / "urls.txt"]),
            "zerotag": lambda: fetch(folder, options.photos),
        }
        rates = dict.fromkeys(tools, 0.0)
        try:
            for _ in range(ROUNDS):
                for tool, work in tools.items():
                    for left in ("aria2c", "wget", "raw", "work"):
                        shutil.rmtree(folder / left, ignore_errors=True)
                    started = time.perf_counter()
                    work()
                    rates[tool] = max(rates[tool], options.photos / (time.perf_counter() - started))
        finally:
            server.kill()
    best = max(rate for tool, rate in rates.items() if tool != "zerotag")
    print(f"{options.photos:,} photos of {options.kilobytes} kB; {os.cpu_count()} cores, {platform.machine()}\n")
    print("| tool | photos/s | MB/s | ratio to the faster baseline |")
    print("|---|---|---|---|")
    for tool, rate in rates.items():
        print(f"| {tool} | {rate:.0f} | {rate * options.kilobytes / 1000:.0f} | {rate / best:.2f} |")
    met = rates["zerotag"] >= TARGET * best
    print(f"\nTarget: at least {TARGET} of the faster baseline: {'met' if met else 'NOT MET'}.")
    raise SystemExit(not met)


def write_photos(folder: Path, photos: int, size: int) -> None:
    folder.mkdir()
    buffer = io.BytesIO()
    Image.new("RGB", (500, 375)).save(buffer, "JPEG")
    picture = buffer.getvalue()
    for number in range(photos):
        data, left = picture[:2], size - len(picture)
        while left > 4:  # JPEG comments pad it to a photo's size and make it unique
            part = min(left - 4, 60_000)
            data += b"\xff\xfe" + (part + 2).to_bytes(2, "big") + number.to_bytes(4, "big").ljust(part, b"x")
            left -= part + 4
        (folder / f"{number}.jpg").write_bytes(data + picture[2:])


def write_lists(folder: Path, urls: list[str]) -> None:
    for name in ("ConceptsList", "ImageList", "NUS_WID_Tags", "Groundtruth/TrainTestLabels"):
        (folder / name).mkdir(parents=True)
    (folder / "ConceptsList" / "Concepts81.txt").write_text("dog\n")
    (folder / "NUS_WID_Tags" / "TagList1k.txt").write_text("sky\n")
    names = [f"a\\{number}.jpg" for number in range(len(urls))]
    half = len(urls) // 2
    for part, its in (("Train", names[:half]), ("Test", names[half:])):
        (folder / "ImageList" / f"{part}Imagelist.txt").write_text("\n".join(its) + "\n")
        (folder / "NUS_WID_Tags" / f"{part}_Tags1k.dat").write_text("1\n" * len(its))
        (folder / "Groundtruth" / "TrainTestLabels" / f"Labels_dog_{part}.txt").write_text("1\n" * len(its))
    lines = [f"C:\\Flickr\\{name} 0 null {url} null null\n" for name, url in zip(names, urls, strict=True)]
    (folder / "NUS-WIDE-urls.txt").write_text("".join(lines))


def fetch(folder: Path, photos: int) -> None:
    settings = {"folder": str(folder / "official"), "counts": {"train": photos // 2}, "min_share": 1.0}
    with contextlib.redirect_stdout(io.StringIO()):
        sources.fetch(
            "nus-wide", {**settings, "web": {"per_second": 0}}, folder / "raw", folder / "work", folder / "lock"
        )


def run(command: list) -> None:
    subprocess.run(list(map(str, command)), check=True)


if __name__ == "__main__":
    main()
