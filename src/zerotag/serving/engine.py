"""LanceDB, imported without what only its servers need."""

import sys
from importlib.util import find_spec, module_from_spec
from typing import Any

# Clients of catalogue servers, which LanceDB imports for the data types beside them. To build them takes half of the
# 2 s of a core that the import takes otherwise.
_CLIENTS = "lance_namespace_urllib3_client"


def import_lancedb() -> Any:
    """Import LanceDB. It starts threads, so it is not for a process that only starts others."""
    _put_off(_CLIENTS)
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
