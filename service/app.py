"""The HTTP API: a FastAPI application for the tagger, the index and the batched network."""

import asyncio
import io
import logging
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import APIRouter, Depends, FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, PlainTextResponse
from fastapi.security import APIKeyHeader
from fastapi.staticfiles import StaticFiles
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware

from service.answers import (
    BatchPhoto,
    BatchTags,
    Decision,
    Embedding,
    IndexAnswer,
    IndexRequest,
    IndexState,
    LibraryTags,
    ModelAnswer,
    PhotoTags,
    Problem,
    Removed,
    SearchAnswer,
    SearchRequest,
    Spent,
    TagAnswer,
    TagOptions,
)
from service.forms import (
    BodyError,
    PhotoForm,
    Search,
    Upload,
    content_type,
    other_type,
    photo_body,
    photo_form,
    read_search,
    search_body,
)
from service.gather import Gather
from service.keywords import Keywords
from service.limits import Limits, Slots
from service.record import INDEXED, LATENCY, RequestLog, count_refused, reason_of
from service.settings import ServeSettings
from service.shadow import Shadow
from zerotag.data.batches import cores
from zerotag.data.photos import PHOTO_SUFFIXES, RAW_SUFFIXES, open_photo
from zerotag.errors import ZerotagError
from zerotag.files import shown
from zerotag.metadata.exiftool import ExiftoolError
from zerotag.metadata.keywords import PhotoKeywords, sidecars
from zerotag.metadata.vocabulary_file import VocabularyFile, read_vocabulary
from zerotag.metadata.writing import KeywordError, ReadOnlyError
from zerotag.registry.drift import training_profile
from zerotag.samples import samples
from zerotag.serving.card import model_card
from zerotag.serving.index import Index, Where, open_index, search_words
from zerotag.serving.keywords import rank_keywords
from zerotag.serving.tagger import Tag, Tagger, Words, split_words
from zerotag.serving.update import RemovalError, inside, stamp_of, update

logger = logging.getLogger(__name__)

PAGE = Path(__file__).parent / "page"

_POLICY = "default-src 'self'; img-src 'self' blob: data:; base-uri 'none'; frame-ancestors 'none'"

_REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"model": Problem, "description": reason}
    for status, reason in {
        400: "Malformed request",
        401: "Missing or invalid API key",
        403: "Path outside the photo root, no photo root configured, or a folder that is read-only",
        404: "No such photo",
        409: "An index update would remove much of the index (ask for it with `prune`), or a rejected tag is a keyword "
        "that a person gave",
        408: "Request body took too long to arrive",
        413: "Too large",
        415: "Unsupported content type",
        422: "Not an image, an option out of range, or no word with a word vector",
        501: "exiftool is not installed",
        503: "Busy; retry after Retry-After seconds",
    }.items()
}


