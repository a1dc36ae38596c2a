"""A time limit for answers, in place of BentoML's.

BentoML's keeps what a request left until the limit has passed, also when it was answered long before: with requests in
a pipeline, 5 kB each, for two minutes.
"""

import asyncio

from bentoml._internal.server.http import traffic
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send


class Timeout:
    """ASGI middleware that ends requests whose answer has not begun in time (504).

    Args:
        app: the wrapped application.
        timeout: in seconds.
    """

    def __init__(self, app: ASGIApp, timeout: float):
        self._app = app
        self._seconds = timeout

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request, or end it."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        limit = asyncio.timeout(self._seconds)

        async def answer(message: Message) -> None:
            if limit.when() is not None:
                limit.reschedule(None)
            await send(message)

        try:
            async with limit:
                await self._app(scope, receive, answer)
        except TimeoutError:
            if not limit.expired():
                raise
            error = f"No answer within {self._seconds:g} s. Retry, or ask for less at a time."
            await JSONResponse({"error": error}, 504)(scope, receive, send)


def replace_timeout() -> None:
    """Have BentoML use `Timeout`, with the limit in its setting `traffic`, which cannot be left out."""
    traffic.TimeoutMiddleware = Timeout  # type: ignore[misc, assignment]
