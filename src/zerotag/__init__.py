"""zerotag: tags for photographs, words never seen in training included.

`Tagger` tags photos with a packaged model, `Client` asks a service. The packages, of which each imports only those
before it: `words`, `data`, `training` and `evaluation` for training; `serving`, which never imports torch; `packaging`
and `registry`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zerotag.client import Client
    from zerotag.serving.tagger import Tagger

__all__ = ["Client", "Tagger"]

_MODULES = {"Client": "zerotag.client", "Tagger": "zerotag.serving.tagger"}


def __getattr__(name: str) -> Any:
    """Import them lazily: the pipeline's modules need neither ONNX Runtime nor HTTP."""
    if name in _MODULES:
        return getattr(import_module(_MODULES[name]), name)
    raise AttributeError(f"module 'zerotag' has no attribute {name!r}")
