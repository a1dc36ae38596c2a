"""What the stages prepare, features and evaluate do on a cluster; all nodes see the checkout, at the same path."""

from collections.abc import Callable, Generator, Iterator, Sequence, Sized
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd

from zerotag.cluster.shards import Outcome, Report, Shard, ShardReport, follow, need_all, progress
from zerotag.cluster.spread import Done, Spread, in_order
from zerotag.data.prepare import Shard as DataShard

Result = TypeVar("Result", bound=Sized)
# Photos of a part of the evaluation; a multiple of the batch is taken.
_PART = 1000


def make_shards(
    spread: Spread, make: Callable[..., pd.DataFrame], shards: Sequence[DataShard]
) -> Generator[pd.DataFrame, None, None]:
    """Make shards of a dataset, and yield their tables in order; see `zerotag.data.prepare.prepare`.

    Raises:
        ZerotagError: it raised one.
    """
    with progress("prepare", sum(len(ids) for _, ids, _ in shards)) as report:
        done = spread(partial(_with_parts, make), shards, folder=Path.cwd())
        yield from in_order(_told(done, len(shards), report, _problems))


def _problems(table: pd.DataFrame) -> dict[str, str]:
    bad = table[table["problem"] != ""]
    return dict(zip(bad["id"], bad["problem"], strict=True))


def _with_parts(make: Callable[..., Result]) -> Callable[[tuple[Any, ...]], Result]:
    import torch

    torch.set_num_threads(1)
    return lambda item: make(*item)


def _threads() -> int:
    """Threads of torch on this machine: with another number of them, its sums differ in the last bits."""
    import torch

    return torch.get_num_threads()


def compute_blocks(spread: Spread, gpu: bool, job: Any, blocks: list[slice]) -> None:
    """Compute blocks of features into the job's folder; see `zerotag.training.features.compute_features`.

    Raises:
        ZerotagError: a block failed.
    """
    shards = [Shard(number, str(rows.start), []) for number, rows in enumerate(blocks)]
    threads = _threads() if not job.exported.is_file() else 1
    done = spread(partial(_block_maker, gpu, threads, job), blocks, folder=Path.cwd(), gpu=gpu, cores=threads)
    with progress("features", sum(rows.stop - rows.start for rows in blocks)) as report:
        need_all(follow(done, shards, len(shards), report), len(shards))


def _block_maker(gpu: bool, threads: int, job: Any) -> Callable[[slice], Outcome]:
    import torch

    from zerotag.blocks import block_file, write_block
    from zerotag.data.dataset import Dataset
    from zerotag.runtime import Runtime
    from zerotag.training.features import block_computer

    torch.set_num_threads(threads)
    device = torch.device("cuda" if gpu else "cpu")
    job.network.to(device)
    runtime = Runtime(job.exported, threads=1) if job.exported.is_file() else None
    compute = block_computer(job, Dataset.read(job.root), device, runtime, threads=0 if gpu else 1)

    def work(rows: slice) -> Outcome:
        if not block_file(job.folder, rows).exists():
            write_block(job.folder, rows, compute)
        return Outcome(rows.stop - rows.start, {})

    return work


def principal_vectors_of(
    spread: Spread, folder: Path, root: Path, batch: int, gpu: bool, rows: np.ndarray
) -> np.ndarray:
    """Principal vectors (n, M, d) of photos; see `zerotag.evaluation.evaluate.principal_vectors`.

    Args:
        spread: of a cluster.
        folder: of the trained model.
        root: of the dataset.
        batch: batch size.
        gpu: whether the network runs on GPUs.
        rows: (n,) row numbers.

    Raises:
        ZerotagError: the model or a photo cannot be read.
    """
    part = -(-_PART // batch) * batch
    parts = [rows[start : start + part] for start in range(0, rows.size, part)]
    with progress("evaluate", rows.size) as report:
        threads = _threads()
        make = partial(_scorer, folder, root, batch, gpu, threads)
        done = spread(make, parts, folder=Path.cwd(), gpu=gpu, cores=threads)
        found = list(in_order(_told(done, len(parts), report)))
    return np.concatenate(found)


def _told(
    done: Iterator[Done[Result]], parts: int, report: Report, failed: Callable[[Result], dict[str, str]] = lambda _: {}
) -> Iterator[Done[Result]]:
    """Report parts as they are done; a result is as long as its part has photos, some of which may have failed."""
    for each in done:
        photos, why = (0, {}) if each.result is None else (len(each.result), failed(each.result))
        report(ShardReport(each.number, parts, photos, why, each.error, each.seconds, each.node))
        yield each


def _scorer(folder: Path, root: Path, batch: int, gpu: bool, threads: int) -> Callable[[np.ndarray], np.ndarray]:
    import torch

    from zerotag.data.dataset import Dataset
    from zerotag.evaluation.evaluate import principal_vectors
    from zerotag.training.model import load_model

    torch.set_num_threads(threads)
    device = torch.device("cuda" if gpu else "cpu")
    model, dataset = load_model(folder), Dataset.read(root)
    return lambda rows: principal_vectors(model, dataset, rows, device, batch, None)
