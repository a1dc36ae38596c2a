"""The extras: together they bring every package that the code imports, and a missing one is named."""

import ast
import sys
from importlib import metadata
from pathlib import Path

import pytest
from conftest import PROJECT
from packaging.utils import canonicalize_name

from zerotag.errors import ZerotagError, extras_named, plain_exit, require
from zerotag.extras import extra_of, requirements

# What stands in a folder, and the extras that bring what it imports.
ROOMS = {
    "src": ("train", "cluster"),
    "service": ("serve",),
    "stages": ("train", "cluster", "serve"),  # the stage package builds a Bento
    "flows": ("flows", "cluster"),
    "tests": ("all",),
    "docs": ("all",),
    "benchmarks": ("all",),
}
# DVC's own, and what a benchmark compares with where it is installed.
FOLLOWS = {"dvc_data", "pyexiv2", "simplejpeg"}


def imports(folder: str) -> dict[str, Path]:
    """Top-level modules that a folder's files import, without the standard library's and our own; one file of each."""
    ours = {"zerotag", *(file.stem for root in (PROJECT, PROJECT / "tests") for file in root.iterdir())}
    found = {}
    for file in sorted((PROJECT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and node.module and not node.level else []
            found.update((name.partition(".")[0], file.relative_to(PROJECT)) for name in names)
    return {name: file for name, file in found.items() if name not in {*sys.stdlib_module_names, *ours, *FOLLOWS}}


@pytest.fixture(scope="module")
def installed() -> dict[str, set[str]]:
    """Distributions by the modules that they bring."""
    return {
        module: {canonicalize_name(name) for name in names}
        for module, names in metadata.packages_distributions().items()
    }


@pytest.mark.parametrize("folder", ROOMS)
def test_every_import_is_brought(folder: str, installed: dict[str, set[str]]) -> None:
    brought, light = set(requirements(*ROOMS[folder])), set(requirements())
    for module, file in imports(folder).items():
        assert installed[module] & brought, f"{file}: no extra of pyproject.toml brings {module}"
        # By its own name, since a module that is missing has no distribution.
        assert (extra_of(module) is None) == bool(installed[module] & light), f"{file}: which extra brings {module}?"


def test_which_extra() -> None:
    expected = {
        "torch": "train",
        "prefect": "flows",
        "bentoml": "serve",
        "prefect_dask": "cluster",
        "dvc_s3": "s3",
        "pytest": "dev",
        "numpy": None,
        "os": None,
    }
    assert {module: extra_of(module) for module in expected} == expected
    assert set(requirements()) < set(requirements("train")) < set(requirements("flows")) < set(requirements("all"))
    assert "torch" not in requirements("serve") and "zerotag" not in requirements("all")


def test_a_missing_package_of_an_extra_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(SystemExit) as caught, plain_exit():
        import torch  # noqa: F401
    assert caught.value.code == 1
    assert "needs the extra `train`: pip install 'zerotag[train]'" in capsys.readouterr().err


def test_what_is_required_without_an_import() -> None:
    require("numpy")
    with pytest.raises(ZerotagError, match=r"zerotag\[serve\]"), extras_named():
        raise metadata.PackageNotFoundError("bentoml")


def test_other_missing_modules_are_no_matter_of_extras() -> None:
    for name in ("zerotag.nothing", "nobodys", "pytest.nothing"):
        with pytest.raises(ModuleNotFoundError, match=name), extras_named():
            __import__(name)


def test_a_package_on_the_path_alone_has_no_extras(monkeypatch: pytest.MonkeyPatch) -> None:
    def not_installed(name: str) -> None:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "requires", not_installed)
    assert extra_of("torch") is None
