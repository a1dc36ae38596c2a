"""Decode ahead: threads decode the next photos while the network is busy with the last ones."""

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from typing import Generic, TypeVar

from zerotag.errors import ZerotagError

Item = TypeVar("Item")
Pixels = TypeVar("Pixels")


@dataclass
class Batch(Generic[Item, Pixels]):
    """Consecutive photos.

    Attributes:
        items: those that were decoded, in order.
        pixels: what decoding made of each of them.
        failed: those that could not be decoded, each with the reason.
    """

    items: list[Item] = field(default_factory=list)
    pixels: list[Pixels] = field(default_factory=list)
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
    threads = threads or cores()
    source = iter(items)
    with ThreadPoolExecutor(threads, thread_name_prefix="decode") as pool:
        waiting = deque((item, pool.submit(decode, item)) for item in islice(source, batch + threads))
        try:
            while waiting:
                done: Batch[Item, Pixels] = Batch()
                while waiting and len(done) < batch:
                    item, future = waiting.popleft()
                    # One in for one out: the threads have work while this batch is gathered and while it is used.
                    waiting.extend((following, pool.submit(decode, following)) for following in islice(source, 1))
                    try:
                        pixels = future.result()
                    except (ZerotagError, OSError, MemoryError) as error:
                        done.failed.append((item, str(error) or type(error).__name__))
                    else:
                        done.items.append(item)
                        done.pixels.append(pixels)
                yield done
        finally:
            for _, future in waiting:
                future.cancel()


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
