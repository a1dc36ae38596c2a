"""The HTTP API: a FastAPI application for the tagger, the index and the batched network."""

import asyncio
import gc
import io
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Depends, FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, PlainTextResponse
from fastapi.security import APIKeyHeader
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import Route

from service.answers import (
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
    TagOptions,
)
from service.forms import (
    BodyError,
    Search,
    content_type,
    other_type,
    photo_body,
    read_photos,
    read_search,
    search_body,
)
from service.gather import Gather
from service.keywords import Keywords
from service.limits import Limits, Slots
from service.model import Asked, Model, OwnWords, Photo, Seen, Work
from service.processes import Loaded, forks
from service.record import INDEXED, LATENCY, RequestLog, count_refused, labelled, reason_of
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
from zerotag.serving.tagger import Tagger, split_words
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
        504: "No answer in time",
    }.items()
}


_Handler = Callable[[Request], Awaitable[Response]]

_NONE_MISSING = {"missing": [], "reason": ""}

# Photos in a message to a process, which costs something, too: with six, it is 4% slower. Beyond so many bytes, one
# counts for several: a process holds all of them (60 MB less with photos of 3 MB), and they are answered together.
_IN_A_MESSAGE, _BYTES = 8, 750_000


class _Service:
    """State shared by the requests of a process."""

    def __init__(self, settings: ServeSettings):
        self.settings = settings
        self.slots = Slots(-(-settings.queue // settings.processes))
        self.keywords = Keywords()

    # Loaded lazily: this module is also imported by processes that only start other processes.
    @cached_property
    def tagger(self) -> Tagger:
        return self.model.tagger

    @cached_property
    def model(self) -> Model:
        settings = self.settings
        model = Model(settings.package, settings.views, settings.max_pixels)
        if settings.vocabulary:
            model.own = _own_words(model.tagger, read_vocabulary(settings.path(settings.vocabulary)))
        return model

    @cached_property
    def loaded(self) -> Loaded:
        """The process that the others are forked from; it starts to load the model at once."""
        return Loaded(self.model)

    @cached_property
    def photos(self) -> Gather["_Job", Seen]:
        """Works on the photos of all requests: a process per core, or where that cannot be, a thread."""
        number = -(-cores() // self.settings.processes)
        works: list[Work] = self.loaded.processes(number) if forks() else [self.model] * number
        see = [partial(self._see, work) for work in works]
        # This process does not load the network, which takes 21 MB, while others do its work.
        return Gather(see, _IN_A_MESSAGE, _Job.weight) if forks() else Gather(see, self.tagger.at_once)

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

    def load(self) -> None:
        """Load everything before the first request."""
        if forks():
            _ = self.loaded
        else:
            self.model.load()
        # LanceDB takes as long to import as all else to load, which is read by ONNX Runtime without the interpreter.
        with ThreadPoolExecutor(1, thread_name_prefix="index") as beside:
            index = beside.submit(lambda: len(self.index))
            _ = self.tagger.lexicon_words, self.tagger.text_encoder, self.log, self.shadow, self.photos
            index.result()

    def close(self) -> None:
        """Stop what runs beside the requests."""
        self.keywords.close()
        if self.shadow:
            self.shadow.close()
        if forks():
            self.loaded.close()

    async def see(self, photo: Photo, asked: Asked | None = None) -> Seen:
        """Have a photo worked on, as soon as a process is free.

        Raises:
            HTTPException: 413, the photo is too large.
            PhotoError: the photo cannot be decoded.
        """
        size, limit = len(photo.data), self.settings.max_bytes
        if size > limit:
            raise HTTPException(413, f"{photo.name}: {size:,} bytes exceed the limit of {limit:,}.")
        return await self.photos(_Job(replace(photo, asked=asked)))

    def _see(self, model: Work, jobs: list["_Job"]) -> list[Seen | Exception]:
        """Work on photos, and record those that were tagged."""
        results = model([job.photo for job in jobs])
        tagged = []
        for job, seen in zip(jobs, results, strict=True):
            if isinstance(seen, Exception):
                continue
            seen.seconds["network"] = time.perf_counter() - job.arrived - sum(seen.seconds.values())
            for step, seconds in seen.seconds.items():
                labelled(LATENCY, step).observe(seconds)
            if job.photo.asked:
                tagged.append((job.photo, seen))
        self.log.tagged(tagged)
        if self.shadow:
            for photo, seen in tagged:
                assert photo.asked
                self.shadow.offer(photo, seen.principal, self.model.words_of(photo.asked))
        return results

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

    def asked(self, options: TagOptions) -> Asked:
        """What the options of a request ask.

        Raises:
            ZerotagError: too many words, or none that can be ranked.
        """
        given = split_words(options.vocabulary)
        if options.vocabulary and not given:
            raise ZerotagError("The vocabulary contains no word.")
        self.check_number(given)
        words = self.tagger.words(given, options.task) if given else None
        if not words:
            self.model.words(options.task)  # there are some
        return Asked(words, options.task, options.top, options.threshold, options.everything)

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
        """Principal vectors (M, d) of a photo below the root, if it has not changed since it was indexed.

        None if the index has fewer dimensions, as probabilities of tags would differ.
        """
        root = self.root.resolve()
        found = self.index.find(shown(root), shown(photo.relative_to(root)))
        if found is None or self.index.basis or found[0].stamp != stamp_of(photo.stat()):
            return None
        return found[1]

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


@dataclass(frozen=True)
class _Job:
    """A photo of a request, and when it arrived."""

    photo: Photo
    arrived: float = field(default_factory=time.perf_counter)

    def weight(self) -> int:
        """How many photos it counts for in a message."""
        return max(1, -(-len(self.photo.data) // _BYTES))


def _own_words(tagger: Tagger, vocabulary: VocabularyFile) -> OwnWords:
    """The words of a vocabulary file that have a vector."""
    words = tagger.words(vocabulary.words)
    # Reported here, when the service starts, and not to each client.
    for line in vocabulary.report(words.words):
        logger.warning(line)
    return OwnWords(vocabulary, replace(words, missing=[], reason=""))


@contextmanager
def _timed(step: str, spent: dict[str, float]) -> Iterator[None]:
    started = time.perf_counter()
    yield
    seconds = time.perf_counter() - started
    labelled(LATENCY, step).observe(seconds)
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
        gc.freeze()  # what is loaded stays: the garbage collector need not look at it again
        yield
        gc.unfreeze()
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

    def absent(asked: Asked) -> dict[str, Any]:
        return {"missing": asked.words.missing, "reason": asked.words.reason} if asked.words else _NONE_MISSING

    async def asked_of(options: TagOptions) -> Asked:
        # The model's own words are at hand; others may have to be encoded.
        return await run_in_threadpool(service.asked, options) if options.vocabulary else service.asked(options)

    def in_json(model: type[BaseModel], **content: Any) -> Response:
        answer = model.model_validate({**content, "model": service.version}, from_attributes=True)
        return Response(answer.model_dump_json(by_alias=True), media_type="application/json")

    def photo_route(path: str, answer: type[BaseModel], body: dict[str, Any]) -> Callable[[_Handler], _Handler]:
        """A route for photos, whose handler reads the form and makes the answer itself.

        FastAPI describes it, and Starlette calls it: what FastAPI does for a request takes two thirds as long as all
        else here.
        """

        def register(handler: _Handler) -> _Handler:
            app.router.routes.append(Route(path, handler, methods=["POST"]))
            return api.post(path, response_model=answer, openapi_extra=body)(handler)

        return register

    @photo_route("/tag", PhotoTags, photo_body("photo"))
    async def tag(request: Request) -> Response:
        """Tag a photo."""
        form = await read_photos(request, "photo")
        with service.slots.take():
            asked = await asked_of(form.options)
            done = await service.see(form.photo, asked)
        return in_json(PhotoTags, tags=done.tags, **absent(asked), milliseconds=done.milliseconds)

    @photo_route("/tag/batch", BatchTags, photo_body("photos"))
    async def tag_batch(request: Request) -> Response:
        """Tag a batch of photos. Photos that cannot be decoded are reported individually."""
        form = await read_photos(request, "photos")
        if len(form.photos) > settings.max_photos:
            raise HTTPException(
                413, f"{len(form.photos)} photos exceed the limit of {settings.max_photos} per request."
            )
        with service.slots.take():
            asked = await asked_of(form.options)
            working_on = [service.see(photo, asked) for photo in form.photos]
            all_done = await asyncio.gather(*working_on, return_exceptions=True)
        answers, spent = [], dict.fromkeys(("decode", "network", "score"), 0.0)
        for photo, done in zip(form.photos, all_done, strict=True):
            answer: dict[str, Any] = {"photo": photo.name}
            answers.append(answer)
            if isinstance(done, ZerotagError):
                answer["error"] = str(done)
                service.log.refused(422, reason_of(422, done))
            elif isinstance(done, HTTPException):
                answer["error"] = done.detail
                service.log.refused(done.status_code, reason_of(done.status_code))
            elif isinstance(done, BaseException):
                raise done
            else:
                answer["tags"] = done.tags
                spent = {step: milliseconds + done.milliseconds[step] for step, milliseconds in spent.items()}
        return in_json(BatchTags, photos=answers, **absent(asked), milliseconds=spent)

    @photo_route("/embed", Embedding, photo_body("photo", options=False))
    async def embed_photo(request: Request) -> Response:
        """Compute the principal vectors of a photo, to be compared with word vectors or with those of other photos."""
        form = await read_photos(request, "photo", options=False)
        with service.slots.take():
            done = await service.see(form.photo)
        return in_json(
            Embedding, vectors=done.principal.tolist(), network=service.tagger.network, milliseconds=done.milliseconds
        )

    def tags_of(path: str, photo: Path, options: TagOptions, keywords: PhotoKeywords, problem: str = "") -> Any:
        """Tags of a photo of the root. They are not logged: the log is about photos that come, not about those seen."""
        spent = {"decode": 0.0, "network": 0.0}
        asked = service.asked(options)
        principal = service.indexed_vectors(photo)
        if principal is None:
            with _timed("decode", spent):
                pixels = service.tagger.pixels(photo.read_bytes(), path, settings.max_pixels)
            with _timed("network", spent):
                principal = service.tagger.principal_vectors(pixels[None])[0]
        with _timed("score", spent):
            [tags] = service.model.rank(principal[None], asked)
        answer = {"tags": tags, **absent(asked), "model": service.version, "milliseconds": spent}
        return {**answer, **asdict(keywords), "problem": problem}

    @api.get("/tags/{path:path}", response_model=LibraryTags, dependencies=[working])
    def tags_and_keywords(path: str, options: Annotated[TagOptions, Query()]) -> Any:
        """Tag a photo below the photo root, and get the keywords it has.

        No inference if the index has the photo's vectors in all dimensions.
        """
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
                example = (await service.see(asked.photo)).principal
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
