"""File names as text, and atomic writes: an output is complete or absent."""

import errno
import fcntl
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from zerotag.errors import ZerotagError

# Control characters, which would break a line or a terminal, and the separators that Unicode counts as line ends.
_CONTROLS = {
    code: "".join(f"\\x{byte:02x}" for byte in chr(code).encode())
    for code in (*range(32), *range(127, 160), 0x2028, 0x2029)
}

# With less free space than this, in bytes, a failed write is attributed to a full disk.
_FULL = 2**20


def shown(path: str | Path) -> str:
    """A path as text that can be printed and stored: valid UTF-8 in one line, with other bytes as in `caf\\xe9.jpg`."""
    return os.fsencode(path).decode("utf-8", "backslashreplace").translate(_CONTROLS)


def hidden_bytes(text: str) -> str:
    """The path of which `shown` made this text, if it had bytes to escape."""
    return os.fsdecode(re.sub(rb"\\x([0-9a-f]{2})", lambda found: bytes.fromhex(found[1].decode()), text.encode()))


@contextmanager
def write_aside(target: Path) -> Iterator[Path]:
    """Yield a draft path beside `target`, and rename it to `target` when the block succeeds.

    The draft may be a file or a folder. If the block raises, the draft is removed and `target` is unchanged.

    Raises:
        ZerotagError: the disk is full; the message names the path.
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
def hold(file: Path, name: str, wait: bool = False) -> Iterator[None]:
    """Hold a lock file. The kernel releases the lock when the process ends, however it ends.

    Args:
        file: the lock file.
        name: of the holder, for the message of other processes.
        wait: until another process releases it, rather than raising an error.

    Raises:
        ZerotagError: another process holds it.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a+", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            lock.seek(0)
            holder = lock.read().strip() or "another process"
            raise ZerotagError(f"{holder} is running here ({file.resolve()}): retry when it has finished.") from None
        lock.truncate(0)
        lock.write(f"{name} (process {os.getpid()})")
        lock.flush()
        yield


def _disk_is_full(error: OSError | RuntimeError, folder: Path) -> bool:
    if isinstance(error, OSError) and error.errno:
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    # numpy and torch only report a short write. The draft still exists, so the disk is still full.
    return shutil.disk_usage(folder).free < _FULL


def _replace(draft: Path, target: Path) -> None:
    if target.is_dir() and not target.is_symlink():
        # A folder cannot replace a non-empty folder: move the old one away first.
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
