"""Adaptive batching: photos of several requests that wait are worked on together."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from typing import Generic, TypeVar

from service.record import BATCHES

Job = TypeVar("Job")
Result = TypeVar("Result")


class Gather(Generic[Job, Result]):
    """Do jobs in threads: at once while a thread is idle, several at a time while all are busy.

    A thread takes its next jobs itself: it does not wait for the event loop, which has other requests to read.

    Args:
        works: what does jobs, one for each thread; returns the result of each job in order, or the error that it failed
            with. What it raises fails all of them.
        limit: maximum number of jobs at a time, per thread.
        weight: how many a job counts for; one beyond the limit is done alone.
    """

    def __init__(
        self,
        works: Sequence[Callable[[list[Job]], list[Result | Exception]]],
        limit: int,
        weight: Callable[[Job], int] = lambda _: 1,
    ):
        self._limit = limit
        self._weight = weight
        self._idle = list(works)
        self._threads = ThreadPoolExecutor(len(works), thread_name_prefix="photos")
        self._waiting: deque[tuple[Job, asyncio.Future[Result]]] = deque()
        self._lock = Lock()  # of the two above

    async def __call__(self, job: Job) -> Result:
        """Do a job; raises what it failed with."""
        answer: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        with self._lock:
            self._waiting.append((job, answer))
            work = self._idle.pop() if self._idle else None
        if work:
            self._threads.submit(self._go_on, work)
        return await answer

    def _go_on(self, work: Callable[[list[Job]], list[Result | Exception]]) -> None:
        """Keep a thread busy as long as jobs wait."""
        while taken := self._take(work):
            # The client of a job may have gone.
            wanted = [(job, answer) for job, answer in taken if not answer.done()]
            if not wanted:
                continue
            BATCHES.observe(len(wanted))
            results: list[Result | Exception]
            try:
                results = work([job for job, _ in wanted])
            except Exception as error:
                results = [error] * len(wanted)
            answers = [answer for _, answer in wanted]
            answers[0].get_loop().call_soon_threadsafe(_answer, answers, results)

    def _take(self, work: Callable[[list[Job]], list[Result | Exception]]) -> list[tuple[Job, asyncio.Future[Result]]]:
        taken: list[tuple[Job, asyncio.Future[Result]]] = []
        room = self._limit
        with self._lock:
            while self._waiting and (not taken or self._weight(self._waiting[0][0]) <= room):
                taken.append(self._waiting.popleft())
                room -= self._weight(taken[-1][0])
            if not taken:
                self._idle.append(work)
        return taken


def _answer(answers: list[asyncio.Future[Result]], results: list[Result | Exception]) -> None:
    """In the event loop: hand over what jobs came to."""
    for answer, result in zip(answers, results, strict=True):
        if answer.done():
            continue
        if isinstance(result, Exception):
            answer.set_exception(result)
        else:
            answer.set_result(result)
