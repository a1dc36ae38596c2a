"""The application of the deployed model, created when the process that answers starts; by choice the champion's always.

Each model has an application of its own, which answers a request from beginning to end. The next champion is loaded
while the former goes on, and the former is closed when it has no request left: no request is refused.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.routing import Mount
from starlette.types import ASGIApp, Receive, Scope, Send

logger = logging.getLogger(__name__)


@dataclass
class _Model:
    """The application of a package, what closes it, and the number of its requests."""

    package: Path
    app: Starlette
    closing: AsyncExitStack
    requests: int = 0


class _Deployed(Starlette):
    """An application that hands each request on, without layers of its own."""

    def __init__(self, answer: ASGIApp, **options: Any):
        super().__init__(routes=[Mount("/", app=answer)], **options)
        self._answer = answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._answer(scope, receive, send)


def deployed(
    create: Callable[[Path], Starlette], package: Callable[[], Path], seconds: float | None = None
) -> Starlette:
    """Create an application that hands requests on to that of the deployed model.

    Args:
        create: creates the application of a package.
        package: the package that is deployed; each has another path.
        seconds: how often it is asked for; None for once, at the start. What cannot be loaded later is logged and tried
            again, and the former goes on.
    """
    models: list[_Model] = []  # the last one answers; others have requests left

    async def load(wanted: Path) -> None:
        closing = AsyncExitStack()
        app = await run_in_threadpool(create, wanted)
        await closing.enter_async_context(app.router.lifespan_context(app))
        models.append(_Model(wanted, app, closing))

    async def watch(seconds: float) -> None:
        said = ""
        while True:
            await asyncio.sleep(seconds)
            try:
                now = await run_in_threadpool(package)
                if now != models[-1].package:
                    await load(now)
                    logger.info("%s answers from now on", now)
                for model in [each for each in models[:-1] if not each.requests]:
                    models.remove(model)
                    await model.closing.aclose()
                said = ""
            except Exception as error:  # whatever a package lacks
                if str(error) != said:
                    said = str(error)
                    logger.error("%s goes on: the champion cannot be loaded: %s", models[-1].package, error)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        await load(await run_in_threadpool(package))
        watching = None if seconds is None else asyncio.create_task(watch(seconds))
        yield
        if watching:
            watching.cancel()
            with suppress(asyncio.CancelledError):
                await watching
        for model in models:
            await model.closing.aclose()

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        model = models[-1]
        model.requests += 1
        try:
            await model.app(scope, receive, send)
        finally:
            model.requests -= 1

    return _Deployed(answer, lifespan=lifespan)
