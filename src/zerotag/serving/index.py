"""A search index of photos in LanceDB: one row a principal vector, exact search by dot product.

A photo's score for a word is its best row's, so that the photos of the best M * k rows hold the k best photos:
the engine's own exact scan of rows gives the exact maximum over principal vectors. LanceDB works in a local folder,
without a server, or in an object store (s3://…), or against its server (db://…): one setting.
"""

import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from zerotag.errors import ZerotagError
from zerotag.serving.tagger import Tagger, Words, photos_below

# The engine leaves cores to its reading threads, which a local disk does not keep busy: with as many computing threads
# as twice the cores an exact scan of 700,000 rows takes 59 instead of 100 ms on two cores.
os.environ.setdefault("LANCE_CPU_THREADS", str(2 * (os.cpu_count() or 1)))

# Photos that are embedded and written at once: what a kill can lose.
BATCH = 32


@dataclass(frozen=True)
class Hit:
    """A photo of the index that a search found, with its score."""

    photo: str
    score: float


class Index:
    """The photos of one model; another model's photos lie in another table of the same database.

    Args:
        uri: a folder, or what LanceDB connects to.
        model: names the network that the vectors come from.
        shape: (M, d).

    Raises:
        ZerotagError: the database cannot be opened.
    """

    def __init__(self, uri: str, model: str, shape: tuple[int, int]):
        self._rows, dimensions = shape
        self._schema = pa.schema(
            [
                pa.field("photo", pa.string(), nullable=False),
                pa.field("row", pa.int16(), nullable=False),
                pa.field("stamp", pa.string(), nullable=False),
                pa.field("vector", pa.list_(pa.float32(), dimensions), nullable=False),
            ]
        )
        import lancedb  # it starts threads: not in a process that only starts others

        try:
            # No interval: what another process wrote is seen by the next search.
            database = lancedb.connect(uri, read_consistency_interval=timedelta(0))
            self._table = database.create_table(f"photos-{model}", schema=self._schema, exist_ok=True)
        except (OSError, RuntimeError, ValueError) as error:
            raise ZerotagError(f"{uri}: the search index cannot be opened ({error}). See serve.index.") from error

    def __len__(self) -> int:
        """How many photos there are."""
        return self._table.count_rows() // self._rows

    def stamps(self) -> dict[str, str]:
        """The stamp of every photo."""
        rows = self._table.search().where("row = 0").select(["photo", "stamp"]).limit(None).to_arrow()
        return dict(zip(rows["photo"].to_pylist(), rows["stamp"].to_pylist(), strict=True))

    def put(self, photos: list[str], stamps: list[str], matrices: np.ndarray) -> None:
        """Add photos, or replace those of the same name; all of them or none.

        Args:
            photos: n names.
            stamps: n texts that change when a photo does.
            matrices: (n, M, d) principal vectors.
        """
        merge = self._table.merge_insert(["photo", "row"]).when_matched_update_all().when_not_matched_insert_all()
        merge.execute(self._as_rows(photos, stamps, matrices))

    def fill(self, photos: list[str], matrices: np.ndarray) -> None:
        """Add photos that are known to be new, without looking for them first: for a first, large indexing."""
        self._table.add(self._as_rows(photos, [""] * len(photos), matrices))

    def _as_rows(self, photos: list[str], stamps: list[str], matrices: np.ndarray) -> pa.Table:
        n, m, d = matrices.shape
        columns = [
            pa.array(np.repeat(photos, m), pa.string()),
            pa.array(np.tile(np.arange(m, dtype=np.int16), n)),
            pa.array(np.repeat(stamps, m), pa.string()),
            pa.FixedSizeListArray.from_arrays(pa.array(matrices.astype(np.float32).ravel()), d),
        ]
        return pa.table(columns, schema=self._schema)

    def remove(self, photos: list[str]) -> None:
        """Take photos out; names that are not there do no harm."""
        for start in range(0, len(photos), 500):
            self._table.delete(f"photo IN ({_quoted(photos[start : start + 500])})")

    def tidy(self) -> None:
        """Merge small files and forget old versions; searching by name gets an index of its own."""
        from lancedb.index import BTree

        if len(self):
            self._table.create_index("photo", config=BTree())
        self._table.optimize(cleanup_older_than=timedelta(minutes=10))

    def search(
        self, wanted: np.ndarray, unwanted: np.ndarray | None = None, limit: int = 20, offset: int = 0
    ) -> list[Hit]:
        """The photos that fit all wanted words best.

        The score of several words is the least of theirs. A photo that fits an unwanted word at least as well is
        left out.

        Args:
            wanted: (W, d) unit word vectors, W at least 1.
            unwanted: (V, d).
            limit: how many photos.
            offset: how many are skipped first.

        Returns:
            Photos, the best first; exact, whatever the number of photos.
        """
        need, depth = offset + limit, offset + limit
        alone = len(wanted) == 1 and not (unwanted is not None and len(unwanted))
        while True:
            # No photo outside of the candidates scores more than the worst of the bounds.
            found = [self._best_rows(word, depth * self._rows) for word in wanted]
            bound = min(bound for _, bound in found)
            if alone:
                hits = [Hit(photo, value) for photo, value in found[0][0].items()]
            else:
                hits = self._judge(list(set().union(*(rows for rows, _ in found))), wanted, unwanted)
            hits.sort(key=lambda hit: (-hit.score, hit.photo))
            if bound == -np.inf or (len(hits) >= need and hits[need - 1].score >= bound):
                return hits[offset:need]
            depth *= 4

    def _best_rows(self, word: np.ndarray, count: int) -> tuple[dict[str, float], float]:
        """The photos of the best rows with their scores, and the score that no other row exceeds."""
        query: Any = self._table.search(word.astype(np.float32), vector_column_name="vector")
        rows = (
            query.distance_type("dot")
            .bypass_vector_index()
            .select(["photo", "vector", "_distance"])
            .limit(count)
            .to_arrow()
        )
        if not len(rows):
            return {}, -np.inf
        # Not the engine's distance, which is 1 - product and has fewer digits.
        scores = _matrix(rows["vector"]) @ word
        best: dict[str, float] = {}
        for photo, value in zip(rows["photo"].to_pylist(), scores.tolist(), strict=True):
            best[photo] = max(value, best.get(photo, -np.inf))
        return best, (float(scores.min()) if len(rows) == count else -np.inf)

    def _judge(self, photos: list[str], wanted: np.ndarray, unwanted: np.ndarray | None) -> list[Hit]:
        names, scores = [], []
        for start in range(0, len(photos), 1000):
            where = f"photo IN ({_quoted(photos[start : start + 1000])})"
            rows = self._table.search().where(where).select(["photo", "vector"]).limit(None).to_arrow()
            # A photo's rows were written together, but the engine may give them in any order.
            order = np.argsort(np.array(rows["photo"].to_pylist()), kind="stable")
            matrices = _matrix(rows["vector"])[order].reshape(-1, self._rows, wanted.shape[1])
            names += [rows["photo"][int(place)].as_py() for place in order[:: self._rows]]
            least = np.min([(matrices @ word).max(axis=1) for word in wanted], axis=0)
            for word in unwanted if unwanted is not None else ():
                least = np.where((matrices @ word).max(axis=1) >= least, -np.inf, least)
            scores += least.tolist()
        return [Hit(name, value) for name, value in zip(names, scores, strict=True) if value > -np.inf]


