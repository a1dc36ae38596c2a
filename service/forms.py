"""Read the bodies of requests: forms with photos and options, and searches, which are forms or JSON.

FastAPI would declare each field as a parameter of its own. Then resolving them takes longer than the parsing, and a
photo of more than 1 MB goes through a file on the disk in pieces of 64 kB.
"""

from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser

from service.answers import SearchForm, SearchRequest, TagOptions
from service.model import Photo
from zerotag.serving.tagger import split_words

_PHOTO = {"type": "string", "format": "binary"}
# Bytes of a file up to which it stays in memory.
_IN_MEMORY = 8_000_000
_ANY_FORMAT = "An image file, of any format that zerotag reads."

Model = TypeVar("Model", bound=BaseModel)


@dataclass(frozen=True)
class PhotoForm:
    """A form with photos, and what is asked of them."""

    photos: list[Photo]
    options: TagOptions

    @property
    def photo(self) -> Photo:
        """The only photo."""
        return self.photos[0]


@dataclass(frozen=True)
class Search:
    """A search as it arrived, and the photo that came with it."""

    wanted: SearchRequest
    photo: Photo | None = None


class BodyError(RequestValidationError):
    """A field of a body has a value that it may not have."""


class _Pieces(UploadFile):
    """A file of a form, whose pieces are put together when it is read.

    Large ones go through a temporary file: a client that sends slowly should cost little memory.
    """

    def __init__(self, upload: UploadFile):
        super().__init__(upload.file, filename=upload.filename, headers=upload.headers)
        self._pieces: list[bytes] = []
        self._bytes = 0

    async def write(self, data: bytes) -> None:
        self._pieces.append(data)
        self._bytes += len(data)
        if self._bytes > _IN_MEMORY:
            for piece in self._pieces:
                await super().write(piece)
            self._pieces.clear()

    async def read(self, size: int = -1) -> bytes:
        return b"".join(self._pieces) or await super().read(size)


class _Parser(MultiPartParser):
    def on_headers_finished(self) -> None:
        super().on_headers_finished()
        if self._current_part.file:
            self._current_part.file = _Pieces(self._current_part.file)


def content_type(request: Request) -> str:
    """Content type of a request, without its parameters."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def other_type(wanted: str, kind: str) -> HTTPException:
    """The error for a body of another content type."""
    return HTTPException(415, f"Send {wanted} instead of {kind or 'a body without a content type'}.")


async def read_photos(request: Request, field: str, options: bool = True) -> PhotoForm:
    """Read a form with photos.

    Args:
        request: the request.
        field: `photo` for exactly one, `photos` for one or more.
        options: whether these have a meaning; else they are passed over.

    Raises:
        BodyError: an option has a wrong value.
        HTTPException: the body is no such form.
    """
    async with _form(request) as form:
        photos = await _uploads(form, field)
        asked = _validated(TagOptions, _given(form, TagOptions) if options else {})
    if not photos:
        raise HTTPException(422, f"{field}: no photo; send an image file in the field {field}")
    if field == "photo" and len(photos) > 1:
        raise HTTPException(422, "photo: more than one photo; send several to /tag/batch, in the field photos")
    return PhotoForm(photos, asked)


def photo_body(field: str, options: bool = True) -> dict[str, Any]:
    """The body that `read_photos` reads, for the API description; `options`: whether these have a meaning."""
    several = {"type": "array", "items": _PHOTO, "description": "Image files."}
    properties = {field: several if field == "photos" else {**_PHOTO, "description": _ANY_FORMAT}}
    if options:
        properties |= TagOptions.model_json_schema()["properties"]
    schema = {"type": "object", "properties": properties, "required": [field]}
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}}


async def read_search(request: Request) -> Search:
    """Read a search: JSON, or a form with or without a photo.

    Raises:
        BodyError: a field has a wrong value.
        HTTPException: it is neither, or has two photos.
    """
    kind = content_type(request)
    if kind == "application/json":
        try:
            return Search(_validated(SearchRequest, await request.json()))
        except ValueError as error:
            raise HTTPException(422, f"body: not valid JSON ({error})") from error
    if kind != "multipart/form-data":
        raise other_type("application/json or multipart/form-data", kind)
    async with _form(request) as form:
        photos = await _uploads(form, "photo")
        given = _given(form, SearchForm)
    if len(photos) > 1:
        raise HTTPException(422, "photo: more than one photo; send one")
    given |= {name: split_words(given.get(name, [])) for name in ("words", "without")}
    return Search(_validated(SearchRequest, given), photos[0] if photos else None)


def search_body() -> dict[str, Any]:
    """The two kinds of body that `read_search` reads, for the API description."""
    form = SearchForm.model_json_schema()
    form["properties"]["photo"] = {**_PHOTO, "title": "Photo", "description": "An image file: photos like it."}
    for name in ("words", "without"):
        form["properties"][name]["description"] += " Repeated, comma-separated, or a JSON list."
    content = {
        "application/json": {"schema": SearchRequest.model_json_schema()},
        "multipart/form-data": {"schema": form},
    }
    return {"requestBody": {"required": True, "content": content}}


@asynccontextmanager
async def _form(request: Request) -> AsyncIterator[FormData]:
    kind = content_type(request)
    if kind != "multipart/form-data":
        raise other_type("multipart/form-data", kind)
    try:
        async with aclosing(request.stream()) as stream:
            form = await _Parser(request.headers, stream).parse()
    except MultiPartException as error:
        raise HTTPException(400, error.message) from error
    try:
        yield form
    finally:
        await form.close()


async def _uploads(form: FormData, field: str) -> list[Photo]:
    uploads = []
    for each in form.getlist(field):
        if isinstance(each, str):
            raise HTTPException(422, f"{field}: send the image file itself, not text or a URL")
        uploads.append(Photo(await each.read(), (each.filename or "photo")[:200]))
    return uploads


def _given(form: FormData, model: type[BaseModel]) -> dict[str, Any]:
    """The fields of a form that a model has: the last value, or all where it has a list."""
    given: dict[str, Any] = {}
    for name, field in model.model_fields.items():
        name = field.alias or name
        values = [each for each in form.getlist(name) if isinstance(each, str)]
        if field.annotation == list[str]:
            given |= {name: values} if values else {}
        elif values and values[-1].strip():  # an empty field is one that was not filled in
            given[name] = values[-1]
    return given


def _validated(model: type[Model], given: Any) -> Model:
    try:
        return model.model_validate(given)
    except ValidationError as error:
        raise BodyError([{**each, "loc": ("body", *each["loc"])} for each in error.errors()]) from error
