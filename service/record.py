"""Prometheus metrics, and a request log without images."""

import json
import math
import os
from collections import deque
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from threading import Lock
from typing import Any, TypeVar

from prometheus_client import Counter, Gauge, Histogram

from service.model import Photo, Seen
from zerotag.errors import ZerotagError
from zerotag.registry.drift import Profile, distance
from zerotag.serving.tagger import Tag

Metric = TypeVar("Metric", Counter, Gauge, Histogram)

_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_TENTHS = tuple(tenth / 10 for tenth in range(1, 11))
_PROBABILITIES = (0.01, 0.02, 0.05, *_TENTHS)

LATENCY = Histogram("zerotag_step_seconds", "Duration of a request's steps.", ["step"], buckets=_BUCKETS)
BATCHES = Histogram("zerotag_batch_size", "Photos worked on together.", buckets=(1, 2, 3, 4, 8, 16, 32))
PHOTOS = Counter("zerotag_photos", "Tagged photos.")
INDEXED = Counter("zerotag_indexed_photos", "Photos indexed by requests.")
SEARCHES = Counter("zerotag_searches", "Searches.")
TAGS = Counter("zerotag_tags", "Predicted tags.", ["kind"])
REFUSED = Counter("zerotag_refused", "Rejected requests and photos.", ["status", "reason"])
PROBABILITY = Histogram("zerotag_tag_probability", "Probability of predicted tags.", ["kind"], buckets=_PROBABILITIES)
BEST = Histogram(
    "zerotag_best_tag_probability",
    "Probability of a photo's best tag of the model's own; 0 if none is probable.",
    buckets=_PROBABILITIES,
)
BRIGHTNESS = Histogram("zerotag_photo_brightness", "Mean pixel value of a tagged photo, 0 to 1.", buckets=_TENTHS)
CONTRAST = Histogram(
    "zerotag_photo_contrast",
    "Standard deviation of the pixel values of a tagged photo, 0 to 1.",
    buckets=tuple(level / 20 for level in range(1, 11)),
)
DRIFT = Gauge(
    "zerotag_photo_drift",
    "Kolmogorov-Smirnov statistic of the latest photos against the model's training photos, 0 to 1; NaN if unknown.",
    ["of"],
    multiprocess_mode="mostrecent",
)
SHADOWED = Counter("zerotag_shadow_photos", "Photos for the model that answers beside the champion.", ["outcome"])
AGREEMENT = Histogram(
    "zerotag_shadow_agreement",
    "Share of the champion's five best tags that are also the challenger's.",
    buckets=(0.0, 0.2, 0.4, 0.6, 0.8, 1.0),
)
DIFFERENCE = Histogram(
    "zerotag_shadow_probability_difference",
    "Mean absolute difference of the probabilities of the champion's five best tags.",
    buckets=_PROBABILITIES,
)
SHADOW_SECONDS = Histogram("zerotag_shadow_seconds", "Duration of the challenger's answer.", buckets=_BUCKETS)

# Latest photos that are compared with the training photos, and how many it takes: with 200, a difference of 0.14 is
# chance once in a hundred times.
_LATEST, _ENOUGH, _EVERY = 500, 200, 10
_REASONS = {
    400: "malformed", 401: "key", 403: "path", 404: "path", 405: "malformed", 408: "slow", 409: "conflict",
    413: "too_large", 415: "content_type", 501: "exiftool", 503: "busy",
}  # fmt: skip


@cache
def labelled(metric: Metric, *labels: str) -> Metric:
    """A metric with its labels; looking it up at each photo takes longer than counting it."""
    return metric.labels(*labels)