class _Service:
    """State shared by the requests of a process."""

    def __init__(self, settings: ServeSettings):
        self.settings = settings
        self.slots = Slots(-(-settings.queue // settings.processes))
        self.keywords = Keywords()

    # Loaded lazily: this module is also imported by processes that only start other processes.
    @cached_property
    def tagger(self) -> Tagger:
        return Tagger(self.settings.package, threads=1, views=self.settings.views)

    @cached_property
    def embed(self) -> Gather["_Photo", "_Embedded"]:
        """Decodes photos of all requests, runs the network on them and ranks their words, in threads."""
        return Gather(self._embed, self.tagger.at_once, -(-cores() // self.settings.processes))

    @cached_property
    def version(self) -> str:
        return f"{self.tagger.info['name']}:{self.tagger.info['version']}"

    @cached_property
    def index(self) -> Index:
        return open_index(self.settings.index_uri, self.tagger)

    @cached_property
    def log(self) -> RequestLog:
        folder = self.settings.path(self.settings.log) if self.settings.log else None
        return RequestLog(folder, self.version, training_profile(self.tagger.folder))

    @cached_property
    def shadow(self) -> Shadow | None:
        """The challenger that answers beside the model; None without one."""
        if not self.settings.shadow:
            return None
        settings = self.settings
        return Shadow(self.tagger, lambda: settings.challenger, settings.shadow_share, self.log, settings.max_pixels)

    @cached_property
    def vocabulary(self) -> VocabularyFile | None:
        if not self.settings.vocabulary:
            return None
        return read_vocabulary(self.settings.path(self.settings.vocabulary))

    @cached_property
    def own_words(self) -> dict[str, Words]:
        """By task, the words of the vocabulary file that have a vector."""
        assert self.vocabulary
        words = self.tagger.words(self.vocabulary.words)
        # Reported here, when the service starts, and not to each client.
        for line in self.vocabulary.report(words.words):
            logger.warning(line)
        return {"all": replace(words, missing=[], reason="")}

    def load(self) -> None:
        """Load everything before the first request."""
        # LanceDB takes as long to import as all else to load, which is read by ONNX Runtime without the interpreter.
        with ThreadPoolExecutor(1, thread_name_prefix="index") as beside:
            index = beside.submit(lambda: len(self.index))
            _ = self.tagger.lexicon_words, self.tagger.text_encoder, self.log, self.embed, self.shadow
            if self.vocabulary:
                _ = self.own_words
            index.result()

    def close(self) -> None:
        """Stop what runs beside the requests."""
        self.keywords.close()
        if self.shadow:
            self.shadow.close()

    def tagged(self, seen: "_Embedded", asked: "_Asked") -> None:
        """Record a tagged photo, and offer it to the challenger."""
        self.log.tagged(seen.pixels, len(seen.photo.file.data), seen.tags, not asked.own, asked.task)
        if self.shadow and asked.task == "all":
            self.shadow.offer(seen.photo.file.data, seen.photo.file.name, seen.principal, asked.words)

    @property
    def root(self) -> Path:
        if not self.settings.root:
            raise HTTPException(403, "No photo root is configured. Set serve.root in params.yaml, or ZEROTAG_ROOT.")
        return self.settings.path(self.settings.root)

    @property
    def scope(self) -> tuple[str | None, int]:
        """The folder whose photos are found, and their number: the photo root, if the index has others too."""
        whole = len(self.index)
        if not self.settings.root:
            return None, whole
        root = shown(self.root.resolve())
        count = self.index.count(root)
        return (None if count == whole else root), count

    @property
    def indexed(self) -> int:
        """Number of photos that can be found."""
        return self.scope[1]

    def words(self, given: list[str], task: Literal["all", "unseen"]) -> Words:
        words = split_words(given)
        if given and not words:
            raise ZerotagError("The vocabulary contains no word.")
        self.check_number(words)
        if not words and self.vocabulary:
            if task not in self.own_words:
                self.own_words[task] = self.tagger.words(self.own_words["all"].words, task)
            return self.own_words[task]
        return self.tagger.words(words, task)

    def rank(self, matrices: np.ndarray, asked: "_Asked") -> list[list[Tag]]:
        """Rank words for photos, (B, M, d)."""
        how = asked.top, asked.threshold, asked.everything
        if asked.own and self.vocabulary:
            return [rank_keywords(self.tagger, each, asked.words, self.vocabulary, *how) for each in matrices]
        return self.tagger.rank_all(matrices, asked.words, *how)

    def check_number(self, words: list[str]) -> None:
        if len(words) > self.settings.max_words:
            raise ZerotagError(f"{len(words):,} words exceed the limit of {self.settings.max_words:,}.")

    def inside(self, path: str) -> Path:
        try:
            return inside(self.root, path)
        except ZerotagError as error:
            raise HTTPException(403 if "outside" in str(error) else 404, str(error)) from error

    def photo(self, path: str) -> Path:
        """A photo below the root."""
        file = self.inside(path)
        if not file.is_file() or file.suffix.lower() not in PHOTO_SUFFIXES | RAW_SUFFIXES:
            raise HTTPException(404, f"{path}: not a photo.")
        return file

    def sidecars_inside(self, photo: Path, path: str) -> None:
        """Check that no sidecar is a link that leads out of the root."""
        root = self.root.resolve()
        for sidecar in sidecars(photo):
            if not sidecar.resolve().is_relative_to(root):
                raise HTTPException(403, f"{path}: its sidecar is a link that leads outside the photo root.")

    def indexed_vectors(self, photo: Path) -> np.ndarray | None:
        """Principal vectors (M, d) of a photo below the root, if it has not changed since it was indexed."""
        root = self.root.resolve()
        found = self.index.find(shown(root), shown(photo.relative_to(root)))
        return found[1] if found and found[0].stamp == stamp_of(photo.stat()) else None

    def example(self, path: str) -> np.ndarray:
        """Principal vectors (M, d) of an indexed photo."""
        found = self.index.find(shown(self.root.resolve()), path)
        if found is None:
            raise HTTPException(404, f"like: {path[:200]}: not an indexed photo. Index it, or send it as `photo`.")
        return found[1]

    def search(self, wanted: SearchRequest, example: np.ndarray | None) -> dict[str, Any]:
        """Search the index; the answer lacks the time."""
        self.check_number([*wanted.words, *wanted.without])
        words, without = search_words(self.tagger, wanted.words, wanted.without, example is not None)
        if wanted.folder.startswith("/"):
            raise ZerotagError(f"folder: {wanted.folder[:200]}: not a path below the photo root.")
        root, indexed = self.scope
        where = Where(
            root,
            wanted.folder,
            wanted.since,
            wanted.until,
            apart_from=(shown(self.root.resolve()), wanted.like) if wanted.like is not None else None,
        )
        # Fetch one more result to know whether there is a next page.
        hits = self.index.search(
            words.vectors if words else None,
            without.vectors if without else None,
            wanted.limit + 1,
            wanted.offset,
            where,
            example,
            self.settings.exact,
        )
        more, hits = len(hits) > wanted.limit, hits[: wanted.limit]
        self.log.searched(wanted.words, wanted.without, len(hits), example is not None)
        return {
            "photos": hits,
            "next": wanted.offset + wanted.limit if more else None,
            "indexed": indexed,
            "understood": {
                word: how
                for each in (without, words)
                if each
                for word, how in zip(each.words, each.understood, strict=True)
            },
        }

    def decode(self, photo: Upload) -> np.ndarray:
        size, limit = len(photo.data), self.settings.max_bytes
        if size > limit:
            raise HTTPException(413, f"{photo.name}: {size:,} bytes exceed the limit of {limit:,}.")
        return self.tagger.pixels(photo.data, photo.name, self.settings.max_pixels)

    def _embed(self, photos: list["_Photo"]) -> list["_Embedded | Exception"]:
        """Decode photos, run the network on them, and rank the words that are asked for."""
        decoded: list[_Embedded] = []
        results: list[_Embedded | Exception] = []
        for photo in photos:
            spent: dict[str, float] = {}
            try:
                with _timed("decode", spent):
                    pixels = self.decode(photo.file)
            except (ZerotagError, HTTPException) as error:
                results.append(error)
            else:
                decoded.append(_Embedded(photo, pixels, spent))
                results.append(decoded[-1])
        if decoded:
            matrices = self.tagger.principal_vectors(np.stack([each.pixels for each in decoded]))
            ready = time.perf_counter()
            for each, principal in zip(decoded, matrices, strict=True):
                each.principal = principal
                _note("network", ready - each.photo.arrived - each.spent["decode"] / 1000, each.spent)
            self._rank(decoded)
        return results

    def _rank(self, photos: list["_Embedded"]) -> None:
        """Rank the words that are asked for, together for photos of which the same is asked, and log the tags."""
        together: dict[Any, list[_Embedded]] = defaultdict(list)
        for each in photos:
            if each.photo.asked:
                together[each.photo.asked.key].append(each)
        for group in together.values():
            asked = group[0].photo.asked
            assert asked
            started = time.perf_counter()
            tags = self.rank(np.stack([each.principal for each in group]), asked)
            seconds = (time.perf_counter() - started) / len(group)
            for each, each.tags in zip(group, tags, strict=True):
                _note("score", seconds, each.spent)
                self.tagged(each, asked)


@dataclass(frozen=True, eq=False)
class _Asked:
    """What a request asks of its photos; `own`: it names no words."""

    words: Words
    own: bool
    top: int
    threshold: float | None
    everything: bool
    task: str

    @property
    def key(self) -> tuple[int, int, float | None, bool]:
        """The same for requests that ask the same of the model's vocabulary or of their own words."""
        return id(self.words), self.top, self.threshold, self.everything


@dataclass(frozen=True)
class _Photo:
    """A photo of a request, and what is asked of it beside its principal vectors."""

    file: Upload
    asked: _Asked | None = None
    arrived: float = field(default_factory=time.perf_counter)


@dataclass
class _Embedded:
    """A photo with its pixels (S, S, 3), milliseconds per step, its principal vectors (M, d), and its tags."""

    photo: _Photo
    pixels: np.ndarray
    spent: dict[str, float]
    principal: np.ndarray = field(default_factory=lambda: np.empty(0))
    tags: list[Tag] = field(default_factory=list)


@contextmanager
def _timed(step: str, spent: dict[str, float]) -> Iterator[None]:
    started = time.perf_counter()
    yield
    _note(step, time.perf_counter() - started, spent)


def _note(step: str, seconds: float, spent: dict[str, float]) -> None:
    LATENCY.labels(step).observe(seconds)
    spent[step] = round(1000 * seconds, 2)


class _Page(StaticFiles):
    """Files that browsers ask for again at each visit, as modules of two versions do not go together."""

    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        response = super().file_response(*args, **kwargs)
        response.headers["Cache-Control"] = "no-cache"
        return response


def create_app(settings: ServeSettings) -> FastAPI:
    """Create the application."""
    service = _Service(settings)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await run_in_threadpool(service.load)
        yield
        await run_in_threadpool(service.close)

    app = FastAPI(
        title="zerotag",
        version="1",
        lifespan=lifespan,
        description="Open-vocabulary tagging and search of photographs, including words not seen in training.",
        docs_url=None,  # FastAPI's loads its parts from a CDN
        redoc_url=None,
    )
    key = APIKeyHeader(name="X-API-Key", auto_error=False, description="Required if an API key is configured.")
    api = APIRouter(dependencies=[Depends(key)], responses=_REFUSALS)

    async def slot():
        # Taken after the body has arrived, so that slow clients occupy no slot.
        with service.slots.take():
            yield

    working = Depends(slot)

    def absent(words: Words) -> dict[str, Any]:
        return {"missing": words.missing, "reason": words.reason}

    async def words_of(options: TagOptions) -> Words:
        # The model's own words are at hand; others may have to be encoded.
        if not options.vocabulary:
            return service.words([], options.task)
        return await run_in_threadpool(service.words, options.vocabulary, options.task)

    def asked_of(options: TagOptions, words: Words) -> _Asked:
        own = not options.vocabulary
        return _Asked(words, own, options.top, options.threshold, options.everything, options.task)

    one_photo, photos = Depends(photo_form("photo")), Depends(photo_form("photos"))
    photo_alone = Depends(photo_form("photo", options=False))

    @api.post("/tag", response_model=PhotoTags, dependencies=[one_photo, working], openapi_extra=photo_body("photo"))
    async def tag(form: Annotated[PhotoForm, one_photo]) -> Any:
        """Tag a photo."""
        words = await words_of(form.options)
        seen = await service.embed(_Photo(form.photo, asked_of(form.options, words)))
        return {"tags": seen.tags, **absent(words), "model": service.version, "milliseconds": seen.spent}

    @api.post(
        "/tag/batch", response_model=BatchTags, dependencies=[photos, working], openapi_extra=photo_body("photos")
    )
    async def tag_batch(form: Annotated[PhotoForm, photos]) -> Any:
        """Tag a batch of photos. Photos that cannot be decoded are reported individually."""
        if len(form.photos) > settings.max_photos:
            raise HTTPException(
                413, f"{len(form.photos)} photos exceed the limit of {settings.max_photos} per request."
            )
        words = await words_of(form.options)
        asked = asked_of(form.options, words)
        working_on = [service.embed(_Photo(photo, asked)) for photo in form.photos]
        answers, spent = [], dict.fromkeys(("decode", "network", "score"), 0.0)
        for photo, seen in zip(form.photos, await asyncio.gather(*working_on, return_exceptions=True), strict=True):
            answer = BatchPhoto(photo=photo.name)
            answers.append(answer)
            if isinstance(seen, ZerotagError):
                answer.error = str(seen)
                service.log.refused(422, reason_of(422, seen))
            elif isinstance(seen, HTTPException):
                answer.error = seen.detail
                service.log.refused(seen.status_code, reason_of(seen.status_code))
            elif isinstance(seen, BaseException):
                raise seen
            else:
                answer.tags = [TagAnswer.model_validate(asdict(each)) for each in seen.tags]
                spent = {step: milliseconds + seen.spent[step] for step, milliseconds in spent.items()}
        return {"photos": answers, **absent(words), "model": service.version, "milliseconds": Spent(**spent)}

    @api.post(
        "/embed",
        response_model=Embedding,
        dependencies=[photo_alone, working],
        openapi_extra=photo_body("photo", options=False),
    )
    async def embed_photo(form: Annotated[PhotoForm, photo_alone]) -> Any:
        """Compute the principal vectors of a photo, to be compared with word vectors or with those of other photos."""
        seen = await service.embed(_Photo(form.photo))
        return {
            "vectors": seen.principal.tolist(),
            "model": service.version,
            "network": service.tagger.network,
            "milliseconds": seen.spent,
        }

    def tags_of(path: str, photo: Path, options: TagOptions, keywords: PhotoKeywords, problem: str = "") -> Any:
        """Tags of a photo of the root. They are not logged: the log is about photos that come, not about those seen."""
        spent = {"decode": 0.0, "network": 0.0}
        words = service.words(options.vocabulary, options.task)
        principal = service.indexed_vectors(photo)
        if principal is None:
            with _timed("decode", spent):
                pixels = service.tagger.pixels(photo.read_bytes(), path, settings.max_pixels)
            with _timed("network", spent):
                principal = service.tagger.principal_vectors(pixels[None])[0]
        with _timed("score", spent):
            [tags] = service.rank(principal[None], asked_of(options, words))
        answer = {"tags": tags, **absent(words), "model": service.version, "milliseconds": spent}
        return {**answer, **asdict(keywords), "problem": problem}

    @api.get("/tags/{path:path}", response_model=LibraryTags, dependencies=[working])
    def tags_and_keywords(path: str, options: Annotated[TagOptions, Query()]) -> Any:
        """Tag a photo below the photo root, and get the keywords it has. An indexed photo needs no inference."""
        photo = service.photo(path)
        service.sidecars_inside(photo, path)
        try:
            keywords, problem = service.keywords.read(photo), ""
        except ExiftoolError as error:
            keywords, problem = PhotoKeywords([], [], [], []), str(error)
        return tags_of(path, photo, options, keywords, problem)

    @api.post("/tags/{path:path}", response_model=LibraryTags, dependencies=[working])
    def decide(path: str, decision: Decision, options: Annotated[TagOptions, Query()]) -> Any:
        """Accept or reject tags of a photo below the photo root, in its sidecar.

        Accepted tags become keywords; rejected ones are never written again, and count as negatives in training.
        """
        photo = service.photo(path)
        service.sidecars_inside(photo, path)
        try:
            keywords = service.keywords.decide(photo, decision.accept, decision.reject, decision.forget)
        except ExiftoolError as error:
            raise HTTPException(501, str(error)) from error
        except ReadOnlyError as error:
            raise HTTPException(403, str(error)) from error
        except KeywordError as error:
            raise HTTPException(409, str(error)) from error
        return tags_of(path, photo, options, keywords)

    reading = Depends(read_search)

    @api.post("/search", response_model=SearchAnswer, dependencies=[reading, working], openapi_extra=search_body())
    async def search(asked: Annotated[Search, reading]) -> Any:
        """Search the index by any words, by an example photo, or by both.

        The example is an indexed photo (`like`, in JSON), which is not among the results, or is sent in a form
        (`photo`).
        """
        wanted, example = asked.wanted, None
        spent: dict[str, float] = {}
        with _timed("search", spent):
            if wanted.like is not None:
                example = await run_in_threadpool(service.example, wanted.like)
            elif asked.photo:
                example = (await service.embed(_Photo(asked.photo))).principal
            answer = await run_in_threadpool(service.search, wanted, example)
        return {**answer, "milliseconds": spent["search"]}

    @api.get("/index", response_model=IndexState)
    def index_state() -> Any:
        """Get the state of the index."""
        return {"indexed": service.indexed, "root": bool(settings.root)}

    @api.post("/index", response_model=IndexAnswer, dependencies=[working])
    def index_photos(wanted: IndexRequest) -> Any:
        """Index photos and folders. Unchanged photos are skipped, deleted photos are removed."""
        for path in wanted.paths:
            service.inside(path)
        until = time.monotonic() + settings.index_seconds
        try:
            done = update(
                service.index,
                service.tagger,
                service.root,
                wanted.paths,
                in_time=lambda: time.monotonic() < until,
                prune=wanted.prune,
            )
        except RemovalError as error:
            raise HTTPException(409, str(error)) from error
        INDEXED.inc(done.added)
        return {**asdict(done), "indexed": service.indexed}

    @api.delete("/index", response_model=Removed, dependencies=[working])
    def index_remove(
        path: Annotated[
            list[str], Query(min_length=1, max_length=1000, description="Photos or folders; empty for all.")
        ],
    ) -> Any:
        """Remove photos or folders from the index. The files are not deleted."""
        prefixes = tuple(each.rstrip("/") + "/" if each.strip("/") else "" for each in path)
        root = shown(service.root.resolve())
        known = service.index.entries().get(root, {})
        photos = [photo for photo in known if photo in path or photo.startswith(prefixes)]
        service.index.remove(root, photos)
        return {"removed": len(photos), "indexed": service.indexed}

    @api.get(
        "/photo/{path:path}",
        response_class=Response,
        responses={200: {"content": {"image/jpeg": {}}, "description": "JPEG thumbnail of the photo."}},
        dependencies=[working],
    )
    def photo(path: str, side: Annotated[int, Query(ge=16, le=2048)] = 320) -> Response:
        """Get a thumbnail of a photo below the photo root."""
        file = service.photo(path)
        picture = open_photo(file.read_bytes(), path, settings.max_pixels, least_side=2 * side)
        picture.thumbnail((side, side))
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=85)
        return Response(buffer.getvalue(), media_type="image/jpeg", headers={"Cache-Control": "private, max-age=60"})

    @api.get("/model", response_model=ModelAnswer)
    def model() -> Any:
        """Describe the deployed model."""
        tagger = service.tagger
        seen = int(tagger.vocabulary.seen.sum())
        return {
            "name": tagger.info["name"],
            "version": tagger.info["version"],
            "tags": len(tagger.vocabulary.tags),
            "seen": seen,
            "unseen": len(tagger.vocabulary.tags) - seen,
            "words": tagger.lexicon_words,
            "info": tagger.info,
            "calibration": tagger.calibration_figures,
        }

    @api.get("/model/card", response_class=PlainTextResponse, include_in_schema=False)
    def card() -> str:
        """Get the model card, in Markdown."""
        tagger = service.tagger
        vocabulary = tagger.vocabulary
        return model_card(tagger.info, tagger.calibration_figures, int(vocabulary.seen.sum()), len(vocabulary.tags))

    @app.get("/", include_in_schema=False)
    def page() -> FileResponse:
        return FileResponse(
            PAGE / "index.html", headers={"Content-Security-Policy": _POLICY, "Cache-Control": "no-cache"}
        )

    @app.get("/docs", include_in_schema=False)
    def docs() -> FileResponse:
        return FileResponse(PAGE / "docs.html", headers={"Content-Security-Policy": _POLICY})

    @app.get("/page/samples", include_in_schema=False)
    def page_samples() -> list[dict[str, str]]:
        return [{"photo": each.file.name, "title": each.title, "credit": each.credit} for each in samples()]

    @app.get("/page/samples/{name}", include_in_schema=False)
    def page_sample(name: str) -> FileResponse:
        for each in samples():
            if each.file.name == name:
                return FileResponse(each.file)
        raise HTTPException(404, f"{name}: no such sample photo.")

    @app.exception_handler(ZerotagError)
    async def refuse(_: Request, error: ZerotagError) -> JSONResponse:
        return problem(422, str(error), reason_of(422, error))

    @app.exception_handler(RequestValidationError)
    async def refuse_invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        kind = content_type(request)
        if request.method == "POST" and kind != "application/json" and not isinstance(error, BodyError):
            return await refuse_http(request, other_type("application/json", kind))
        return problem(422, "; ".join(_explain(each) for each in error.errors()[:5]), reason_of(422))

    @app.exception_handler(HTTPException)
    async def refuse_http(_: Request, error: HTTPException) -> JSONResponse:
        return problem(error.status_code, str(error.detail), reason_of(error.status_code), error.headers)

    def problem(status: int, message: str, reason: str, headers: Any = None) -> JSONResponse:
        service.log.refused(status, reason)
        return JSONResponse({"error": message}, status, headers=headers)

    def refused_early(status: int) -> None:
        count_refused(status, reason_of(status))

    app.include_router(api)
    app.mount("/docs/swagger", StaticFiles(packages=[("fastapi_swagger", "resources")]), name="swagger")
    app.mount("/page", _Page(directory=PAGE), name="page")
    # A batch request contains several photos, plus the overhead of multipart encoding.
    body_bytes = settings.max_bytes * 2 + 1_000_000
    app.add_middleware(
        Limits,
        connections=-(-settings.connections // settings.processes),
        body_bytes=body_bytes,
        body_seconds=settings.body_seconds,
        api_key=settings.api_key,
        refused=refused_early,
    )
    if settings.cors:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors,
            allow_methods=["*"],
            allow_headers=["X-API-Key", "Content-Type"],
        )
    return app


def _explain(error: Any) -> str:
    name = ".".join(str(part) for part in error["loc"][1:]) or "body"
    return f"{name}: {error['msg']}"
