"""The HTTP interface: FastAPI in front of the tagger, the index and the batched network."""

import io
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import anyio.from_thread
import numpy as np
from fastapi import APIRouter, Depends, FastAPI, File, Form, Query, Request, Response, UploadFile
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse
from fastapi.security import APIKeyHeader
from fastapi.staticfiles import StaticFiles
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware

from service.answers import (
    BatchPhoto,
    BatchTags,
    IndexAnswer,
    IndexRequest,
    IndexState,
    ModelAnswer,
    PhotoTags,
    Problem,
    Removed,
    SearchAnswer,
    SearchRequest,
    Spent,
)
from service.limits import Limits, Slots
from service.record import LATENCY, RequestLog
from service.settings import ServeSettings
from zerotag.data.photos import open_photo
from zerotag.errors import ZerotagError
from zerotag.serving.index import Index, inside, open_index, search_words, update
from zerotag.serving.tagger import PHOTO_SUFFIXES, Tag, Tagger, Words

PAGE = Path(__file__).parent / "page"

# (B, S, S, 3) uint8 -> (B, M, d): the network, wherever it runs.
Embed = Callable[[np.ndarray], Coroutine[Any, Any, np.ndarray]]

Top = Annotated[int, Form(ge=1, le=1000, description="How many tags.")]
Threshold = Annotated[float, Form(ge=0, le=1, description="Leave out tags less probable than this.")]
Vocabulary = Annotated[
    list[str], Form(description="Words to choose from, any words; also several with commas between. Default: all tags.")
]
TaskOption = Annotated[Literal["all", "unseen"], Form(description="`unseen`: only words never seen in training.")]

_REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"model": Problem, "description": reason}
    for status, reason in {
        400: "Not a request that can be read",
        401: "The API key is missing or wrong",
        403: "Outside of the photos' root, or no root is configured",
        404: "No such photo",
        408: "The request came too slowly",
        413: "Too large",
        415: "Not the content type that is expected",
        422: "Not a picture, an option out of range, or no word with a vector",
        503: "Busy; try again after Retry-After seconds",
    }.items()
}


