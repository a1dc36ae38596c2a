"""Index photographs on a cluster: its nodes write fragments of the table, which one commit makes a part of it.

What a shard has written is recorded beside the table, in `pending-NAME/`, until the commit::

    000012-….json      fragments, the photos that are in them with their contents, and those that failed
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from zerotag.cluster.package import Package, received, runs_on_gpu, send
from zerotag.cluster.photos import (
    Listing,
    file_system,
    is_remote,
    is_table,
    list_photos,
    need_some,
    of_prefix,
    reading,
)
from zerotag.cluster.shards import SHARD, Outcome, Report, Shard, ShardReport, follow, need_all, shards_of
from zerotag.cluster.spread import Spread
from zerotag.cluster.tag import write_at_once
from zerotag.data.batches import Batch, pixel_batches
from zerotag.errors import ZerotagError, extras_named
from zerotag.files import hold, shown
from zerotag.serving.index import Entry, Index, open_index
from zerotag.serving.tagger import Tagger
from zerotag.serving.update import (
    Photo,
    Progress,
    embedded,
    reader,
    refuse_to_remove,
    root_of,
    spread_first,
    update,
    with_known,
    with_matrices,
)


@dataclass(frozen=True)
class _Target:
    """The index that workers write to: its database, and the root of the photos."""

    database: str
    root: str
    pending: str


def index_photos(
    spread: Spread,
    place: str,
    package: Path,
    database: str,
    dimensions: int | None = None,
    exclude: Sequence[str] = (),
    prune: bool = False,
    shard: int = SHARD,
    report: Report = lambda shard: None,
) -> Progress:
    """Update an index with the photos of a folder, an object store's prefix or a table of URLs, on a cluster.

    A folder or a prefix is kept the same as the index, as `zerotag.serving.update.update` does; photos of a table are
    only added, and those that are in the index are not read again. An interrupted run goes on where it stopped.

    Args:
        spread: from `zerotag.cluster.connect.connected`.
        place: the folder, prefix or table.
        package: folder of a packaged model.
        database: of the index, that all nodes see: a folder, or a URL of an object store.
        dimensions: as for `open_index`.
        exclude: as for `list_photos`.
        prune: as for `update`.
        shard: photos of a shard.
        report: called when a shard is done.

    Raises:
        ZerotagError: as `list_photos` and `update`, or a shard failed as a whole.
    """
    if database.startswith("db://"):
        raise ZerotagError(f"{database}: a LanceDB server takes no fragments. Give a folder or an s3:// URL.")
    with extras_named():
        import lance  # noqa: F401 (needed by the index, in the end)
    sent = send(package)
    tagger = Tagger(package, threads=1)
    database = database if "://" in database else str(Path(database).resolve())
    index = open_index(database, tagger, dimensions)
    embed_all = partial(_embed_all, spread, index, tagger, sent, database, shard, report)
    with _alone(database, sent):
        if is_remote(place):
            listing = list_photos([place]) if is_table(place) else of_prefix(place, exclude)
            return _update_remote(index, place, listing, prune, embed_all)
        root, path = root_of(index, Path(place))
        return update(index, tagger, root, [path], exclude=exclude, prune=prune, links_out=True, embed_all=embed_all)


def _alone(database: str, package: Package) -> AbstractContextManager[None]:
    if "://" in database:
        return nullcontext()
    return hold(Path(database) / f".pending-{package.digest}.lock", "zerotag index --cluster")


def _update_remote(
    index: Index,
    place: str,
    listing: Listing,
    prune: bool,
    embed_all: Callable[[str, list[Photo], set[str], Progress], list[str]],
) -> Progress:
    progress = Progress(skipped=listing.skipped, problems=listing.problems)
    entries = index.entries()
    contents = {entry.digest for photos in entries.values() for entry in photos.values()} - {""}
    by_root: dict[str, list[Photo]] = {place.rstrip("/"): []} if listing.removable else {}
    for photo in listing.photos:
        root, name = (
            (place.rstrip("/"), photo.name[len(place.rstrip("/")) + 1 :]) if listing.removable else _parts(photo, place)
        )
        by_root.setdefault(root, []).append(Photo(name, photo.file, photo.stamp, photo.modified))
    for root, photos in by_root.items():
        known = entries.get(root, {})
        there = {photo.name for photo in photos}
        gone = known.keys() - there if listing.removable else set()
        if not prune:
            refuse_to_remove(root, gone, set(known))
        todo = [photo for photo in photos if photo.name not in known or known[photo.name].stamp != photo.stamp]
        progress.unchanged += len(photos) - len(todo)
        progress.added += len(embed_all(root, todo, contents, progress))
        if gone:
            index.remove(root, sorted(gone))
            progress.removed += len(gone)
    index.tidy_soon()
    return progress


def _parts(photo: Photo, table: str) -> tuple[str, str]:
    """Root and path of a photo of a table; there is one root for all web sites, as there may be thousands."""
    scheme, separator, rest = photo.file.partition("://")
    if separator:
        return f"{scheme}:/", rest
    file, folder = Path(photo.file), Path(table).absolute().parent
    root = folder if file.is_relative_to(folder) else file.parent
    return shown(root), shown(file.relative_to(root))


def _embed_all(
    spread: Spread,
    index: Index,
    tagger: Tagger,
    package: Package,
    database: str,
    size: int,
    report: Report,
    root: str,
    todo: list[Photo],
    contents: set[str],
    progress: Progress,
) -> list[str]:
    """Put photos into the index, and return the digests of those that are in: what `update` calls on a cluster."""
    import ray

    _fit(index, tagger, todo)
    of_root = hashlib.sha256(root.encode()).hexdigest()[:8]
    target = _Target(database, root, f"{database.rstrip('/')}/pending-{package.digest}-{of_root}")
    key = json.dumps([package.digest, index.dimensions, root])
    shards = shards_of(todo, key, size)
    files, path = file_system(target.pending)
    files.create_dir(path, recursive=True)
    there = _recorded(index, target)
    rest = [shard for shard in shards if shard.name not in there]
    for shard in [each for each in shards if each.name in there]:
        failed = there[shard.name]["failed"]
        report(ShardReport(shard.number, len(shards), len(shard.photos), failed, kept=True))
    # Eight bytes of each digest, sorted: compact, and read by all actors of a node where it is.
    known = np.sort(np.array([_short(digest) for digest in contents], dtype=np.uint64))
    shared = [ray.put(known)]
    make = partial(_embedding, package, target, index.dimensions, shared)
    before = partial(_decoding, package, shared)
    need_all(follow(spread(make, rest, before, gpu=runs_on_gpu()), rest, len(shards), report), len(shards))
    there = _recorded(index, target)
    records = [there[shard.name] for shard in shards]
    if records:
        photos = [name for record in records for name in record["photos"]]
        index.adopt(root, photos, [fragment for record in records for fragment in record["fragments"]])
    files.delete_dir(path)
    for record in records:
        progress.refused |= record["failed"]
    return [digest for record in records for digest in record["digests"]]


def _fit(index: Index, tagger: Tagger, photos: list[Photo]) -> None:
    """Choose the dimensions of a large new index by photos that this machine looks at; the cluster does so later."""
    if not (count := index.wants(len(photos))):
        return
    batches = embedded(index, tagger, spread_first(photos, count)[:count], lambda digest: False, None, reading()[0])
    if matrices := [matrix for batch in batches for _, matrix in batch.results]:
        index.fit(np.stack(matrices))


def _recorded(index: Index, target: _Target) -> dict[str, dict[str, Any]]:
    """What finished shards have recorded, by name; shards whose files are gone are not."""
    from pyarrow.fs import FileSelector

    files, path = file_system(target.pending)
    records = {}
    for entry in files.get_file_info(FileSelector(path)):
        if entry.base_name.endswith(".json"):
            with files.open_input_file(entry.path) as file:
                record = json.loads(file.read())
            if index.has_files(record["fragments"]):
                records[entry.base_name.removesuffix(".json")] = record
    return records


def _short(digest: str) -> int:
    return int(digest[:16], 16)


def _knows(known: np.ndarray) -> Callable[[str], bool]:
    def may_know(digest: str) -> bool:
        short = np.uint64(_short(digest))
        at = int(np.searchsorted(known, short))
        return at < len(known) and known[at] == short

    return may_know


Decoded = Batch[Photo, tuple[Entry, np.ndarray | None]]


def _decoding(package: Package, shared: list[Any]) -> Callable[[Shard], tuple[Shard, Decoded]]:
    import ray

    tagger, knows = received(package), _knows(ray.get(shared[0]))

    def decode(shard: Shard) -> tuple[Shard, Decoded]:
        reads, unread = reading()
        whole = len(shard.photos)
        batch = next(pixel_batches(shard.photos, reader(tagger, knows, reads), whole, threads=1))
        need_some(unread, whole)
        return shard, batch

    return decode


def _embedding(
    package: Package, target: _Target, dimensions: int, shared: list[Any]
) -> Callable[[Shard | tuple[Shard, Decoded]], Outcome]:
    import ray

    tagger = received(package)
    index = open_index(target.database, tagger, dimensions)
    knows = _knows(ray.get(shared[0]))

    def batches_of(shard: Shard) -> list[Batch[Photo, tuple[Entry, np.ndarray]]]:
        reads, unread = reading()
        batches = list(embedded(index, tagger, shard.photos, knows, None, reads, threads=1))
        need_some(unread, len(shard.photos))
        return batches

    def network(decoded: Decoded) -> list[Batch[Photo, tuple[Entry, np.ndarray]]]:
        starts = range(0, len(decoded.items), tagger.at_once)
        parts = [decoded.results[at : at + tagger.at_once] for at in starts]
        results = [each for part in parts for each in with_matrices(part, tagger.principal_vectors)]
        return [with_known(Batch(decoded.items, results, decoded.failed), index, tagger, reading()[0])]

    def work(given: Shard | tuple[Shard, Decoded]) -> Outcome:
        shard, batches = (given, batches_of(given)) if isinstance(given, Shard) else (given[0], network(given[1]))
        photos = [photo.name for batch in batches for photo in batch.items]
        results = [each for batch in batches for each in batch.results]
        failed = {photo.name: reason for batch in batches for photo, reason in batch.failed}
        fragments: list[str] = []
        if photos:
            entries = [entry for entry, _ in results]
            rows = index.rows(target.root, photos, entries, np.stack([matrix for _, matrix in results]))
            fragments = index.write_apart(rows)
        record = {
            "fragments": fragments,
            "photos": photos,
            "digests": [entry.digest for entry, _ in results],
            "failed": failed,
        }
        write_at_once(target.pending, f"{shard.name}.json", json.dumps(record).encode())
        return Outcome(len(shard.photos), failed)

    return work
