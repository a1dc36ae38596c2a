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
"""

import fcntl
import logging
import os
import posixpath
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from zerotag.errors import ZerotagError
from zerotag.serving.tagger import Tagger, Words

# LanceDB reserves cores for I/O threads, which a local disk does not keep busy. With twice as many compute threads as
# cores, an exact scan of 700,000 rows takes 59 ms instead of 100 ms on two cores.
os.environ.setdefault("LANCE_CPU_THREADS", str(2 * (os.cpu_count() or 1)))

# Photos by which scores for words and for a photo are put on one scale.
_SAMPLE = 4096

_ALL_TABLES = 1_000_000

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

    Raises:
        ZerotagError: the database cannot be opened.
    """

    def __init__(self, uri: str, model: str, shape: tuple[int, int]):
        self._rows, self._dimensions = shape
        self._sampled: tuple[int, np.ndarray] = (-1, np.empty((0, *shape), np.float32))
        self._schema = pa.schema(
            [
                pa.field("root", pa.string(), nullable=False),
                pa.field("photo", pa.string(), nullable=False),
                pa.field("row", pa.int16(), nullable=False),
                pa.field("stamp", pa.string(), nullable=False),
                pa.field("digest", pa.string(), nullable=False),
                pa.field("taken", pa.timestamp("s")),
                pa.field("look", pa.binary()),
                pa.field("vector", pa.list_(pa.float32(), self._dimensions), nullable=False),
            ]
        )
        # Tables of version 0.1, `photos-…`, had no root and no digest; they are left alone.
        name, earlier = f"album-{model}", f"library-{model}"
        self._lock = None if "://" in uri else Path(uri) / f".{name}.lock"
        import lancedb  # starts threads, so not imported in a process that only starts others

        try:
            # Zero interval: the next search sees what another process wrote.
            database = lancedb.connect(uri, read_consistency_interval=timedelta(0))
            with self._writing():
                self._table = database.create_table(name, schema=self._schema, exist_ok=True)
                if earlier in database.table_names(limit=_ALL_TABLES):
                    self._take_over(database.open_table(earlier))
                    database.drop_table(earlier)
        except (OSError, RuntimeError, ValueError) as error:
            raise ZerotagError(f"{uri}: the search index cannot be opened ({error}). See serve.index.") from error

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
        if not (wanted := _quoted(digests)):
            return {}
        columns = ["digest", "row", "look", "vector"]
        rows = self._table.search().where(f"digest IN ({wanted})").select(columns).limit(None).to_arrow()
        found: dict[str, np.ndarray] = {}
        vectors = _matrix(rows["vector"]) if len(rows) else ()
        digests = rows["digest"].to_pylist()
        for digest, row, vector in zip(digests, rows["row"].to_pylist(), vectors, strict=True):
            found.setdefault(digest, np.empty((self._rows, self._dimensions), np.float32))[row] = vector
        looks = {digest: look for digest, look in zip(digests, rows["look"].to_pylist(), strict=True) if look}
        return {digest: (matrix, looks.get(digest)) for digest, matrix in found.items()}

    def first_rows(self) -> Iterator[tuple[list[tuple[str, str]], list[str], list[bytes | None], np.ndarray]]:
        """All photos in parts: root and path, content, look, and first principal vectors (n, d)."""
        columns = ["root", "photo", "digest", "look", "vector"]
        for batch in self._table.search().where("row = 0").select(columns).limit(None).to_batches():
            rows = pa.table(batch)
            if len(rows):
                yield list(_keys(rows)), rows["digest"].to_pylist(), rows["look"].to_pylist(), _matrix(rows["vector"])

    def find(self, root: str, photo: str) -> tuple[Entry, np.ndarray] | None:
        """What is known of a photo, and its principal vectors (M, d); None if it is not in the index."""
        where = f"root = {_quoted([root])} AND photo = {_quoted([photo])}"
        columns = ["stamp", "digest", "taken", "row", "vector"]
        rows = self._table.search().where(where).select(columns).limit(None).to_arrow()
        if not len(rows):
            return None
        order = np.argsort(rows["row"].to_numpy())
        entry = Entry(*(rows[name][0].as_py() for name in columns[:3]))
        return entry, _matrix(rows["vector"])[order]

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
            pa.array([entry.taken for entry in entries for _ in range(m)], pa.timestamp("s")),
            # Once for each photo, in its first row.
            pa.array([entry.look if row == 0 else None for entry in entries for row in range(m)], pa.binary()),
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
        wanted: np.ndarray | None,
        unwanted: np.ndarray | None = None,
        limit: int = 20,
        offset: int = 0,
        where: Where = Where(),
        like: np.ndarray | None = None,
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

        Returns:
            The exact top photos, best first.

        Raises:
            ZerotagError: neither words nor an example, or a folder or days that cannot match.
        """
        condition = where.condition(self.roots() if where.folder.startswith("/") else ())
        queries = [_Query(word[None]) for word in wanted] if wanted is not None else []
        without = [_Query(word[None]) for word in unwanted] if unwanted is not None else []
        if like is not None:
            queries.append(_Query(_unit(like), cosine=True))
        if not queries:
            raise ZerotagError("Neither a word nor a photo to search for. Give at least one.")
        if like is not None and len(queries) + len(without) > 1 and len(self):
            sample = self._sample()
            queries, without = ([query.standardised(sample) for query in each] for each in (queries, without))
        need, depth = offset + limit, offset + limit
        alone = len(queries) == 1 and not without
        while True:
            # No photo outside the candidates scores above the lowest bound.
            found = [self._candidates(query, depth * self._rows, condition) for query in queries]
            bound = min(bound for _, bound in found)
            if alone and len(queries[0].rows) == 1:
                hits = [Hit(photo, value, root) for (root, photo), value in found[0][0].items()]
            else:
                hits = self._score(set().union(*(photos for photos, _ in found)), queries, without)
            hits.sort(key=lambda hit: (-hit.score, hit.photo, hit.root))
            if bound == -np.inf or (len(hits) >= need and hits[need - 1].score >= bound):
                return hits[offset:need]
            depth *= 4

    def _candidates(self, query: "_Query", count: int, condition: str) -> tuple[dict[tuple[str, str], float], float]:
        """Photos of the top rows with their best product (cosine), and an upper bound on the score of all others."""
        photos: dict[tuple[str, str], float] = {}
        bounds = []
        for vector in query.rows:
            search: Any = self._table.search(vector.astype(np.float32), vector_column_name="vector")
            if condition:
                search = search.where(condition, prefilter=True)
            rows = (
                search.distance_type("cosine" if query.cosine else "dot")
                .bypass_vector_index()
                .select(["root", "photo", "vector", "_distance"])
                .limit(count)
                .to_arrow()
            )
            if not len(rows):
                return {}, -np.inf
            # Recomputed, since the engine's distance, 1 - product, is less precise.
            found = _matrix(rows["vector"])
            products = (_unit(found) if query.cosine else found) @ vector
            for key, value in zip(_keys(rows), products.tolist(), strict=True):
                photos[key] = max(value, photos.get(key, -np.inf))
            bounds.append(float(products.min()) if len(rows) == count else -np.inf)
        return photos, query.scaled(float(np.mean(bounds)))

    def _score(self, photos: Iterable[tuple[str, str]], wanted: list["_Query"], unwanted: list["_Query"]) -> list[Hit]:
        """Score photos exactly; photos that match an unwanted word are dropped."""
        hits = []
        for root, names, matrices in self.matrices(photos):
            least = np.min([query(matrices) for query in wanted], axis=0)
            for query in unwanted:
                least = np.where(query(matrices) >= least, -np.inf, least)
            hits += [
                Hit(name, value, root) for name, value in zip(names, least.tolist(), strict=True) if value > -np.inf
            ]
        return hits

    def matrices(self, photos: Iterable[tuple[str, str]]) -> Iterator[tuple[str, list[str], np.ndarray]]:
        """Photos' root, their n paths, and their principal vectors (n, M, d), in parts."""
        below: dict[str, list[str]] = defaultdict(list)
        for root, photo in photos:
            below[root].append(photo)
        for root, names in below.items():
            for start in range(0, len(names), 1000):
                where = f"root = {_quoted([root])} AND photo IN ({_quoted(names[start : start + 1000])})"
                rows = self._table.search().where(where).select(["photo", "row", "vector"]).limit(None).to_arrow()
                order = np.lexsort([rows["row"].to_numpy(), np.array(rows["photo"].to_pylist())])
                matrices = _matrix(rows["vector"])[order].reshape(-1, self._rows, self._dimensions)
                yield root, [rows["photo"][int(place)].as_py() for place in order[:: self._rows]], matrices

    def _sample(self) -> np.ndarray:
        """(n, M, d): principal vectors of photos all over the table; kept until the table changes."""
        version, sample = self._sampled
        if version != self._table.version:
            version, count = self._table.version, self._table.count_rows()
            places = np.unique(np.linspace(0, count - 1, min(count, _SAMPLE)).astype(int)).tolist()
            photos = set(_keys(self._table.take_offsets(places).select(["root", "photo"]).to_arrow()))
            sample = np.concatenate([matrices for _, _, matrices in self.matrices(photos)])
            self._sampled = version, sample
        return sample


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
        """Score photos: (n, M, d) -> (n,)."""
        matrices = _unit(matrices) if self.cosine else matrices
        return self.scaled(np.mean([(matrices @ row).max(axis=1) for row in self.rows], axis=0))

    def scaled(self, average: Any) -> Any:
        """The score of an average."""
        return (average - self.mean) / self.spread

    def standardised(self, sample: np.ndarray) -> "_Query":
        """The same with standard scores over a sample of photos (n, M, d)."""
        scores = self(sample)
        return replace(self, mean=float(scores.mean()), spread=max(float(scores.std()), 1e-6))


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)


def _keys(rows: pa.Table) -> Iterable[tuple[str, str]]:
    return zip(rows["root"].to_pylist(), rows["photo"].to_pylist(), strict=True)


def _matrix(column: pa.ChunkedArray) -> np.ndarray:
    return np.concatenate([part.flatten().to_numpy() for part in column.chunks]).reshape(len(column), -1)


def _quoted(photos: Iterable[str]) -> str:
    return ", ".join("'" + photo.replace("'", "''") + "'" for photo in photos)


def open_index(uri: str, tagger: Tagger) -> Index:
    """Open the index of a tagger's model."""
    return Index(uri, tagger.network, (tagger.info["principal_vectors"], tagger.info["dimensions"]))


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
