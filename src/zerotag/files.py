"""Write aside, then rename: an output is whole or it is not there."""

import errno
import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from zerotag.errors import ZerotagError

# Less free than this, in bytes, and a write that fell short did so for want of space.
_FULL = 2**20


@contextmanager
def write_aside(target: Path) -> Iterator[Path]:
    """Yield a draft path beside `target`; rename it to `target` when the block ends well.

    The block may make the draft a file or a folder. When the block raises, the draft is removed and
    whatever stood at `target` before stays as it was.

    Raises:
        ZerotagError: the disk is full (named with the path that could not be written).
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = target.with_name(f".{target.name}.{uuid4().hex[:8]}.draft")
    try:
        yield draft
        _replace(draft, target)
    except (OSError, RuntimeError) as error:
        if _disk_is_full(error, target.parent):
            raise ZerotagError(
                f"{target}: the disk is full, nothing was written. Free some space and run again."
            ) from error
        raise
    finally:
        _remove(draft)


@contextmanager
def hold(file: Path, name: str) -> Iterator[None]:
    """Hold a lock file. The lock is the kernel's: it ends with the process, however that ends.

    Args:
        file: the lock.
        name: of the holder, for the others' message.

    Raises:
        ZerotagError: another process holds it.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a+", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            holder = lock.read().strip() or "another process"
            raise ZerotagError(f"{holder} is at work here ({file.resolve()}): try again when it is done.") from None
        lock.truncate(0)
        lock.write(f"{name} (process {os.getpid()})")
        lock.flush()
        yield


def _disk_is_full(error: OSError | RuntimeError, folder: Path) -> bool:
    if isinstance(error, OSError) and error.errno:
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    # numpy and torch say only that a write fell short. The draft is still there, so the disk is still full.
    return shutil.disk_usage(folder).free < _FULL


def _replace(draft: Path, target: Path) -> None:
    if target.is_dir() and not target.is_symlink():
        # A folder cannot be renamed over a folder that holds something: move the old one out first.
        old = target.with_name(f".{target.name}.{uuid4().hex[:8]}.old")
        target.replace(old)
        try:
            draft.replace(target)
        except BaseException:
            old.replace(target)
            raise
        shutil.rmtree(old)
    else:
        draft.replace(target)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
