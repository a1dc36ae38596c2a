"""Search index of photos in LanceDB: one row per principal vector, exact search by dot product.

A photo's score for a word is the maximum over its rows. The top M * k rows therefore contain the top k photos, and
LanceDB's exact scan over rows yields the exact maximum over principal vectors. The index URI is a local folder (no
server needed), an object store (s3://…) or a LanceDB server (db://…).

Photos are known by the folder that was indexed (root) and their path below it, so that several folders share one
database. Names are text (`zerotag.files.shown`), whatever their bytes.
"""

import fcntl
import hashlib
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from zerotag.data.batches import pixel_batches
from zerotag.data.scan import find, scan
from zerotag.errors import ZerotagError
from zerotag.files import hidden_bytes, shown
from zerotag.serving.tagger import Tagger, Words

# LanceDB reserves cores for I/O threads, which a local disk does not keep busy. With twice as many compute threads as
# cores, an exact scan of 700,000 rows takes 59 ms instead of 100 ms on two cores.
os.environ.setdefault("LANCE_CPU_THREADS", str(2 * (os.cpu_count() or 1)))

# Photos embedded and committed together: the most that an interruption can lose.
BATCH = 32
# An update that would remove more than this share of a folder's photos is refused: more likely a drive is missing.
_MOST_REMOVED = 0.2


class RemovalError(ZerotagError):
    """An update that would remove much of a folder's photos from the index."""


@dataclass(frozen=True)
class Hit:
    """A search result: a photo, its score, and the indexed folder that its path is relative to."""

    photo: str
    score: float
    root: str


@dataclass(frozen=True)
class Entry:
    """What the index knows of a photo: a stamp that changes when the file changes, and a digest of its content."""

    stamp: str
    digest: str


