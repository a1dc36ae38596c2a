"""Follow the registry: the champion answers, and the next one takes over without a request being refused.

Each model has an application of its own, which answers a request from beginning to end. The next one is loaded while
the former goes on, and the former is closed when it has no request left.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.routing import Mount
from starlette.types import Receive, Scope, Send

logger = logging.getLogger(__name__)


@dataclass
class _Model:
    """The application of a package, what closes it, and the number of its requests."""

    package: Path
    app: FastAPI
    closing: AsyncExitStack
    requests: int = 0


def follow(create: Callable[[Path], FastAPI], champion: Callable[[], Path], seconds: float = 1.0) -> Starlette:
    """Create an application that always is the champion's.

    Args:
        create: creates the application of a package.
        champion: the champion's package, each of which has another path.
        seconds: how often it is asked for. What cannot be loaded is logged and tried again, and the former goes on.
    """
    models: list[_Model] = []  # the last one answers; others have requests left

    async def load(package: Path) -> None:
        closing = AsyncExitStack()
        app = await run_in_threadpool(create, package)
        await closing.enter_async_context(app.router.lifespan_context(app))
        models.append(_Model(package, app, closing))

    async def watch() -> None:
        said = ""
        while True:
            await asyncio.sleep(seconds)
            try:
                package = await run_in_threadpool(champion)
                if package != models[-1].package:
                    await load(package)
                    logger.info("%s answers from now on", package)
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
        await load(await run_in_threadpool(champion))
        watching = asyncio.create_task(watch())
        yield
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

    return Starlette(routes=[Mount("/", app=answer)], lifespan=lifespan)
