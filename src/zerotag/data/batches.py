"""Photos in threads, ahead of who uses them: decoded (`pixel_batches`), or also run through a network on CPUs
(`network_batches`).
"""

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from typing import Generic, TypeVar

from zerotag.errors import ZerotagError

Item = TypeVar("Item")
Pixels = TypeVar("Pixels")
Result = TypeVar("Result")


@dataclass
class Batch(Generic[Item, Result]):
    """Consecutive photos.

    Attributes:
        items: those that were decoded, in order.
        results: what became of each of them.
        failed: those that could not be decoded, each with the reason.
    """

    items: list[Item] = field(default_factory=list)
    results: list[Result] = field(default_factory=list)
    failed: list[tuple[Item, str]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.items) + len(self.failed)


def pixel_batches(
    items: Iterable[Item], decode: Callable[[Item], Pixels], batch: int, threads: int = 0
) -> Generator[Batch[Item, Pixels], None, None]:
    """Decode photos in threads and yield them in order, in batches.

    While the caller works on a batch, the next one is decoded, and no more than that: memory is bounded by two batches
    of pixels and by one photo per thread in full.

    Args:
        items: the photos, in any form that `decode` takes.
        decode: reads and decodes a photo. A ZerotagError, OSError or MemoryError fails this photo alone.
        batch: photos per batch, decoded or failed.
        threads: 0 for one per core. Pillow and file access release the interpreter's lock.
    """
    return _ahead(items, lambda group: _decoded(group, decode), 1, batch, threads)


def network_batches(
    items: Iterable[Item],
    decode: Callable[[Item], Pixels],
    network: Callable[[list[Pixels]], Sequence[Result]],
    batch: int,
    at_once: int,
    threads: int = 0,
) -> Generator[Batch[Item, Result], None, None]:
    """Decode photos and run a network on them in threads, and yield the results in order, in batches.

    Each thread does both for a few photos at a time. So no core waits for another, as the threads of a network that
    share a batch do at every layer.

    Args:
        items: the photos, in any form that `decode` takes.
        decode: as for `pixel_batches`.
        network: from a list of decoded photos to as many results; called by several threads at once, so it should use
            one thread itself. Its errors are raised.
        batch: photos per batch of results.
        at_once: photos that the network is given at a time.
        threads: 0 for one per core.
    """

    def work(group: list[Item]) -> Batch[Item, Result]:
        decoded = _decoded(group, decode)
        results = list(network(decoded.results)) if decoded.items else []
        return Batch(decoded.items, results, decoded.failed)

    return _ahead(items, work, at_once, batch, threads)


def _decoded(group: list[Item], decode: Callable[[Item], Pixels]) -> Batch[Item, Pixels]:
    done: Batch[Item, Pixels] = Batch()
    for item in group:
        try:
            pixels = decode(item)
        except (ZerotagError, OSError, MemoryError) as error:
            done.failed.append((item, str(error) or type(error).__name__))
        else:
            done.items.append(item)
            done.results.append(pixels)
    return done


def _ahead(
    items: Iterable[Item], work: Callable[[list[Item]], Batch[Item, Result]], at_once: int, batch: int, threads: int
) -> Generator[Batch[Item, Result], None, None]:
    """Work on groups of items in threads, no more than a batch ahead."""
    threads = threads or cores()
    source = iter(items)
    at_once = min(at_once, batch)
    groups = iter(lambda: list(islice(source, at_once)), [])
    with ThreadPoolExecutor(threads, thread_name_prefix="photos") as pool:
        waiting = deque(pool.submit(work, group) for group in islice(groups, -(-batch // at_once) + threads))
        try:
            while waiting:
                done: Batch[Item, Result] = Batch()
                while waiting and len(done) < batch:
                    future = waiting.popleft()
                    # One in for one out: the threads have work while this batch is gathered and while it is used.
                    waiting.extend(pool.submit(work, following) for following in islice(groups, 1))
                    part = future.result()
                    done.items += part.items
                    done.results += part.results
                    done.failed += part.failed
                yield done
        finally:
            for future in waiting:
                future.cancel()


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
