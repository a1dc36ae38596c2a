"""Request limits, enforced before and while the body is read."""

import asyncio
import hmac
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

# Paths that need no API key: the page prompts for it, and the API description is not secret.
_OPEN = ("/", "/page", "/docs", "/openapi.json")
_OPEN_BELOW = ("/page/", "/docs/")


def busy() -> HTTPException:
    """Error for a service at capacity."""
    return HTTPException(503, "The service is busy. Retry in a second.", {"Retry-After": "1"})


class Slots:
    """Limit on the number of concurrent requests."""

    def __init__(self, limit: int):
        self.limit = limit
        self.taken = 0

    @contextmanager
    def take(self) -> Iterator[None]:
        """Hold a slot.

        Raises:
            HTTPException: 503, no slot is free.
        """
        if self.taken >= self.limit:
            raise busy()
        self.taken += 1
        try:
            yield
        finally:
            self.taken -= 1


class Limits:
    """ASGI middleware that checks the API key and limits the number, size and duration of requests.

    Args:
        app: the wrapped application.
        connections: maximum number of open requests.
        body_bytes: maximum size of a request body.
        body_seconds: maximum time for a request body to arrive.
        api_key: API key; empty for none.
        refused: told the status of each request that is rejected here.
    """

    def __init__(
        self,
        app: ASGIApp,
        connections: int,
        body_bytes: int,
        body_seconds: float,
        api_key: str,
        refused: Callable[[int], None],
    ):
        self._app = app
        self._slots = Slots(connections)
        self._bytes = body_bytes
        self._seconds = body_seconds
        self._key = api_key
        self._refused = refused

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request, or reject it."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        try:
            with self._slots.take():
                self._check_head(Request(scope))
                await self._answer(scope, receive, send)
        except HTTPException as error:
            # Raised by this middleware only; the application handles its own exceptions.
            self._refused(error.status_code)
            response = JSONResponse({"error": error.detail}, error.status_code, headers=error.headers)
            await response(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        # A request without a body, or whose body is not read, may take its time.
        arriving = asyncio.timeout(None)
        try:
            async with arriving:
                await self._app(scope, self._limited(receive, arriving), send)
        except TimeoutError:
            if not arriving.expired():
                raise
            message = f"The request body took longer than {self._seconds:g} s to arrive."
            raise HTTPException(408, message, {"Connection": "close"}) from None

    def _check_head(self, request: Request) -> None:
        path = request.url.path
        open_to_all = path in _OPEN or path.startswith(_OPEN_BELOW)
        if self._key and not open_to_all:
            given = request.headers.get("x-api-key", "")
            if not hmac.compare_digest(given.encode(), self._key.encode()):
                raise HTTPException(401, "Missing or invalid API key. Send it in the header X-API-Key.")
        length = request.headers.get("content-length", "0")
        if length.isdigit() and int(length) > self._bytes:
            raise self._too_large()

    def _too_large(self) -> HTTPException:
        return HTTPException(
            413, f"The request body exceeds the limit of {self._bytes:,} bytes.", {"Connection": "close"}
        )

    def _limited(self, receive: Receive, arriving: asyncio.Timeout) -> Receive:
        """Wrap `receive` to raise an HTTPException when the body is too large, and to limit the time it takes."""
        left, waiting = self._bytes, False

        async def limited() -> Message:
            nonlocal left, waiting
            if not waiting:
                waiting = True
                arriving.reschedule(asyncio.get_running_loop().time() + self._seconds)
            message = await receive()
            left -= len(message.get("body", b""))
            if left < 0:
                raise self._too_large()
            if not message.get("more_body") and arriving.when() is not None:
                arriving.reschedule(None)
            return message

        return limited
