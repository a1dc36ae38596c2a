"""Find the photos in folders: what is one, what is passed over, and what cannot be read."""

import os
import re
import stat
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import translate
from pathlib import Path, PurePosixPath

from zerotag.data.photos import PHOTO_SUFFIXES, RAW_SUFFIXES, UNREAD_SUFFIXES
from zerotag.errors import ZerotagError
from zerotag.files import shown

# What file servers, operating systems and photo programs put beside photos, in lower case.
_JUNK = frozenset(
    "@eadir #recycle @recycle @recently-snapshot #snapshot $recycle.bin recycler lost+found __macosx thumbs.db "
    "ehthumbs.db desktop.ini".split()
) | {"system volume information", "found.000"}
_JUNK_SUFFIXES = (".lrdata", ".lrprev", ".aplibrary-cache")
# Of Apple's photo libraries, only the folders of originals.
_LIBRARY, _ORIGINALS = ".photoslibrary", ("originals", "masters")
_VIDEO_SUFFIXES = frozenset(".mp4 .mov .m4v .avi .mkv .mpg .mpeg .mts .m2ts .3gp .webm .wmv".split())

# How the counts are called in messages; `Scan.skipped` has these keys.
_KINDS = {
    "hidden": "hidden",
    "junk": "of the system or a program (such as @eaDir)",
    "excluded": "excluded",
    "raw": "raw beside another photo",
    "linked": "linked and already listed",
    "outside": "linked from outside the folder",
    "video": "video",
    "other": "other",
}


@dataclass
class Scan:
    """What a scan found.

    Attributes:
        photos: the photos, in a stable order: as given, and by name within a folder.
        skipped: numbers of files and folders that were passed over, by kind: hidden, junk, excluded, raw (beside a
            JPEG), linked (to what is already listed), outside (links that lead out), video, other.
        problems: a message per file or folder that cannot be read, with the mend.
        unread: folders that could not be read; nothing is known about what is in them.
    """

    photos: list[Path] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    unread: list[Path] = field(default_factory=list)


def in_words(skipped: Mapping[str, int]) -> str:
    """The counts of what was passed over in words; empty if there are none."""
    return ", ".join(f"{skipped[kind]:,} {text}" for kind, text in _KINDS.items() if skipped.get(kind))


def scan(paths: Iterable[Path], exclude: Sequence[str] = (), within: Path | None = None) -> Scan:
    """Find photos by file extension.

    Folders are searched recursively. Hidden files and those of systems and programs are passed over, and so is a raw
    file beside a JPEG of the same name; all are counted. Symbolic links are followed after everything else, once: what
    is already listed is not listed again. A photo that is given itself is taken whatever its name.

    Args:
        paths: photos and folders; names in any Unicode form.
        exclude: patterns as in a shell, such as `*.png` or `2019/screenshots`, of names, or of paths below a folder.
        within: symbolic links that lead out of this folder are not followed.

    Raises:
        ZerotagError: a path does not exist.
    """
    run = _Run(exclude, within)
    for given in paths:
        path = find(given)
        if path is None:
            raise ZerotagError(f"{shown(given)}: no such file or folder.")
        if path.is_dir():
            run.folder(path)
        else:
            run.photos.append(str(path))
    return Scan([Path(photo) for photo in run.photos], run.skipped, run.problems, [Path(each) for each in run.unread])


def scan_names(names: Iterable[str], exclude: Sequence[str] = ()) -> Scan:
    """Choose photos of an object store, which has no folders and no links, as `scan` does on a disk.

    Args:
        names: paths below the prefix, with slashes.
        exclude: as for `scan`.
    """
    run = _Run(exclude, None)
    photos: list[str] = []
    raw: list[str] = []
    beside: set[str] = set()
    for name in names:
        if run.passed_over_below(name) or not run.is_photo(PurePosixPath(name).name, name):
            continue
        if _suffix(name) in RAW_SUFFIXES:
            raw.append(name)
            continue
        photos.append(name)
        beside |= {name.lower(), _stem(name)}
    for name in raw:
        if {name.lower(), _stem(name)} & beside:
            run.skipped["raw"] += 1
        else:
            photos.append(name)
    return Scan([Path(photo) for photo in sorted(photos, key=_order)], run.skipped, run.problems)


def find(path: Path) -> Path | None:
    """The path as it is on the disk, whose names may be in another Unicode form; None if it does not exist."""
    if os.path.lexists(path):
        return path
    parent = None if str(path).isascii() else find(path.parent)
    if parent is None:
        return None
    try:
        names = [entry.name for entry in parent.iterdir()]
    except OSError:
        return None
    return next((parent / name for name in names if _composed(name) == _composed(path.name)), None)


