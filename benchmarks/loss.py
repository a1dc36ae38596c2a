"""The loss against two rivals, forward and backward, in time and memory: python -m benchmarks.loss [--repeats 30].

The batch is the paper's: 64 photos with 5 tags each, 7 principal vectors, 300 dimensions; 925 tags, and 10,000. All
three run interleaved in one process.

authors  the formulation of the authors' code: scores as sums of elementwise products of each principal vector with all
         word vectors, (64, 300, T) at a time, then log(1 + exp(x)) of the pairs, photo by photo. For SDL only.
loop     the formulas photo by photo, with scores from one matrix product for the whole batch: only the loss differs.

Times are CPU times of one thread, which other work on the machine changes least. Memory is the peak of what torch
allocated during a step, including the gradient, without the batch.
"""

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import torch
from torch.nn import functional

from zerotag.training.methods import METHODS, Method, loss

PHOTOS, TAGS_OF_A_PHOTO, TAGS, VECTORS, DIMENSIONS = 64, 5, (925, 10_000), 7, 300
# The paper's SDL at 925 tags, in time; at 10,000 tags, the process. Memory: less than one tensor of all pairs.
RATIO, GIGABYTES = 40, 2

Loss = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, Method], torch.Tensor]
Batch = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    arguments.add_argument("--repeats", type=int, default=30)
    repeats = arguments.parse_args().repeats
    torch.set_num_threads(1)
    print(
        f"\n{PHOTOS} photos x {TAGS_OF_A_PHOTO} tags, M = {VECTORS}, d = {DIMENSIONS}, forward and backward; median of "
        f"{repeats}, of {slow_repeats(repeats)} for the authors' formulation\ntorch {torch.__version__}, "
        f"1 of {os.cpu_count()} cores, {platform.machine()}\n"
    )
    print("| tags | method | rival | rival, ms | zerotag, ms | ratio | rival, MB | zerotag, MB | gradients differ by |")
    print("|---|---|---|---|---|---|---|---|---|")
    met = True
    for tags in TAGS:
        for name in ("sdl", "fast0tag", "sdl_plus"):
            chosen = METHODS[name]
            batch = random_batch(chosen, tags)
            for rival in [authors_loss, loop_loss] if name == "sdl" else [loop_loss]:
                times = repeats if rival is loop_loss else slow_repeats(repeats)
                difference = compare(rival, chosen, batch)
                slow, fast = race([rival, loss], chosen, batch, times)
                much, little = (peak_memory(function, chosen, batch) for function in (rival, loss))
                print(
                    f"| {tags:,} | {name} | {rival.__name__.removesuffix('_loss')} | {1e3 * slow:.1f} | "
                    f"{1e3 * fast:.1f} | {slow / fast:.1f} | {much:,.2f} | {little:.2f} | {difference:.0e} |",
                    flush=True,
                )
                met &= little < pairs(tags)
                if tags == TAGS[0] and rival is authors_loss:
                    met &= slow / fast >= RATIO
    sizes = " and ".join(f"{pairs(tags):.2f}" for tags in TAGS)
    print(f"\nA tensor of all pairs, ({PHOTOS}, {TAGS_OF_A_PHOTO}, T) in float32, would have {sizes} MB.")
    with ProcessPoolExecutor(1, get_context("spawn")) as process:
        peak = process.submit(process_memory, TAGS[-1]).result()
    print(f"A process with torch that computes SDL at {TAGS[-1]:,} tags alone: at most {peak:.2f} GB resident.")
    met = met and peak < GIGABYTES
    targets = f"{RATIO} times faster than the authors' formulation; {TAGS[-1]:,} tags in {GIGABYTES} GB"
    print(f"\nTargets: less memory than all pairs; SDL at {TAGS[0]} tags {targets}: {'met' if met else 'NOT MET'}.")
    raise SystemExit(not met)


def pairs(tags: int) -> float:
    """MB of a tensor with every pair of a photo's tag and another one, in float32."""
    return 4e-6 * PHOTOS * TAGS_OF_A_PHOTO * tags