def _matrix(column: pa.ChunkedArray) -> np.ndarray:
    return np.concatenate([part.flatten().to_numpy() for part in column.chunks]).reshape(len(column), -1)


def _quoted(photos: Iterable[str]) -> str:
    return ", ".join("'" + photo.replace("'", "''") + "'" for photo in photos)


def open_index(uri: str, tagger: Tagger) -> Index:
    """The index of a tagger's model."""
    return Index(uri, tagger.network, (tagger.info["principal_vectors"], tagger.info["dimensions"]))


def search_words(tagger: Tagger, wanted: Iterable[str], unwanted: Iterable[str]) -> tuple[Words, Words | None]:
    """The vectors of a search's words.

    Raises:
        ZerotagError: no wanted word, or one that has no vector; leaving it out would find other photos.
    """
    wanted, unwanted = list(wanted), list(unwanted)
    if not any(word.strip() for word in wanted):
        raise ZerotagError("No word to search for.")
    words = tagger.words(wanted)
    without = tagger.words(unwanted) if any(word.strip() for word in unwanted) else None
    if missing := words.missing + (without.missing if without else []):
        raise ZerotagError(f"No word vector for {', '.join(missing[:10])}. Try other words.")
    return words, without


@dataclass
class Progress:
    """What an indexing did.

    Attributes:
        added: photos that are new or have changed.
        unchanged: photos that were there already.
        removed: photos that are gone from the folder.
        refused: photos that cannot be used, with the reason.
        remaining: photos that were not reached in time; ask again.
    """

    added: int = 0
    unchanged: int = 0
    removed: int = 0
    refused: dict[str, str] = field(default_factory=dict)
    remaining: int = 0


