"""Loss compared with a loop over photos, forward and backward: python -m benchmarks.loss [--repeats 30].

The batch size is the paper's: 64 photos with 5 tags each, 925 tags, 7 principal vectors, 300 dimensions. The baseline
implements the formulas photo by photo, without a loop over tags. Its scores come from one matrix product for the whole
batch, so that only the loss is compared.
"""

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable

import torch

from zerotag.training.methods import METHODS, Method, loss

PHOTOS, TAGS_OF_A_PHOTO, TAGS, VECTORS, DIMENSIONS = 64, 5, 925, 7, 300
TARGET = 3.0

Loss = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, Method], torch.Tensor]


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    arguments.add_argument("--repeats", type=int, default=30)
    repeats = arguments.parse_args().repeats
    print(
        f"\n{PHOTOS} photos x {TAGS_OF_A_PHOTO} tags, {TAGS} tags, M = {VECTORS}, d = {DIMENSIONS}, forward and "
        f"backward; median of {repeats}\ntorch {torch.__version__}, {torch.get_num_threads()} threads, "
        f"{os.cpu_count()} cores, {platform.machine()}\n"
    )
    print("| method | loop, ms | zerotag, ms | ratio | largest difference of a gradient |")
    print("|---|---|---|---|---|")
    met = True
    for name, chosen in METHODS.items():
        batch = random_batch(chosen)
        difference = compare(chosen, *batch)
        slow, fast = race([loop_loss, loss], chosen, batch, repeats)
        print(f"| {name} | {1e3 * slow:.1f} | {1e3 * fast:.1f} | {slow / fast:.1f} | {difference:.1e} |")
        met = met and (name != "sdl" or slow / fast >= TARGET)
    print(f"\nTarget: SDL at least {TARGET:.0f} times faster than the loop: {'met' if met else 'NOT MET'}.")
    raise SystemExit(not met)


def random_batch(chosen: Method) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(0)
    principal = torch.randn(PHOTOS, chosen.principal_vectors, DIMENSIONS, generator=random)
    order = torch.rand(PHOTOS, TAGS, generator=random).argsort(dim=1)
    labels = torch.zeros(PHOTOS, TAGS, dtype=torch.bool).scatter(1, order[:, :TAGS_OF_A_PHOTO], True)
    vectors = torch.nn.functional.normalize(torch.randn(TAGS, DIMENSIONS, generator=random), dim=1)
    return principal, labels, vectors


def loop_loss(principal: torch.Tensor, labels: torch.Tensor, vectors: torch.Tensor, chosen: Method) -> torch.Tensor:
    """Baseline: the formulas, photo by photo, with scores from one matrix product."""
    scores = (principal @ vectors.T).amax(dim=1)
    total = principal.new_zeros(())
    for matrix, row, wanted in zip(principal, scores, labels, strict=True):
        if not wanted.any():
            continue
        positives, negatives = row[wanted], row[~wanted]
        pairs = torch.nn.functional.softplus(negatives[None, :] - positives[:, None])
        rank = pairs.sum() / len(positives)
        if chosen.per_negative:
            rank = rank / len(negatives)
        if chosen.diversity_weight and len(positives) > 1:
            rank = rank * (1 + vectors[wanted].var(dim=0).sum())
        value = (1 - chosen.regularisation) * rank
        if chosen.regularisation and chosen.principal_vectors > 1:
            value = value + chosen.regularisation * matrix.var(dim=0).sum()
        total = total + 2 * value
    return total / len(principal)


def step(function: Loss, chosen: Method, batch: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    principal, labels, vectors = batch
    leaf = principal.clone().requires_grad_()
    value = function(leaf, labels, vectors, chosen)
    value.backward()
    assert leaf.grad is not None
    return value.detach(), leaf.grad


def compare(chosen: Method, *batch: torch.Tensor) -> float:
    """Check that values and gradients agree, and return the largest difference of a gradient."""
    (slow, slow_gradient), (fast, fast_gradient) = (step(function, chosen, batch) for function in (loop_loss, loss))
    torch.testing.assert_close(fast, slow, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(fast_gradient, slow_gradient, rtol=1e-5, atol=1e-5)
    return float((fast_gradient - slow_gradient).abs().max())


def race(functions: list[Loss], chosen: Method, batch: tuple[torch.Tensor, ...], repeats: int) -> list[float]:
    """Median time of each function in seconds, interleaved so that background load affects all equally."""
    times: list[list[float]] = [[] for _ in functions]
    for repeat in range(repeats + 3):
        for place, function in enumerate(functions):
            started = time.perf_counter()
            step(function, chosen, batch)
            if repeat >= 3:  # skip warm-up
                times[place].append(time.perf_counter() - started)
    return [statistics.median(taken) for taken in times]


if __name__ == "__main__":
    main()
