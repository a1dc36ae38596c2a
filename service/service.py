"""The BentoML service: `bentoml serve service.service:Zerotag`."""

import aiohttp
import bentoml
import bentoml.exceptions
import numpy as np

from service.app import create_app
from service.gather import Gather
from service.limits import ask_again, busy
from service.settings import read_settings
from zerotag.runtime import Runtime

SETTINGS = read_settings()
# The queue is bounded, so a response that takes this long is lost.
_LOST_SECONDS = 10.0


@bentoml.service(workers=1, traffic={"timeout": 120}, logging={"access": {"enabled": False}})
class Network:
    """The network, on all cores, with adaptive batching across requests."""

    def __init__(self) -> None:
        self._runtime = Runtime(SETTINGS.package / "model.onnx", views=SETTINGS.views)
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


Zerotag.mount_asgi_app(create_app(SETTINGS, Gather(_embed, SETTINGS.batch)))  # type: ignore[attr-defined]