class _Service:
    """What the requests share in one process."""

    def __init__(self, settings: ServeSettings):
        self.settings = settings
        self.slots = Slots(-(-settings.queue // settings.processes))

    # Loaded when the process begins to serve, not where this module is only imported to start other processes.
    @cached_property
    def tagger(self) -> Tagger:
        return Tagger(self.settings.package)

    @cached_property
    def version(self) -> str:
        return f"{self.tagger.info['name']}:{self.tagger.info['version']}"

    @cached_property
    def index(self) -> Index:
        return open_index(self.settings.index_uri, self.tagger)

    @cached_property
    def log(self) -> RequestLog:
        return RequestLog(self.settings.path(self.settings.log) if self.settings.log else None, self.version)

    def load(self) -> None:
        """Have the first request find everything ready."""
        _ = self.tagger.lexicon_words, len(self.index), self.log

    @property
    def root(self) -> Path:
        if not self.settings.root:
            raise HTTPException(403, "No folder of photos is configured: set serve.root (ZEROTAG_ROOT).")
        return self.settings.path(self.settings.root)

    def words(self, given: list[str], task: Literal["all", "unseen"]) -> Words:
        words = [word.strip() for text in given for word in text.split(",") if word.strip()]
        if given and not words:
            raise ZerotagError("The vocabulary holds no word.")
        self.check_number(words)
        return self.tagger.words(words, task)

    def check_number(self, words: list[str]) -> None:
        if len(words) > self.settings.max_words:
            raise ZerotagError(f"{len(words):,} words are more than the {self.settings.max_words:,} allowed.")
        if any(len(word) > 100 for word in words):
            raise ZerotagError("A word has more than 100 letters.")

    def inside(self, path: str) -> Path:
        try:
            return inside(self.root, path)
        except ZerotagError as error:
            raise HTTPException(403 if "outside" in str(error) else 404, str(error)) from error

    def decode(self, photo: bytes, name: str) -> np.ndarray:
        if len(photo) > self.settings.max_bytes:
            raise HTTPException(
                413, f"{name}: {len(photo):,} bytes are more than the {self.settings.max_bytes:,} allowed."
            )
        return self.tagger.pixels(photo, name, self.settings.max_pixels)


@contextmanager
def _timed(step: str, spent: dict[str, float]) -> Iterator[None]:
    started = time.perf_counter()
    yield
    seconds = time.perf_counter() - started
    LATENCY.labels(step).observe(seconds)
    spent[step] = round(1000 * seconds, 2)


def _name(upload: UploadFile) -> str:
    return (upload.filename or "photo")[:200]


def create_app(settings: ServeSettings, embed: Embed) -> FastAPI:
    """The application.

    Args:
        settings: of the service.
        embed: runs the network on a batch of pictures.
    """
    service = _Service(settings)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await run_in_threadpool(service.load)
        yield

    app = FastAPI(
        title="zerotag",
        version="1",
        lifespan=lifespan,
        description="Tags for photographs and search by any word, words never seen in training included.",
        docs_url=None,  # they load from a CDN
        redoc_url=None,
    )
    key = APIKeyHeader(name="X-API-Key", auto_error=False, description="Only when one is configured.")
    api = APIRouter(dependencies=[Depends(key)], responses=_REFUSALS)

    async def slot():
        # Taken when the body has arrived: slow clients take nobody's place.
        with service.slots.take():
            yield

    working = Depends(slot)

    def rank(principal: np.ndarray, words: Words, top: int, threshold: float) -> list[Tag]:
        return service.tagger.rank(principal, words, top, threshold or None)

    @api.post("/tag", response_model=PhotoTags, dependencies=[working])
    async def tag(
        photo: Annotated[UploadFile, File(description="An encoded photo: JPEG, PNG, WebP, GIF, TIFF, BMP.")],
        top: Top = 10,
        threshold: Threshold = 0.0,
        vocabulary: Vocabulary = [],  # noqa: B006
        task: TaskOption = "all",
    ) -> Any:
        """Tag one photo."""
        spent: dict[str, float] = {}
        words = service.words(vocabulary, task)
        data = await photo.read()
        with _timed("decode", spent):
            pixels = await run_in_threadpool(service.decode, data, _name(photo))
        with _timed("network", spent):
            principal = (await embed(pixels[None]))[0]
        with _timed("score", spent):
            tags = rank(principal, words, top, threshold)
        service.log.tagged(pixels, len(data), tags, bool(vocabulary), task)
        return {"tags": tags, "missing": words.missing, "model": service.version, "milliseconds": spent}

    @api.post("/tag/batch", response_model=BatchTags, dependencies=[working])
    async def tag_batch(
        photos: Annotated[list[UploadFile], File(description="Encoded photos.")],
        top: Top = 10,
        threshold: Threshold = 0.0,
        vocabulary: Vocabulary = [],  # noqa: B006
        task: TaskOption = "all",
    ) -> Any:
        """Tag many photos; one that cannot be used fails alone."""
        if len(photos) > settings.max_photos:
            raise HTTPException(413, f"{len(photos)} photos are more than the {settings.max_photos} allowed at once.")
        spent: dict[str, float] = {}
        words = service.words(vocabulary, task)
        answers, pixels, sizes = [BatchPhoto(photo=_name(photo)) for photo in photos], {}, {}
        with _timed("decode", spent):
            for place, photo in enumerate(photos):
                data = await photo.read()
                try:
                    pixels[place] = await run_in_threadpool(service.decode, data, _name(photo))
                    sizes[place] = len(data)
                except ZerotagError as error:
                    answers[place].error = str(error)
                    service.log.refused(422, str(error))
                except HTTPException as error:
                    answers[place].error = error.detail
                    service.log.refused(error.status_code, error.detail)
        with _timed("network", spent):
            principal = list(await embed(np.stack(list(pixels.values())))) if pixels else []
        with _timed("score", spent):
            for (place, picture), matrix in zip(pixels.items(), principal, strict=True):
                tags = rank(matrix, words, top, threshold)
                answers[place].tags = [asdict(each) for each in tags]  # type: ignore[misc]
                service.log.tagged(picture, sizes[place], tags, bool(vocabulary), task)
        return {"photos": answers, "missing": words.missing, "model": service.version, "milliseconds": Spent(**spent)}

    @api.post("/search", response_model=SearchAnswer, dependencies=[working])
    def search(wanted: SearchRequest) -> Any:
        """Find photos of the index by any words."""
        service.check_number([*wanted.words, *wanted.without])
        spent: dict[str, float] = {}
        with _timed("search", spent):
            words, without = search_words(service.tagger, wanted.words, wanted.without)
            # One more than asked for says whether there is a next page.
            hits = service.index.search(
                words.vectors, without.vectors if without else None, wanted.limit + 1, wanted.offset
            )
        more, hits = len(hits) > wanted.limit, hits[: wanted.limit]
        service.log.searched(wanted.words, wanted.without, len(hits))
        following = wanted.offset + wanted.limit if more else None
        return {
            "photos": hits,
            "next": following,
            "indexed": len(service.index),
            "milliseconds": spent["search"],
        }

    @api.get("/index", response_model=IndexState)
    def index_state() -> Any:
        """How many photos the index holds."""
        return {"indexed": len(service.index), "root": bool(settings.root)}

    @api.post("/index", response_model=IndexAnswer, dependencies=[working])
    def index_photos(wanted: IndexRequest) -> Any:
        """Bring photos and folders into the index; unchanged photos are passed over, missing ones taken out."""
        for path in wanted.paths:
            service.inside(path)
        until = time.monotonic() + settings.index_seconds
        done = update(
            service.index,
            service.tagger,
            service.root,
            wanted.paths,
            embed=lambda pixels: anyio.from_thread.run(embed, pixels),
            in_time=lambda: time.monotonic() < until,
        )
        return {**asdict(done), "indexed": len(service.index)}

    @api.delete("/index", response_model=Removed, dependencies=[working])
    def index_remove(
        path: Annotated[list[str], Query(min_length=1, max_length=1000, description="Photos or folders; '' for all.")],
    ) -> Any:
        """Take photos, or folders of photos, out of the index; the files stay."""
        prefixes = tuple(each.rstrip("/") + "/" if each.strip("/") else "" for each in path)
        photos = [photo for photo in service.index.stamps() if photo in path or photo.startswith(prefixes)]
        service.index.remove(photos)
        return {"removed": len(photos), "indexed": len(service.index)}

    @api.get(
        "/photo/{path:path}",
        response_class=Response,
        responses={200: {"content": {"image/jpeg": {}}, "description": "A small JPEG of the photo."}},
        dependencies=[working],
    )
    def photo(path: str, side: Annotated[int, Query(ge=16, le=2048)] = 320) -> Response:
        """A photo below the root, scaled down."""
        file = service.inside(path)
        if not file.is_file() or file.suffix.lower() not in PHOTO_SUFFIXES:
            raise HTTPException(404, f"{path}: not a photo.")
        picture = open_photo(file.read_bytes(), path, settings.max_pixels)
        picture.thumbnail((side, side))
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=85)
        return Response(buffer.getvalue(), media_type="image/jpeg", headers={"Cache-Control": "private, max-age=60"})

    @api.get("/model", response_model=ModelAnswer)
    def model() -> Any:
        """What is served."""
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

    @app.get("/", include_in_schema=False)
    def page() -> FileResponse:
        policy = "default-src 'self'; img-src 'self' blob: data:; base-uri 'none'; frame-ancestors 'none'"
        return FileResponse(PAGE / "index.html", headers={"Content-Security-Policy": policy})

    @app.exception_handler(ZerotagError)
    async def refuse(_: Request, error: ZerotagError) -> JSONResponse:
        return problem(422, str(error))

    @app.exception_handler(RequestValidationError)
    async def refuse_invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        wanted = "multipart/form-data" if request.url.path.startswith("/tag") else "application/json"
        if request.method == "POST" and kind != wanted:
            return problem(415, f"Send {wanted}, not {kind or 'a body without a content type'}.")
        return problem(422, "; ".join(_explain(each) for each in error.errors()[:5]))

    @app.exception_handler(HTTPException)
    async def refuse_http(_: Request, error: HTTPException) -> JSONResponse:
        return problem(error.status_code, str(error.detail), error.headers)

    def problem(status: int, reason: str, headers: Any = None) -> JSONResponse:
        service.log.refused(status, reason)
        return JSONResponse({"error": reason}, status, headers=headers)

    app.include_router(api)
    app.mount("/page", StaticFiles(directory=PAGE), name="page")
    # A batch request holds several photos, and a form has its own few bytes.
    body_bytes = settings.max_bytes * 2 + 1_000_000
    app.add_middleware(
        Limits,
        connections=-(-settings.connections // settings.processes),
        body_bytes=body_bytes,
        body_seconds=settings.body_seconds,
        api_key=settings.api_key,
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
    if error["type"] == "value_error" and name.startswith("photo"):
        return f"{name}: send the photo's file itself, not a text or an address"
    return f"{name}: {error['msg']}"
