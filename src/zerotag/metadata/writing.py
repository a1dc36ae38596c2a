"""Give tags to photos, in sidecars or in the photos themselves, take them out again, and accept or reject them.

A person's keywords are never changed, except those accepted from zerotag when the person takes that back. A sidecar
also repeats the keywords that are in the photo: most programs read a field from one place only, so a sidecar with
zerotag's tags alone would hide them.
"""

import fcntl
import os
import re
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from zerotag.data.photos import PHOTO_SUFFIXES, RAW_SUFFIXES
from zerotag.errors import ZerotagError
from zerotag.files import shown, write_aside
from zerotag.metadata import SidecarName, Write
from zerotag.metadata.exiftool import EMPTY, open_exiftool, read_values, write_values
from zerotag.metadata.keywords import (
    ACCEPTED,
    FIELDS,
    HIERARCHY,
    REJECTED,
    TAGS,
    TOOLKIT,
    Field,
    GivenTag,
    Keywords,
    Path_,
    key,
    photo_keywords,
    read_keywords,
    sidecars,
)
from zerotag.metadata.tables import open_tables

if TYPE_CHECKING:
    from exiftool import ExifTool

# The next run removes the draft of a killed one, when after so many seconds nobody can be writing it.
_ABANDONED = 600
_DRAFT = re.compile(r"\..+\.[0-9a-f]{8}\.draft")
# In every file that zerotag has written metadata to.
_NAMESPACE = b"http://ns.zerotag.dev/1.0/"


class ReadOnlyError(ZerotagError):
    """A file or a folder that cannot be written."""


class KeywordError(ZerotagError):
    """A tag that cannot be rejected, as a person has given it."""


@dataclass(frozen=True)
class Change:
    """What a run changes, or would change, in one file.

    Attributes:
        file: a sidecar, a photo or a table.
        added: tags that zerotag gives.
        removed: tags that it gave before and does not give now.
        kept: tags it would give, which a person has given already.
        rejected: tags it would give, which a person has rejected.
    """

    file: Path
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    rejected: tuple[str, ...] = ()

    def __str__(self) -> str:
        parts = [*(f"+{tag}" for tag in self.added), *(f"-{tag}" for tag in self.removed)]
        theirs = f" (there already: {', '.join(self.kept)})" if self.kept else ""
        never = f" (rejected: {', '.join(self.rejected)})" if self.rejected else ""
        return f"{shown(self.file)}: {', '.join(parts) or 'no change'}{theirs}{never}"


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
        with open_tables(dry_run) as save_line, ExitStack() as opened:
            tool: ExifTool | None = None

            def save_in_table(photo: Path, given: Sequence[GivenTag]) -> Change:
                nonlocal tool
                rejected: set[str] = set()
                # exiftool is needed only where it has written before.
                if files := [file for file in sidecars(photo) if file.is_file() and _NAMESPACE in file.read_bytes()]:
                    tool = tool or opened.enter_context(open_exiftool())
                    found = read_keywords(tool, [photo, *files])
                    rejected = {key(word) for word in photo_keywords(found.values()).rejected}
                kept = [each for each in given if key(each.tag) not in rejected]
                never = tuple(each.tag for each in given if key(each.tag) in rejected)
                return Change(*save_line(photo, stamped(kept)), rejected=never)

            yield save_in_table
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
            with _turn(photo.parent):
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
            with _turn(photo.parent):
                for file, there in read_keywords(tool, files).items():
                    if (after := _without_given(there)) != there:
                        changes.append(Change(file, removed=tuple(each.tag for each in there.tags)))
                        if not dry_run:
                            _write(tool, file, there, after, embed=file == photo)
            table, _, removed = save_line(photo, [])
            return [*changes, Change(table, removed=removed)] if removed else changes

        yield untag