class Index:
    """The index of one model; each model has its own table in the database.

    Writes of several processes take turns if the database is a local folder. LanceDB itself does not keep concurrent
    writers from inserting a row twice.

    Args:
        uri: a folder, or a URI that LanceDB connects to.
        model: identifies the network that computed the vectors.
        shape: (M, d).

    Raises:
        ZerotagError: the database cannot be opened.
    """

    def __init__(self, uri: str, model: str, shape: tuple[int, int]):
        self._rows, dimensions = shape
        self._schema = pa.schema(
            [
                pa.field("root", pa.string(), nullable=False),
                pa.field("photo", pa.string(), nullable=False),
                pa.field("row", pa.int16(), nullable=False),
                pa.field("stamp", pa.string(), nullable=False),
                pa.field("digest", pa.string(), nullable=False),
                pa.field("vector", pa.list_(pa.float32(), dimensions), nullable=False),
            ]
        )
        # Tables of version 0.1, `photos-…`, had no root and no digest; they are left alone.
        name = f"library-{model}"
        self._lock = None if "://" in uri else Path(uri) / f".{name}.lock"
        import lancedb  # starts threads, so not imported in a process that only starts others

        try:
            # Zero interval: the next search sees what another process wrote.
            database = lancedb.connect(uri, read_consistency_interval=timedelta(0))
            with self._writing():
                self._table = database.create_table(name, schema=self._schema, exist_ok=True)
        except (OSError, RuntimeError, ValueError) as error:
            raise ZerotagError(f"{uri}: the search index cannot be opened ({error}). See serve.index.") from error

    def __len__(self) -> int:
        """Number of photos in the index."""
        return self._table.count_rows() // self._rows

    @property
    def local(self) -> bool:
        """Whether the database is a folder of this machine."""
        return self._lock is not None

    def count(self, root: str) -> int:
        """Number of photos of a folder."""
        return self._table.count_rows(f"row = 0 AND root = {_quoted([root])}")

    def roots(self) -> list[str]:
        """The folders that photos of the index are in."""
        rows = self._table.search().where("row = 0").select(["root"]).limit(None).to_arrow()
        return sorted(rows["root"].unique().to_pylist())

    def entries(self) -> dict[str, dict[str, Entry]]:
        """What is known of every photo, by root and path."""
        columns = ["root", "photo", "stamp", "digest"]
        rows = self._table.search().where("row = 0").select(columns).limit(None).to_arrow()
        found: dict[str, dict[str, Entry]] = defaultdict(dict)
        for root, photo, stamp, digest in zip(*(rows[name].to_pylist() for name in columns), strict=True):
            found[root][photo] = Entry(stamp, digest)
        return dict(found)

    def vectors(self, digests: Iterable[str]) -> dict[str, np.ndarray]:
        """Principal vectors (M, d) by content; contents that are not in the index are left out."""
        if not (wanted := _quoted(digests)):
            return {}
        where = f"digest IN ({wanted})"
        rows = self._table.search().where(where).select(["digest", "row", "vector"]).limit(None).to_arrow()
        found: dict[str, np.ndarray] = {}
        vectors = _matrix(rows["vector"]) if len(rows) else ()
        for digest, row, vector in zip(rows["digest"].to_pylist(), rows["row"].to_pylist(), vectors, strict=True):
            found.setdefault(digest, np.empty((self._rows, len(vector)), np.float32))[row] = vector
        return found

    def find(self, root: str, photo: str) -> tuple[Entry, np.ndarray] | None:
        """What is known of a photo, and its principal vectors (M, d); None if it is not in the index."""
        where = f"root = {_quoted([root])} AND photo = {_quoted([photo])}"
        columns = ["stamp", "digest", "row", "vector"]
        rows = self._table.search().where(where).select(columns).limit(None).to_arrow()
        if not len(rows):
            return None
        order = np.argsort(rows["row"].to_numpy())
        return Entry(rows["stamp"][0].as_py(), rows["digest"][0].as_py()), _matrix(rows["vector"])[order]

    def put(self, root: str, photos: list[str], entries: list[Entry], matrices: np.ndarray) -> None:
        """Add or replace photos by root and path, atomically.

        Args:
            root: their folder.
            photos: n paths below it.
            entries: what is known of each.
            matrices: (n, M, d) principal vectors.
        """
        with self._writing():
            merge = self._table.merge_insert(["root", "photo", "row"])
            merge.when_matched_update_all().when_not_matched_insert_all().execute(
                self._as_rows(root, photos, entries, matrices)
            )

    def fill(self, root: str, photos: list[str], matrices: np.ndarray) -> None:
        """Add new photos without checking for existing ones; meant for a large initial import."""
        with self._writing():
            self._table.add(self._as_rows(root, photos, [Entry("", "")] * len(photos), matrices))

    def _as_rows(self, root: str, photos: list[str], entries: list[Entry], matrices: np.ndarray) -> pa.Table:
        n, m, d = matrices.shape
        columns = [
            pa.array([root] * (n * m), pa.string()),
            pa.array(np.repeat(photos, m), pa.string()),
            pa.array(np.tile(np.arange(m, dtype=np.int16), n)),
            pa.array(np.repeat([entry.stamp for entry in entries], m), pa.string()),
            pa.array(np.repeat([entry.digest for entry in entries], m), pa.string()),
            pa.FixedSizeListArray.from_arrays(pa.array(matrices.astype(np.float32).ravel()), d),
        ]
        return pa.table(columns, schema=self._schema)

    def remove(self, root: str, photos: list[str]) -> None:
        """Remove photos of a folder; unknown names are ignored."""
        with self._writing():
            for start in range(0, len(photos), 500):
                names = _quoted(photos[start : start + 500])
                self._table.delete(f"root = {_quoted([root])} AND photo IN ({names})")

    def remove_root(self, root: str) -> None:
        """Remove all photos of a folder."""
        with self._writing():
            self._table.delete(f"root = {_quoted([root])}")

    def tidy(self) -> None:
        """Compact small files, delete old versions, and index photo names."""
        from lancedb.index import BTree

        with self._writing():
            if len(self):
                self._table.create_index("photo", config=BTree())
            self._table.optimize(cleanup_older_than=timedelta(minutes=10))

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Wait for the writers of other processes. The kernel releases the lock of a process that is killed."""
        if self._lock is None:
            yield
            return
        self._lock.parent.mkdir(parents=True, exist_ok=True)
        with self._lock.open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def search(
        self,
        wanted: np.ndarray,
        unwanted: np.ndarray | None = None,
        limit: int = 20,
        offset: int = 0,
        root: str | None = None,
    ) -> list[Hit]:
        """Search for photos that match all wanted words.

        A photo's score is its minimum over the wanted words. A photo that scores at least as high for an unwanted
        word is excluded.

        Args:
            wanted: (W, d) unit word vectors, W at least 1.
            unwanted: (V, d) unit word vectors.
            limit: maximum number of photos.
            offset: number of photos to skip.
            root: only photos of this folder.

        Returns:
            The exact top photos, best first.
        """
        need, depth = offset + limit, offset + limit
        alone = len(wanted) == 1 and not (unwanted is not None and len(unwanted))
        while True:
            # No photo outside the candidates scores above the lowest bound.
            found = [self._best_rows(word, depth * self._rows, root) for word in wanted]
            bound = min(bound for _, bound in found)
            if alone:
                hits = [Hit(photo, value, folder) for (folder, photo), value in found[0][0].items()]
            else:
                hits = self._score_candidates(list(set().union(*(rows for rows, _ in found))), wanted, unwanted)
            hits.sort(key=lambda hit: (-hit.score, hit.photo, hit.root))
            if bound == -np.inf or (len(hits) >= need and hits[need - 1].score >= bound):
                return hits[offset:need]
            depth *= 4

    def _best_rows(self, word: np.ndarray, count: int, root: str | None) -> tuple[dict[tuple[str, str], float], float]:
        """Photos of the top rows with their scores, by root and path, and an upper bound on all other rows' score."""
        query: Any = self._table.search(word.astype(np.float32), vector_column_name="vector")
        if root is not None:
            query = query.where(f"root = {_quoted([root])}", prefilter=True)
        rows = (
            query.distance_type("dot")
            .bypass_vector_index()
            .select(["root", "photo", "vector", "_distance"])
            .limit(count)
            .to_arrow()
        )
        if not len(rows):
            return {}, -np.inf
        # Recomputed, since the engine's distance, 1 - product, is less precise.
        scores = _matrix(rows["vector"]) @ word
        best: dict[tuple[str, str], float] = {}
        for key, value in zip(_keys(rows), scores.tolist(), strict=True):
            best[key] = max(value, best.get(key, -np.inf))
        return best, (float(scores.min()) if len(rows) == count else -np.inf)

    def _score_candidates(
        self, photos: list[tuple[str, str]], wanted: np.ndarray, unwanted: np.ndarray | None
    ) -> list[Hit]:
        """Score photos exactly; photos that match an unwanted word are dropped."""
        below: dict[str, list[str]] = defaultdict(list)
        for root, photo in photos:
            below[root].append(photo)
        hits = []
        for root, names in below.items():
            for start in range(0, len(names), 1000):
                where = f"root = {_quoted([root])} AND photo IN ({_quoted(names[start : start + 1000])})"
                rows = self._table.search().where(where).select(["photo", "vector"]).limit(None).to_arrow()
                # A photo's rows are written together, but may be returned in any order.
                order = np.argsort(np.array(rows["photo"].to_pylist()), kind="stable")
                matrices = _matrix(rows["vector"])[order].reshape(-1, self._rows, wanted.shape[1])
                found = [rows["photo"][int(place)].as_py() for place in order[:: self._rows]]
                least = np.min([(matrices @ word).max(axis=1) for word in wanted], axis=0)
                for word in unwanted if unwanted is not None else ():
                    least = np.where((matrices @ word).max(axis=1) >= least, -np.inf, least)
                hits += [
                    Hit(name, value, root) for name, value in zip(found, least.tolist(), strict=True) if value > -np.inf
                ]
        return hits


