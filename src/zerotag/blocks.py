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
    with tqdm(total=count, desc=desc, unit=unit) as bar:
        for rows in _blocks(count, block):
            file = block_file(folder, rows)
            if file.exists():
                bar.update(rows.stop - rows.start)
            else:
                write_block(folder, rows, compute, bar.update)
            yield rows, np.load(file)


def missing_blocks(count: int, block: int, folder: Path) -> list[slice]:
    """The blocks that the folder does not have; arguments as for `in_blocks`."""
    return [rows for rows in _blocks(count, block) if not block_file(folder, rows).exists()]


def write_block(
    folder: Path,
    rows: slice,
    compute: Callable[[slice], Iterable[np.ndarray]],
    report: Callable[[int], object] = lambda rows: None,
) -> None:
    """Compute a block into the folder; `report` is called with the number of rows of each part."""
    parts = []
    for part in compute(rows):
        parts.append(part)
        report(len(part))
    with write_aside(block_file(folder, rows)) as draft, draft.open("wb") as out:
        np.save(out, np.concatenate(parts))


def block_file(folder: Path, rows: slice) -> Path:
    """The file of a block."""
    return folder / f"{rows.start:09d}.npy"


def _blocks(count: int, block: int) -> Iterator[slice]:
    return (slice(start, min(start + block, count)) for start in range(0, count, block))


def block_folder(work: Path, key: str) -> Path:
    """Cache folder of the blocks for a key, which identifies everything they depend on."""
    return work / hashlib.sha256(key.encode()).hexdigest()[:16]
