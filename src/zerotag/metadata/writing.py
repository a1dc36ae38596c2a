"""Give tags to photos, in sidecars or in the photos themselves, and take them out again.

A person's keywords are never changed. A sidecar also repeats the keywords that are in the photo: most programs read
a field from one place only, so a sidecar with zerotag's tags alone would hide them.
"""

import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from zerotag.data.photos import RAW_SUFFIXES
from zerotag.errors import ZerotagError
from zerotag.files import shown, write_aside
from zerotag.metadata import SidecarName, Write
from zerotag.metadata.exiftool import EMPTY, open_exiftool, read_values, write_values
from zerotag.metadata.keywords import (
    FIELDS,
    HIERARCHY,
    SUBJECT,
    TAGS,
    TOOLKIT,
    Field,
    GivenTag,
    Keywords,
    Path_,
    read_keywords,
    sidecars,
)
from zerotag.metadata.tables import open_tables

if TYPE_CHECKING:
    from exiftool import ExifTool

# The next run removes the draft of a killed one, when after so many seconds nobody can be writing it.
_ABANDONED = 600
_DRAFT = re.compile(r"\..+\.[0-9a-f]{8}\.draft")


@dataclass(frozen=True)
class Change:
    """What a run changes, or would change, in one file.

    Attributes:
        file: a sidecar, a photo or a table.
        added: tags that zerotag gives.
        removed: tags that it gave before and does not give now.
        kept: tags it would give, which a person has given already.
    """

    file: Path
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()

    def __str__(self) -> str:
        parts = [*(f"+{tag}" for tag in self.added), *(f"-{tag}" for tag in self.removed)]
        theirs = f" (there already: {', '.join(self.kept)})" if self.kept else ""
        return f"{shown(self.file)}: {', '.join(parts) or 'no change'}{theirs}"


# Gives tags to a photo in place of those that zerotag gave before.
Save = Callable[[Path, Sequence[GivenTag]], Change | None]


@contextmanager
def open_writer(
    write: Write, model: str, sidecar_name: SidecarName = "photo.jpg.xmp", dry_run: bool = False
) -> Iterator[Save]:
    """Yield a function that gives tags to a photo and returns what changed.

    Args:
        write: where the tags go; `off`: nowhere.
        model: name of the model, for the record.
        sidecar_name: the naming convention.
        dry_run: return what would change, and change nothing.

    Raises:
        ZerotagError: exiftool is not installed. The function raises it if a file cannot be written, or if two photos
            share a sidecar.
    """
    now = datetime.now(UTC).isoformat(timespec="seconds")

    def stamped(given: Sequence[GivenTag]) -> list[GivenTag]:
        return [replace(each, probability=round(each.probability, 4), model=model, date=now) for each in given]

    if write == "off":
        yield lambda photo, given: None
        return
    if write == "csv":
        with open_tables(dry_run) as save_line:
            yield lambda photo, given: Change(*save_line(photo, stamped(given)))
        return
    owners: dict[Path, Path] = {}
    with open_exiftool() as tool:

        def save(photo: Path, given: Sequence[GivenTag]) -> Change:
            if write == "embed" and photo.suffix.lower() in RAW_SUFFIXES:
                raise ZerotagError(f"{shown(photo)}: tags are not written into raw files. Use --write sidecar.")
            target = photo if write == "embed" else _sidecar(photo, sidecar_name)
            if (owner := owners.setdefault(target, photo)) != photo:
                raise ZerotagError(
                    f"{shown(photo)}: shares the sidecar {shown(target.name)} with {shown(owner.name)}. "
                    "Use --sidecar-name photo.jpg.xmp."
                )
            return _give(tool, photo, target, stamped(given), dry_run)

        yield save


@contextmanager
def open_untagger(dry_run: bool = False) -> Iterator[Callable[[Path], list[Change]]]:
    """Yield a function that takes zerotag's tags out of a photo, its sidecars and its table.

    It returns what changed, for each file with tags of zerotag's; a sidecar with nothing else in it is removed.

    Args:
        dry_run: change nothing.

    Raises:
        ZerotagError: exiftool is not installed. The function raises it if a file cannot be written.
    """
    with open_tables(dry_run) as save_line, open_exiftool() as tool:

        def untag(photo: Path) -> list[Change]:
            changes = []
            files = [photo, *(file for file in sidecars(photo) if file.is_file())]
            for file, keywords in read_keywords(tool, files).items():
                if keywords.has_record:
                    changes.append(Change(file, removed=tuple(each.tag for each in keywords.tags)))
                    if not dry_run:
                        _write(tool, file, keywords, {each: [] for each in FIELDS}, [], embed=file == photo)
            table, _, removed = save_line(photo, [])
            return [*changes, Change(table, removed=removed)] if removed else changes

        yield untag


def _sidecar(photo: Path, name: SidecarName) -> Path:
    long, short = sidecars(photo)
    return long if name == "photo.jpg.xmp" else short


