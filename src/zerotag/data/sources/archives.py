"""Stream the members of zip, rar and tar archives; only members that the caller selects are written."""

import bz2
import gzip
import lzma
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path, PurePosixPath, PureWindowsPath
from tempfile import SpooledTemporaryFile, gettempdir
from typing import IO, Any

from unrar.cffi.unrarlib import FLAGS_RHDF_DIRECTORY, BadRarFile, RarArchive, RarHeader

from zerotag.errors import ZerotagError

SUFFIXES = (".zip", ".rar", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
_IN_MEMORY = 2**24

_STREAMS: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".tgz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}

# Copies a member's content to a file.
Copy = Callable[[IO[bytes]], None]


def is_archive(path: Path) -> bool:
    """Whether a file has the suffix of an archive."""
    return path.name.lower().endswith(SUFFIXES)


def members(archive: Path, wanted: Callable[[str], bool]) -> Iterator[tuple[str, IO[bytes]]]:
    """Iterate over an archive once.

    Args:
        archive: a .zip, .rar or .tar file; tar may be compressed.
        wanted: selects members by name (with / separators).

    Yields:
        Names and contents of the selected regular files, with checksums verified; read each before the next.

    Raises:
        ZerotagError: an unsupported or corrupt archive, or a member's path outside of the target folder.
    """
    name = archive.name.lower()
    kind = _zip if name.endswith(".zip") else _rar if name.endswith(".rar") else _tar
    try:
        for member, copy_to in kind(archive, wanted):
            with SpooledTemporaryFile(_IN_MEMORY) as content:
                copy_to(content)
                content.seek(0)
                yield member, content
    except (
        OSError,
        EOFError,
        ValueError,
        zlib.error,
        lzma.LZMAError,
        zipfile.BadZipFile,
        tarfile.TarError,
        BadRarFile,
    ) as error:
        raise ZerotagError(
            f"{archive}: cannot be unpacked ({error or type(error).__name__}). Download it again."
        ) from error


def unpack(archive: Path, target: Callable[[str], Path | None]) -> list[Path]:
    """Extract the members for which `target` returns a path; returns the files written.

    Raises:
        ZerotagError: as `members`.
    """
    written = []
    for name, content in members(archive, lambda name: target(name) is not None):
        place = target(name)
        assert place is not None
        place.parent.mkdir(parents=True, exist_ok=True)
        with place.open("wb") as file:
            shutil.copyfileobj(content, file, 2**20)
        written.append(place)
    return written


def _safe(archive: Path, name: str) -> str:
    """The member's name with / separators."""
    plain = name.replace("\\", "/")
    if PurePosixPath(plain).is_absolute() or PureWindowsPath(plain).drive or ".." in PurePosixPath(plain).parts:
        raise ZerotagError(
            f"{archive}: member {name!r} has a path outside of the target folder. Do not trust this archive."
        )
    return plain


def _zip(archive: Path, wanted: Callable[[str], bool]) -> Iterator[tuple[str, Copy]]:
    with zipfile.ZipFile(archive) as file:
        for member in file.infolist():
            name = _safe(archive, member.filename)
            if not member.is_dir() and wanted(name):
                with file.open(member) as content:
                    yield name, partial(shutil.copyfileobj, content)


def _tar(archive: Path, wanted: Callable[[str], bool]) -> Iterator[tuple[str, Copy]]:
    open_stream = _STREAMS.get(archive.suffix.lower(), open)
    # Streamed, as seeking back in a compressed archive is slow.
    with open_stream(archive, "rb") as stream, tarfile.open(fileobj=stream, mode="r|") as file:
        for member in file:
            name = _safe(archive, member.name)
            if member.isfile() and wanted(name):  # skip links, which could point anywhere, and devices
                content = file.extractfile(member)
                assert content is not None
                yield name, partial(shutil.copyfileobj, content)
        while stream.read(2**20):  # the checksum follows the last member
            pass


def _rar(archive: Path, wanted: Callable[[str], bool]) -> Iterator[tuple[str, Copy]]:
    # Not the package's RarFile, which reads the archive again for each member.
    with RarArchive.open_for_processing(str(archive)) as file:
        for header in file.iterate_headers():
            name = _safe(archive, header.FileNameW)
            if header.Flags & FLAGS_RHDF_DIRECTORY or not wanted(name):
                header.skip()
            else:
                yield name, partial(_unrar, header)


def _unrar(header: RarHeader, target: IO[bytes]) -> None:
    header.test(target.write)
    # The library's C code swallows errors of `write`.
    if target.tell() != header.UnpSize + (header.UnpSizeHigh << 32):
        raise OSError(f"{header.FileNameW} could not be written: is the disk of {gettempdir()} full?")
