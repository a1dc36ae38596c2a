"""Settings of the service: section `serve` of params.yaml, changed by environment variables ZEROTAG_<NAME>."""

import os
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import yaml

from zerotag.registry.champion import champion_package
from zerotag.settings import from_params, read_params

# The checkout, or the Bento's own folder.
HOME = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class ServeSettings:
    """Attributes:
    model: a packaged model's folder, or bentoml:NAME:VERSION of BentoML's model store; empty for the champion's
        package, or served/ while there is no champion.
    host: the address to listen on; only this machine by default.
    port: the port to listen on.
    workers: processes that answer requests; 0 for one a core.
    batch: most photos of a batch of the network.
    batch_wait_ms: a photo that would wait for the network for longer than this is refused (503).
    queue: most requests that are worked on at once; more are refused (503 with Retry-After).
    connections: most requests that may be open at once, slow ones included.
    body_seconds: a request that takes longer than this to arrive is refused (408).
    max_bytes: of one photo.
    max_pixels: of one photo.
    max_photos: of one batch request.
    max_words: of one request.
    root: the folder below which photos may be indexed; empty for none.
    index: where the search index lies: a folder, s3://… or db://….
    index_seconds: how long one request may index before it answers with what remains.
    api_key: is asked for in the header X-API-Key when it is not empty.
    cors: origins whose pages may call the service; none by default.
    log: folder of the request log; empty for none.
    """

    model: str = ""
    host: str = "127.0.0.1"
    port: int = 3000
    workers: int = 0
    batch: int = 16
    batch_wait_ms: int = 5000
    queue: int = 64
    connections: int = 512
    body_seconds: float = 20.0
    max_bytes: int = 20_000_000
    max_pixels: int = 100_000_000
    max_photos: int = 32
    max_words: int = 1000
    root: str = ""
    index: str = "work/index"
    index_seconds: float = 20.0
    api_key: str = ""
    cors: tuple[str, ...] = ()
    log: str = "work/requests"

    @property
    def processes(self) -> int:
        """How many processes answer requests."""
        # The cores that this process may use, where the system tells: a container may have fewer than the machine.
        allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        return self.workers or allowed or 1

    def path(self, given: str) -> Path:
        """A folder of the settings; a relative one lies in the checkout."""
        if given.startswith("bentoml:"):
            import bentoml

            return Path(bentoml.models.get(given.removeprefix("bentoml:")).path)
        return HOME / Path(given).expanduser()

    @property
    def package(self) -> Path:
        """The folder of the model that is served."""
        return self.path(self.model) if self.model else champion_package(HOME)

    @property
    def index_uri(self) -> str:
        """What LanceDB connects to."""
        return self.index if "://" in self.index else str(self.path(self.index))


def read_settings() -> ServeSettings:
    """Read the settings.

    Raises:
        ZerotagError: an unknown name, or a value of the wrong type.
    """
    params = HOME / "params.yaml"
    given: dict[str, Any] = dict(read_params(params).get("serve") or {}) if params.is_file() else {}
    for field in fields(ServeSettings):
        text = os.environ.get(f"ZEROTAG_{field.name.upper()}")
        if text is not None:
            # A text stays as it is: a key of digits is no number.
            given[field.name] = text if field.type is str else yaml.safe_load(text)
    return from_params(ServeSettings, given, "serve")
