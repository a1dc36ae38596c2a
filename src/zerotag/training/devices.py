"""Which GPU a run takes where several runs share a machine."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import torch

from zerotag.errors import ZerotagError
from zerotag.files import hold


def runs_at_once(launcher: str) -> int:
    """How many models train at once: one a GPU, one on a CPU, and one where torchrun takes all GPUs for it."""
    return max(1, torch.cuda.device_count()) if launcher == "python" else 1


@contextmanager
def one_gpu(locks: Path, gpus: int) -> Iterator[dict[str, str]]:
    """Take a GPU that no other run has; yields the variables that leave a run this one.

    Args:
        locks: a folder of lock files, one a GPU.
        gpus: how many there are to choose from; below 2 there is nothing to choose, and no variable.
    """
    with ExitStack() as held:
        for number in range(gpus if gpus > 1 else 0):
            try:
                held.enter_context(hold(locks / f"gpu-{number}.lock", "a training"))
            except ZerotagError:
                continue
            yield {"CUDA_VISIBLE_DEVICES": str(number)}
            return
        yield {}
