"""Keep the index the same as folders: what is new or changed is embedded, what is gone is removed."""

import hashlib
import os
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np

from zerotag.data.batches import Batch, network_batches
from zerotag.data.photos import time_taken
from zerotag.data.scan import find, scan
from zerotag.errors import ZerotagError
from zerotag.files import hidden_bytes, shown
from zerotag.serving.duplicates import look_of
from zerotag.serving.index import Entry, Index
from zerotag.serving.tagger import Tagger

# Photos embedded and committed together: the most that an interruption can lose, but for the first thousand of a large
# new index (`Index.wants`). A commit takes 10 ms of a core, be it of 32 photos or of 128.
BATCH = 128
# New photos after which their small files are compacted while the update goes on.
_TIDIED = 20_000
# An update that would remove more than this share of a folder's photos is refused: more likely a drive is missing.
_MOST_REMOVED = 0.2


class RemovalError(ZerotagError):
    """An update that would remove much of a folder's photos from the index."""


@dataclass
class Progress:
    """Result of an index update.

    Attributes:
        added: new or changed photos.
        unchanged: photos already in the index.
        moved: photos found under another name, which keep their vectors.
        removed: photos deleted from the folder.
        refused: photos that could not be read, with the reason.
        remaining: photos not reached within the time limit; repeat the call.
        skipped: numbers of files and folders passed over, by kind; see `zerotag.data.scan.Scan`.
        problems: files and folders that cannot be read, with the mend.
    """

    added: int = 0
    unchanged: int = 0
    moved: int = 0
    removed: int = 0
    refused: dict[str, str] = field(default_factory=dict)
    remaining: int = 0
    skipped: dict[str, int] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def inside(root: Path, path: str) -> Path:
    """Resolve a path below a root, following symbolic links.

    Args:
        root: a folder.
        path: as in the index, or as given by a user, in any Unicode form.

    Raises:
        ZerotagError: the path is outside the root or does not exist.
    """
    root = root.resolve()
    if "\0" in path:
        raise ZerotagError("A path must not contain a null byte.")
    try:
        found = (root / path).resolve()
        if not found.is_relative_to(root):
            raise ZerotagError(f"{path}: outside the photo root.")
        if not found.exists():
            there = find(found) or find((root / hidden_bytes(path)).resolve())
            if there is None or not there.resolve().is_relative_to(root):
                raise ZerotagError(f"{path}: no such file or folder below the photo root.")
            found = there.resolve()
    except (OSError, ValueError) as error:
        raise ZerotagError(f"{path}: cannot be read ({getattr(error, 'strerror', error)}).") from error
    return found


def stamp_of(status: os.stat_result) -> str:
    """The stamp of a file's state."""
    return f"{status.st_size}-{status.st_mtime_ns}"


def root_of(index: Index, folder: Path) -> tuple[Path, str]:
    """The indexed folder that a folder is in, and its path below it; the folder itself and "" if it is in none."""
    folder, roots = folder.resolve(), index.roots()
    for parent in folder.parents:
        if shown(parent) in roots:
            return parent, folder.relative_to(parent).as_posix()
    return folder, ""


def find_example(index: Index, tagger: Tagger, file: Path) -> tuple[np.ndarray, tuple[str, str] | None]:
    """Principal vectors (M, d) of an example photo; and its root and path, if it is indexed.

    Raises:
        ZerotagError: there is no such file, or it is no photo.
    """
    photo = find(file)
    if photo is None or not photo.is_file():
        raise ZerotagError(f"{shown(file)}: no such file.")
    roots = index.roots()  # reads all rows
    for path in dict.fromkeys([photo.absolute(), photo.resolve()]):
        for root in roots:
            if (name := shown(path)).startswith(f"{root.rstrip('/')}/"):
                key = root, name[len(root.rstrip("/")) + 1 :]
                if (found := index.find(*key)) is not None:
                    return found[1], key
    return tagger.embed(photo.read_bytes(), shown(photo)), None


@dataclass(frozen=True)
class Photo:
    """A photo to index.

    Attributes:
        name: its path below the root, as text.
        file: where it is read from: a path, or a URL on a cluster.
        stamp: of the file's state.
        modified: the file's time, in this machine's time zone; None if it has none.
    """

    name: str
    file: str
    stamp: str
    modified: datetime | None


