"""The BentoML service: `bentoml serve service.service:Zerotag`."""

import bentoml

from service.app import create_app
from service.settings import read_settings

SETTINGS = read_settings()


@bentoml.service(
    name="zerotag",
    workers=SETTINGS.processes,
    traffic={"timeout": 120},
    http={"host": SETTINGS.host, "port": SETTINGS.port},
    logging={"access": {"enabled": False}},
)
class Zerotag:
    """Open-vocabulary tagging and search of photographs."""


Zerotag.mount_asgi_app(create_app(SETTINGS))  # type: ignore[attr-defined]