def slow_repeats(repeats: int) -> int:
    return max(1, repeats // 10)


def random_batch(chosen: Method, tags: int) -> Batch:
    random = torch.Generator().manual_seed(0)
    principal = torch.randn(PHOTOS, min(VECTORS, chosen.principal_vectors), DIMENSIONS, generator=random)
    order = torch.rand(PHOTOS, tags, generator=random).argsort(dim=1)
    labels = torch.zeros(PHOTOS, tags, dtype=torch.bool).scatter(1, order[:, :TAGS_OF_A_PHOTO], True)
    vectors = functional.normalize(torch.randn(tags, DIMENSIONS, generator=random), dim=1)
    return principal, labels, vectors


def authors_loss(principal: torch.Tensor, labels: torch.Tensor, vectors: torch.Tensor, chosen: Method) -> torch.Tensor:
    """Rival: what the authors' code computes, and in which shapes, in our own words."""
    words = vectors.T[None]
    each = [(row[:, :, None] * words).sum(dim=1) for row in principal.unbind(dim=1)]
    scores = torch.stack(each, dim=2).max(dim=2).values
    values = []
    for matrix, row, wanted in zip(principal, scores, labels, strict=True):
        positives, negatives = row[wanted], row[~wanted]
        pairs = (1 + (negatives[None, :] - positives[:, None]).exp()).log()
        spread = vectors[wanted].var(dim=0).sum() if len(positives) > 1 else 0
        rank = (1 + spread) * pairs.sum() / len(positives)
        own = matrix.var(dim=0).sum()
        values.append(2 * ((1 - chosen.regularisation) * rank + chosen.regularisation * own))
    return torch.stack(values).mean()


def loop_loss(principal: torch.Tensor, labels: torch.Tensor, vectors: torch.Tensor, chosen: Method) -> torch.Tensor:
    """Rival: the formulas photo by photo, with scores from one matrix product."""
    scores = (principal @ vectors.T).amax(dim=1)
    total = principal.new_zeros(())
    for matrix, row, wanted in zip(principal, scores, labels, strict=True):
        if not wanted.any():
            continue
        positives, negatives = row[wanted], row[~wanted]
        if chosen.cross_entropy:
            rank = functional.binary_cross_entropy_with_logits(row, wanted.float(), reduction="sum")
        else:
            rank = functional.softplus(negatives[None, :] - positives[:, None]).sum() / len(positives)
        if chosen.per_negative:
            rank = rank / len(negatives)
        if chosen.diversity_weight and len(positives) > 1:
            rank = rank * (1 + vectors[wanted].var(dim=0).sum())
        value = (1 - chosen.regularisation) * rank
        if chosen.regularisation and chosen.principal_vectors > 1:
            value = value + chosen.regularisation * matrix.var(dim=0).sum()
        total = total + 2 * value
    return total / len(principal)


def step(function: Loss, chosen: Method, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    principal, labels, vectors = batch
    leaf = principal.detach().requires_grad_()
    value = function(leaf, labels, vectors, chosen)
    value.backward()
    assert leaf.grad is not None
    return value.detach(), leaf.grad


def compare(rival: Loss, chosen: Method, batch: Batch) -> float:
    """Check that values and gradients agree, and return the largest difference of a gradient."""
    (slow, slow_gradient), (fast, fast_gradient) = (step(function, chosen, batch) for function in (rival, loss))
    torch.testing.assert_close(fast, slow, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(fast_gradient, slow_gradient, rtol=1e-5, atol=1e-5)
    return float((fast_gradient - slow_gradient).abs().max())


def race(functions: list[Loss], chosen: Method, batch: Batch, repeats: int) -> list[float]:
    """Median CPU time of each function in seconds, interleaved so that background load affects all equally."""
    times: list[list[float]] = [[] for _ in functions]
    for repeat in range(repeats + 1):
        for place, function in enumerate(functions):
            started = time.process_time()
            step(function, chosen, batch)
            if repeat:  # skip warm-up
                times[place].append(time.process_time() - started)
    return [statistics.median(taken) for taken in times]


def peak_memory(function: Loss, chosen: Method, batch: Batch) -> float:
    """Peak of what torch allocates in a step, in MB."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        step(function, chosen, batch)
    with tempfile.TemporaryDirectory() as folder:
        profile.export_chrome_trace(str(trace := Path(folder) / "trace.json"))
        events = json.loads(trace.read_text())["traceEvents"]
    changes = [(each["ts"], each["args"]["Bytes"]) for each in events if each["name"] == "[memory]"]
    total = peak = 0
    for _, change in sorted(changes, key=lambda each: each[0]):
        total += change
        peak = max(peak, total)
    return peak / 1e6


def process_memory(tags: int) -> float:
    """Peak resident set of this process after one step of SDL, in GB."""
    step(loss, METHODS["sdl"], random_batch(METHODS["sdl"], tags))
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["VmHWM"].split()[0]) * 1024 / 1e9


if __name__ == "__main__":
    main()