def update(
    index: Index,
    tagger: Tagger,
    root: Path,
    paths: Iterable[str],
    embed: Callable[[np.ndarray], np.ndarray] | None = None,
    in_time: Callable[[], bool] = lambda: True,
    report: Callable[[int, int], None] = lambda done, total: None,
    exclude: Sequence[str] = (),
    prune: bool = False,
    links_out: bool = False,
    embed_all: "Callable[[str, list[Photo], set[str], Progress], list[str]] | None" = None,
) -> Progress:
    """Add photos and folders below a root to the index, and remove photos deleted from these folders.

    Photos with unchanged size and modification time are skipped. Photos whose content is already in the index keep
    its vectors: those that were moved or renamed, also together with the root. Each batch is committed when it is
    done, so an interrupted update resumes where it stopped.

    Args:
        index: the index to update.
        tagger: embeds the photos.
        root: photos are named by their path relative to it.
        paths: photos or folders below the root.
        embed: runs the network, (B, S, S, 3) -> (B, M, d); defaults to the tagger's.
        in_time: called before each batch; returning False stops the update.
        report: progress callback, called with the number of photos done and the total.
        exclude: patterns of files and folders to pass over; see `zerotag.data.scan.scan`.
        prune: removes deleted photos however many they are.
        links_out: whether symbolic links may lead out of the root.
        embed_all: puts the photos into the index in another way, such as on a cluster: from the root, the photos, the
            contents (digests) that the index has, and the progress, to the digests of what is in the index then.

    Raises:
        RemovalError: more than a fifth of the photos of these folders, or all, are no longer there; nothing was done.
        ZerotagError: a path is outside the root or does not exist.
    """
    root = root.resolve()
    here = shown(root)
    entries = index.entries()
    known = entries.get(here, {})
    places = [inside(root, path) for path in paths]
    found = scan(places, exclude, None if links_out else root)
    progress = Progress(skipped=dict(found.skipped), problems=found.problems)

    there: set[str] = set()
    todo: list[Photo] = []
    for file in found.photos:
        name = shown(file.relative_to(root))
        if name in there:
            progress.refused[name] = f"{name}: another file has the same name in text. Rename one of them."
            continue
        try:
            status = file.stat()
        except FileNotFoundError:  # deleted since it was listed
            continue
        except OSError as error:
            progress.refused[name] = f"{name}: cannot be read ({error.strerror})."
            there.add(name)
            continue
        there.add(name)
        stamp = stamp_of(status)
        if name in known and known[name].stamp == stamp:
            progress.unchanged += 1
        else:
            todo.append(Photo(name, str(file), stamp, datetime.fromtimestamp(int(status.st_mtime))))

    updated = _below(known, root, [place for place in places if place.is_dir()])
    gone = updated - there - _below(known, root, found.unread)
    moved = _moved(known, gone, there, todo) if gone else set()
    lost = gone - moved
    if not prune:
        refuse_to_remove(here, lost, updated)
    if lost:
        index.remove(here, sorted(lost))
        progress.removed = len(lost)

    # Folders on this machine that were moved as a whole; nothing is known about the folders of others.
    vanished = {other: known for other, known in entries.items() if index.local and not _exists(other)}
    moves = {known[name].digest for name in moved} | {
        entry.digest for photos in vanished.values() for entry in photos.values()
    }
    contents = {entry.digest for photos in entries.values() for entry in photos.values()} - {""}
    if embed_all:
        arrived = embed_all(here, todo, contents, progress)
    else:
        arrived = _embed(index, tagger, here, todo, contents, embed, in_time, report, progress)
    progress.moved = sum(digest in moves for digest in arrived)
    progress.added = len(arrived) - progress.moved
    if not progress.remaining:
        # Last, so that an interrupted update finds the vectors of what was moved.
        index.remove(here, sorted(moved))
        present = set(arrived)
        progress.removed += sum(known[name].digest not in present for name in moved)
        present |= {known[name].digest for name in there if name in known}
        for other, photos in vanished.items():
            index.remove(other, [name for name, entry in photos.items() if entry.digest in present])
        for other in entries:
            # An indexed folder within this one, which has its photos now.
            if root in places and any(name.startswith(f"{os.path.relpath(other, here)}/") for name in there):
                index.remove_root(other)
    index.tidy_soon()  # even if nothing is new: old versions that the last update left may be deleted by now
    return progress


