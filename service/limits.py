"""What a request may cost, decided before its body is read."""

import asyncio
import hmac
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TypeVar

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

T = TypeVar("T")

# What anyone may see when an API key is set: the page asks for the key, the figures of the model are no secret.
_OPEN = ("/", "/page", "/openapi.json")


def busy() -> HTTPException:
    """The service has as much to do as it can."""
    return HTTPException(503, "The service is busy. Try again in a second.", {"Retry-After": "1"})


async def ask_again(ask: Callable[[], Awaitable[T]], seconds: float, *lost: type[Exception], attempts: int = 3) -> T:
    """Ask another process that keeps no state; asking again does no harm when the answer is lost.

    Two ways of losing one were seen under load: an idle connection that the other side closes in the moment of its
    use, and one answer in six thousand that never comes.

    Args:
        ask: asks once.
        seconds: an answer that takes longer is lost.
        lost: errors that mean the same.
        attempts: how often it is asked.

    Raises:
        HTTPException: 503, no attempt was answered.
    """
    for _ in range(attempts):
        with suppress(TimeoutError, *lost):
            async with asyncio.timeout(seconds):
                return await ask()
    raise busy()


class Slots:
    """A count of requests that are worked on at once."""

    def __init__(self, limit: int):
        self.limit = limit
        self.taken = 0

    @contextmanager
    def take(self) -> Iterator[None]:
        """Hold one.

        Raises:
            HTTPException: 503, none is left.
        """
        if self.taken >= self.limit:
            raise busy()
        self.taken += 1
        try:
            yield
        finally:
            self.taken -= 1


class Limits:
    """ASGI middleware: the API key, and how many, how large and how slow requests may be.

    Args:
        app: what it stands before.
        connections: most requests that are open at once.
        body_bytes: of one request.
        body_seconds: from the first byte of a body to its last.
        api_key: empty for none.
    """

    def __init__(self, app: ASGIApp, connections: int, body_bytes: int, body_seconds: float, api_key: str):
        self._app = app
        self._slots = Slots(connections)
        self._bytes = body_bytes
        self._seconds = body_seconds
        self._key = api_key

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        request = Request(scope)
        try:
            with self._slots.take():
                self._check_head(request)
                await self._app(scope, self._limited(receive), send)
        except HTTPException as error:
            # Only from here: what the application raises it answers itself.
            response = JSONResponse({"error": error.detail}, error.status_code, headers=error.headers)
            await response(scope, receive, send)

    def _check_head(self, request: Request) -> None:
        path = request.url.path
        open_to_all = path in _OPEN or path.startswith("/page/")
        if self._key and not open_to_all:
            given = request.headers.get("x-api-key", "")
            if not hmac.compare_digest(given.encode(), self._key.encode()):
                raise HTTPException(401, "Send the API key in the header X-API-Key.")
        length = request.headers.get("content-length", "0")
        if length.isdigit() and int(length) > self._bytes:
            raise self._too_large()

    def _too_large(self) -> HTTPException:
        return HTTPException(
            413, f"The request has more than the {self._bytes:,} bytes allowed.", {"Connection": "close"}
        )

    def _limited(self, receive: Receive) -> Receive:
        """The same, but an HTTPException once the body is too large or too slow."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._seconds
        left = self._bytes
        arriving = True

        async def limited() -> Message:
            nonlocal left, arriving
            if not arriving:
                return await receive()
            try:
                async with asyncio.timeout_at(deadline):
                    message = await receive()
            except TimeoutError:
                arriving = False
                raise HTTPException(
                    408, f"The request took longer than {self._seconds:g} s to arrive.", {"Connection": "close"}
                ) from None
            left -= len(message.get("body", b""))
            if left < 0:
                arriving = False
                raise self._too_large()
            arriving = bool(message.get("more_body"))
            return message

        return limited
