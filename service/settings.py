"""Settings of the service: section `serve` of params.yaml, overridden by environment variables ZEROTAG_<NAME>."""

import os
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import yaml

from zerotag.data.batches import cores
from zerotag.registry.champion import champion_package, read_challenger
from zerotag.registry.served import package_to_serve
from zerotag.settings import from_params, read_params

# The checkout, or the folder of the Bento.
HOME = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class ServeSettings:
    """Attributes:
    model: package folder, or bentoml:NAME:VERSION from BentoML's model store; registry for the champion's package,
        else served/, and each later champion's; empty for what is the champion's package at the start, else served/, if
        it was trained on photographs, else the starter.
    shadow: a model that answers beside it, whose differences are counted: package folder, bentoml:NAME:VERSION, or
        challenger for the one that waits for promotion (`retrain.min_shadow_photos`); empty for none.
    shadow_share: share of the tagged photos that it answers, 0 to 1.
    checkout: folder with champion.json, champions/, served/ and work/starter, where the model is looked for; empty for
        the folder of the service's code.
    vocabulary: file of candidate tags for requests that name none (`zerotag.metadata.vocabulary_file`); empty for the
        model's vocabulary.
    host: address to listen on; localhost by default.
    port: port to listen on.
    workers: processes that answer; 0 for one per four cores. Each has others that work on photos.
    views: 1, or 2 to look at the mirror image of each photo as well, at twice the cost.
    queue: maximum number of requests processed concurrently; more are rejected (503 with Retry-After).
    connections: maximum number of open requests, including slow ones.
    body_seconds: a request body that takes longer than this to arrive is rejected (408).
    max_bytes: maximum file size of a photo.
    max_pixels: maximum number of pixels of a photo.
    max_photos: maximum number of photos per batch request.
    max_words: maximum number of words per request.
    root: photo root, the folder whose photos may be indexed; empty for none.
    index: location of the search index: a folder, s3://… or db://….
    exact: whether a search compares all photos, also of a large index.
    index_seconds: time limit of an index request, after which it returns the number of remaining photos.
    api_key: API key required in the header X-API-Key; empty for none.
    cors: origins allowed to call the service (CORS); none by default.
    log: folder of the request log; empty for none.
    """

    model: str = ""
    checkout: str = ""
    shadow: str = ""
    shadow_share: float = 0.1
    vocabulary: str = ""
    host: str = "127.0.0.1"
    port: int = 3000
    workers: int = 0
    views: int = 1
    queue: int = 64
    connections: int = 512
    body_seconds: float = 20.0
    max_bytes: int = 20_000_000
    max_pixels: int = 100_000_000
    max_photos: int = 32
    max_words: int = 1000
    root: str = ""
    index: str = "work/index"
    exact: bool = False
    index_seconds: float = 20.0
    api_key: str = ""
    cors: tuple[str, ...] = ()
    log: str = "work/requests"

    @property
    def processes(self) -> int:
        """Number of processes that answer."""
        return self.workers or -(-cores() // 4)

    def path(self, given: str) -> Path:
        """Resolve a folder of the settings; relative paths are relative to the checkout."""
        if given.startswith("bentoml:"):
            import bentoml

            return Path(bentoml.models.get(given.removeprefix("bentoml:")).path)
        return HOME / Path(given).expanduser()

    @property
    def project(self) -> Path:
        """The checkout where the model is looked for."""
        return self.path(self.checkout) if self.checkout else HOME

    @property
    def follows(self) -> bool:
        """Whether the service changes its model when the champion changes."""
        return self.model == "registry"

    @property
    def package(self) -> Path:
        """Package folder of the deployed model."""
        if self.follows:
            return champion_package(self.project)
        return self.path(self.model) if self.model else package_to_serve(self.project)

    @property
    def challenger(self) -> Path | None:
        """Package folder of the model that answers beside the deployed one; None if there is none."""
        if self.shadow == "challenger":
            record = read_challenger(self.project)
            return record.folder(self.project) / "served" if record else None
        return self.path(self.shadow) if self.shadow else None

    @property
    def index_uri(self) -> str:
        """URI that LanceDB connects to."""
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
            # Strings are not parsed as YAML: an API key of digits is not a number.
            given[field.name] = text if field.type is str else yaml.safe_load(text)
    return from_params(ServeSettings, given, "serve")
