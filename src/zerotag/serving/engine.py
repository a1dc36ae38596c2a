"""LanceDB, imported without what only its servers need."""

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec, module_from_spec
from typing import Any

# Clients of catalogue servers, which LanceDB imports for the data types beside them. To build them takes half of the
# 2 s of a core that the import takes otherwise.
_CLIENTS = "lance_namespace_urllib3_client"


def import_lancedb() -> Any:
    """Import LanceDB. It starts threads, so it is not for a process that only starts others."""
    _put_off(_CLIENTS)
    with _hidden("pandas"):  # 33 MB and 0.1 s, of which pyarrow only wants to know the classes, if it is installed
        import pyarrow.dataset  # noqa: F401
    import lancedb

    return lancedb


def _put_off(name: str) -> None:
    """Let a package run its `__init__` when something in it is asked for, and not when a module below it is."""
    spec = None if name in sys.modules else find_spec(name)
    if spec is None or spec.loader is None:
        return
    package, loader = module_from_spec(spec), spec.loader

    def load(attribute: str) -> Any:
        del package.__dict__["__getattr__"]
        loader.exec_module(package)
        return getattr(package, attribute)

    package.__dict__["__getattr__"] = load  # PEP 562
    sys.modules[name] = package


@contextmanager
def _hidden(name: str) -> Iterator[None]:
    """Let this thread not find a package, unless it was imported before."""
    thread = threading.get_ident()

    class Finder:
        @staticmethod
        def find_spec(wanted: str, *_: object) -> None:
            if wanted == name and threading.get_ident() == thread:
                raise ImportError(f"{name} is hidden")

    sys.meta_path.insert(0, Finder)  # type: ignore[arg-type]
    try:
        yield
    finally:
        sys.meta_path.remove(Finder)  # type: ignore[arg-type]
