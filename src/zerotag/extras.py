"""Optional dependencies: which extra provides a package, from the metadata of the installed distribution."""

from importlib import metadata

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

# Modules whose name differs from that of their distribution.
_DISTRIBUTIONS = {
    "faiss": "faiss-cpu",
    "lance": "pylance",
    "open_clip": "open_clip_torch",
    "ruamel": "ruamel.yaml",
    "sklearn": "scikit-learn",
    "unrar": "unrar2-cffi",
}


def requirements(*extras: str) -> list[str]:
    """Names of the distributions that zerotag depends on directly.

    Args:
        extras: their requirements are added to those of the light install.

    Raises:
        PackageNotFoundError: zerotag is not installed, only on the path.
    """
    found: set[str] = set()
    for requirement in map(Requirement, metadata.requires("zerotag") or []):
        marker = requirement.marker
        if marker and not any(marker.evaluate({"extra": extra}) for extra in ("", *extras)):
            continue
        if requirement.name == "zerotag":  # an extra that includes another
            found.update(requirements(*requirement.extras))
        else:
            found.add(canonicalize_name(requirement.name))
    return sorted(found)


def extra_of(module: str) -> str | None:
    """The first extra that provides a top-level module; None for a module of the light install or an unknown one."""
    distribution = canonicalize_name(_DISTRIBUTIONS.get(module, module))
    try:
        if distribution in requirements():
            return None
        extras = metadata.metadata("zerotag").get_all("Provides-Extra", [])
        return next((extra for extra in extras if distribution in requirements(extra)), None)
    except metadata.PackageNotFoundError:
        return None
