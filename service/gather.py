"""Batch waiting photos into one call to the network's process, which costs more than decoding a photo."""

import asyncio
from collections.abc import Awaitable, Callable

import numpy as np


class Gather:
    """Make one call at a time; requests that arrive meanwhile are batched into the next one.

    Args:
        embed: runs the network on a batch of photos, (B, S, S, 3) -> (B, M, d).
        limit: maximum number of photos per call, unless a single request has more.
    """

    def __init__(self, embed: Callable[[np.ndarray], Awaitable[np.ndarray]], limit: int):
        self._embed = embed
        self._limit = limit
        self._waiting: list[tuple[np.ndarray, asyncio.Future[np.ndarray]]] = []
        self._task: asyncio.Task[None] | None = None

    async def __call__(self, pixels: np.ndarray) -> np.ndarray:
        """(B, S, S, 3) uint8 -> (B, M, d) float32; raises what `embed` raises."""
        answer = asyncio.get_running_loop().create_future()
        self._waiting.append((pixels, answer))
        if self._task is None:
            self._task = asyncio.create_task(self._work())
        return await answer

    async def _work(self) -> None:
        while self._waiting:
            ends = np.cumsum([len(pixels) for pixels, _ in self._waiting])
            count = max(1, int(np.searchsorted(ends, self._limit, side="right")))
            taken, self._waiting = self._waiting[:count], self._waiting[count:]
            try:
                found = await self._embed(np.concatenate([pixels for pixels, _ in taken]))
            except Exception as error:  # forward any error to the waiting requests
                for _, answer in taken:
                    if not answer.done():
                        answer.set_exception(error)
                continue
            for (_, answer), own in zip(taken, np.split(found, ends[: count - 1]), strict=True):
                if not answer.done():  # the client may have disconnected
                    answer.set_result(own)
        self._task = None
