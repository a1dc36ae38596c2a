"""Downloaded photos in tar files of about a thousand each, with a journal of the outcome for every photo.

DVC and file systems handle hundreds of thousands of small files badly. A photo is stored once its line is in the
journal, which is written after the photo's bytes: a process killed at any time loses only the downloads in
flight.
"""

import hashlib
import io
import json
import os
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

_TAR_BYTES = 2**28
_SIDE = 512  # bytes of a tar block


@dataclass(frozen=True)
class Record:
    """The outcome of a photo's download.

    Attributes:
        id: the photo's id.
        file: the tar that holds it; empty if missing.
        offset, size: byte range in the tar.
        sha256: of the bytes.
        url: its source, or the last URL tried.
        problem: why it is missing, or empty.
        final: whether a retry is pointless.
    """

    id: str
    file: str = ""
    offset: int = 0
    size: int = 0
    sha256: str = ""
    url: str = ""
    problem: str = ""
    final: bool = True


@dataclass
class PhotoStore:
    """An open folder of photos; see `open_store`."""

    folder: Path
    records: dict[str, Record]
    journal: IO[str]
    tar: tarfile.TarFile | None = None

    def add(self, ids: list[str], data: bytes, url: str) -> None:
        """Store a photo under its ids."""
        if self.tar is None or self.tar.offset > _TAR_BYTES:
            self._next_tar()
        assert self.tar is not None and self.tar.name is not None
        member = tarfile.TarInfo(ids[0])
        member.size = len(data)
        self.tar.addfile(member, io.BytesIO(data))
        self.tar.fileobj.flush()  # type: ignore[union-attr, attr-defined]
        start = self.tar.offset - -(-len(data) // _SIDE) * _SIDE
        place = (Path(os.fsdecode(self.tar.name)).name, start, len(data), hashlib.sha256(data).hexdigest())
        self._write([Record(name, *place, url) for name in ids])

    def lose(self, ids: list[str], url: str, problem: str, final: bool) -> None:
        """Record why a photo is missing."""
        self._write([Record(name, url=url, problem=problem, final=final) for name in ids])

    def _write(self, records: list[Record]) -> None:
        self.journal.write("".join(json.dumps(asdict(record)) + "\n" for record in records))
        self.journal.flush()
        self.records.update((record.id, record) for record in records)

    def _next_tar(self) -> None:
        if self.tar is not None:
            self.tar.close()
        numbers = [int(path.stem) for path in self.folder.glob("*.tar")]
        name = self.folder / f"{max(numbers, default=-1) + 1:05d}.tar"
        self.tar = tarfile.TarFile(name, "x", format=tarfile.PAX_FORMAT)


@contextmanager
def open_store(folder: Path) -> Iterator[PhotoStore]:
    """Open a folder for adding photos; repair it after a killed process."""
    folder.mkdir(parents=True, exist_ok=True)
    records = read_records(folder)
    _end_line(folder / "journal.jsonl")
    with (folder / "journal.jsonl").open("a", encoding="utf-8") as journal:
        store = PhotoStore(folder, records, journal)
        # After a power loss the journal may have a line whose bytes were not written.
        sizes = {path.name: path.stat().st_size for path in folder.glob("*.tar")}
        for record in list(records.values()):
            if record.file and record.offset + record.size > sizes.get(record.file, 0):
                store.lose([record.id], record.url, "its bytes were lost", False)
        _repair(folder, records)
        try:
            yield store
        finally:
            if store.tar is not None:
                store.tar.close()


def read_records(folder: Path) -> dict[str, Record]:
    """The last journal entry of each photo; empty without a journal."""
    journal = folder / "journal.jsonl"
    records = {}
    for line in journal.read_text(encoding="utf-8").splitlines() if journal.is_file() else []:
        try:
            record = Record(**json.loads(line))
        except (ValueError, TypeError):
            continue  # truncated when its process was killed
        records[record.id] = record
    return records


def _end_line(journal: Path) -> None:
    """Terminate a truncated last line, so that the next one is separate."""
    if journal.is_file() and journal.read_bytes()[-1:] not in (b"", b"\n"):
        with journal.open("a", encoding="utf-8") as file:
            file.write("\n")


def _repair(folder: Path, records: dict[str, Record]) -> None:
    """Truncate bytes without a record from the ends of the tars, and write their end-of-archive blocks."""
    ends: dict[str, int] = {}
    for record in records.values():
        if not record.file:
            continue
        end = record.offset + -(-record.size // _SIDE) * _SIDE
        ends[record.file] = max(end, ends.get(record.file, 0))
    for path in folder.glob("*.tar"):
        end = ends.get(path.name, 0)
        if not end:
            path.unlink()
        elif not _ended(path, end):
            with path.open("r+b") as file:
                file.truncate(end)
                file.seek(0, os.SEEK_END)
                file.write(bytes(-file.tell() % tarfile.RECORDSIZE or tarfile.RECORDSIZE))


def _ended(path: Path, end: int) -> bool:
    """Whether only the end-of-archive zeros follow."""
    with path.open("rb") as file:
        file.seek(end)
        rest = file.read(4 * tarfile.RECORDSIZE)
    return len(rest) >= 2 * _SIDE and not rest.strip(b"\0")
