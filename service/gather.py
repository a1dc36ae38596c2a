"""Adaptive batching: photos of several requests that wait are worked on together."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

from service.record import BATCHES

Job = TypeVar("Job")
Result = TypeVar("Result")


class Gather(Generic[Job, Result]):
    """Do jobs in threads: at once while a thread is idle, several at a time while all are busy.

    Args:
        work: does jobs; returns the result of each in order, or the error that it failed with. What it raises fails
            all of them.
        limit: maximum number of jobs at a time, per thread.
        threads: number of threads.
    """

    def __init__(self, work: Callable[[list[Job]], list[Result | Exception]], limit: int, threads: int):
        self._work = work
        self._limit = limit
        self._idle = threads
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="photos")
        self._waiting: list[tuple[Job, asyncio.Future[Result]]] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def __call__(self, job: Job) -> Result:
        """Do a job; raises what it failed with."""
        answer: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._waiting.append((job, answer))
        if self._idle:
            self._idle -= 1
            task = asyncio.create_task(self._go_on())
            self._tasks.add(task)  # the loop itself keeps no reference
            task.add_done_callback(self._tasks.discard)
        return await answer

    async def _go_on(self) -> None:
        """Keep a thread busy as long as jobs wait."""
        loop = asyncio.get_running_loop()
        try:
            while self._waiting:
                taken, self._waiting = self._waiting[: self._limit], self._waiting[self._limit :]
                # The client of a job may have gone.
                wanted = [(job, answer) for job, answer in taken if not answer.done()]
                if not wanted:
                    continue
                BATCHES.observe(len(wanted))
                results: list[Result | Exception]
                try:
                    results = await loop.run_in_executor(self._threads, self._work, [job for job, _ in wanted])
                except Exception as error:
                    results = [error] * len(wanted)
                for (_, answer), result in zip(wanted, results, strict=True):
                    if answer.done():
                        continue
                    if isinstance(result, Exception):
                        answer.set_exception(result)
                    else:
                        answer.set_result(result)
        finally:
            self._idle += 1
