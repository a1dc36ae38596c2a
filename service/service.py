"""The BentoML service: `bentoml serve service.service:Zerotag`."""

from dataclasses import replace
from pathlib import Path

import bentoml
from fastapi import FastAPI

from service.app import create_app
from service.follow import follow
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


def _of_package(package: Path) -> FastAPI:
    return create_app(replace(SETTINGS, model=str(package)))


Zerotag.mount_asgi_app(  # type: ignore[attr-defined]
    follow(_of_package, lambda: SETTINGS.package) if SETTINGS.follows else create_app(SETTINGS)
)