def follow(folder: Path, database: str, until: Event, seconds: float = 60.0) -> Iterator[None]:
    """Yield when something changes below a folder, and otherwise from time to time, as not every disk reports changes.

    Args:
        folder: the folder to follow.
        database: the index, whose own changes are of no interest.
        until: ends it.
        seconds: the time after which it yields without a change.
    """
    from watchfiles import watch

    own = os.path.realpath(database) if "://" not in database else None

    def of_interest(_: Any, path: str) -> bool:
        return own is None or not f"{path}/".startswith(f"{own}/")

    for _ in watch(
        folder,
        watch_filter=of_interest,
        rust_timeout=round(1000 * seconds),
        yield_on_timeout=True,
        stop_event=until,
        ignore_permission_denied=True,
    ):
        yield


def _below(known: Iterable[str], root: Path, folders: Iterable[Path]) -> set[str]:
    """Those of the names that are in one of the folders."""
    prefixes = tuple("" if folder == root else f"{shown(folder.relative_to(root))}/" for folder in folders)
    return {name for name in known if name.startswith(prefixes)} if prefixes else set()


def _exists(root: str) -> bool:
    # Of a bucket or a web site, nothing is known here.
    return not root.startswith("/") or Path(root).is_dir() or Path(hidden_bytes(root)).is_dir()


def refuse_to_remove(root: str, lost: set[str], updated: set[str]) -> None:
    """Check that an update would not remove too many of the updated photos.

    Raises:
        RemovalError: more than a fifth of them, or all.
    """
    if lost and (len(lost) > _MOST_REMOVED * len(updated) or len(lost) == len(updated)):
        raise RemovalError(
            f"{root}: {len(lost):,} of {len(updated):,} indexed photos are no longer there. Is a drive not mounted? "
            "Nothing was changed; to remove them from the index, index again with `--prune` (over HTTP, "
            '`"prune": true`).'
        )


def _moved(known: dict[str, Entry], gone: set[str], there: set[str], todo: list[Photo]) -> set[str]:
    """Those of the photos that are gone whose content is still in the folder, under another name."""
    kept = {known[name].digest for name in there if name in known}
    stamps = {photo.stamp for photo in todo}
    # A file that is moved keeps its size and time, to the nanosecond; other candidates have to be read.
    moved = {name for name in gone if known[name].digest in kept or known[name].stamp in stamps}
    sizes = {_size(known[name].stamp) for name in gone - moved}
    arrived = set()
    for photo in todo:
        if _size(photo.stamp) in sizes:
            with suppress(OSError):
                arrived.add(_digest(Path(photo.file).read_bytes()))
    return moved | {name for name in gone if known[name].digest in arrived}


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _size(stamp: str) -> str:
    return stamp.partition("-")[0]


def reader(
    tagger: Tagger, known: Callable[[str], bool], read: Callable[[str], bytes] = lambda file: Path(file).read_bytes()
) -> Callable[[Photo], tuple[Entry, np.ndarray | None]]:
    """A function that reads a photo: its entry, and its pixels (S, S, 3) unless the index may know its content.

    Args:
        tagger: knows what pixels its network takes.
        known: whether the index may have a content, by its digest.
        read: reads a photo's file.
    """

    def decode(photo: Photo) -> tuple[Entry, np.ndarray | None]:
        data = read(photo.file)
        entry = Entry(photo.stamp, _digest(data), time_taken(data, photo.name) or photo.modified)
        if known(entry.digest):
            return entry, None
        pixels = tagger.pixels(data, photo.name)
        return replace(entry, look=look_of(pixels)), pixels

    return decode


def with_matrices(
    decoded: list[tuple[Entry, np.ndarray | None]], embed: Callable[[np.ndarray], np.ndarray]
) -> list[tuple[Entry, np.ndarray | None]]:
    """Principal vectors (M, d) in place of pixels, where there are any."""
    pixels = [each for _, each in decoded if each is not None]
    computed = iter(embed(np.stack(pixels)) if pixels else ())
    return [(entry, None if each is None else next(computed)) for entry, each in decoded]