class _Run:
    """One scan. Paths are strings: a Path for every entry would take most of the time."""

    def __init__(self, exclude: Sequence[str], within: Path | None):
        self.photos: list[str] = []
        self.skipped: Counter[str] = Counter()
        self.problems: list[str] = []
        self.unread: list[str] = []
        patterns = [pattern for each in exclude if (pattern := _composed(each).strip("/"))]
        self._excluded = re.compile("|".join(map(translate, patterns))).fullmatch if patterns else None
        self._within = os.path.realpath(within) if within else None
        # Device and inode of everything listed or searched, so that links are followed once.
        self._seen: set[tuple[int, int]] = set()

    def folder(self, top: Path) -> None:
        """Add the photos below a folder."""
        found: list[str] = []
        links: list[str] = []
        self._walk(str(top), str(top), found, links)
        # A link may lead to a folder of further links.
        while links:
            following, links = sorted(links, key=_order), []
            for link in following:
                self._follow(link, str(top), found, links)
        self.photos += sorted(found, key=_order)

    def _walk(self, folder: str, top: str, found: list[str], links: list[str]) -> None:
        stack = [folder]
        while stack:
            folder = stack.pop()
            try:
                status = Path(folder).stat()
                here = (status.st_dev, status.st_ino)
                if here in self._seen:
                    self.skipped["linked"] += 1
                    continue
                with os.scandir(folder) as entries:
                    listed = list(entries)
            except OSError as error:
                self.unread.append(folder)
                self.problems.append(f"{shown(folder)}: the folder cannot be read ({error.strerror}). Allow access.")
                continue
            self._seen.add(here)
            raw: list[os.DirEntry[str]] = []
            names: set[str] = set()
            for entry in listed:
                if self._passed_over(entry, top):
                    continue
                if entry.is_symlink():
                    links.append(entry.path)
                elif entry.is_dir(follow_symlinks=False):
                    stack.append(entry.path)
                elif self.is_photo(entry.name, entry.path):
                    if _suffix(entry.name) in RAW_SUFFIXES:
                        raw.append(entry)
                        continue
                    names |= {entry.name.lower(), _stem(entry.name)}
                    self._add(entry.path, (status.st_dev, entry.inode()), found)
            for entry in raw:
                # Beside IMG_1.CR2 either IMG_1.JPG, or IMG_1.CR2.jpg as darktable names it.
                if {entry.name.lower(), _stem(entry.name)} & names:
                    self.skipped["raw"] += 1
                else:
                    self._add(entry.path, (status.st_dev, entry.inode()), found)

    def _add(self, path: str, identity: tuple[int, int], found: list[str]) -> None:
        self._seen.add(identity)
        found.append(path)

    def _follow(self, link: str, top: str, found: list[str], links: list[str]) -> None:
        name = Path(link).name
        try:
            status = Path(link).stat()
        except OSError as error:
            if not _suffix(name) or _suffix(name) in PHOTO_SUFFIXES | RAW_SUFFIXES:
                self.problems.append(f"{shown(link)}: a link that leads nowhere ({error.strerror}). Mend or remove it.")
            else:
                self.skipped["other"] += 1
            return
        if self._within and not f"{os.path.realpath(link)}/".startswith(f"{self._within.rstrip('/')}/"):
            self.skipped["outside"] += 1
        elif stat.S_ISDIR(status.st_mode):
            self._walk(link, top, found, links)
        elif self.is_photo(name, link):
            identity = (status.st_dev, status.st_ino)
            if identity in self._seen:
                self.skipped["linked"] += 1
            else:
                self._add(link, identity, found)

    def _passed_over(self, entry: os.DirEntry[str], top: str) -> bool:
        kind = self._kind(entry.path, entry.name, lambda: os.path.relpath(entry.path, top))
        if kind:
            self.skipped[kind] += 1
        return kind is not None

    def passed_over_below(self, name: str) -> bool:
        """Whether a file of an object store, or a folder that it is in, is passed over."""
        parts = name.split("/")
        for length in range(1, len(parts) + 1):
            path = "/".join(parts[:length])
            kind = self._kind(path, parts[length - 1], lambda path=path: path)  # type: ignore[misc]
            if kind:
                self.skipped[kind] += 1
                return True
        return False

    def _kind(self, path: str, name: str, below: Callable[[], str]) -> str | None:
        """Why a file or folder is passed over, by its path, its name, and its path below the searched folder."""
        if name.startswith("."):
            return "hidden"
        folder = path[: -len(name)].rstrip("/").lower()
        in_library = folder.endswith(_LIBRARY) and name.lower() not in _ORIGINALS
        if name.lower() in _JUNK or name.lower().endswith(_JUNK_SUFFIXES) or in_library:
            return "junk"
        if self._excluded and (self._excluded(_composed(name)) or self._excluded(_composed(below()))):
            return "excluded"
        return None

    def is_photo(self, name: str, path: str) -> bool:
        """Whether a file is one to decode; others are counted, or named if they are images."""
        suffix = _suffix(name)
        if suffix in PHOTO_SUFFIXES or suffix in RAW_SUFFIXES:
            return True
        if suffix in UNREAD_SUFFIXES:
            self.problems.append(f"{shown(path)}: {UNREAD_SUFFIXES[suffix]}")
        else:
            self.skipped["video" if suffix in _VIDEO_SUFFIXES else "other"] += 1
        return False


def _suffix(name: str) -> str:
    return f".{name.rpartition('.')[2].lower()}" if "." in name else ""


def _stem(name: str) -> str:
    return name.rpartition(".")[0].lower()


def _composed(name: str) -> str:
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def _order(path: str) -> tuple[str, str]:
    """Folder by folder, by composed name, so that the order is the same on every disk."""
    return _composed(path).replace("/", "\0"), path
