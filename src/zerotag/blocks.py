"""Compute rows in cached blocks, so that interrupted runs resume."""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
from tqdm import tqdm

from zerotag.files import write_aside


def in_blocks(
    count: int, block: int, compute: Callable[[slice], Iterable[np.ndarray]], folder: Path, desc: str, unit: str
) -> Iterator[tuple[slice, np.ndarray]]:
    """Compute rows in blocks, reusing blocks cached in the folder.

    Args:
        count: N, the number of rows.
        block: rows per block.
        compute: yields the rows of a slice of 0 … N, in parts.
        folder: the cache, from `block_folder`; the caller removes it when it is no longer needed.
        desc: label of the progress bar.
        unit: unit of the progress bar.

    Yields:
        The slice and the rows of each block, in order.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tqdm(total=count, desc=desc, unit=unit) as bar:
        for start in range(0, count, block):
            rows = slice(start, min(start + block, count))
            file = folder / f"{start:09d}.npy"
            if file.exists():
                bar.update(rows.stop - rows.start)
            else:
                parts = []
                for part in compute(rows):
                    parts.append(part)
                    bar.update(len(part))
                with write_aside(file) as draft, draft.open("wb") as out:
                    np.save(out, np.concatenate(parts))
            yield rows, np.load(file)


def block_folder(work: Path, key: str) -> Path:
    """Cache folder of the blocks for a key, which identifies everything they depend on."""
    return work / hashlib.sha256(key.encode()).hexdigest()[:16]