def decide(
    tool: "ExifTool", photo: Path, accept: Iterable[str] = (), reject: Iterable[str] = (), forget: Iterable[str] = ()
) -> None:
    """Record in a photo's sidecar what a person says of tags.

    Accepted tags become keywords of the person's. Rejected ones are taken out of zerotag's, and are never given again.
    The sidecar is the one that is there, or a new photo.jpg.xmp.

    Args:
        tool: a running exiftool.
        photo: the photo.
        accept: tags, in any words.
        reject: tags; ones that were accepted are no longer keywords.
        forget: tags that were accepted or rejected, on which nothing is decided any more. Others are ignored.

    Raises:
        KeywordError: a rejected tag is a keyword that the person has given in another way; nothing was written.
        ZerotagError: a file cannot be written.
    """
    accepted, rejected = {key(word): word for word in accept}, {key(word): word for word in reject}
    with _turn(photo.parent):
        found = read_keywords(tool, [file for file in (photo, *sidecars(photo)) if file.is_file()])
        accepted_before = {key(word) for there in found.values() for word in there.accepted}
        theirs = {key(word) for there in found.values() for word in there.words} - accepted_before
        if own := [word for name, word in rejected.items() if name in theirs]:
            raise KeywordError(
                f"{shown(photo)}: {', '.join(own)}: a keyword of your own, which zerotag does not take out. "
                "Remove it in your photo program."
            )
        decided_before = accepted_before | {key(word) for there in found.values() for word in there.rejected}
        # What is a keyword already is not accepted from zerotag.
        forgotten = {*map(key, forget), *(accepted.keys() & theirs)} & decided_before
        accepted = {name: word for name, word in accepted.items() if name not in theirs}
        target = _own_sidecar(photo)
        before = {target: Keywords(), **found}
        after = {file: _decided(there, accepted, rejected, forgotten, file == target) for file, there in before.items()}
        if after[target].has_decision or after[target].tags:
            persons = [path for there in after.values() for path in there.paths]
            hierarchy = any(there.persons(HIERARCHY) for there in after.values())
            after[target] = _repeating(after[target], persons, hierarchy)
        for file, there in before.items():
            if after[file] != there:
                _write(tool, file, there, after[file], embed=file == photo)


def _decided(
    there: Keywords, accepted: dict[str, str], rejected: dict[str, str], forgotten: set[str], is_target: bool
) -> Keywords:
    """What a file has after a decision; other files than the target only lose words."""
    new = accepted if is_target else {}
    tags = [tag for tag in there.tags if key(tag.tag) not in {*rejected, *new}]
    given = {key(tag.tag) for tag in there.tags}
    theirs_gone = {key(word) for word in there.accepted} & {*rejected, *forgotten}
    ours_gone = {*rejected, *(forgotten - given)}
    fields, own = {}, {}
    for each in FIELDS:
        ours = set(there.own[each])
        gone = each.keys(ours_gone), each.keys(theirs_gone)
        values = [value for value in there.fields[each] if each.key(value) not in gone[value not in ours]]
        if each != HIERARCHY or values:
            present = {each.key(value) for value in values}
            # A word that the field cannot have as it is, is repeated there as others are.
            values += [word for name, word in new.items() if name not in present and each.value((word,)) == word]
        fields[each] = values
        own[each] = [value for value in there.own[each] if each.key(value) not in gone[0] | each.keys(new)]
    return _tidied(
        replace(
            there,
            fields=fields,
            own=own,
            tags=tags,
            accepted=_with(there.accepted, theirs_gone, new),
            rejected=_with(there.rejected, {*accepted, *forgotten}, rejected if is_target else {}),
        )
    )


def _with(words: Sequence[str], gone: set[str], new: dict[str, str]) -> list[str]:
    """A record without some words and with others."""
    kept = [word for word in words if key(word) not in gone]
    known = {key(word) for word in kept}
    return kept + [word for place, word in new.items() if place not in known]


def _without_given(there: Keywords) -> Keywords:
    """What a file has without the tags that zerotag gave."""
    given = [each.tag for each in there.tags]
    own = {each: [value for value in there.own[each] if each.key(value) not in each.keys(given)] for each in FIELDS}
    fields = {
        each: [value for value in there.fields[each] if value not in there.own[each] or value in own[each]]
        for each in FIELDS
    }
    return _tidied(replace(there, fields=fields, own=own, tags=[]))


def _tidied(there: Keywords) -> Keywords:
    """Without the keywords that zerotag repeats, if nothing else of zerotag's is in the file."""
    if there.tags or there.has_decision:
        return there
    return replace(there, fields={each: there.persons(each) for each in FIELDS}, own={each: [] for each in FIELDS})


def _repeating(there: Keywords, paths: Sequence[Path_], hierarchy: bool) -> Keywords:
    """With keywords repeated in every field that lacks them, and recorded as zerotag's."""
    fields, own = dict(there.fields), dict(there.own)
    for each in FIELDS if hierarchy else (each for each in FIELDS if each != HIERARCHY):
        more = [value for value in _values(each, there, paths) if value not in own[each]]
        fields[each], own[each] = [*fields[each], *more], [*own[each], *more]
    return replace(there, fields=fields, own=own)


def _sidecar(photo: Path, name: SidecarName) -> Path:
    long, short = sidecars(photo)
    return long if name == "photo.jpg.xmp" else short


