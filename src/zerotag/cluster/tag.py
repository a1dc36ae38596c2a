"""Tag photographs on a cluster: a folder of Parquet files, one for each shard of photos.

::

    000012-….parquet   one row per photo: photo, tags (a list of tag, score, probability, seen, also), error (null if
                       there is none)
    _made-by.json      the model and the options

Read in the order of their names, the files have the photos in the order of the listing.
"""

import io
import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from zerotag.cluster.package import Package, received, runs_on_gpu, send
from zerotag.cluster.photos import Listing, file_system, need_some, reading
from zerotag.cluster.shards import SHARD, Outcome, Report, Shard, ShardReport, follow, need_all, shards_of
from zerotag.cluster.spread import Spread
from zerotag.data.batches import Batch, network_batches, pixel_batches
from zerotag.errors import ZerotagError
from zerotag.files import hold, write_aside
from zerotag.serving.keywords import Wanted, ranker
from zerotag.serving.tagger import Tag, Tagger
from zerotag.serving.update import BATCH, Photo

SCHEMA = pa.schema(
    [
        pa.field("photo", pa.string(), nullable=False),
        pa.field(
            "tags",
            pa.list_(
                pa.struct(
                    [
                        ("tag", pa.string()),
                        ("score", pa.float64()),
                        ("probability", pa.float64()),
                        ("seen", pa.bool_()),
                        ("also", pa.list_(pa.string())),
                    ]
                )
            ),
            nullable=False,
        ),
        pa.field("error", pa.string()),
    ]
)
_MADE_BY = "_made-by.json"


@dataclass(frozen=True)
class Tagged:
    """Result of a run.

    Attributes:
        photos: their number.
        failed: how many of them failed.
        shards: number of files.
        kept: how many of them an earlier run had written.
    """

    photos: int
    failed: int
    shards: int
    kept: int


def tag_photos(
    spread: Spread,
    listing: Listing,
    package: Path,
    wanted: Wanted,
    output: str,
    views: int = 1,
    shard: int = SHARD,
    report: Report = lambda shard: None,
) -> Tagged:
    """Tag photos on a cluster. An interrupted run goes on: shards whose file is there are not done again.

    Args:
        spread: from `zerotag.cluster.connect.connected`.
        listing: the photos.
        package: folder of a packaged model.
        wanted: what tags they get.
        output: a folder that all nodes see, or a URL of an object store.
        views: as for `Tagger`.
        shard: photos of a shard.
        report: called when a shard is done.

    Raises:
        ZerotagError: the folder has tags of another model or with other options, or a shard failed as a whole.
    """
    sent = send(package)
    own = wanted.vocabulary
    options = {**asdict(wanted), "vocabulary": own and [asdict(each) for each in own.keywords]}
    made_by = {"model": sent.digest, "views": views, **options}
    key = json.dumps(made_by)
    shards = shards_of(listing.photos, key, shard)
    with _alone(output):
        there = _prepare(output, json.loads(key), package)
        todo = [each for each in shards if f"{each.name}.parquet" not in there]
        kept = [each for each in shards if f"{each.name}.parquet" in there]
        failed = 0

        def count(done: ShardReport) -> None:
            nonlocal failed
            failed += len(done.failed)
            report(done)

        for each in kept:
            count(ShardReport(each.number, len(shards), len(each.photos), failures(output, each), kept=True))
        work = partial(_tagging, sent, wanted, views, output)
        before = partial(_decoding, sent)
        need_all(follow(spread(work, todo, before, gpu=runs_on_gpu()), todo, len(shards), count), len(shards))
        # Of photos that are gone or in another shard now.
        for name in there - {f"{each.name}.parquet" for each in shards}:
            files, path = file_system(output)
            files.delete_file(f"{path}/{name}")
    return Tagged(len(listing.photos), failed, len(shards), len(kept))


def failures(output: str, shard: Shard) -> dict[str, str]:
    """Photos of a finished shard that failed, with the reason."""
    files, path = file_system(output)
    with files.open_input_file(f"{path}/{shard.name}.parquet") as file:
        rows = parquet.read_table(file, columns=["photo", "error"])
    return {photo: error for photo, error in zip(*(rows[name].to_pylist() for name in rows.column_names), strict=True)
            if error is not None}  # fmt: skip


def _alone(output: str) -> AbstractContextManager[None]:
    return nullcontext() if "://" in output else hold(Path(output) / ".lock", "zerotag tag")


