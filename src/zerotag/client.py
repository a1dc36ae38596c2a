"""Client of the HTTP service (docs/serving.md), in plain Python: it needs neither a model nor numpy.

>>> import zerotag
>>> with zerotag.Client("http://127.0.0.1:3000") as client:
...     for tag in client.tag("beach.jpg", top=5).tags:
...         print(tag.tag, tag.probability)

The answers have the names and fields of the service's OpenAPI description, against which tests/test_client.py checks
them. Fields that a later service adds are ignored.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, TypedDict, TypeVar, Unpack
from urllib.parse import quote, urlencode

import urllib3
from pydantic import TypeAdapter, ValidationError

from zerotag.errors import ZerotagError
from zerotag.files import shown

T = TypeVar("T")

# A photo to send: its file, or its encoded bytes.
Photo = str | Path | bytes
# The longest that the service may ask to wait, in seconds.
_LONGEST_WAIT = 60


class ServiceError(ZerotagError):
    """The service refuses a request, or cannot be reached.

    Attributes:
        status: the HTTP status; None if there was no answer.
    """

    def __init__(self, message: str, status: int | None = None):
        super().__init__(message)
        self.status = status


class TagOptions(TypedDict, total=False):
    """Options of tagging.

    Attributes:
        top: maximum number of tags, 10 by default.
        threshold: minimum probability.
        all: also improbable tags and near-synonyms.
        vocabulary: candidate words, any; by default the service's.
        task: `unseen`: only words not seen in training.
    """

    top: int
    threshold: float
    all: bool
    vocabulary: Sequence[str]
    task: Literal["all", "unseen"]


@dataclass(frozen=True)
class TagAnswer:
    """A tag of a photo.

    Attributes:
        tag: the word.
        score: maximum dot product of the word vector with the photo's principal vectors.
        seen: whether it was seen in training; None for a word outside the vocabulary.
        probability: calibrated score.
        principal_vector: index of the principal vector with the maximum, from 0.
        understood: how the word was resolved.
        made_of: what its vector was composed of: the word, another form of it, or its parts.
        also: probable words that say nearly the same, folded into this one.
    """

    tag: str
    score: float
    seen: bool | None
    probability: float
    principal_vector: int
    understood: Literal["itself", "parts", "encoded"]
    made_of: str
    also: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class EmbedSpent:
    """Time per step in milliseconds."""

    decode: float
    network: float


@dataclass(frozen=True)
class Spent(EmbedSpent):
    """Time per step in milliseconds."""

    score: float


@dataclass(frozen=True)
class PhotoTags:
    """Tags of a photo.

    Attributes:
        tags: best first.
        missing: requested words without a word vector.
        reason: why they have none; empty if none is missing.
        model: name and version of the model.
        milliseconds: time spent.
    """

    tags: list[TagAnswer]
    missing: list[str]
    reason: str
    model: str
    milliseconds: Spent


@dataclass(frozen=True)
class LibraryTags(PhotoTags):
    """Tags of a photo of the service's root, and its keywords.

    Attributes:
        keywords: keywords that a person gave.
        given: tags that zerotag wrote, and on which nobody has decided.
        accepted: those of the keywords that were accepted.
        rejected: tags that were rejected.
        problem: why keywords cannot be read; empty if they can.
    """

    keywords: list[str]
    given: list[str]
    accepted: list[str]
    rejected: list[str]
    problem: str = ""


@dataclass(frozen=True)
class BatchPhoto:
    """One photo of a batch: its tags, or an error."""

    photo: str
    tags: list[TagAnswer] = field(default_factory=list)
    error: str | None = None


@dataclass(frozen=True)
class BatchTags:
    """Tags of a batch of photos, in their order; the rest is as in `PhotoTags`."""

    photos: list[BatchPhoto]
    missing: list[str]
    reason: str
    model: str
    milliseconds: Spent


@dataclass(frozen=True)
class Embedding:
    """Principal vectors of a photo.

    Attributes:
        vectors: (M, d).
        model: name and version of the model.
        network: digest of the network; vectors of different networks are not comparable.
        milliseconds: time spent.
    """

    vectors: list[list[float]]
    model: str
    network: str
    milliseconds: EmbedSpent


@dataclass(frozen=True)
class Found:
    """A search result: a path below the service's root, and its score."""

    photo: str
    score: float


@dataclass(frozen=True)
class SearchAnswer:
    """Search results, best first.

    Attributes:
        photos: the results.
        next: offset of the next page; None on the last page.
        indexed: number of photos in the index.
        understood: how each word was resolved.
        milliseconds: time spent.
    """

    photos: list[Found]
    next: int | None
    indexed: int
    understood: dict[str, Literal["itself", "parts", "encoded"]]
    milliseconds: float