def _own_sidecar(photo: Path) -> Path:
    """The sidecar for what a person decides: the one that is there, unless it may be another photo's too."""
    long, short = sidecars(photo)
    if long.is_file() or not short.is_file():
        return long
    suffixes = PHOTO_SUFFIXES | RAW_SUFFIXES
    alone = not any(
        each != photo and each.stem == photo.stem and each.suffix.lower() in suffixes for each in photo.parent.iterdir()
    )
    return short if alone else long


def _give(tool: "ExifTool", photo: Path, target: Path, given: Sequence[GivenTag], dry_run: bool) -> Change:
    files = [file for file in (photo, *sidecars(photo)) if file.is_file()]
    found = read_keywords(tool, files)
    there = found.get(target, Keywords())
    # Of a photo whose tags are embedded, a sidecar's keywords are left in the sidecar.
    places = [there] if target == photo else list(found.values())
    persons = list(dict.fromkeys(path for place in places for path in place.paths))
    theirs = {key(part) for path in persons for part in path}
    rejected = {key(word) for word in photo_keywords(found.values()).rejected} - theirs
    new = [each for each in given if key(each.tag) not in theirs | rejected]
    hierarchy = any(len(each.path) > 1 for each in new) or any(place.persons(HIERARCHY) for place in places)
    wanted = {
        each: _values(each, there, [*persons, *(tag.path or (tag.tag,) for tag in new)])
        if (new or there.has_decision) and (each != HIERARCHY or hierarchy)
        else []
        for each in FIELDS
    }
    before, after = [each.tag for each in there.tags], [each.tag for each in new]
    change = Change(
        target,
        tuple(tag for tag in after if tag not in before),
        tuple(tag for tag in before if tag not in after),
        tuple(each.tag for each in given if key(each.tag) in theirs),
        tuple(each.tag for each in given if key(each.tag) in rejected),
    )
    same = wanted == there.own and [(each.tag, each.probability, each.model) for each in new] == [
        (each.tag, each.probability, each.model) for each in there.tags
    ]
    if not (dry_run or same or not (new or there.has_record)):
        fields = {each: [*there.persons(each), *wanted[each]] for each in FIELDS}
        _write(tool, target, there, replace(there, fields=fields, own=wanted, tags=new), embed=target == photo)
    return change


def _values(where: Field, there: Keywords, paths: Iterable[Path_]) -> list[str]:
    """What zerotag has to add to a field so that it has all of the paths."""
    present = set(there.persons(where))
    # A line break would end exiftool's argument; such a keyword stays where it is.
    return [text for text in dict.fromkeys(map(where.value, paths)) if text not in present and text.isprintable()]


@contextmanager
def _turn(folder: Path) -> Iterator[None]:
    """Wait until no other process writes to the sidecars and photos of a folder, as none sees what another changes.

    The kernel releases the lock of a process that is killed.
    """
    with ExitStack() as held:
        with suppress(OSError):  # some network drives have no locks
            place = os.open(folder, os.O_RDONLY)
            held.callback(os.close, place)
            fcntl.flock(place, fcntl.LOCK_EX)
        yield


def _write(tool: "ExifTool", target: Path, there: Keywords, after: Keywords, embed: bool) -> None:
    """Write a file anew with other keywords, under its name when it is complete.

    Args:
        tool: a running exiftool.
        target: a photo, or a sidecar that may not exist yet.
        there: what is in it.
        after: what is to be in it.
        embed: whether it is a photo; its times are kept.
    """
    changes = []
    for each in FIELDS:
        before, values = there.fields[each], after.fields[each]
        gone = dict.fromkeys(value for value in before if value not in values)
        changes += [f"-{each.name}-={value}" for value in gone]
        changes += [f"-{each.name}+={value}" for value in values if value not in before]
        changes += [f"-{each.record}={value}" for value in after.own[each] or [""]]
    changes += [f"-{TAGS}={_structure(each)}" for each in after.tags] or [f"-{TAGS}="]
    for record, words in ((ACCEPTED, after.accepted), (REJECTED, after.rejected)):
        changes += [f"-{record}={word}" for word in words or [""]]
    if there.toolkit and not there.toolkit.startswith("Image::ExifTool"):
        changes.append(f"-{TOOLKIT}={there.toolkit}")
    target = target.resolve()  # a link stays a link
    _check_writable(target)
    _remove_abandoned(target.parent)
    with write_aside(target) as draft:
        write_values(tool, target if embed or target.exists() else EMPTY, draft, changes)
        empty = not embed and not after.tags and not _has_content(tool, draft)
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
        raise ReadOnlyError(
            f"{shown(target.parent)}: the folder is read-only, so {shown(target.name)} cannot be written."
        )
    if target.exists() and not os.access(target, os.W_OK):
        raise ReadOnlyError(f"{shown(target)}: the file is read-only.")


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