def inside(root: Path, path: str) -> Path:
    """A path below a root, with links followed.

    Raises:
        ZerotagError: it leads outside of the root, or is not there.
    """
    root = root.resolve()
    if "\0" in path:
        raise ZerotagError("A path cannot hold a zero byte.")
    try:
        found = (root / path).resolve()
        if not found.is_relative_to(root):
            raise ZerotagError(f"{path}: outside of the photos' root.")
        if not found.exists():
            raise ZerotagError(f"{path}: no such file or folder below the photos' root.")
    except OSError as error:
        raise ZerotagError(f"{path}: cannot be read ({error.strerror}).") from error
    return found


def update(
    index: Index,
    tagger: Tagger,
    root: Path,
    paths: Iterable[str],
    embed: Callable[[np.ndarray], np.ndarray] | None = None,
    in_time: Callable[[], bool] = lambda: True,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> Progress:
    """Bring photos and folders below a root into the index, and take out what is gone from these folders.

    A photo whose size and time have not changed is passed over; batches are written as they are done, so that an
    indexing that was killed goes on where it was.

    Args:
        index: where to.
        tagger: embeds photos.
        root: photos are named by their path below it.
        paths: photos or folders below the root.
        embed: runs the network, (B, S, S, 3) -> (B, M, d); the tagger's own if not given.
        in_time: asked before each batch; the work stops when it says no.
        report: is told how many photos are done, of how many.

    Raises:
        ZerotagError: a path is outside of the root, or is not there.
    """
    root = root.resolve()
    known = index.stamps()
    progress = Progress()
    todo: dict[str, tuple[Path, str]] = {}
    gone: set[str] = set()
    for path in paths:
        place = inside(root, path)
        if place.is_dir():
            prefix = "" if place == root else place.relative_to(root).as_posix() + "/"
            files = [file for file in sorted(photos_below(place)) if file.resolve().is_relative_to(root)]
            there = {file.relative_to(root).as_posix() for file in files}
            gone |= {name for name in known if name.startswith(prefix) and name not in there}
        else:
            files = [place]
        for file in files:
            name = file.relative_to(root).as_posix()
            stat = file.stat()
            stamp = f"{stat.st_size}-{stat.st_mtime_ns}"
            if known.get(name) == stamp:
                progress.unchanged += 1
            else:
                todo[name] = (file, stamp)
    if gone:
        index.remove(sorted(gone))
        progress.removed = len(gone)
    names = list(todo)
    for start in range(0, len(names), BATCH):
        if not in_time():
            progress.remaining = len(names) - start
            break
        _put_batch(index, tagger, {name: todo[name] for name in names[start : start + BATCH]}, progress, embed)
        report(min(start + BATCH, len(names)), len(names))
    if progress.added or progress.removed:
        # Two processes may tidy at once; the loser's work is done already.
        with suppress(OSError, RuntimeError):
            index.tidy()
    return progress


def _put_batch(
    index: Index,
    tagger: Tagger,
    batch: dict[str, tuple[Path, str]],
    progress: Progress,
    embed: Callable[[np.ndarray], np.ndarray] | None,
) -> None:
    pixels, stamps = {}, {}
    for name, (file, stamp) in batch.items():
        try:
            pixels[name], stamps[name] = tagger.pixels(file.read_bytes(), name), stamp
        except (ZerotagError, OSError) as error:
            progress.refused[name] = str(error)
    if pixels:
        matrices = (embed or tagger.principal_vectors)(np.stack(list(pixels.values())))
        index.put(list(pixels), list(stamps.values()), matrices)
        progress.added += len(pixels)
