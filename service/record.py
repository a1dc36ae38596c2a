"""Prometheus metrics, and a request log without images."""

import json
import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from prometheus_client import Counter, Histogram

from zerotag.serving.tagger import Tag

_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

LATENCY = Histogram("zerotag_step_seconds", "Duration of a request's steps.", ["step"], buckets=_BUCKETS)
BATCHES = Histogram("zerotag_batch_size", "Photos worked on together.", buckets=(1, 2, 3, 4, 8, 16, 32))
PHOTOS = Counter("zerotag_photos", "Tagged photos.")
TAGS = Counter("zerotag_tags", "Predicted tags.", ["kind"])
REFUSED = Counter("zerotag_refused", "Rejected requests and photos.", ["status"])


class RequestLog:
    """Request log in JSON Lines, one file per day, which the drift check of retraining reads.

    A line contains the time, the model, the request's options, the photo's size, brightness and contrast, and the tags
    with their scores. It contains no image, file name or IP address.

    Args:
        folder: log folder; None to disable the log.
        model: name and version.
    """

    def __init__(self, folder: Path | None, model: str):
        self._folder = folder
        self._model = model
        if folder:
            folder.mkdir(parents=True, exist_ok=True)

    def tagged(self, pixels: np.ndarray, size: int, tags: Sequence[Tag], own_words: bool, task: str) -> None:
        """Record a tagged photo."""
        PHOTOS.inc()
        for tag in tags:
            TAGS.labels("word" if tag.seen is None else "seen" if tag.seen else "unseen").inc()
        levels = pixels.astype(np.float32) / 255
        brightness = float(levels.mean())
        contrast = float(levels.std())
        self._write(
            event="tag",
            bytes=size,
            brightness=round(brightness, 4),
            contrast=round(contrast, 4),
            own_words=own_words,
            task=task,
            tags=[[tag.tag, round(tag.score, 4), round(tag.probability, 4)] for tag in tags],
        )

    def searched(self, words: Sequence[str], without: Sequence[str], found: int, example: bool) -> None:
        """Record a search; `example`: by a photo, too."""
        self._write(event="search", words=list(words), without=list(without), example=example, found=found)

    def refused(self, status: int, reason: str) -> None:
        """Record a rejected request or photo."""
        REFUSED.labels(str(status)).inc()
        self._write(event="refused", status=status, reason=reason[:200])

    def _write(self, **facts: Any) -> None:
        if self._folder is None:
            return
        now = datetime.now(UTC)
        line = json.dumps({"time": now.isoformat(timespec="milliseconds"), "model": self._model, **facts}) + "\n"
        # A single write in append mode, so that lines of several processes do not interleave.
        file = os.open(self._folder / f"{now:%Y-%m-%d}.jsonl", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(file, line.encode())
        finally:
            os.close(file)
