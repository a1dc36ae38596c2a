"""Search index of photos in LanceDB: one row per principal vector, exact search by dot product.

A photo's score for a word is the maximum over its rows. The top M * k rows therefore contain the top k photos, and
LanceDB's exact scan over rows yields the exact maximum over principal vectors. The index URI is a local folder (no
server needed), an object store (s3://…) or a LanceDB server (db://…).

Photos are known by the folder that was indexed (root) and their path below it, so that several folders share one
database. Names are text (`zerotag.files.shown`), whatever their bytes. `zerotag.serving.update` fills the index.

An example photo is searched for by the cosine of its principal vectors. Of the 24 photos that resemble a photo of
Corel5K most, the tags agree with its own by this much (mean Jaccard index, 600 examples, the starter; random photos:
0.040): cosine, used, 0.266; dot product 0.265; cosine after subtraction of the index's mean vector 0.270; cosine of the
score profiles over the vocabulary 0.252, standardised by word 0.259.

Vectors are stored in half precision; those of an index that begins with many photos are stored in fewer dimensions
(`zerotag.serving.basis`), whose axes are a table of their own. Beyond `_EXACT` rows, the engine's index (IVF_RQ: 4 bits
for each dimension or 2, of which all are compared) finds candidates, which are scored with what is stored; new rows
that are not in it yet are compared as well. docs/search.md says how fast and complete that is.
"""

import fcntl
import json
import logging
import os
import posixpath
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from zerotag.errors import ZerotagError
from zerotag.serving.basis import Basis
from zerotag.serving.engine import import_lancedb
from zerotag.serving.tagger import Tagger, Words
from zerotag.stores import s3_remedy
from zerotag.words.lexicon import unit

# LanceDB reserves cores for I/O threads, which a local disk does not keep busy. With twice as many compute threads as
# cores, an exact scan of 700,000 rows takes 59 ms instead of 100 ms on two cores.
os.environ.setdefault("LANCE_CPU_THREADS", str(2 * (os.cpu_count() or 1)))

# A compaction that another process's write overtakes is made again later; that is no warning to a person.
os.environ.setdefault("LANCEDB_LOG", "error")

# Photos by which scores for words and for a photo are put on one scale.
_SAMPLE = 4096

_ALL_TABLES = 1_000_000
# Photos of a new index from which vectors are stored in fewer dimensions, and in how many; and the photos that these
# are fitted to. With 384, a million photos take 1 GB.
_MANY, FEWER, _FITTED = 10_000, 384, 1024
# Rows up to which a search compares all of them: about 0.1 s on two cores.
_EXACT = 50_000
# Photos beyond the wanted number where all are compared, as the engine's products are less precise: it may confuse the
# last ones.
_NEARLY = 8
# Rows whose codes are looked at for one word, and how many times more for several.
_DEEP, _DEEPER = 500, 4
# Candidates of the engine's index beyond the wanted number; how many times more for several words or an example; and
# the number beyond which none are added, though better photos may be missing.
_BEYOND, _SEVERAL, _DEEPEST = 200, 4, 10_000
# Standard deviations of its products that a photo which it left out may exceed what they say.
_ERRORS = 2.0
# Photos that are scored first, in the order of their codes: for one word, and for several; and at most at a time.
_SCORED, _SCORED_FOR_SEVERAL, _SCORED_AT_MOST = 250, 500, 4000
# The engine's index: bits for each dimension (of vectors so long, the errors cancel out), and growth after which it is
# made anew.
_LONG, _BITS, _BITS_OF_LONG, _GROWTH = 768, 4, 2, 4
# Rows in a partition, and partitions from which they have more: a row is compared with all partitions when the index is
# made. With 2,441 for 10 million rows, that would take 3 hours on two cores; with 256 it takes 13 minutes.
_PARTITION, _PARTITIONS = 4096, 256
_ALL_PARTITIONS = 1_000_000
# Attempts at a commit that others may overtake.
_TRIES = 5

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Hit:
    """A search result: a photo, its score, and the indexed folder that its path is relative to."""

    photo: str
    score: float
    root: str


@dataclass(frozen=True)
class Entry:
    """What the index knows of a photo.

    Attributes:
        stamp: changes when the file changes.
        digest: of its content.
        taken: when it was taken, in local time as the camera wrote it; None if nothing is known.
        look: what it looks like in small (`zerotag.serving.duplicates.look_of`); None if nothing is known.
    """

    stamp: str
    digest: str
    taken: datetime | None = None
    look: bytes | None = None


