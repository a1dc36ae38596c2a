"""The BentoML service: `bentoml serve service.service:Zerotag`."""

import os
from dataclasses import replace
from pathlib import Path

import bentoml
from starlette.applications import Starlette

from service.deployed import deployed
from service.settings import read_settings
from service.timeout import replace_timeout

SETTINGS = read_settings()
replace_timeout()
# Without a configuration of BentoML's, its spans go nowhere; making them takes a tenth of the time that a request takes
# beside the network.
_TRACED = any(os.environ.get(name) for name in ("BENTOML_CONFIG", "BENTOML_CONFIG_OPTIONS"))
# Memory of requests with large photos is given back: 100 MB less with 16 clients that send 12 megapixels. Large pages,
# where glibc and the system give them to those who ask: the network takes 3% less time of a core.
_MALLOC = {
    "MALLOC_ARENA_MAX": "2",
    "MALLOC_MMAP_THRESHOLD_": "262144",
    "GLIBC_TUNABLES": os.environ.get("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1"),
}


@bentoml.service(
    name="zerotag",
    workers=SETTINGS.processes,
    traffic={"timeout": 120},
    http={"host": SETTINGS.host, "port": SETTINGS.port},
    envs=[{"name": name, "value": value} for name, value in _MALLOC.items()],
    logging={"access": {"enabled": False}},
    tracing={} if _TRACED else {"excluded_urls": ".*"},
)
class Zerotag:
    """Open-vocabulary tagging and search of photographs."""


def _application(package: Path) -> Starlette:
    # Only in the process that answers: the one that starts it needs none of what this imports.
    from service.app import create_app
    from service.processes import forks, give_way

    if forks():
        give_way()
    return create_app(replace(SETTINGS, model=str(package)))


Zerotag.mount_asgi_app(  # type: ignore[attr-defined]
    deployed(_application, lambda: SETTINGS.package, seconds=1.0 if SETTINGS.follows else None)
)
