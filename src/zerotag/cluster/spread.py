"""Call a function on items in the actors of a Ray cluster, through Ray Data.

Each core has an actor, or each GPU if there are any, which makes its function once: it loads the network. An item is a
shard of photos, so that Ray has little to do. What an actor was at when its node is lost is done again by another.
"""

import logging
import os
import pickle
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar
from uuid import uuid4

from zerotag.errors import ZerotagError

Item = TypeVar("Item")
Result = TypeVar("Result")
# Items that an actor is given at a time: one to work on and one that waits.
_IN_FLIGHT = 2


@dataclass(frozen=True)
class Done(Generic[Result]):
    """What became of an item.

    Attributes:
        number: of the item, from 0.
        result: of the function; None if it failed.
        error: why it failed; empty if it did not.
        seconds: that it took.
        node: address and process of the actor.
    """

    number: int
    result: Result | None
    error: str
    seconds: float
    node: str


class Spread(Protocol):
    """The type of `spread`."""

    def __call__(
        self,
        make: Callable[[], Callable[[Any], Any]],
        items: Sequence[Any],
        make_before: Callable[[], Callable[[Any], Any]] | None = None,
        folder: Path | None = None,
        gpu: bool = False,
        cores: int = 1,
    ) -> Iterator[Done[Any]]:
        """As `spread`."""


def spread(
    make: Callable[[], Callable[[Any], Result]],
    items: Sequence[Any],
    make_before: Callable[[], Callable[[Any], Any]] | None = None,
    folder: Path | None = None,
    gpu: bool = False,
    cores: int = 1,
) -> Iterator[Done[Result]]:
    """Call a function on items, on a cluster that this process is connected to.

    Args:
        make: makes the function, once in each actor; it and the items can be pickled. The function's ZerotagErrors and
            OSErrors fail an item alone.
        items: the items.
        make_before: where GPUs are used, makes a function that is called on the items first, in tasks on cores.
        folder: the functions' current folder, which every node has at this path; None for any.
        gpu: gives each actor a GPU in place of cores, if there are any.
        cores: of an actor, or all of the smallest node's.

    Yields:
        What becomes of each item, in the order of completion.

    Raises:
        ZerotagError: an actor cannot make its function, or the cluster fails.
    """
    if not items:
        return
    import ray

    gpus = int(ray.cluster_resources().get("GPU", 0)) if gpu else 0
    cpus = int(ray.cluster_resources().get("CPU", 0))
    if not cpus:
        raise ZerotagError("The Ray cluster has no core to use; start nodes with `ray start --num-cpus`.")
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = context.print_on_execution_start = False
    context.target_max_block_size = None  # a shard's pixels stay together
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    data: ray.data.Dataset = ray.data.from_items(
        [{"number": number, "item": pickle.dumps(item)} for number, item in enumerate(items)],
        override_num_blocks=len(items),
    )
    if gpus and make_before:
        data = data.map_batches(
            _before,  # type: ignore[arg-type]
            batch_size=1,
            num_cpus=1,
            fn_kwargs={"made": _Made(uuid4().hex, make_before, folder)},
        )
    least = min(int(node["Resources"].get("CPU", 0)) or cpus for node in ray.nodes() if node["Alive"])
    cores = min(cores, least)
    actors = gpus or cpus // cores
    data = data.map_batches(
        _Actor,
        fn_constructor_kwargs={"made": _Made(uuid4().hex, make, folder)},
        batch_size=1,
        num_cpus=(0 if make_before else max(1, cpus // gpus)) if gpus else cores,
        num_gpus=1 if gpus else 0,
        compute=ray.data.ActorPoolStrategy(min_size=1, initial_size=actors, max_tasks_in_flight_per_actor=_IN_FLIGHT),
    )
    try:
        for row in data.iter_rows():
            error, fatal, result = pickle.loads(row["result"])
            if fatal:
                raise ZerotagError(f"{row['node']}: {error}")
            yield Done(int(row["number"]), result, error, float(row["seconds"]), row["node"])
    except ray.exceptions.RayError as error:
        raise ZerotagError(f"The Ray cluster failed ({_cause(error)}). Run again; what is finished is kept.") from error


class _Actor:
    """Calls a function that it makes at the first item, so that what is wrong with it comes back as a result."""

    def __init__(self, made: "_Made"):
        self._made = made
        self._work: Callable[[Any], Any] | None = None

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Call the function on the single item of a batch."""
        started, result, error, fatal = time.monotonic(), None, "", False
        try:
            if self._work is None:
                self._work = _make(self._made)
        except (ZerotagError, OSError) as problem:
            error, fatal = str(problem), True
        else:
            try:
                given = pickle.loads(batch["item"][0])
                if isinstance(given, _Failed):
                    error = given.error
                else:
                    result = self._work(given)
            except (ZerotagError, OSError) as problem:
                error = str(problem) or type(problem).__name__
        return {
            "number": batch["number"],
            "result": [pickle.dumps((error, fatal, result))],
            "seconds": [time.monotonic() - started],
            "node": [f"{_address()}, process {os.getpid()}"],
        }


@dataclass(frozen=True)
class _Failed:
    """An item whose first function failed."""

    error: str


def _before(batch: dict[str, Any], made: "_Made") -> dict[str, Any]:
    try:
        given = _make(made)(pickle.loads(batch["item"][0]))
    except (ZerotagError, OSError) as problem:
        given = _Failed(str(problem) or type(problem).__name__)
    return {"number": batch["number"], "item": [pickle.dumps(given)]}


@dataclass(frozen=True)
class _Made:
    """How a function is made: once in a process, which sees a new copy of this for every item."""

    key: str
    make: Callable[[], Callable[[Any], Any]] = field(compare=False)
    folder: Path | None = field(compare=False)


@lru_cache(1)
def _make(made: _Made) -> Callable[[Any], Any]:
    if made.folder is not None:
        if not made.folder.is_dir():
            raise ZerotagError(
                f"{made.folder}: not on this machine. The checkout has to be at the same path on all nodes."
            )
        os.chdir(made.folder)
    return made.make()


def _address() -> str:
    import ray

    return ray.util.get_node_ip_address()


def _cause(error: BaseException) -> str:
    """What is wrong, of an error of Ray's, which has many lines."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    named = [line for line in lines if re.match(r"[\w.]*(Error|Exception): ", line)]
    return ([*named, *lines[-1:], type(error).__name__][0])[:500]


def in_order(done: Iterator[Done[Result]]) -> Iterator[Result]:
    """The results in the order of the items.

    Raises:
        ZerotagError: an item failed.
    """
    waiting: dict[int, Result] = {}
    following = 0
    for each in done:
        if each.error:
            raise ZerotagError(each.error)
        waiting[each.number] = each.result  # type: ignore[assignment]
        while following in waiting:
            yield waiting.pop(following)
            following += 1