def _give(tool: "ExifTool", photo: Path, target: Path, given: Sequence[GivenTag], dry_run: bool) -> Change:
    files = [file for file in (photo, *sidecars(photo)) if file.is_file()]
    found = read_keywords(tool, files)
    there = found.get(target, Keywords())
    # Of a photo whose tags are embedded, a sidecar's keywords are left in the sidecar.
    places = [there] if target == photo else list(found.values())
    persons = list(dict.fromkeys(path for place in places for path in place.paths))
    theirs = {part.casefold() for path in persons for part in path}
    new = [each for each in given if each.tag.casefold() not in theirs]
    hierarchy = any(len(each.path) > 1 for each in new) or any(place.persons(HIERARCHY) for place in places)
    wanted = {
        each: _values(each, there, [*persons, *(tag.path or (tag.tag,) for tag in new)])
        if each != HIERARCHY or hierarchy
        else []
        for each in FIELDS
    }
    before, after = [each.tag for each in there.tags], [each.tag for each in new]
    change = Change(
        target,
        tuple(tag for tag in after if tag not in before),
        tuple(tag for tag in before if tag not in after),
        tuple(each.tag for each in given if each not in new),
    )
    same = wanted == there.own and [(each.tag, each.probability, each.model) for each in new] == [
        (each.tag, each.probability, each.model) for each in there.tags
    ]
    if not (dry_run or same or not (new or there.has_record)):
        _write(tool, target, there, wanted, new, embed=target == photo)
    return change


def _values(where: Field, there: Keywords, paths: Sequence[Path_]) -> list[str]:
    """What zerotag has to add to a field so that it has all of the paths."""
    texts = [path[-1] if where == SUBJECT else _joined(where.separator, path) for path in paths]
    present = set(there.persons(where))
    # A line break would end exiftool's argument; such a keyword stays where it is.
    return [text for text in dict.fromkeys(texts) if text not in present and text.isprintable()]


def _joined(separator: str, path: Path_) -> str:
    # Neither program can have its own separator in a name.
    other = {"/": "|", "|": "/"}[separator]
    return separator.join(part.replace(separator, other) for part in path)


def _write(
    tool: "ExifTool",
    target: Path,
    there: Keywords,
    wanted: dict[Field, list[str]],
    tags: Sequence[GivenTag],
    embed: bool,
) -> None:
    """Write a file anew with other tags of zerotag's, under its name when it is complete.

    Args:
        tool: a running exiftool.
        target: a photo, or a sidecar that may not exist yet.
        there: what is in it.
        wanted: what zerotag adds to each field.
        tags: the record.
        embed: whether it is a photo; its times are kept.
    """
    changes = []
    for each, values in wanted.items():
        gone = [value for value in there.own[each] if value not in values]
        changes += [f"-{each.name}-={value}" for value in gone]
        changes += [f"-{each.name}+={value}" for value in values if value not in there.fields[each]]
        changes += [f"-{each.record}={value}" for value in values or [""]]
    changes += [f"-{TAGS}={_structure(each)}" for each in tags] or [f"-{TAGS}="]
    if there.toolkit and not there.toolkit.startswith("Image::ExifTool"):
        changes.append(f"-{TOOLKIT}={there.toolkit}")
    target = target.resolve()  # a link stays a link
    _check_writable(target)
    _remove_abandoned(target.parent)
    with write_aside(target) as draft:
        write_values(tool, target if embed or target.exists() else EMPTY, draft, changes)
        empty = not embed and not tags and not _has_content(tool, draft)
        if target.exists():
            _copy_attributes(target, draft, times=embed)
        with draft.open("rb") as written:
            os.fsync(written.fileno())  # before the rename: a power failure leaves the old file or the new one
    if empty:
        target.unlink()


def _structure(tag: GivenTag) -> str:
    fields = {"Tag": tag.tag, "Probability": f"{tag.probability:g}", "Model": tag.model, "Date": tag.date}
    return "{" + ",".join(f"{name}={_escaped(value)}" for name, value in fields.items()) + "}"


def _escaped(text: str) -> str:
    return "".join(f"|{letter}" if letter in "|,]}[{" else letter for letter in text)


def _check_writable(target: Path) -> None:
    if not os.access(target.parent, os.W_OK):
        raise ZerotagError(
            f"{shown(target.parent)}: the folder is read-only, so {shown(target.name)} cannot be written."
        )
    if target.exists() and not os.access(target, os.W_OK):
        raise ZerotagError(f"{shown(target)}: the file is read-only.")


@lru_cache
def _remove_abandoned(folder: Path) -> None:
    """Remove the drafts of a killed run, once per folder."""
    for draft in folder.glob(".*.draft"):
        if _DRAFT.fullmatch(draft.name) and draft.is_file() and time.time() - draft.stat().st_ctime > _ABANDONED:
            draft.unlink(missing_ok=True)


def _has_content(tool: "ExifTool", sidecar: Path) -> bool:
    return bool(set(read_values(tool, [sidecar], ["XMP:all"]).get(sidecar, {})) - {"SourceFile", TOOLKIT})


def _copy_attributes(source: Path, target: Path, times: bool) -> None:
    """Copy mode, owner and extended attributes, and the times if asked."""
    written = target.stat()
    shutil.copystat(source, target)
    old = source.stat()
    if (old.st_uid, old.st_gid) != (written.st_uid, written.st_gid):
        with suppress(PermissionError):  # only root can
            os.chown(target, old.st_uid, old.st_gid)
    if not times:
        os.utime(target, ns=(written.st_atime_ns, written.st_mtime_ns))
