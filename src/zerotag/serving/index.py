"""Search index of photos in LanceDB: one row per principal vector, exact search by dot product.

A photo's score for a word is the maximum over its rows. The top M * k rows therefore contain the top k photos, and
LanceDB's exact scan over rows yields the exact maximum over principal vectors. The index URI is a local folder (no
server needed), an object store (s3://…) or a LanceDB server (db://…).
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

# LanceDB reserves cores for I/O threads, which a local disk does not keep busy. With twice as many compute threads as
# cores, an exact scan of 700,000 rows takes 59 ms instead of 100 ms on two cores.
os.environ.setdefault("LANCE_CPU_THREADS", str(2 * (os.cpu_count() or 1)))

# Photos embedded and committed together: the most that an interruption can lose.
BATCH = 32


@dataclass(frozen=True)
class Hit:
    """A search result: a photo and its score."""

    photo: str
    score: float


class Index:
    """The index of one model; each model has its own table in the database.

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
                pa.field("photo", pa.string(), nullable=False),
                pa.field("row", pa.int16(), nullable=False),
                pa.field("stamp", pa.string(), nullable=False),
                pa.field("vector", pa.list_(pa.float32(), dimensions), nullable=False),
            ]
        )
        import lancedb  # starts threads, so not imported in a process that only starts others

        try:
            # Zero interval: the next search sees what another process wrote.
            database = lancedb.connect(uri, read_consistency_interval=timedelta(0))
            self._table = database.create_table(f"photos-{model}", schema=self._schema, exist_ok=True)
        except (OSError, RuntimeError, ValueError) as error:
            raise ZerotagError(f"{uri}: the search index cannot be opened ({error}). See serve.index.") from error

    def __len__(self) -> int:
        """Number of photos in the index."""
        return self._table.count_rows() // self._rows

    def stamps(self) -> dict[str, str]:
        """The stamp of every photo, by name."""
        rows = self._table.search().where("row = 0").select(["photo", "stamp"]).limit(None).to_arrow()
        return dict(zip(rows["photo"].to_pylist(), rows["stamp"].to_pylist(), strict=True))

    def put(self, photos: list[str], stamps: list[str], matrices: np.ndarray) -> None:
        """Add or replace photos by name, atomically.

        Args:
            photos: n names.
            stamps: n strings that change when a photo changes.
            matrices: (n, M, d) principal vectors.
        """
        merge = self._table.merge_insert(["photo", "row"]).when_matched_update_all().when_not_matched_insert_all()
        merge.execute(self._as_rows(photos, stamps, matrices))

    def fill(self, photos: list[str], matrices: np.ndarray) -> None:
        """Add new photos without checking for existing ones; meant for a large initial import."""
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
        """Remove photos; unknown names are ignored."""
        for start in range(0, len(photos), 500):
            self._table.delete(f"photo IN ({_quoted(photos[start : start + 500])})")

    def tidy(self) -> None:
        """Compact small files, delete old versions, and index photo names."""
        from lancedb.index import BTree

        if len(self):
            self._table.create_index("photo", config=BTree())
        self._table.optimize(cleanup_older_than=timedelta(minutes=10))

    def search(
        self, wanted: np.ndarray, unwanted: np.ndarray | None = None, limit: int = 20, offset: int = 0
    ) -> list[Hit]:
        """Search for photos that match all wanted words.

        A photo's score is its minimum over the wanted words. A photo that scores at least as high for an unwanted
        word is excluded.

        Args:
            wanted: (W, d) unit word vectors, W at least 1.
            unwanted: (V, d) unit word vectors.
            limit: maximum number of photos.
            offset: number of photos to skip.

        Returns:
            The exact top photos, best first.
        """
        need, depth = offset + limit, offset + limit
        alone = len(wanted) == 1 and not (unwanted is not None and len(unwanted))
        while True:
            # No photo outside the candidates scores above the lowest bound.
            found = [self._best_rows(word, depth * self._rows) for word in wanted]
            bound = min(bound for _, bound in found)
            if alone:
                hits = [Hit(photo, value) for photo, value in found[0][0].items()]
            else:
                hits = self._score_candidates(list(set().union(*(rows for rows, _ in found))), wanted, unwanted)
            hits.sort(key=lambda hit: (-hit.score, hit.photo))
            if bound == -np.inf or (len(hits) >= need and hits[need - 1].score >= bound):
                return hits[offset:need]
            depth *= 4

    def _best_rows(self, word: np.ndarray, count: int) -> tuple[dict[str, float], float]:
        """Photos of the top rows with their scores, and an upper bound on the score of all other rows."""
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
        # Recomputed, since the engine's distance, 1 - product, is less precise.
        scores = _matrix(rows["vector"]) @ word
        best: dict[str, float] = {}
        for photo, value in zip(rows["photo"].to_pylist(), scores.tolist(), strict=True):
            best[photo] = max(value, best.get(photo, -np.inf))
        return best, (float(scores.min()) if len(rows) == count else -np.inf)

    def _score_candidates(self, photos: list[str], wanted: np.ndarray, unwanted: np.ndarray | None) -> list[Hit]:
        """Score photos exactly; photos that match an unwanted word are dropped."""
        names, scores = [], []
        for start in range(0, len(photos), 1000):
            where = f"photo IN ({_quoted(photos[start : start + 1000])})"
            rows = self._table.search().where(where).select(["photo", "vector"]).limit(None).to_arrow()
            # A photo's rows are written together, but may be returned in any order.
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
        removed: photos deleted from the folder.
        refused: photos that could not be read, with the reason.
        remaining: photos not reached within the time limit; repeat the call.
    """

    added: int = 0
    unchanged: int = 0
    removed: int = 0
    refused: dict[str, str] = field(default_factory=dict)
    remaining: int = 0


def inside(root: Path, path: str) -> Path:
    """Resolve a path below a root, following symbolic links.

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
            raise ZerotagError(f"{path}: no such file or folder below the photo root.")
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
    """Add photos and folders below a root to the index, and remove photos deleted from these folders.

    Photos with unchanged size and modification time are skipped. Each batch is committed when it is done, so an
    interrupted update resumes where it stopped.

    Args:
        index: the index to update.
        tagger: embeds the photos.
        root: photos are named by their path relative to it.
        paths: photos or folders below the root.
        embed: runs the network, (B, S, S, 3) -> (B, M, d); defaults to the tagger's.
        in_time: called before each batch; returning False stops the update.
        report: progress callback, called with the number of photos done and the total.

    Raises:
        ZerotagError: a path is outside the root or does not exist.
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
        # If two processes compact at once, one fails, but the other has done the work.
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