def _prepare(output: str, made_by: dict[str, Any], package: Path) -> set[str]:
    """The names of the files in the output folder, which is made if it does not exist."""
    from pyarrow.fs import FileSelector

    try:
        files, path = file_system(output)
        files.create_dir(path, recursive=True)
        names = {entry.base_name for entry in files.get_file_info(FileSelector(path))}
        if _MADE_BY in names:
            with files.open_input_file(f"{path}/{_MADE_BY}") as file:
                earlier = json.loads(file.read())
            differing = [name for name in {**earlier, **made_by} if earlier.get(name) != made_by.get(name)]
            if differing:
                raise ZerotagError(
                    f"{output}: has tags that were made with another {' and '.join(differing)}. Name another --output."
                )
        elif any(name.endswith(".parquet") for name in names):
            raise ZerotagError(f"{output}: has other Parquet files. Name another --output.")
        else:
            write_at_once(output, _MADE_BY, json.dumps(made_by, indent=1).encode())
    except OSError as error:
        raise ZerotagError(f"{output}: cannot be written to ({error}). Name another --output.") from error
    if "://" not in output:
        for draft in Path(output).glob(".*.draft"):  # of a run that was killed
            draft.unlink()
    return {name for name in names if name.endswith(".parquet")}


def write_at_once(folder: str, name: str, content: bytes) -> None:
    """Write a file at once: aside on a disk, while an object store shows none before it is complete."""
    if "://" not in folder:
        with write_aside(Path(folder) / name) as draft:
            draft.write_bytes(content)
        return
    files, path = file_system(folder)
    with files.open_output_stream(f"{path}/{name}") as stream:
        stream.write(content)


def _decoded(tagger: Tagger, shard: Shard) -> Batch[Photo, np.ndarray]:
    """The pixels of all photos of a shard."""
    reads, unread = reading()
    whole = len(shard.photos)
    batch = next(pixel_batches(shard.photos, lambda photo: tagger.pixels(reads(photo.file), photo.name), whole, 1))
    need_some(unread, whole)
    return batch


def _decoding(package: Package) -> Callable[[Shard], tuple[Shard, Batch[Photo, np.ndarray]]]:
    tagger = received(package)
    return lambda shard: (shard, _decoded(tagger, shard))


def _tagging(
    package: Package, wanted: Wanted, views: int, output: str
) -> Callable[[Shard | tuple[Shard, Batch[Photo, np.ndarray]]], Outcome]:
    tagger = received(package, views)
    _, rank = ranker(tagger, wanted)

    def network(pixels: list[np.ndarray]) -> list[list[Tag]]:
        return rank(tagger.principal_vectors(np.stack(pixels)))

    def batches_of(shard: Shard) -> Iterator[Batch[Photo, list[Tag]]]:
        reads, unread = reading()
        yield from network_batches(
            shard.photos,
            lambda photo: tagger.pixels(reads(photo.file), photo.name),
            network,
            BATCH,
            tagger.at_once,
            threads=1,
        )
        need_some(unread, len(shard.photos))

    def work(given: Shard | tuple[Shard, Batch[Photo, np.ndarray]]) -> Outcome:
        if isinstance(given, Shard):
            shard, batches = given, list(batches_of(given))
        else:
            shard, decoded = given
            starts = range(0, len(decoded.items), tagger.at_once)
            results = [each for at in starts for each in network(decoded.results[at : at + tagger.at_once])]
            batches = [Batch(decoded.items, results, decoded.failed)]
        found = {photo: tags for batch in batches for photo, tags in zip(batch.items, batch.results, strict=True)}
        failed = {photo: reason for batch in batches for photo, reason in batch.failed}
        content = io.BytesIO()
        parquet.write_table(_rows(shard, found, failed), content)
        write_at_once(output, f"{shard.name}.parquet", content.getvalue())
        return Outcome(len(shard.photos), {photo.name: reason for photo, reason in failed.items()})

    return work


def _rows(shard: Shard, found: dict[Photo, list[Tag]], failed: dict[Photo, str]) -> pa.Table:
    names = [field.name for field in SCHEMA.field("tags").type.value_type]
    rows = [
        {
            "photo": photo.name,
            "tags": [{name: getattr(tag, name) for name in names} for tag in found.get(photo, ())],
            "error": failed.get(photo),
        }
        for photo in shard.photos
    ]
    return pa.Table.from_pylist(rows, schema=SCHEMA)
