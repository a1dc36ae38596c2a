"""The BentoML service: `bentoml serve service.service:Zerotag`."""

from dataclasses import replace
from pathlib import Path

import aiohttp
import bentoml
import bentoml.exceptions
import numpy as np
from fastapi import FastAPI
from starlette.concurrency import run_in_threadpool

from service.app import create_app
from service.follow import follow
from service.gather import Gather
from service.limits import ask_again, busy
from service.settings import read_settings
from zerotag.serving.runtime import Runtime

SETTINGS = read_settings()
# The queue is bounded, so a response that takes this long is lost.
_LOST_SECONDS = 10.0


@bentoml.service(workers=1, traffic={"timeout": 120}, logging={"access": {"enabled": False}})
class Network:
    """The network, on all cores, with adaptive batching across requests."""

    def __init__(self) -> None:
        self._runtime = Runtime(SETTINGS.package / "model.onnx", spin=False, views=SETTINGS.views)
        self._runtime(np.zeros((1, self._runtime.size, self._runtime.size, 3), dtype=np.uint8))

    @bentoml.api(batchable=True, max_batch_size=SETTINGS.batch, max_latency_ms=SETTINGS.batch_wait_ms)
    def embed(self, pixels: np.ndarray) -> np.ndarray:
        """(B, S, S, 3) uint8 -> (B, M, d) float32 principal vectors."""
        return self._runtime(pixels)


@bentoml.service(
    name="zerotag",
    workers=SETTINGS.processes,
    traffic={"timeout": 120},
    http={"host": SETTINGS.host, "port": SETTINGS.port},
    logging={"access": {"enabled": False}},
)
class Zerotag:
    """Open-vocabulary tagging and search of photographs."""

    network = bentoml.depends(Network)


async def _embed(pixels: np.ndarray) -> np.ndarray:
    network = bentoml.get_current_service().network
    try:
        return await ask_again(lambda: network.to_async.embed(pixels), _LOST_SECONDS, aiohttp.ClientConnectionError)
    except bentoml.exceptions.BentoMLException as error:
        # The batch queue is longer than the network can process in time.
        raise busy() from error


def _of_package(package: Path) -> FastAPI:
    """The application of a package, with a network of its own, so that both change at once."""
    runtime = Runtime(package / "model.onnx", spin=False, views=SETTINGS.views)

    async def embed(pixels: np.ndarray) -> np.ndarray:
        return await run_in_threadpool(runtime, pixels)

    return create_app(replace(SETTINGS, model=str(package)), Gather(embed, SETTINGS.batch))


Zerotag.mount_asgi_app(  # type: ignore[attr-defined]
    follow(_of_package, lambda: SETTINGS.package)
    if SETTINGS.follows
    else create_app(SETTINGS, Gather(_embed, SETTINGS.batch))
)
