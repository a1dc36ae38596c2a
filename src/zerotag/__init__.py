"""zerotag: tags for photographs, words never seen in training included.

`Tagger` tags photos with a packaged model. The packages, of which each imports only those before it: `words`, `data`,
`training` and `evaluation` for training; `serving`, which never imports torch; `packaging` and `registry`.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zerotag.serving.tagger import Tagger

__all__ = ["Tagger"]


def __getattr__(name: str) -> Any:
    """Import `zerotag.Tagger` lazily: the pipeline's modules do not need ONNX Runtime."""
    if name == "Tagger":
        from zerotag.serving.tagger import Tagger

        return Tagger
    raise AttributeError(f"module 'zerotag' has no attribute {name!r}")
