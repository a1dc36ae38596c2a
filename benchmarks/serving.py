"""Latency of the networks and a load test of the service: python -m benchmarks.serving [--model served] [--seconds 60].

Measures ONNX Runtime against torch eager with random weights at batch size 1, the scoring of 1,006 tags, and the
service of a packaged model with 16 clients: start, errors and memory. `benchmarks.throughput` compares its throughput
with bare loops. Compared variants run interleaved, on localhost only.
"""

import argparse
import io
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from statistics import median
from typing import BinaryIO

import numpy as np
from PIL import Image

from zerotag.data.scan import scan
from zerotag.runtime import Runtime
from zerotag.serving.scoring import score

PROJECT = Path(__file__).resolve().parents[1]
BACKBONES = ["tf_efficientnet_lite0", "tresnet_m", "resnet50"]
CLIENTS = 16


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    arguments.add_argument("--model", type=Path, default=PROJECT / "served")
    arguments.add_argument("--photos", type=Path, help="folder of photos; synthetic if not given")
    arguments.add_argument("--seconds", type=float, default=60)
    arguments.add_argument("--no-networks", action="store_true")
    arguments.add_argument("--ahead", type=int, default=1, help="requests that a client sends before it reads answers")
    options = arguments.parse_args()
    if not options.no_networks:
        print(f"{'network, batch 1, 224 pixels':30}{'torch':>10}{'ONNX':>10}{'ratio':>8}")
        for name in BACKBONES:
            eager, exported = network_latency(name)
            print(f"{name:30}{1000 * eager:8.1f}ms{1000 * exported:8.1f}ms{exported / eager:8.2f}")
    random = np.random.default_rng(0)
    matrix = random.standard_normal((7, 300), dtype=np.float32)
    vectors = random.standard_normal((1006, 300), dtype=np.float32)
    times = [elapsed(lambda: score(matrix, vectors)) for _ in range(500)]
    print(f"score of 1,006 tags from a 7 x 300 matrix: {1000 * median(times):.3f} ms")
    load_test(options.model.resolve(), photos(options.photos), options.seconds, options.ahead)


def elapsed(call) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def network_latency(name: str, repeats: int = 20) -> tuple[float, float]:
    """Median latency of torch eager and ONNX Runtime in seconds."""
    import torch

    from zerotag.packaging.export import export_network
    from zerotag.training.backbones import build_backbone
    from zerotag.training.heads import Head
    from zerotag.training.methods import Method
    from zerotag.training.model import Model, Network

    backbone = build_backbone(name, "none")
    network = Network(backbone, Head(backbone.features, Method(7), 50)).eval()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.onnx"
        export_network(Model(network, None, {"size": 224, "backbone": name}), file)  # type: ignore[arg-type]
        runtime = Runtime(file)
        pixels = np.random.default_rng(0).integers(0, 255, (1, 224, 224, 3), dtype=np.uint8)
        photo = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
        eager, exported = [], []
        with torch.inference_mode():
            for _ in range(repeats + 3):
                eager.append(elapsed(lambda: network(photo)))
                exported.append(elapsed(lambda: runtime(pixels)))
    return median(eager[3:]), median(exported[3:])


def photos(folder: Path | None, count: int = 100) -> list[bytes]:
    if folder:
        return [file.read_bytes() for file in scan([folder]).photos[:count]]
    random = np.random.default_rng(0)
    made = []
    for _ in range(count):
        small = Image.fromarray(random.integers(0, 255, (24, 32, 3), dtype=np.uint8))
        buffer = io.BytesIO()
        small.resize((384, 256), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=90)
        made.append(buffer.getvalue())
    return made


def load_test(model: Path, pictures: list[bytes], seconds: float, ahead: int) -> None:
    with served(model) as (port, start):
        print(f"\nbentoml serve is ready after {start:.1f} s")
        load(port, pictures, 5)
        before = memory(port)
        rate, times, statuses = load(port, pictures, seconds, ahead=ahead)
        middle, late = 1000 * np.quantile(times, [0.5, 0.99])
        print(
            f"load test, {CLIENTS} clients, {ahead} requests at a time each, {seconds:g} s: {len(times):,} requests, "
            f"{rate:.1f} photos/s"
        )
        print(f"status codes {statuses}, median {middle:.0f} ms, p99 {late:.0f} ms, longest {max(times):.1f} s")
        print(f"memory of all processes: {before:.0f} MB before, {memory(port):.0f} MB after")


