"""Shadow mode: a challenger answers beside the champion, for a share of the photos, and the differences are counted.

Clients get the champion's answer and wait for nothing else: a photo is handed over without waiting, and passed over
while too many wait already. Whatever goes wrong with the challenger is counted, and reaches no client.
"""

import logging
import os
import random
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from queue import Full, Queue

import numpy as np

from service.model import Photo
from service.record import SHADOW_SECONDS, SHADOWED, RequestLog
from zerotag.serving.tagger import Tag, Tagger, Words

logger = logging.getLogger(__name__)

# Tags of each model that are compared; photos that may wait, which bounds the memory; how often to look for another
# challenger, in seconds.
_BEST, _WAITING, _LOOK = 5, 8, 1.0


@dataclass(frozen=True)
class _Waiting:
    """A photo with the champion's principal vectors (M, d) and the words that were ranked for it."""

    photo: Photo
    principal: np.ndarray
    words: Words


class Shadow:
    """The challenger of a process, in a thread of its own.

    Args:
        champion: the model that answers.
        find: returns the challenger's package, or None while there is none.
        share: of the photos, 0 to 1.
        log: records the differences.
        max_pixels: maximum number of pixels of a photo.
    """

    def __init__(
        self, champion: Tagger, find: Callable[[], Path | None], share: float, log: RequestLog, max_pixels: int
    ):
        self._champion = champion
        self._find = find
        self._share = share
        self._log = log
        self._max_pixels = max_pixels
        self._photos: Queue[_Waiting | None] = Queue(_WAITING)
        self._folder: Path | None = None
        self._challenger: Tagger | None = None
        self._next_look = 0.0
        self._said = ""
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._work, name="shadow", daemon=True)
        self._thread.start()

    def offer(self, photo: Photo, principal: np.ndarray, words: Words) -> None:
        """Have the challenger answer a photo later, or not at all while it is busy.

        Args:
            photo: a photo for which the service's own words or those of the request were ranked.
            principal: (M, d), of the champion.
            words: that were ranked.
        """
        assert photo.asked
        if photo.asked.task != "all" or random.random() >= self._share:
            return
        try:
            self._photos.put_nowait(_Waiting(photo, principal, words))
        except Full:
            SHADOWED.labels("dropped").inc()

    def close(self) -> None:
        """Stop; what waits is left undone."""
        self._closed.set()
        with suppress(Full):  # then the thread is awake, and looks at the event before the next photo
            self._photos.put_nowait(None)
        self._thread.join()

    def _work(self) -> None:
        if sys.platform == "linux":
            # Of this thread alone, in Linux: the champion goes first where both want a core.
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 19)
        while (waiting := self._photos.get()) is not None and not self._closed.is_set():
            try:
                if challenger := self._look():
                    self._compare(waiting, challenger)
                self._said = ""
            except Exception as error:  # whatever a package lacks, or a network does
                self._log.shadow_failed(_name(self._challenger, self._folder), error)
                if str(error) != self._said:
                    self._said = str(error)
                    logger.error("The challenger %s cannot answer: %s", self._folder, error)

    def _look(self) -> Tagger | None:
        if time.monotonic() >= self._next_look:
            self._next_look = time.monotonic() + _LOOK
            folder = self._find()
            if folder != self._folder:
                self._challenger, self._folder = None, folder
        if self._folder and self._challenger is None:
            self._challenger = Tagger(self._folder, threads=1)
        return self._challenger

    def _compare(self, waiting: _Waiting, challenger: Tagger) -> None:
        started = time.perf_counter()
        # Their own vocabularies may differ; words that were asked for are the same.
        words = challenger.words(waiting.words.words if waiting.words.asked else ())
        pixels = challenger.pixels(waiting.photo.data, waiting.photo.name, self._max_pixels)
        principal = challenger.principal_vectors(pixels[None])[0]
        others = challenger.rank(principal, words, _BEST, everything=True)
        SHADOW_SECONDS.observe(time.perf_counter() - started)
        tags = self._champion.rank(waiting.principal, waiting.words, _BEST, everything=True)
        same = challenger.rank(principal, challenger.words(tag.tag for tag in tags), _BEST, everything=True)
        agreement, difference = differences(tags, others, same)
        self._log.shadowed(_name(challenger, None), agreement, difference, tags, others)


def differences(tags: list[Tag], others: list[Tag], same: list[Tag]) -> tuple[float, float]:
    """The share of the champion's best tags that are the challenger's, and the mean difference of probabilities.

    Args:
        tags: the champion's best tags, at least one.
        others: the challenger's.
        same: the champion's best tags, as the challenger ranks them, in any order; what it does not know is missing.
    """
    agreement = len({tag.tag for tag in tags} & {tag.tag for tag in others}) / len(tags)
    theirs = {tag.tag: tag.probability for tag in same}
    return agreement, float(np.mean([abs(tag.probability - theirs.get(tag.tag, 0.0)) for tag in tags]))


def _name(challenger: Tagger | None, folder: Path | None) -> str:
    return f"{challenger.info['name']}:{challenger.info['version']}" if challenger else str(folder)