@dataclass(frozen=True)
class IndexAnswer:
    """Result of an index update.

    Attributes:
        added: new or changed photos.
        unchanged: photos that were in the index already.
        moved: photos found under another name.
        removed: photos deleted from the folder.
        refused: photos that could not be read, with the reason.
        remaining: photos not reached within the time limit; repeat the call.
        skipped: numbers of files and folders passed over, by kind.
        problems: files and folders that cannot be read, with the mend.
        indexed: number of photos in the index after the update.
    """

    added: int
    unchanged: int
    moved: int
    removed: int
    refused: dict[str, str]
    remaining: int
    skipped: dict[str, int]
    problems: list[str]
    indexed: int


@dataclass(frozen=True)
class Removed:
    """Result of a removal from the index."""

    removed: int
    indexed: int


@dataclass(frozen=True)
class IndexState:
    """State of the index: its size, and whether the service has a photo root."""

    indexed: int
    root: bool


@dataclass(frozen=True)
class ModelAnswer:
    """The deployed model.

    Attributes:
        name, version: of the model.
        tags, seen, unseen: size of the vocabulary, and how much of it was seen in training.
        words: number of words with a word vector.
        info: metrics, data, dependency versions and licences.
        calibration: reliability of the probabilities on the test photos.
    """

    name: str
    version: str
    tags: int
    seen: int
    unseen: int
    words: int
    info: dict[str, Any]
    calibration: dict[str, Any]