class RequestLog:
    """Request log in JSON Lines, one file per day, which the drift check of retraining reads.

    A line contains the time, the model, the request's options, the photo's size, brightness and contrast, and the tags
    with their scores. It contains no image, file name or IP address.

    Args:
        folder: log folder; None to disable the log.
        model: name and version.
        profile: of the model's training photos; None if it is not known.
    """

    def __init__(self, folder: Path | None, model: str, profile: Profile | None = None):
        self._folder = folder
        self._model = model
        self._training = {} if profile is None else {"brightness": profile.brightness, "contrast": profile.contrast}
        self._latest: deque[dict[str, float]] = deque(maxlen=_LATEST)
        self._photos = 0
        self._watching = Lock()
        for name in ("brightness", "contrast"):
            DRIFT.labels(name).set(math.nan)
        if folder:
            folder.mkdir(parents=True, exist_ok=True)

    def tagged(self, photos: Sequence[tuple[Photo, Seen]]) -> None:
        """Record tagged photos."""
        lines = []
        for photo, seen in photos:
            assert photo.asked
            own_words = photo.asked.words is not None
            for tag in seen.tags:
                kind = "word" if tag.seen is None else "seen" if tag.seen else "unseen"
                labelled(TAGS, kind).inc()
                labelled(PROBABILITY, kind).observe(tag.probability)
            if not own_words:
                BEST.observe(max((tag.probability for tag in seen.tags), default=0.0))
            self._watch(seen.brightness, seen.contrast)
            lines.append(
                self._line(
                    event="tag",
                    bytes=len(photo.data),
                    brightness=round(seen.brightness, 4),
                    contrast=round(seen.contrast, 4),
                    own_words=own_words,
                    task=photo.asked.task,
                    tags=_rounded(seen.tags),
                )
            )
        PHOTOS.inc(len(photos))
        self._write(*lines)

    def searched(self, words: Sequence[str], without: Sequence[str], found: int, example: bool) -> None:
        """Record a search; `example`: by a photo, too."""
        SEARCHES.inc()
        self._note(event="search", words=list(words), without=list(without), example=example, found=found)

    def refused(self, status: int, reason: str) -> None:
        """Record a rejected request or photo; the reason is one of few, as a message may name a file."""
        count_refused(status, reason)
        self._note(event="refused", status=status, reason=reason)

    def shadowed(
        self, challenger: str, agreement: float, difference: float, tags: Sequence[Tag], others: Sequence[Tag]
    ) -> None:
        """Record how a challenger's answer differed.

        Args:
            challenger: name and version.
            agreement: share of the champion's best tags that are the challenger's.
            difference: mean absolute difference of the probabilities of the champion's best tags.
            tags: the champion's best tags.
            others: the challenger's.
        """
        SHADOWED.labels("compared").inc()
        AGREEMENT.observe(agreement)
        DIFFERENCE.observe(difference)
        facts = {"agreement": round(agreement, 4), "difference": round(difference, 4)}
        self._note(
            event="shadow", challenger=challenger, **facts, tags=_rounded(tags), challenger_tags=_rounded(others)
        )

    def shadow_failed(self, challenger: str, error: Exception) -> None:
        """Record that a challenger could not answer."""
        SHADOWED.labels("failed").inc()
        self._note(event="shadow", challenger=challenger, error=type(error).__name__)

    def _watch(self, brightness: float, contrast: float) -> None:
        """Compare the latest photos with the training photos, now and then."""
        BRIGHTNESS.observe(brightness)
        CONTRAST.observe(contrast)
        with self._watching:  # photos are tagged in several threads
            self._latest.append({"brightness": brightness, "contrast": contrast})
            self._photos += 1
            if len(self._latest) < _ENOUGH or self._photos % _EVERY:
                return
            for name, then in self._training.items():
                if then:
                    DRIFT.labels(name).set(distance(then, [photo[name] for photo in self._latest]))

    def _note(self, **facts: Any) -> None:
        self._write(self._line(**facts))

    def _line(self, **facts: Any) -> str:
        time = datetime.now(UTC).isoformat(timespec="milliseconds")
        return json.dumps({"time": time, "model": self._model, **facts}) + "\n"

    def _write(self, *lines: str) -> None:
        if self._folder is None or not lines:
            return
        # A single write in append mode, so that lines of several processes do not interleave.
        file = os.open(
            self._folder / f"{datetime.now(UTC):%Y-%m-%d}.jsonl", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644
        )
        try:
            os.write(file, "".join(lines).encode())
        finally:
            os.close(file)


def reason_of(status: int, error: Exception | None = None) -> str:
    """Why something is rejected, as one of few words: the kind of a bad photo, or what the status says."""
    if isinstance(error, ZerotagError):
        return getattr(error, "kind", "words")
    return _REASONS.get(status, "options")


def count_refused(status: int, reason: str) -> None:
    """Count a rejected request or photo."""
    REFUSED.labels(str(status), reason).inc()


def _rounded(tags: Sequence[Tag]) -> list[list[Any]]:
    return [[tag.tag, round(tag.score, 4), round(tag.probability, 4)] for tag in tags]
