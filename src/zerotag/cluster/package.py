"""Bring a packaged model to the nodes of a cluster: none has to have it."""

import hashlib
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from zerotag.errors import ZerotagError
from zerotag.files import hold, write_aside
from zerotag.serving.tagger import Tagger

# What the results of a photo depend on, besides the model.
_DISTRIBUTIONS = ("zerotag", "numpy", "onnxruntime", "pillow")


@dataclass(frozen=True)
class Package:
    """A packaged model that Ray's object store has.

    Attributes:
        folder: where it is on the machine that sent it.
        digest: of its files.
        versions: of the libraries there.
        files: a list of one reference, to the files' content by path.
    """

    folder: Path
    digest: str
    versions: dict[str, str]
    files: list[Any]


def send(folder: Path) -> Package:
    """Put a package into the object store."""
    import ray

    files = {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}
    return Package(folder.resolve(), _digest(files), _versions(), [ray.put(files)])


def received(package: Package, views: int = 1) -> Tagger:
    """The model on a node, for one thread: where it was sent from if it is there too, else in ~/.zerotag/packages.

    Raises:
        ZerotagError: the node has other versions of the libraries.
    """
    if (here := _versions()) != package.versions:
        raise ZerotagError(
            f"this node has {_named(here)}, not {_named(package.versions)}. Install the same on all nodes."
        )
    return Tagger(_place(package), threads=1, views=views)


def runs_on_gpu() -> bool:
    """Whether the ONNX Runtime that is installed, here and on all nodes, can use a GPU."""
    import onnxruntime

    return "CUDAExecutionProvider" in onnxruntime.get_available_providers()


def _place(package: Package) -> Path:
    # The model's digest says enough of the same path.
    if _digest_of(package.folder) == package.digest:
        return package.folder
    import ray

    folder = Path.home() / ".zerotag" / "packages" / package.digest
    with hold(folder.with_suffix(".lock"), "the receipt of a model", wait=True):
        if not folder.is_dir():
            with write_aside(folder) as draft:
                for name, content in ray.get(package.files[0]).items():
                    (draft / name).parent.mkdir(parents=True, exist_ok=True)
                    (draft / name).write_bytes(content)
    return folder


@cache
def _digest_of(folder: Path) -> str:
    files = [file for file in sorted(folder.rglob("*")) if file.is_file()] if folder.is_dir() else []
    return _digest({str(file.relative_to(folder)): file.read_bytes() for file in files})


def _digest(files: dict[str, bytes]) -> str:
    state = hashlib.sha256()
    for name, content in files.items():
        state.update(f"{name}\0{len(content)}\0".encode())
        state.update(content)
    return state.hexdigest()[:16]


def _versions() -> dict[str, str]:
    return {name: _version(name) for name in _DISTRIBUTIONS}


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:  # on the path only
        return "unknown"


def _named(versions: dict[str, str]) -> str:
    return ", ".join(f"{name} {number}" for name, number in versions.items())
