"""Processes that work on photos: neither they nor the one that answers wait for each other's interpreter.

One process loads the model (`service.worker`) and forks the others, which share its memory.
"""

import logging
import os
import socket
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace
from multiprocessing.connection import Connection
from multiprocessing.reduction import send_handle
from pathlib import Path
from threading import Lock

from service.channel import Channel
from service.model import Model, Photo, Seen, Work
from zerotag.data.photos import PhotoError
from zerotag.errors import ZerotagError
from zerotag.runtime import on_gpu

logger = logging.getLogger(__name__)

# Pages that are given back to the system after each photo would have to be asked for again.
_NOT_HERE = {"MALLOC_MMAP_THRESHOLD_"}


def forks() -> bool:
    """Whether photos are worked on in processes: in Linux, without a GPU.

    Elsewhere threads share one model, as libraries of macOS may hang in a fork, and a fork cannot use a GPU.
    """
    return sys.platform == "linux" and not on_gpu()


def give_way() -> None:
    """Let this process wait for its turn, and not interrupt those that work on photos whenever something arrives.

    It then reads what arrived in one go, and what they have in a core's cache stays there longer.
    """
    for thread in Path("/proc/self/task").iterdir():
        with suppress(OSError):  # it has ended; or this is not allowed here
            os.sched_setscheduler(int(thread.name), os.SCHED_BATCH, os.sched_param(0))


class Loaded:
    """A process that loads a model, and then forks others.

    Args:
        model: the model; what this process has loaded of it is not handed over.
    """

    def __init__(self, model: Model):
        self._model = replace(model)
        self._lock = Lock()
        self._processes: list[_Process] = []
        self._start()

    def processes(self, number: int) -> list[Work]:
        """Processes that work on photos, each for one thread at a time.

        Raises:
            ZerotagError: the model cannot be loaded.
        """
        self._wait()
        self._processes = [_Process(self) for _ in range(number)]
        return list(self._processes)

    def fork(self) -> Channel:
        """Start a process that works on photos, and connect to it."""
        ours, theirs = socket.socketpair()
        with theirs, self._lock:
            try:
                send_handle(self._control, theirs.fileno(), self._process.pid)
            except OSError:  # it was ended, too
                self._end()
                self._start()
                self._wait()
                send_handle(self._control, theirs.fileno(), self._process.pid)
        return Channel(ours)

    def close(self) -> None:
        """End the processes; each ends when its connection is closed."""
        for process in self._processes:
            process.channel.close()
        self._end()

    def _start(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            environment = {name: value for name, value in os.environ.items() if name not in _NOT_HERE}
            # One thread only: a fork has none of the others.
            environment |= {"OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
            self._process = subprocess.Popen(
                [sys.executable, "-m", "service.worker", str(theirs.fileno())],
                env=environment,
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # Ctrl+C is for the process that answers; this one ends when it has
            )
        # No channel, as its buffer could take the byte that a handle arrives with.
        self._control = Connection(ours.detach())
        self._control.send(self._model)

    def _wait(self) -> None:
        try:
            error = self._control.recv()
        except (EOFError, OSError):
            raise ZerotagError(f"{self._model.package}: the process that loads this model was ended.") from None
        if error:
            raise error

    def _end(self) -> None:
        self._control.close()
        self._process.wait()


class _EndedError(Exception):
    """A process was ended before it answered."""


class _Process:
    """A process that works on photos. A photo that ends it, as a decoder written in C may, fails alone."""

    def __init__(self, loaded: Loaded):
        self._loaded = loaded
        self.channel = loaded.fork()

    def __call__(self, photos: list[Photo]) -> list[Seen | Exception]:
        try:
            return self._ask(photos)
        except _EndedError:
            return [self._alone(photo) for photo in photos]

    def _alone(self, photo: Photo) -> Seen | Exception:
        try:
            return self._ask([photo])[0]
        except _EndedError:
            return PhotoError(f"{photo.name}: decoding it ended the process. Save it as JPEG.", "corrupt")

    def _ask(self, photos: list[Photo]) -> list[Seen | Exception]:
        try:
            self.channel.send(photos)
            results = self.channel.receive()
        except (EOFError, OSError) as error:
            logger.error("A process that works on photos was ended. Another one takes its place.")
            self.channel.close()
            self.channel = self._loaded.fork()
            raise _EndedError from error
        if isinstance(results, Exception):
            raise results
        return results