class Client:
    """A service. It keeps connections open, may be shared by threads, and is closed by `with` or `close`.

    All methods raise `ServiceError`, a `ZerotagError`, with the service's own message.

    Args:
        url: where the service is.
        api_key: sent in the header X-API-Key, if any.
        timeout: seconds to wait for a connection, and for the next part of an answer.
        retries: how often a busy service (status 503) is asked again, after the time that it names.
    """

    def __init__(
        self, url: str = "http://127.0.0.1:3000", api_key: str = "", timeout: float = 60.0, retries: int = 3
    ) -> None:
        self._url = url.rstrip("/")
        busy = urllib3.Retry(
            total=retries, connect=0, read=0, other=0, status_forcelist=(503,), allowed_methods=None,
            backoff_factor=0.5, raise_on_status=False, retry_after_max=_LONGEST_WAIT,
        )  # fmt: skip
        headers = {"X-API-Key": api_key} if api_key else {}
        self._pool = urllib3.PoolManager(headers=headers, timeout=timeout, retries=busy)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._pool.clear()

    def tag(self, photo: Photo, **options: Unpack[TagOptions]) -> PhotoTags:
        """Tag a photo."""
        return self._ask(PhotoTags, "POST", "/tag", form=[("photo", _file(photo)), *_options(options)])

    def tag_batch(self, photos: Iterable[Photo], **options: Unpack[TagOptions]) -> BatchTags:
        """Tag several photos. Those that cannot be decoded have an error each."""
        files = [("photos", _file(photo)) for photo in photos]
        return self._ask(BatchTags, "POST", "/tag/batch", form=[*files, *_options(options)])

    def embed(self, photo: Photo) -> Embedding:
        """Compute the principal vectors of a photo."""
        return self._ask(Embedding, "POST", "/embed", form=[("photo", _file(photo))])

    def tags(self, path: str, **options: Unpack[TagOptions]) -> LibraryTags:
        """Tag a photo below the service's root, and get its keywords."""
        return self._ask(LibraryTags, "GET", f"/tags/{_path(path)}", query=_options(options))

    def accept(self, path: str, *tags: str, **options: Unpack[TagOptions]) -> LibraryTags:
        """Make tags keywords of a photo below the service's root."""
        return self.decide(path, accept=tags, **options)

    def reject(self, path: str, *tags: str, **options: Unpack[TagOptions]) -> LibraryTags:
        """Say that tags are wrong for a photo below the service's root."""
        return self.decide(path, reject=tags, **options)

    def decide(
        self,
        path: str,
        accept: Sequence[str] = (),
        reject: Sequence[str] = (),
        forget: Sequence[str] = (),
        **options: Unpack[TagOptions],
    ) -> LibraryTags:
        """Accept and reject tags of a photo below the service's root, and make others undecided again."""
        decision = {"accept": list(accept), "reject": list(reject), "forget": list(forget)}
        return self._ask(LibraryTags, "POST", f"/tags/{_path(path)}", query=_options(options), body=decision)

    def search(
        self,
        words: Sequence[str] = (),
        without: Sequence[str] = (),
        photo: Photo | None = None,
        like: str = "",
        folder: str = "",
        since: date | str | None = None,
        until: date | str | None = None,
        limit: int = 20,
        offset: int = 0,
    ) -> SearchAnswer:
        """Search the index.

        Args:
            words: words that must all match.
            without: excluded words.
            photo: photos like this one, which is sent.
            like: photos like this one, the path of an indexed photo.
            folder: only photos of this folder.
            since, until: only photos taken on these days or between them.
            limit: maximum number of photos.
            offset: number of photos to skip.
        """
        wanted = {"words": _list(words), "without": _list(without), "like": like, "folder": folder,
                  "since": str(since or ""), "until": str(until or "")}  # fmt: skip
        given: dict[str, Any] = {name: value for name, value in wanted.items() if value}
        given |= {"limit": limit, "offset": offset}
        if photo is None:
            return self._ask(SearchAnswer, "POST", "/search", body=given)
        if like:
            raise ServiceError("Both photo and like name an example. Give one of them.")
        return self._ask(SearchAnswer, "POST", "/search", form=[("photo", _file(photo)), *_fields(given)])

    def index(self, paths: Sequence[str] = ("",), prune: bool = False) -> IndexAnswer:
        """Index photos and folders below the service's root; repeat the call while photos are `remaining`.

        Args:
            paths: photos and folders; all by default.
            prune: remove deleted photos even if they are many.
        """
        return self._ask(IndexAnswer, "POST", "/index", body={"paths": _list(paths), "prune": prune})

    def index_state(self) -> IndexState:
        """Get the state of the index."""
        return self._ask(IndexState, "GET", "/index")

    def remove(self, paths: Sequence[str]) -> Removed:
        """Remove photos and folders from the index, not from the disk; an empty path removes all."""
        return self._ask(Removed, "DELETE", "/index", query=[("path", path) for path in _list(paths)])

    def photo(self, path: str, side: int = 320) -> bytes:
        """Get a JPEG thumbnail of a photo below the service's root; `side` is its longer side in pixels."""
        return self._send("GET", f"/photo/{_path(path)}", query=[("side", str(side))])

    def model(self) -> ModelAnswer:
        """Describe the deployed model."""
        return self._ask(ModelAnswer, "GET", "/model")

    def _ask(self, kind: type[T], method: str, path: str, **content: Any) -> T:
        answer = self._send(method, path, **content)
        try:
            return TypeAdapter(kind).validate_json(answer)
        except ValidationError as error:
            raise ServiceError(
                f"{self._url}{path}: not an answer of this version of zerotag's service ({error.errors()[0]['msg']})."
            ) from error

    def _send(
        self,
        method: str,
        path: str,
        query: Sequence[tuple[str, str]] = (),
        form: Sequence[tuple[str, Any]] | None = None,
        body: Mapping[str, Any] | None = None,
    ) -> bytes:
        url = f"{self._url}{path}{f'?{urlencode(query)}' if query else ''}"
        sent: dict[str, Any] = {} if form is None else {"fields": form}
        if body is not None:
            sent["json"] = body
        try:
            answer = self._pool.request(method, url, redirect=False, **sent)
        except urllib3.exceptions.HTTPError as error:
            raise ServiceError(f"{self._url}: no answer ({error}). Is the service running there?") from error
        if answer.status != 200:
            raise ServiceError(_reason(answer.data) or f"{url}: status {answer.status}.", answer.status)
        return answer.data


def _reason(answer: bytes) -> str:
    try:
        return str(json.loads(answer)["error"])
    except (ValueError, KeyError, TypeError):  # of a proxy before the service
        return ""


def _file(photo: Photo) -> tuple[str, bytes]:
    """A photo as a part of a form: its name and its content."""
    if isinstance(photo, bytes):
        return "photo", photo
    try:
        return shown(Path(photo).name), Path(photo).read_bytes()
    except OSError as error:
        raise ServiceError(f"{shown(photo)}: cannot be read ({error.strerror}).") from error


def _options(options: TagOptions) -> list[tuple[str, str]]:
    given: dict[str, Any] = {**options}
    if "vocabulary" in given:
        given["vocabulary"] = _list(given["vocabulary"])
    return _fields(given)


def _fields(given: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Values as form fields or query parameters; a list in JSON, as words may have commas."""
    return [
        (name, value if isinstance(value, str) else json.dumps(value))
        for name, value in given.items()
        if value is not None and value != []
    ]


def _list(words: Sequence[str]) -> list[str]:
    """A list of words; a single text is one."""
    return [words] if isinstance(words, str) else list(words)


def _path(path: str) -> str:
    """A photo's path in a URL; of dots alone, as the service is to see them."""
    return "/".join(quote(part, safe="") if part.strip(".") else "%2E" * len(part) for part in path.split("/"))
