"""Assign GPUs to concurrent training runs on a machine."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from zerotag.errors import ZerotagError
from zerotag.files import hold


def count_gpus() -> int:
    """Number of GPUs."""
    import torch  # slow to import

    return torch.cuda.device_count()


def runs_at_once(launcher: str) -> int:
    """Number of concurrent trainings: one per GPU, one on a CPU, and one if torchrun uses all GPUs."""
    return max(1, count_gpus()) if launcher == "python" else 1


@contextmanager
def one_gpu(locks: Path, gpus: int) -> Iterator[dict[str, str]]:
    """Reserve a free GPU; yields the environment variables that restrict a run to it.

    Args:
        locks: a folder of lock files, one per GPU.
        gpus: number of GPUs; with fewer than 2 it yields no variables.
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
