"""Shards of photos: what is done once, and known by what it wrote."""

import hashlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from tqdm import tqdm

from zerotag.cluster.spread import Done
from zerotag.errors import ZerotagError
from zerotag.serving.update import Photo

# Photos of a shard: some seconds of a core, and the most that a lost node does twice.
SHARD = 512
# Photos that any network is given at a time divide this, so that it gets the same ones together as without shards.
_MULTIPLE = 32


@dataclass(frozen=True)
class Shard:
    """Consecutive photos.

    Attributes:
        number: from 0.
        name: of what it writes: the number, and a hash of the photos and of all else that the results depend on.
        photos: the photos.
    """

    number: int
    name: str
    photos: list[Photo]


@dataclass(frozen=True)
class Outcome:
    """What a finished shard says of itself.

    Attributes:
        photos: their number.
        failed: those that failed, with the reason.
    """

    photos: int
    failed: dict[str, str]


@dataclass(frozen=True)
class ShardReport:
    """What is said of a shard while the others run.

    Attributes:
        number: of the shard, from 0.
        shards: their number.
        photos: of the shard; 0 if it failed.
        failed: photos that failed, with the reason.
        error: why the whole shard failed; empty if it did not.
        seconds: that it took.
        node: where it ran.
        kept: whether an earlier run finished it.
    """

    number: int
    shards: int
    photos: int
    failed: dict[str, str] = field(default_factory=dict)
    error: str = ""
    seconds: float = 0.0
    node: str = ""
    kept: bool = False


Report = Callable[[ShardReport], None]


@contextmanager
def progress(what: str, photos: int | None = None) -> Iterator[Report]:
    """Show how many photos are done, at what rate and for how long; and of each shard, what failed.

    Where no one watches, as in the log of a flow, each shard that is done has a line as well.

    Args:
        what: a word for what is done.
        photos: their number; None if it is known by the shards only.
    """
    with tqdm(total=photos, desc=what, unit="photo", disable=None) as bar:

        def report(shard: ShardReport) -> None:
            place = f"shard {shard.number + 1} of {shard.shards}"
            lines = [f"zerotag: {place}: {reason}" for reason in shard.failed.values()]
            if shard.error:
                lines.append(f"zerotag: {place} failed on {shard.node}: {shard.error}")
            elif bar.disable:
                where = "by an earlier run" if shard.kept else f"in {shard.seconds:.1f} s on {shard.node}"
                lines.append(f"zerotag: {place}: {shard.photos} photos {where}")
            for line in lines:
                tqdm.write(line, file=sys.stderr)
            if shard.kept and not bar.disable:  # by an earlier run, which says nothing of the rate
                bar.initial += shard.photos
            bar.update(shard.photos)

        yield report


def shards_of(photos: list[Photo], key: str, shard: int = SHARD) -> list[Shard]:
    """Cut photos into shards.

    Args:
        photos: the photos, in order.
        key: what else the results depend on: the model and the options.
        shard: photos of a shard.

    Raises:
        ZerotagError: a size with which results could differ from those without shards.
    """
    if shard < 1 or shard % _MULTIPLE:
        raise ZerotagError(f"A shard of {shard} photos: use a multiple of {_MULTIPLE}.")
    shards = []
    for number, start in enumerate(range(0, len(photos), shard)):
        part = photos[start : start + shard]
        state = hashlib.sha256(key.encode())
        for photo in part:
            state.update(f"{photo.name}\0{photo.file}\0{photo.stamp}\n".encode("utf-8", "surrogateescape"))
        shards.append(Shard(number, f"{number:06d}-{state.hexdigest()[:16]}", part))
    return shards


def follow(done: Iterator[Done[Outcome]], todo: list[Shard], shards: int, report: Report) -> list[str]:
    """Report shards as they are done, and return the errors of those that failed."""
    errors = []
    for each in done:
        number = todo[each.number].number
        if each.result is None:
            errors.append(f"shard {number + 1} of {shards}: {each.error}")
            report(ShardReport(number, shards, 0, error=each.error, seconds=each.seconds, node=each.node))
        else:
            failed = each.result.failed
            report(ShardReport(number, shards, each.result.photos, failed, "", each.seconds, each.node))
    return errors


def need_all(errors: list[str], shards: int) -> None:
    """Check that no shard failed.

    Raises:
        ZerotagError: some did.
    """
    if errors:
        raise ZerotagError(
            f"{len(errors)} of {shards} shards failed, the first: {errors[0]} Run again; the others are kept."
        )