@dataclass(frozen=True)
class Where:
    """Which photos are searched.

    Attributes:
        root: only photos of this indexed folder.
        folder: only photos of this folder, by its path below the indexed folder; or an absolute path.
        since: only photos taken on this day or later.
        until: only photos taken on this day or earlier.
        apart_from: root and path of a photo that is left out.
    """

    root: str | None = None
    folder: str = ""
    since: date | None = None
    until: date | None = None
    apart_from: tuple[str, str] | None = None

    def condition(self, roots: Iterable[str]) -> str:
        """The condition in SQL; empty if all photos are searched.

        Args:
            roots: the indexed folders.

        Raises:
            ZerotagError: the folder is in none of them, or the days are in the wrong order.
        """
        every = [f"root = {_quoted([self.root])}"] if self.root is not None else []
        folder = posixpath.normpath(self.folder) if self.folder else "."
        if folder == ".." or folder.startswith("../"):
            raise ZerotagError(f"{self.folder}: outside the indexed folder. Name a folder below it.")
        if folder.startswith("/"):
            every.append(_in_absolute(folder, roots))
        elif folder != ".":
            every.append(_below(folder))
        if self.since and self.until and self.since > self.until:
            raise ZerotagError(f"since {self.since} is after until {self.until}: no photo can match. Swap them.")
        if self.since:
            every.append(f"taken >= TIMESTAMP '{self.since} 00:00:00'")
        if self.until:
            every.append(f"taken < TIMESTAMP '{self.until + timedelta(days=1)} 00:00:00'")
        if self.apart_from:
            root, photo = self.apart_from
            every.append(f"NOT (root = {_quoted([root])} AND photo = {_quoted([photo])})")
        return " AND ".join(each for each in every if each)


def _in_absolute(folder: str, roots: Iterable[str]) -> str:
    places = []
    for root in roots:
        if root == folder or root.startswith(f"{folder.rstrip('/')}/"):
            places.append(f"root = {_quoted([root])}")
        elif folder.startswith(f"{root.rstrip('/')}/"):
            places.append(f"(root = {_quoted([root])} AND {_below(posixpath.relpath(folder, root))})")
    if not places:
        raise ZerotagError(f"{folder}: in no indexed folder. Index it with `zerotag index`.")
    return f"({' OR '.join(places)})"


def _below(folder: str) -> str:
    # "0" follows "/": all that begins with the folder and a slash, as a range, which an index on names can answer.
    return f"(photo >= {_quoted([f'{folder}/'])} AND photo < {_quoted([f'{folder}0'])})"


