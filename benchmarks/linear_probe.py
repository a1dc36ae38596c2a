"""Training heads on cached features, as many as NUS-WIDE has: python -m benchmarks.linear_probe [--steps 200].

161,789 photos with 1,280 features, as of the default backbone, and 925 tags (1 / rank, 7 a photo). Features, tags and
word vectors are random: what is learnt means nothing, but every step costs what it costs on real ones. Batch size and
methods are those of params.yaml. Steps are timed in CPU seconds of one thread, which other work on the machine changes
least, and an epoch is computed from them; --steps 0 runs a whole epoch.
"""

import argparse
import math
import os
import platform
import tempfile
import time
from pathlib import Path

import numpy as np
import scipy.sparse as sp
import torch
import yaml

from zerotag.settings import from_params
from zerotag.training.heads import Head
from zerotag.training.loop import TrainSettings, feature_batches, train
from zerotag.training.methods import Method, method

PROJECT = Path(__file__).resolve().parents[1]
PHOTOS, FEATURES, TAGS, TAGS_OF_A_PHOTO = 161_789, 1280, 925, 7
# MiniLM's; lifted words have as many dimensions as there are seen tags.
DIMENSIONS = 384
CPU = torch.device("cpu")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    arguments.add_argument("--steps", type=int, default=200)
    arguments.add_argument("--methods", nargs="+", default=["sdl_plus", "sdl", "fast0tag"])
    options = arguments.parse_args()
    torch.set_num_threads(1)
    params = yaml.safe_load((PROJECT / "params.yaml").read_text())
    settings = from_params(TrainSettings, {**params["train"]["linear_probe"], "epochs": 1}, "train.linear_probe")
    whole = math.ceil(PHOTOS / settings.batch)
    steps = options.steps or whole
    random = np.random.default_rng(0)
    features, labels = random.random((PHOTOS, FEATURES), dtype=np.float32), random_labels(random)
    rows = random.permutation(PHOTOS)[: settings.batch * steps]
    print(
        f"\n{PHOTOS:,} photos x {FEATURES:,} features, {TAGS} tags, batches of {settings.batch}\n"
        f"{steps:,} of {whole:,} steps; torch {torch.__version__}, 1 of {os.cpu_count()} cores, {platform.machine()}\n"
    )
    print("| method | weights | ms a step | s an epoch | matrix products | Adam | other |")
    print("|---|---|---|---|---|---|---|")
    for name in options.methods:
        chosen = method(name, params["method"][name])
        vectors = random.standard_normal((TAGS, TAGS if chosen.sharpness else DIMENSIONS)).astype(np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        epoch(features, rows[: 20 * settings.batch], labels, vectors, chosen, settings)  # warm-up
        started = time.process_time()
        head = epoch(features, rows, labels, vectors, chosen, settings)
        seconds = (time.process_time() - started) / steps
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
            epoch(features, rows[: 50 * settings.batch], labels, vectors, chosen, settings)
        products, adam, other = shares(profile)
        print(
            f"| {name} | {head.linear.weight.numel():,} | {1e3 * seconds:.1f} | {seconds * whole:.0f} | "
            f"{products:.0%} | {adam:.0%} | {other:.0%} |",
            flush=True,
        )


def random_labels(random: np.random.Generator) -> sp.csr_matrix:
    share = 1 / np.arange(1, TAGS + 1)
    share = np.minimum(TAGS_OF_A_PHOTO * share / share.sum(), 0.5)
    starts = range(0, PHOTOS, 10_000)
    blocks = [random.random((min(10_000, PHOTOS - start), TAGS), dtype=np.float32) < share for start in starts]
    return sp.vstack([sp.csr_matrix(block.astype(np.uint8)) for block in blocks]).tocsr()


def epoch(
    features: np.ndarray, rows: np.ndarray, labels: sp.csr_matrix, vectors: np.ndarray, chosen: Method,
    settings: TrainSettings,
) -> Head:  # fmt: skip
    head = Head(FEATURES, chosen, vectors.shape[1])
    batches = feature_batches(features, settings.batch, CPU)
    with tempfile.TemporaryDirectory() as folder:
        train(head, batches, rows, labels, vectors, chosen, settings, Path(folder) / "checkpoint.pt", "", CPU)
    return head


def shares(profile: torch.profiler.profile) -> tuple[float, float, float]:
    """Shares of the time in torch's operators: matrix products, the optimizer's step, and the others."""
    times = {each.key: each.self_cpu_time_total for each in profile.key_averages()}
    total = sum(times.values())
    products = sum(times.get(f"aten::{name}", 0) for name in ("mm", "addmm", "addmm_", "bmm")) / total
    adam = times.get("aten::_fused_adam_", 0) / total
    return products, adam, 1 - products - adam


if __name__ == "__main__":
    main()