def _keys(rows: pa.Table) -> Iterable[tuple[str, str]]:
    return zip(rows["root"].to_pylist(), rows["photo"].to_pylist(), strict=True)


def _matrix(column: pa.ChunkedArray) -> np.ndarray:
    return np.concatenate([part.flatten().to_numpy() for part in column.chunks]).reshape(len(column), -1)


def _quoted(photos: Iterable[str]) -> str:
    return ", ".join("'" + photo.replace("'", "''") + "'" for photo in photos)


def open_index(uri: str, tagger: Tagger) -> Index:
    """Open the index of a tagger's model."""
    return Index(uri, tagger.network, (tagger.info["principal_vectors"], tagger.info["dimensions"]))


def search_words(tagger: Tagger, wanted: Iterable[str], unwanted: Iterable[str]) -> tuple[Words, Words | None]:
    """Look up the word vectors of a search.

    Raises:
        ZerotagError: no wanted word, or a word without a vector; ignoring it would change the results.
    """
    wanted, unwanted = list(wanted), list(unwanted)
    if not any(word.strip() for word in wanted):
        raise ZerotagError("No word to search for. Give at least one.")
    words = tagger.words(wanted)
    without = tagger.words(unwanted) if any(word.strip() for word in unwanted) else None
    if reasons := [each.reason for each in (words, without) if each and each.missing]:
        raise ZerotagError(f"{'. '.join(reasons)}. Try other words.")
    return words, without


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