class Index:
    """The index of one model; each model has its own table in the database.

    Writes of several processes take turns if the database is a local folder. LanceDB itself does not keep concurrent
    writers from inserting a row twice.

    Args:
        uri: a folder, or a URI that LanceDB connects to.
        model: identifies the network that computed the vectors.
        shape: (M, d).
        dimensions: that vectors are stored in; None for those of the existing table, or what is best for a new one.
        words: returns (W, d) word vectors, for a basis; without, vectors are stored as they are.

    Attributes:
        basis: of the stored vectors; None if they are not projected.
        dimensions: of the stored vectors.

    Raises:
        ZerotagError: the database cannot be opened, or its vectors have other dimensions than asked for.
    """

    def __init__(
        self,
        uri: str,
        model: str,
        shape: tuple[int, int],
        dimensions: int | None = None,
        words: Callable[[], np.ndarray] | None = None,
    ):
        self._rows, self._full = shape
        self._asked, self._words = dimensions, words
        # Tables of version 0.1, `photos-…`, had no root and no digest; they are left alone.
        self._name, self._axes, earlier = f"gallery-{model}", f"axes-{model}", f"library-{model}"
        self._lock = None if "://" in uri else Path(uri) / f".{self._name}.lock"
        self._background = ThreadPoolExecutor(1, thread_name_prefix="tidy")
        self._tidying: Future[None] | None = None
        self._files = f"{uri.rstrip('/')}/{self._name}.lance"
        self._sampled = np.empty(0, np.float32)
        self._indexed: tuple[int, bool] = (-1, False)
        self._settled = False
        try:
            # Zero interval: the next search sees what another process wrote.
            self._database = import_lancedb().connect(uri, read_consistency_interval=timedelta(0))
            with self._writing():
                tables = self._tables()
                if self._axes not in tables and self._name not in tables and dimensions not in (None, self._full):
                    assert dimensions
                    self._project(dimensions)
                self._open()
                if earlier in tables:
                    self._take_over(self._database.open_table(earlier))
                    self._database.drop_table(earlier)
        except (OSError, RuntimeError, ValueError) as error:
            remedy = s3_remedy(str(error)) if uri.startswith("s3://") else ""
            reason = f". {remedy}" if remedy else f" ({error})."
            raise ZerotagError(f"{uri}: the search index cannot be opened{reason} See serve.index.") from error
        if dimensions not in (None, self.dimensions):
            raise ZerotagError(
                f"{uri}: this index has {self.dimensions} dimensions, not {dimensions}. Give another --database."
            )

    def _tables(self) -> list[str]:
        return list(self._database.table_names(limit=_ALL_TABLES))

    def _project(self, dimensions: int, photos: np.ndarray | None = None) -> None:
        """Choose a basis. It is kept, since another machine may compute other axes."""
        assert self._words
        made = Basis.of(self._words(), dimensions, photos).axes
        self._database.create_table(self._axes, data=pa.table({"axis": list(made)}), mode="overwrite")

    def _open(self) -> None:
        """Open the table, and learn how it stores vectors."""
        tables = self._tables()
        axes = self._database.open_table(self._axes).to_arrow()["axis"] if self._axes in tables else None
        self.basis = None if axes is None else Basis(_matrix(axes))
        self.dimensions = self.basis.axes.shape[1] if self.basis else self._full
        # The engine's index takes bytes.
        self._stored = -(-self.dimensions // 8) * 8
        self._schema = _schema(self._stored)
        if self._name in tables:
            self._table = self._database.open_table(self._name)
        # Without rows, it may be of the time before there was a basis.
        if self._name not in tables or (self._table.schema != self._schema and not self._table.count_rows()):
            self._table = self._database.create_table(self._name, schema=self._schema, mode="overwrite")
        self._settled = self._table.count_rows() > 0

    def _settle(self, writing: bool = False) -> None:
        """Look again how vectors are stored, as long as there are none: another process may have chosen a basis.

        Args:
            writing: whether other writers wait already; no process may store vectors meanwhile.
        """
        if not self._settled:
            with nullcontext() if writing else self._writing():
                self._open()

    def wants(self, photos: int) -> int:
        """How many photos it should be fitted to (`fit`) before any are stored; 0 for none.

        Args:
            photos: how many are to come.
        """
        self._settle()
        chosen = bool(self._asked or self.basis)
        fewer = self.dimensions < self._full if chosen else photos >= _MANY and self._full > FEWER
        return _FITTED if fewer and self._words and self._table.version == 1 and photos >= _FITTED else 0

    def fit(self, matrices: np.ndarray) -> None:
        """Choose the dimensions that vectors are stored in by photos, too; nothing is done if there ever were any.

        Args:
            matrices: (n, M, d) principal vectors of photos that resemble those to come.
        """
        with self._writing():
            self._settle(writing=True)
            if self._table.version == 1:
                dimensions = self.dimensions if self.basis else FEWER
                self._project(dimensions, matrices.reshape(-1, self._full).astype(np.float32))
                self._open()

    def _take_over(self, earlier: Any) -> None:
        """Add the photos of a table that did not know when they were taken. If interrupted, it is done again."""
        roots: set[str] = set()
        for batch in earlier.search().limit(None).to_batches():
            # Without a stamp, the next update reads the file, and finds the vectors by the content.
            columns = {
                **dict(zip(batch.schema.names, batch.columns, strict=True)),
                "stamp": pa.array([""] * len(batch), pa.string()),
                "taken": pa.nulls(len(batch), pa.timestamp("s")),
                "look": pa.nulls(len(batch), pa.binary()),
                "vector": self._vectors(_matrix(pa.table(batch)["vector"])),
            }
            rows = pa.table([columns[field.name] for field in self._schema], schema=self._schema)
            self._table.merge_insert(["root", "photo", "row"]).when_not_matched_insert_all().execute(rows)
            roots |= set(rows["root"].unique().to_pylist())
        logger.warning(
            "The search index of an earlier version was taken over. It does not know when its photos were taken: run "
            "`zerotag index` for %s again, which reads the files but embeds none.",
            " and ".join(sorted(roots)) or "its folders",
        )

    def __len__(self) -> int:
        """Number of photos in the index."""
        return self._table.count_rows() // self._rows

    @property
    def photo_bytes(self) -> float:
        """What a photo takes on disk: its vectors in half precision, and the codes of the engine's index."""
        return self._rows * self._stored * (2 + self._bits / 8)

    @property
    def _bits(self) -> int:
        return _BITS if self._stored < _LONG else _BITS_OF_LONG

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
        columns = ["root", "photo", "stamp", "digest", "taken"]
        rows = self._table.search().where("row = 0").select(columns).limit(None).to_arrow()
        found: dict[str, dict[str, Entry]] = defaultdict(dict)
        for root, photo, *known in zip(*(rows[name].to_pylist() for name in columns), strict=True):
            found[root][photo] = Entry(*known)
        return dict(found)

    def contents(self, digests: Iterable[str]) -> dict[str, tuple[np.ndarray, bytes | None]]:
        """Principal vectors (M, d) and look, by content; contents that are not in the index are left out."""
        self._settle()
        if not (wanted := _quoted(digests)):
            return {}
        columns = ["digest", "row", "look", "vector"]
        rows = self._table.search().where(f"digest IN ({wanted})").select(columns).limit(None).to_arrow()
        found: dict[str, np.ndarray] = {}
        vectors = self._outer(_matrix(rows["vector"])) if len(rows) else ()
        digests = rows["digest"].to_pylist()
        for digest, row, vector in zip(digests, rows["row"].to_pylist(), vectors, strict=True):
            found.setdefault(digest, np.empty((self._rows, self._full), np.float32))[row] = vector
        looks = {digest: look for digest, look in zip(digests, rows["look"].to_pylist(), strict=True) if look}
        return {digest: (matrix, looks.get(digest)) for digest, matrix in found.items()}

    def first_rows(self) -> Iterator[tuple[list[tuple[str, str]], list[str], list[bytes | None], np.ndarray]]:
        """All photos in parts: root and path, content, look, and first principal vectors as stored (n, D)."""
        self._settle()
        columns = ["root", "photo", "digest", "look", "vector"]
        for batch in self._table.search().where("row = 0").select(columns).limit(None).to_batches():
            rows = pa.table(batch)
            if len(rows):
                yield list(_keys(rows)), rows["digest"].to_pylist(), rows["look"].to_pylist(), _matrix(rows["vector"])

    def find(self, root: str, photo: str) -> tuple[Entry, np.ndarray] | None:
        """What is known of a photo, and its principal vectors (M, d); None if it is not in the index."""
        self._settle()
        where = f"root = {_quoted([root])} AND photo = {_quoted([photo])}"
        columns = ["stamp", "digest", "taken", "row", "vector"]
        rows = self._table.search().where(where).select(columns).limit(None).to_arrow()
        if not len(rows):
            return None
        order = np.argsort(rows["row"].to_numpy())
        entry = Entry(*(rows[name][0].as_py() for name in columns[:3]))
        return entry, self._outer(_matrix(rows["vector"]))[order]

    def put(self, root: str, photos: list[str], entries: list[Entry], matrices: np.ndarray) -> None:
        """Add or replace photos by root and path, atomically.

        Args:
            root: their folder.
            photos: n paths below it.
            entries: what is known of each.
            matrices: (n, M, d) principal vectors.
        """
        with self._writing():
            self._settle(writing=True)
            merge = self._table.merge_insert(["root", "photo", "row"])
            merge.when_matched_update_all().when_not_matched_insert_all().execute(
                self.rows(root, photos, entries, matrices)
            )

    def fill(self, root: str, photos: list[str], matrices: np.ndarray, entries: list[Entry] | None = None) -> None:
        """Add new photos, as `put` does, without checking for existing ones; meant for a large initial import."""
        with self._writing():
            self._settle(writing=True)
            self._table.add(self.rows(root, photos, entries or [Entry("", "")] * len(photos), matrices))

    def rows(self, root: str, photos: list[str], entries: list[Entry], matrices: np.ndarray) -> pa.Table:
        """The table's rows of photos; arguments as for `put`."""
        n, m, _ = matrices.shape
        columns = [
            pa.array([root] * (n * m), pa.string()),
            pa.array(np.repeat(photos, m), pa.string()),
            pa.array(np.tile(np.arange(m, dtype=np.int16), n)),
            pa.array(np.repeat([entry.stamp for entry in entries], m), pa.string()),
            pa.array(np.repeat([entry.digest for entry in entries], m), pa.string()),
            pa.array([entry.taken for entry in entries for _ in range(m)], pa.timestamp("s")),
            # Once for each photo, in its first row.
            pa.array([entry.look if row == 0 else None for entry in entries for row in range(m)], pa.binary()),
            self._vectors(matrices.reshape(n * m, -1)),
        ]
        return pa.table(columns, schema=self._schema)

    def _inner(self, vectors: np.ndarray) -> np.ndarray:
        """(n, d) -> (n, D): vectors as they are stored, but for the precision."""
        vectors = (self.basis.down(vectors) if self.basis else vectors).astype(np.float32)
        return np.pad(vectors, ((0, 0), (0, self._stored - self.dimensions)))

    def _outer(self, vectors: np.ndarray) -> np.ndarray:
        """(n, D) -> (n, d)."""
        vectors = vectors[:, : self.dimensions]
        return self.basis.up(vectors) if self.basis else vectors

    def _vectors(self, vectors: np.ndarray) -> pa.Array:
        half = self._inner(vectors).astype(np.float16)
        return pa.FixedSizeListArray.from_arrays(pa.array(half.ravel()), self._stored)

    def write_apart(self, rows: pa.Table) -> list[str]:
        """Write rows into files of the table that no one sees before `adopt`.

        Returns:
            The fragments, in JSON.
        """
        from lance.fragment import write_fragments

        written = write_fragments(rows, self._files, mode="append")
        return [json.dumps(fragment.to_json()) for fragment in written]

    def has_files(self, fragments: Iterable[str]) -> bool:
        """Whether the files of fragments, from `write_apart`, are still there."""
        from pyarrow.fs import FileSystem, FileType, LocalFileSystem

        paths = [file["path"] for fragment in fragments for file in json.loads(fragment)["files"]]
        if "://" in self._files:
            system, root = FileSystem.from_uri(self._files)
        else:
            system, root = LocalFileSystem(), str(Path(self._files).resolve())
        found = system.get_file_info([f"{root}/data/{path}" for path in paths]) if paths else []
        return all(entry.type == FileType.File for entry in found)

    def adopt(self, root: str, photos: Iterable[str], fragments: Iterable[str]) -> None:
        """Make fragments a part of the table, in place of what it has of their photos, in one commit.

        Args:
            root: the photos' folder.
            photos: those that are in the fragments.
            fragments: from `write_apart`, of any process.
        """
        import lance
        from lance.fragment import FragmentMetadata

        new = [FragmentMetadata.from_json(fragment) for fragment in fragments]
        for left in reversed(range(_TRIES)):
            with self._writing():
                table = lance.dataset(self._files)
                replaced = sorted(set(photos) & self.entries().get(root, {}).keys())
                change: Any = lance.LanceOperation.Append(new)
                if replaced:
                    change = _in_place_of(table, f"root = {_quoted([root])} AND photo IN ({_quoted(replaced)})", new)
                try:
                    lance.LanceDataset.commit(self._files, change, read_version=table.version)
                    return
                except (OSError, RuntimeError):  # a compaction was faster
                    if not left:
                        raise

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
        """Compact small files, delete old versions, and make or update the engine's indices.

        Nobody waits for it: photos are searched, added and removed meanwhile. If another process is at it, that does.

        Raises:
            RuntimeError: a photo was replaced or removed in a file that was being compacted; nothing was changed.
        """
        from lancedb.index import BTree, IvfRq

        with self._locked("tidy", wait=False) as alone:
            if not alone:
                return
            rows = self._table.count_rows()
            there = {column: index.name for index in self._table.list_indices() for column in index.columns}
            known = self._table.index_stats(there["vector"]) if "vector" in there else None
            # Before an index is made, which would be written again, as compaction gives rows other ids.
            self._table.optimize(cleanup_older_than=timedelta(minutes=10))
            for column in ("photo", "taken"):
                if rows and column not in there:
                    self._table.create_index(column, config=BTree())
            if rows > _EXACT and (known is None or rows > _GROWTH * known.num_indexed_rows):
                # Not as a number of partitions: then the engine splits them again when it updates the index.
                size = max(_PARTITION, rows // _PARTITIONS)
                kind = IvfRq("dot", target_partition_size=size, num_bits=self._bits, sample_rate=64, max_iterations=15)
                self._table.create_index("vector", config=kind)

    def tidy_soon(self) -> Future[None]:
        """Tidy in the background, after what is being tidied now; the interpreter ends when that is done."""

        def tidy() -> None:
            with suppress(OSError, RuntimeError):
                self.tidy()

        waiting = self._tidying and not (self._tidying.running() or self._tidying.done())
        if not waiting:
            self._tidying = self._background.submit(tidy)
        assert self._tidying
        return self._tidying

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Wait for the writers of other processes."""
        with self._locked("lock", wait=True):
            yield

    @contextmanager
    def _locked(self, what: str, wait: bool) -> Iterator[bool]:
        """Hold a lock on a local database; the kernel releases that of a process that is killed.

        Yields whether it is held: False if another has it and `wait` is False.
        """
        if self._lock is None:
            yield True
            return
        self._lock.parent.mkdir(parents=True, exist_ok=True)
        with self._lock.with_suffix(f".{what}").open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                yield False
                return
            yield True

    def search(
        self,
        wanted: np.ndarray | None,
        unwanted: np.ndarray | None = None,
        limit: int = 20,
        offset: int = 0,
        where: Where = Where(),
        like: np.ndarray | None = None,
        exact: bool = False,
    ) -> list[Hit]:
        """Search for photos that match all wanted words and resemble an example.

        A photo's score is its minimum over the wanted words. A photo that scores at least as high for an unwanted
        word is excluded.

        A photo's similarity to an example is the maximum cosine of its rows with a row of the example, averaged over
        the example's rows; the example itself has 1. With words and an example, the score is the minimum of both as
        standard scores: by how many standard deviations a photo exceeds the mean of the index (of `_SAMPLE` photos in
        it). Unwanted words are compared on the same scale.

        Args:
            wanted: (W, d) unit word vectors; None or W = 0 only with an example.
            unwanted: (V, d) unit word vectors.
            limit: maximum number of photos.
            offset: number of photos to skip.
            where: which photos are searched.
            like: (M, d) principal vectors of an example.
            exact: compares all photos, however many there are.

        Returns:
            The top photos, best first: all of them up to `_EXACT` rows, else nearly all.

        Raises:
            ZerotagError: neither words nor an example, or a folder or days that cannot match.
        """
        self._settle()
        condition = where.condition(self.roots() if where.folder.startswith("/") else ())
        queries = [_Query(word[None]) for word in self._inner(wanted)] if wanted is not None else []
        without = [_Query(word[None]) for word in self._inner(unwanted)] if unwanted is not None else []
        words = len(queries)
        if like is not None:
            queries.append(_Query(unit(self._inner(like)), cosine=True))
        if not queries:
            raise ZerotagError("Neither a word nor a photo to search for. Give at least one.")
        if like is not None and len(queries) + len(without) > 1 and len(self):
            sample = self._sample()
            queries, without = ([query.standardised(sample) for query in each] for each in (queries, without))
        approximate = not exact and self._has_index()
        need = offset + limit
        aims = queries
        if self._rows == 1 and words > 1 and len(self):
            aims = [_aim(queries[:words], without, self._sample(), need), *queries[words:]]
        while approximate and self._rows == 1 and like is None:
            with suppress(_MovedError):
                return self._by_codes(aims[0], queries, without, need, condition)[offset:]
        depth = need + _NEARLY
        if approximate:
            depth = (2 * need + _BEYOND) * (1 if len(queries) + len(without) == 1 and like is None else _SEVERAL)
        while True:
            # No photo outside the candidates scores above the lowest bound.
            found = [self._candidates(aim, depth * self._rows, condition, approximate) for aim in aims]
            bound = min(each.bound for each in found)
            hits = _best(*self._score(found, queries, without), need)
            proven = bound == -np.inf or (len(hits) >= need and hits[need - 1].score >= bound)
            if proven or (approximate and len(hits) >= need and depth > _DEEPEST):
                return hits[offset:need]
            depth *= 4

    def _has_index(self) -> bool:
        """Whether the engine has an index of the vectors."""
        version = self._table.version
        if self._indexed[0] != version:
            self._indexed = version, any("vector" in index.columns for index in self._table.list_indices())
        return self._indexed[1]

    def _by_codes(
        self, aim: "_Query", wanted: list["_Query"], unwanted: list["_Query"], need: int, condition: str
    ) -> list[Hit]:
        """Search by words for photos of a single row: by the engine's codes first, then by what is stored.

        Photos are scored in the order of their codes for the aim, until the next one's, give or take the codes' errors,
        is below the score of the last photo needed.

        Args:
            aim: no photo's score exceeds its score for this.
            wanted: the words.
            unwanted: words that photos must not match.
            need: number of photos.
            condition: which photos are searched, in SQL.

        Raises:
            _MovedError: search again.
        """
        one = len(wanted) + len(unwanted) == 1
        first = max(_SCORED if one else _SCORED_FOR_SEVERAL, need)
        depth = max(_DEEP * (1 if one else _DEEPER), 4 * need)
        rows, scores, errors = np.empty(0, np.uint64), np.empty(0), np.empty(0)
        last, off = -np.inf, 0.0
        while True:
            scored = rows[: len(scores)]
            rows, codes = self._codes(aim.rows[0], depth, condition)
            if not np.array_equal(rows[: len(scores)], scored):  # those of equal codes may change places
                scores, errors, last, off = np.empty(0), np.empty(0), -np.inf, 0.0
            end = int((codes + off > last).sum()) if len(scores) else first
            while (start := len(scores)) < min(end, len(rows)):
                some = slice(start, min(end, start + _SCORED_AT_MOST))
                vectors = _matrix(self._take(rows[some], ["vector"])["vector"])[:, None]
                errors = np.concatenate([errors, aim(vectors) - codes[some]])
                off = _ERRORS * float(errors.std())
                least = np.min([query(vectors) for query in wanted], axis=0)
                scores = np.concatenate([scores, _without(least, unwanted, vectors)])
                last = np.partition(scores, -need)[-need] if len(scores) >= need else -np.inf
                end = int((codes + off > last).sum())
            if len(rows) < depth or last >= codes[-1] + off or depth > _DEEPEST:
                best = np.flatnonzero((scores >= last) & (scores > -np.inf))
                return _best(list(_keys(self._take(rows[best], ["root", "photo"]))), scores[best], need)
            depth *= 4

    def _query(self, vector: np.ndarray, condition: str, approximate: bool, cosine: bool = False) -> Any:
        """The engine's search for rows, by its index or by what is stored."""
        search: Any = self._table.search(vector.astype(np.float32), vector_column_name="vector")
        if condition:
            search = search.where(condition, prefilter=True)
        if approximate:  # its index is of products; it looks into all of its partitions
            return search.distance_type("dot").nprobes(_ALL_PARTITIONS)
        return search.distance_type("cosine" if cosine else "dot").bypass_vector_index()

    def _codes(self, vector: np.ndarray, count: int, condition: str) -> tuple[np.ndarray, np.ndarray]:
        """Ids of the top rows by the engine's index, and their products as its codes say them."""
        search = self._query(vector, condition, approximate=True).with_row_id(True)
        rows = search.select(["_distance"]).limit(count).to_arrow()
        return rows["_rowid"].to_numpy(), 1 - rows["_distance"].to_numpy()

    def _take(self, rows: np.ndarray, columns: list[str]) -> pa.Table:
        """Columns of rows, by their ids, in the order of these.

        Raises:
            _MovedError: some rows are not there any more.
        """
        if not len(rows):
            return self._schema.empty_table().select(columns)
        found = self._table.take_row_ids(rows.tolist()).select(columns).with_row_id().to_arrow()
        if len(found) < len(rows):
            raise _MovedError
        ids = found["_rowid"].to_numpy()
        by_id = np.argsort(ids)
        return found.take(by_id[np.searchsorted(ids, rows, sorter=by_id)])

    def _candidates(self, aim: "_Query", count: int, condition: str, approximate: bool) -> "_Candidates":
        """The top rows.

        With the engine's index, the bound is an estimate, and photos with a higher score may be missing.
        """
        photos: list[tuple[str, str]] = []
        vectors, bounds = [], []
        for vector in aim.rows:
            search = self._query(vector, condition, approximate, aim.cosine)
            rows = search.select(["root", "photo", "vector", "_distance"]).limit(count).to_arrow()
            if not len(rows):
                return _Candidates([], np.empty((0, self._stored), np.float32), -np.inf)
            found = _matrix(rows["vector"])
            photos += _keys(rows)
            vectors.append(found)
            # Recomputed, since the engine's distance, 1 - product, is less precise.
            products = np.vecdot(unit(found) if aim.cosine else found, vector)
            if len(rows) < count:
                bounds.append(-np.inf)
            elif approximate and not aim.cosine:
                # The engine left out what its codes say is lower, which may be off as they are for the photos found.
                coded = 1 - rows["_distance"].to_numpy()
                off = products - coded
                bounds.append(float(coded.min() + _ERRORS * off.std()))
            else:
                bounds.append(float(products.min()))
        return _Candidates(photos, np.concatenate(vectors), aim.scaled(float(np.mean(bounds))))

    def _score(
        self, found: list["_Candidates"], wanted: list["_Query"], unwanted: list["_Query"]
    ) -> tuple[list[tuple[str, str]], np.ndarray]:
        """Photos, and their scores; -inf for those that match an unwanted word."""
        parts: Iterable[tuple[list[tuple[str, str]], np.ndarray]]
        if self._rows == 1:
            # A photo that several queries found counts once.
            places = {photo: place for place, photo in enumerate(photo for each in found for photo in each.photos)}
            vectors = np.concatenate([each.vectors for each in found])[list(places.values())]
            parts = [(list(places), vectors[:, None])] if places else []
        else:
            every = {photo for each in found for photo in each.photos}
            parts = (([(root, name) for name in names], matrices) for root, names, matrices in self.matrices(every))
        photos, scores = [], [np.empty(0)]
        for keys, matrices in parts:
            photos += keys
            scores.append(_without(np.min([query(matrices) for query in wanted], axis=0), unwanted, matrices))
        return photos, np.concatenate(scores)

    def matrices(self, photos: Iterable[tuple[str, str]]) -> Iterator[tuple[str, list[str], np.ndarray]]:
        """Photos' root, their n paths, and their principal vectors as stored (n, M, D), in parts."""
        below: dict[str, list[str]] = defaultdict(list)
        for root, photo in photos:
            below[root].append(photo)
        for root, names in below.items():
            for start in range(0, len(names), 1000):
                where = f"root = {_quoted([root])} AND photo IN ({_quoted(names[start : start + 1000])})"
                rows = self._table.search().where(where).select(["photo", "row", "vector"]).limit(None).to_arrow()
                order = np.lexsort([rows["row"].to_numpy(), np.array(rows["photo"].to_pylist())])
                matrices = _matrix(rows["vector"])[order].reshape(-1, self._rows, self._stored)
                yield root, [rows["photo"][int(place)].as_py() for place in order[:: self._rows]], matrices

    def _sample(self) -> np.ndarray:
        """(n, M, D): vectors of photos all over the table; the same until the table grows or shrinks by a tenth."""
        rows = self._table.count_rows()
        if abs(min(rows // self._rows, _SAMPLE) - len(self._sampled)) > len(self._sampled) // 10:
            places = np.unique(np.linspace(0, rows - 1, min(rows, _SAMPLE)).astype(int)).tolist()
            taken = self._table.take_offsets(places)
            if self._rows == 1:
                self._sampled = _matrix(taken.select(["vector"]).to_arrow()["vector"])[:, None]
            else:
                photos = set(_keys(taken.select(["root", "photo"]).to_arrow()))
                self._sampled = np.concatenate([matrices for _, _, matrices in self.matrices(photos)])
        return self._sampled


class _MovedError(Exception):
    """Another process has removed rows, or compacted them, so that they have other ids."""


@dataclass(frozen=True)
class _Candidates:
    """The top rows of a query: their n photos, which may repeat, and vectors (n, d).

    Attributes:
        bound: no photo beside them has a higher score.
    """

    photos: list[tuple[str, str]]
    vectors: np.ndarray
    bound: float


def _without(scores: np.ndarray, unwanted: list["_Query"], matrices: np.ndarray) -> np.ndarray:
    """The scores of photos; -inf for those that match an unwanted word as well."""
    for query in unwanted:
        scores = np.where(query(matrices) >= scores, -np.inf, scores)
    return scores


def _best(photos: list[tuple[str, str]], scores: np.ndarray, count: int) -> list[Hit]:
    """The photos with the highest scores, best first; of equal ones, by name. -inf is no score."""
    places = np.flatnonzero(scores > -np.inf)
    if count < len(places):
        least = np.partition(scores[places], -count)[-count]
        places = places[scores[places] >= least]
    hits = [Hit(photos[place][1], float(scores[place]), photos[place][0]) for place in places]
    return sorted(hits, key=lambda hit: (-hit.score, hit.photo, hit.root))[:count]


@dataclass(frozen=True)
class _Query:
    """A word, or an example photo: rows (R, d) whose best products with a photo's rows are averaged.

    Attributes:
        cosine: whether the photo's rows are scaled to unit length, as `rows` are.
        mean, spread: subtracted from this average, and what it is divided by.
    """

    rows: np.ndarray
    cosine: bool = False
    mean: float = 0.0
    spread: float = 1.0

    def __call__(self, matrices: np.ndarray) -> np.ndarray:
        """Score photos: (n, M, d) -> (n,). Dot by dot: for a product of matrices, BLAS would wake all its threads."""
        matrices = unit(matrices) if self.cosine else matrices
        return self.scaled(np.mean([np.vecdot(matrices, row).max(axis=1) for row in self.rows], axis=0))

    def scaled(self, average: Any) -> Any:
        """The score of an average."""
        return (average - self.mean) / self.spread

    def standardised(self, sample: np.ndarray) -> "_Query":
        """The same with standard scores over a sample of photos (n, M, d)."""
        scores = self(sample)
        return replace(self, mean=float(scores.mean()), spread=max(float(scores.std()), 1e-6))


def _aim(wanted: list[_Query], unwanted: list[_Query], sample: np.ndarray, need: int) -> _Query:
    """One query for several words, of photos of a single row, whose score no photo's own exceeds.

    A mean of the wanted words' scores, with any weights, is no less than the lowest of them. It stays so when it is
    moved away from the unwanted words' scores, which are lower. Of many such means, the one is taken that is lowest for
    the best photos of the sample: it has the fewest photos to look at.
    """
    random = np.random.default_rng(0)
    weights = np.concatenate([np.eye(len(wanted)), random.dirichlet(np.ones(len(wanted)), 15)])
    mixtures = weights
    if unwanted:
        against = np.full((len(weights), len(unwanted)), 1 / len(unwanted))
        mixtures = np.concatenate(
            [np.concatenate([(1 + push) * weights, -push * against], axis=1) for push in (0.0, 0.25, 0.5, 1.0)]
        )
    queries = [*wanted, *unwanted] if unwanted else wanted
    scores = (mixtures @ np.stack([query(sample) for query in queries])).astype(np.float32)
    best = min(max(need, len(sample) // 100), len(sample))
    mixture = mixtures[np.argmin(np.partition(scores, -best, axis=1)[:, -best])]
    rows = np.sum([part * query.rows / query.spread for part, query in zip(mixture, queries, strict=True)], axis=0)
    shift = sum(part * query.mean / query.spread for part, query in zip(mixture, queries, strict=True))
    return _Query(rows, mean=float(shift))


def _in_place_of(table: Any, condition: str, new: list[Any]) -> Any:
    """The change of a Lance table by new fragments and without the rows of a condition."""
    import lance

    emptied, thinned = [], []
    for fragment in table.get_fragments():
        rest = fragment.delete(condition)
        if rest is None:
            emptied.append(fragment.fragment_id)
        elif rest.num_deletions != fragment.num_deletions:
            thinned.append(rest)
    return lance.LanceOperation.Update(removed_fragment_ids=emptied, updated_fragments=thinned, new_fragments=new)


def _schema(dimensions: int) -> pa.Schema:
    return pa.schema(
        [
            pa.field("root", pa.string(), nullable=False),
            pa.field("photo", pa.string(), nullable=False),
            pa.field("row", pa.int16(), nullable=False),
            pa.field("stamp", pa.string(), nullable=False),
            pa.field("digest", pa.string(), nullable=False),
            pa.field("taken", pa.timestamp("s")),
            pa.field("look", pa.binary()),
            pa.field("vector", pa.list_(pa.float16(), dimensions), nullable=False),
        ]
    )


def _keys(rows: pa.Table) -> Iterable[tuple[str, str]]:
    return zip(rows["root"].to_pylist(), rows["photo"].to_pylist(), strict=True)


def _matrix(column: pa.ChunkedArray) -> np.ndarray:
    return (
        np.concatenate([part.flatten().to_numpy() for part in column.chunks])
        .astype(np.float32)
        .reshape(len(column), -1)
    )


def _quoted(photos: Iterable[str]) -> str:
    return ", ".join("'" + photo.replace("'", "''") + "'" for photo in photos)


def open_index(uri: str, tagger: Tagger, dimensions: int | None = None) -> Index:
    """Open the index of a tagger's model; `dimensions` that a new one stores vectors in, if not all."""
    shape = tagger.info["principal_vectors"], tagger.info["dimensions"]
    return Index(uri, tagger.network, shape, dimensions, tagger.frequent_words)


def search_words(
    tagger: Tagger, wanted: Iterable[str], unwanted: Iterable[str], example: bool = False
) -> tuple[Words | None, Words | None]:
    """Look up the word vectors of a search.

    Args:
        tagger: the model.
        wanted: words that photos must match.
        unwanted: words that they must not match.
        example: whether there is an example photo, so that no word is needed.

    Returns:
        Both; None for no words.

    Raises:
        ZerotagError: neither a wanted word nor an example, or a word without a vector; ignoring it would change the
            results.
    """
    wanted, unwanted = ([word for word in words if word.strip()] for words in (wanted, unwanted))
    if not (wanted or example):
        raise ZerotagError("No word to search for. Give at least one, or an example photo.")
    words = tagger.words(wanted) if wanted else None
    without = tagger.words(unwanted) if unwanted else None
    if reasons := [each.reason for each in (words, without) if each and each.missing]:
        raise ZerotagError(f"{'. '.join(reasons)}. Try other words.")
    return words, without
