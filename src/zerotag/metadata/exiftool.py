"""Run exiftool, one process for many photos (its -stay_open mode, through pyexiftool)."""

import json
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from zerotag.errors import ZerotagError
from zerotag.files import shown

if TYPE_CHECKING:
    from exiftool import ExifTool

_HERE = Path(__file__).parent
# Without content, for sidecars that do not exist yet.
EMPTY = _HERE / "empty.xmp"
# Files per command when many are read.
_BATCH = 100


class ExiftoolError(ZerotagError):
    """exiftool is not installed, does not start, or has stopped."""


@contextmanager
def open_exiftool() -> Iterator["ExifTool"]:
    """Start exiftool, and stop it at the end of the block.

    Raises:
        ExiftoolError: it is not installed, or too old.
    """
    from exiftool import ExifTool
    from exiftool.exceptions import ExifToolException

    program = shutil.which("exiftool")
    if program is None:
        raise ExiftoolError(
            "Keywords are read and written with exiftool, which is not installed. Install it: "
            "apt install libimage-exiftool-perl, dnf install perl-Image-ExifTool, or brew install exiftool."
        )
    tool = ExifTool(program, common_args=[], config_file=_HERE / "zerotag.config", encoding="utf-8")
    try:
        tool.run()
    except (ExifToolException, OSError, RuntimeError) as error:
        raise ExiftoolError(f"{program} does not start ({error}). Version 12.15 or later is needed.") from error
    try:
        yield tool
    finally:
        if tool.running:
            tool.terminate()


def read_values(tool: "ExifTool", files: Sequence[Path], tags: Iterable[str]) -> dict[Path, dict[str, Any]]:
    """Read metadata of files; numbers remain text, as a keyword 2024.10 is not 2024.1.

    Args:
        tool: a running exiftool.
        files: existing files.
        tags: exiftool's names with their group, such as XMP-dc:Subject.

    Returns:
        For each file that can be read, its values by such names; a list has its items, a structure its fields.
    """
    options = ["-json", "-G1", "-struct", "-n", *(f"-{tag}" for tag in tags)]
    values: dict[Path, dict[str, Any]] = {}
    for start in range(0, len(files), _BATCH):
        batch = files[start : start + _BATCH]
        found = _json(_execute(tool, *options, *(_path(file) for file in batch))[1])
        if len(found) != len(batch):  # some cannot be read: one by one tells which
            found = []
            for file in batch:
                found += _json(_execute(tool, *options, _path(file))[1]) or [{}]
        values |= {file: each for file, each in zip(batch, found, strict=True) if each}
    return values


def write_values(tool: "ExifTool", source: Path, target: Path, changes: Iterable[str]) -> None:
    """Write a changed copy of a file.

    Args:
        tool: a running exiftool.
        source: the file.
        target: the copy, which does not exist yet.
        changes: exiftool's assignments, such as -XMP-dc:Subject+=dog, without line breaks.

    Raises:
        ZerotagError: exiftool refuses; the message says why.
    """
    status, _, errors = _execute(tool, *(change.encode() for change in changes), b"-o", _path(target), _path(source))
    if status or not target.is_file():
        reason = errors.partition("Error: ")[2].partition(" - ")[0] or errors or "no reason given"
        raise ZerotagError(f"{shown(source)}: exiftool cannot write to it: {reason}.")


def _execute(tool: "ExifTool", *arguments: str | bytes) -> tuple[int, bytes, str]:
    """Exit status, output and errors of one command."""
    from exiftool.exceptions import ExifToolException

    try:
        # Bytes, as a file name may have any.
        output = cast(bytes, tool.execute(*arguments, raw_bytes=True))
    except (ExifToolException, OSError) as error:
        raise ExiftoolError(f"exiftool stopped unexpectedly ({error}). Run again.") from error
    return int(tool.last_status or 0), output, os.fsdecode(tool.last_stderr or b"").strip()


def _json(output: bytes) -> list[dict[str, Any]]:
    text = output.decode("utf-8", "replace")
    return json.loads(text, parse_int=str, parse_float=str, parse_constant=str) if text.strip() else []


def _path(file: Path) -> bytes:
    """A file name as exiftool reads it, one a line; absolute, so that it cannot be taken for an option.

    Raises:
        ZerotagError: it has a line break that exiftool cannot read.
    """
    name = str(file.absolute())
    if not set(name) & {"\n", "\r"}:
        return os.fsencode(name)
    if set(name) & {"$", "@"}:  # not in a C string: exiftool 12 and 13 put a backslash before them
        raise ZerotagError(f"{shown(name)}: exiftool cannot read a name with a line break and $ or @. Rename it.")
    return b"#[CSTR]" + os.fsencode(name.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r"))