def with_known(
    batch: Batch[Photo, tuple[Entry, np.ndarray | None]], index: Index, tagger: Tagger, read: Callable[[str], bytes]
) -> Batch[Photo, tuple[Entry, np.ndarray]]:
    """The same with the index's vectors (M, d) of the contents that it knows."""
    there = index.contents([entry.digest for entry, matrix in batch.results if matrix is None])
    done: Batch[Photo, tuple[Entry, np.ndarray]] = Batch(batch.items, [], batch.failed)
    for photo, (entry, matrix) in zip(batch.items, batch.results, strict=True):
        if matrix is None and entry.digest in there:
            matrix, look = there[entry.digest]
            entry = replace(entry, look=look)
        elif matrix is None:  # another process has just removed the vectors
            pixels = tagger.pixels(read(photo.file), photo.name)
            matrix, entry = tagger.principal_vectors(pixels[None])[0], replace(entry, look=look_of(pixels))
        done.results.append((entry, matrix))
    return done


def embedded(
    index: Index,
    tagger: Tagger,
    photos: list[Photo],
    known: Callable[[str], bool],
    embed: Callable[[np.ndarray], np.ndarray] | None = None,
    read: Callable[[str], bytes] = lambda file: Path(file).read_bytes(),
    threads: int = 0,
) -> Generator[Batch[Photo, tuple[Entry, np.ndarray]], None, None]:
    """Entries and principal vectors (M, d) of photos, in batches.

    Args:
        index: where vectors of known contents are.
        tagger: embeds the photos.
        photos: the photos.
        known: as for `reader`, like `read`.
        embed: runs the network, (B, S, S, 3) -> (B, M, d); defaults to the tagger's.
        read: reads a photo's file.
        threads: as for `network_batches`.
    """
    network = partial(with_matrices, embed=embed or tagger.principal_vectors)
    decode = reader(tagger, known, read)
    with closing(network_batches(photos, decode, network, BATCH, tagger.at_once, threads)) as batches:
        for batch in batches:
            yield with_known(batch, index, tagger, read)


def _embed(
    index: Index,
    tagger: Tagger,
    root: str,
    todo: list[Photo],
    contents: set[str],
    embed: Callable[[np.ndarray], np.ndarray] | None,
    in_time: Callable[[], bool],
    report: Callable[[int, int], None],
    progress: Progress,
) -> list[str]:
    """Put photos into the index batch by batch, and return the digests of those that are in."""
    arrived: list[str] = []
    if not todo:
        return arrived
    done, fitted = 0, index.wants(len(todo))
    waiting: list[Batch[Photo, tuple[Entry, np.ndarray]]] = []
    todo = spread_first(todo, fitted)
    with closing(embedded(index, tagger, todo, contents.__contains__, embed)) as batches:
        while done < len(todo):
            if not (waiting or in_time()):
                progress.remaining = len(todo) - done
                break
            waiting.append(next(batches))
            done += len(waiting[-1])
            if done >= fitted:
                if fitted and (matrices := [matrix for batch in waiting for _, matrix in batch.results]):
                    index.fit(np.stack(matrices[:fitted]))
                for batch in waiting:
                    _store(index, root, batch, arrived, progress)
                waiting, fitted = [], 0
            report(done, len(todo))
    return arrived


def spread_first(photos: list[Photo], count: int) -> list[Photo]:
    """So many photos from all over the list, and then the others."""
    places = set(np.linspace(0, len(photos) - 1, count).astype(int).tolist())
    first = [photos[place] for place in sorted(places)]
    return first + [photo for place, photo in enumerate(photos) if place not in places]


def _store(
    index: Index,
    root: str,
    batch: Batch[Photo, tuple[Entry, np.ndarray]],
    arrived: list[str],
    progress: Progress,
) -> None:
    """Put a batch into the index, and add the digests of what arrived."""
    for photo, reason in batch.failed:
        progress.refused[photo.name] = reason
    if batch.items:
        entries, matrices = zip(*batch.results, strict=True)
        index.put(root, [photo.name for photo in batch.items], list(entries), np.stack(matrices))
        if (len(arrived) + len(entries)) // _TIDIED > len(arrived) // _TIDIED:
            index.tidy_soon()
        arrived += [entry.digest for entry in entries]