@dataclass(frozen=True)
class _Photo:
    """A photo to index: its path below the root as text, its file, and its stamp."""

    name: str
    file: str
    stamp: str


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
    todo: list[_Photo] = []
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
            todo.append(_Photo(name, str(file), stamp))

    updated = _below(known, root, [place for place in places if place.is_dir()])
    gone = updated - there - _below(known, root, found.unread)
    moved = _moved(known, gone, there, todo) if gone else set()
    lost = gone - moved
    if lost and not prune and (len(lost) > _MOST_REMOVED * len(updated) or len(lost) == len(updated)):
        raise RemovalError(
            f"{here}: {len(lost):,} of {len(updated):,} indexed photos are no longer there. Is a drive not mounted? "
            "Nothing was changed; to remove them from the index, index again with `--prune` (over HTTP, "
            '`"prune": true`).'
        )
    if lost:
        index.remove(here, sorted(lost))
        progress.removed = len(lost)

    # Folders on this machine that were moved as a whole; nothing is known about the folders of others.
    vanished = {other: known for other, known in entries.items() if index.local and not _exists(other)}
    moves = {known[name].digest for name in moved} | {
        entry.digest for photos in vanished.values() for entry in photos.values()
    }
    contents = {entry.digest for photos in entries.values() for entry in photos.values()} - {""}
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
    if arrived or gone:
        # If two processes compact a remote database at once, one fails, but the other has done the work.
        with suppress(OSError, RuntimeError):
            index.tidy()
    return progress


def follow(folder: Path, database: str, seconds: float = 60.0) -> Iterator[None]:
    """Yield when something changes below a folder, and otherwise from time to time, as not every disk reports changes.

    Args:
        folder: the folder to follow.
        database: the index, whose own changes are of no interest.
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
        ignore_permission_denied=True,
    ):
        yield


def _below(known: Iterable[str], root: Path, folders: Iterable[Path]) -> set[str]:
    """Those of the names that are in one of the folders."""
    prefixes = tuple("" if folder == root else f"{shown(folder.relative_to(root))}/" for folder in folders)
    return {name for name in known if name.startswith(prefixes)} if prefixes else set()


def _exists(root: str) -> bool:
    return Path(root).is_dir() or Path(hidden_bytes(root)).is_dir()


def _moved(known: dict[str, Entry], gone: set[str], there: set[str], todo: list[_Photo]) -> set[str]:
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


def _embed(
    index: Index,
    tagger: Tagger,
    root: str,
    todo: list[_Photo],
    contents: set[str],
    embed: Callable[[np.ndarray], np.ndarray] | None,
    in_time: Callable[[], bool],
    report: Callable[[int, int], None],
    progress: Progress,
) -> list[str]:
    """Put photos into the index batch by batch, and return the digests of those that are in."""

    def read(photo: _Photo) -> tuple[str, np.ndarray | None]:
        data = Path(photo.file).read_bytes()
        digest = _digest(data)
        return digest, None if digest in contents else tagger.pixels(data, photo.name)

    arrived: list[str] = []
    done = 0
    with closing(pixel_batches(todo, read, BATCH)) as batches:
        while done < len(todo):
            if not in_time():
                progress.remaining = len(todo) - done
                break
            batch = next(batches)
            for photo, reason in batch.failed:
                progress.refused[photo.name] = reason
            known = index.vectors([digest for digest, pixels in batch.pixels if pixels is None])
            matrices: dict[str, np.ndarray] = {}
            fresh: dict[str, np.ndarray] = {}
            for photo, (digest, pixels) in zip(batch.items, batch.pixels, strict=True):
                if digest in known:
                    matrices[photo.name] = known[digest]
                else:  # decoded here if another process has just removed the vectors
                    fresh[photo.name] = (
                        tagger.pixels(Path(photo.file).read_bytes(), photo.name) if pixels is None else pixels
                    )
            if fresh:
                computed = (embed or tagger.principal_vectors)(np.stack(list(fresh.values())))
                matrices |= dict(zip(fresh, computed, strict=True))
            if batch.items:
                entries = [
                    Entry(photo.stamp, digest) for photo, (digest, _) in zip(batch.items, batch.pixels, strict=True)
                ]
                names = [photo.name for photo in batch.items]
                index.put(root, names, entries, np.stack([matrices[name] for name in names]))
                arrived += [entry.digest for entry in entries]
            done += len(batch)
            report(done, len(todo))
    return arrived