@contextmanager
def served(model: Path) -> Iterator[tuple[int, float]]:
    """Serve a package: yields the port, and how many seconds the start took."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        settings = {"MODEL": model, "PORT": port, "INDEX": f"{folder}/index", "LOG": f"{folder}/log"}
        environment = {**os.environ, **{f"ZEROTAG_{name}": str(value) for name, value in settings.items()}}
        environment |= {"BENTOML_HOME": f"{folder}/bentoml", "BENTOML_DO_NOT_TRACK": "True"}
        started = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-m", "bentoml", "serve", "service.service:Zerotag"],
            cwd=PROJECT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            while not answers(f"http://127.0.0.1:{port}/readyz"):
                if process.poll() is not None or time.perf_counter() - started > 120:
                    raise SystemExit("The service did not start.")
                time.sleep(0.1)
            yield port, time.perf_counter() - started
        finally:
            process.terminate()
            process.wait(60)


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as response:
            return response.status == 200
    except OSError:
        return False


def load(
    port: int, pictures: list[bytes], seconds: float, together: int = 1, ahead: int = 1
) -> tuple[float, list[float], dict[int | str, int]]:
    """Send photos from 16 clients, each of which waits for its responses before the next requests.

    Args:
        port: of the service.
        pictures: encoded photos.
        seconds: duration.
        together: photos per request.
        ahead: requests that are sent at once on a connection (pipelined), before their responses are read.

    Returns:
        Photos per second, seconds per request, and requests by status.
    """
    mark = "zerotag-benchmark"
    path, field = ("/tag", "photo") if together == 1 else ("/tag/batch", "photos")
    part = f'--{mark}\r\nContent-Disposition: form-data; name="{field}"; filename="a"\r\n\r\n'.encode()
    requests = []
    for start in range(0, len(pictures) - together + 1, together):
        parts = b"".join(part + picture + b"\r\n" for picture in pictures[start : start + together])
        body = parts + f"--{mark}--\r\n".encode()
        head = (
            f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Length: {len(body)}\r\n"
            f"Content-Type: multipart/form-data; boundary={mark}\r\n\r\n"
        )
        requests.append(head.encode() + body)
    times: list[float] = []
    statuses: dict[int | str, int] = {}
    until = time.perf_counter() + seconds

    def one(number: int) -> None:
        while time.perf_counter() < until:
            # Plain sockets keep the clients' own CPU cost low, since they share the cores with the service.
            with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
                answer = connection.makefile("rb")
                status: int | str = 200
                while status == 200 and time.perf_counter() < until:
                    numbers = range(number, number + ahead * CLIENTS, CLIENTS)
                    number += ahead * CLIENTS
                    started = time.perf_counter()
                    with suppress(OSError):  # then its answers are missing, too
                        connection.sendall(b"".join(requests[each % len(requests)] for each in numbers))
                    for _ in numbers:
                        try:
                            status = read_answer(answer)
                        except OSError as error:
                            status = type(error).__name__
                        times.append(time.perf_counter() - started)
                        statuses[status] = statuses.get(status, 0) + 1

    threads = [threading.Thread(target=one, args=(number,)) for number in range(CLIENTS)]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return together * len(times) / (time.perf_counter() - started), times, statuses


def read_answer(answer: BinaryIO) -> int:
    """Read an HTTP response and return its status."""
    status, length = answer.readline().split(), 0
    if not status:
        raise ConnectionResetError
    while (line := answer.readline()) not in (b"\r\n", b""):
        if line.lower().startswith(b"content-length:"):
            length = int(line.split(b":")[1])
    answer.read(length)
    return int(status[1])


def processes(port: int) -> Iterator[Path]:
    """Folders in /proc of the service's processes."""
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            if entry.name.isdigit() and f"ZEROTAG_PORT={port}\0".encode() in (entry / "environ").read_bytes():
                yield entry


def memory(port: int) -> float:
    """Memory of the service's processes in MB, with shared pages counted once (PSS)."""
    total = 0
    for entry in processes(port):
        lines = (entry / "smaps_rollup").read_text().splitlines()
        total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total / 1000


def cores(port: int) -> float:
    """Seconds of all cores that the service's processes used so far."""
    fields = ((entry / "stat").read_text().rpartition(")")[2].split() for entry in processes(port))
    return sum(int(each[11]) + int(each[12]) for each in fields) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main()
