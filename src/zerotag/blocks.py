"""Rows computed in blocks that survive an interruption."""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
from tqdm import tqdm

from zerotag.files import write_aside


def in_blocks(
    count: int, block: int, compute: Callable[[slice], Iterable[np.ndarray]], folder: Path, desc: str, unit: str
) -> Iterator[tuple[slice, np.ndarray]]:
    """Compute rows in blocks; a block that the folder has is not computed again.

    Args:
        count: N, how many rows there are.
        block: rows of a block.
        compute: rows of a slice of 0 … N, in parts.
        folder: keeps the blocks, from `block_folder`; whoever does not want them any longer removes it.
        desc: what the progress bar says.
        unit: of a row.

    Yields:
        The slice of a block and its rows, in order.
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
    """Where blocks lie that depend on all that the key names: those of another key are elsewhere."""
    return work / hashlib.sha256(key.encode()).hexdigest()[:16]
