"""Which package may import which: the arrows go one way, and serving runs without torch."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import resolve_name
from pathlib import Path

import pytest
from conftest import PROJECT

BASE = ("errors", "extras", "files", "settings", "blocks", "runtime", "stores")
WHOLE = (*BASE, "words", "data", "training", "evaluation", "serving", "packaging", "registry", "cluster")
# A room (a package, or a module beside them) may import itself and the rooms on its right, all of them from rows above.
ARROWS: dict[str, tuple[str, ...]] = {
    "extras": (),
    "errors": ("extras",),
    "files": ("errors",),
    "settings": ("errors",),
    "profiles": ("errors", "files"),
    "blocks": ("errors", "files"),
    "runtime": ("errors",),
    "stores": (),
    "samples": BASE,
    "words": BASE,
    "data.photos": ("errors",),
    "metadata": (*BASE, "data.photos"),
    "data.batches": ("errors",),
    "data.scan": (*BASE, "data.photos"),
    "data": (*BASE, "words", "metadata"),
    "training": (*BASE, "words", "data"),
    "evaluation.calibration": BASE,
    "evaluation": (*BASE, "samples", "words", "data", "training", "evaluation.calibration"),
    "serving": (*BASE, "words", "metadata", "data.photos", "data.batches", "data.scan", "evaluation.calibration"),
    "registry": (*BASE, "data", "serving"),
    "packaging": (*BASE, "words", "data", "training", "evaluation", "serving", "registry"),
    "cluster": (*BASE, "words", "data", "training", "evaluation", "serving"),
    "client": BASE,
    "zerotag": ("client", "serving.tagger"),  # src/zerotag/__init__.py
    "cli": (*WHOLE, "profiles", "metadata"),
    # What runs the library; none of the three imports another.
    "stages": (*WHOLE, "samples"),
    "service": (*BASE, "metadata", "data.batches", "data.photos", "samples", "serving", "registry"),
    "flows": WHOLE,
}
BESIDE = ("stages", "service", "flows")
OURS = ("zerotag", "benchmarks", "docs", "tests", *BESIDE)
# Neither at the top of a file nor in a function.
NEVER_IN_THE_LIBRARY = ("dvc", "prefect", "bentoml")
NEVER_IN_SERVING = ("torch", "torchvision", "timm", "pandas")


def place(module: str) -> str:
    """The room of a module of zerotag, flows, stages or service; empty for a module without a row."""
    name = module.removeprefix("zerotag.")
    parts = name.split(".")
    starts = (".".join(parts[:length]) for length in range(len(parts), 0, -1))
    return next((start for start in starts if start in ARROWS), "")


def imports(source: str, module: str, is_package: bool = False) -> Iterator[tuple[int, str]]:
    """Line and full name of everything that a module imports, wherever it does."""
    package = module if is_package else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = resolve_name("." * node.level + (node.module or ""), package)
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)


def forbidden(source: str, module: str, is_package: bool = False) -> Iterator[tuple[int, str]]:
    """Line and arrow of every import that ARROWS does not have."""
    room = place(module)
    library = module.partition(".")[0] == "zerotag"
    never = (*(NEVER_IN_THE_LIBRARY if library else ()), *(NEVER_IN_SERVING if room in ("serving", "metadata") else ()))
    for line, name in imports(source, module, is_package):
        top = name.partition(".")[0]
        target = name
        if top == "zerotag":  # what is in no room, as in `from zerotag import Tagger`, is the package's own
            target = name.removeprefix("zerotag.") if place(name) else "zerotag"
        allowed = any(target == each or target.startswith(f"{each}.") for each in (room, *ARROWS.get(room, ())))
        if (top in OURS and not allowed) or top in never:
            yield line, f"{room} -> {target}"


def modules() -> Iterator[tuple[Path, str]]:
    """Files of the library, the flows, the stages and the service, with their modules' names."""
    for root, start in ((PROJECT / "src", "zerotag"), *((PROJECT, name) for name in BESIDE)):
        for file in sorted((root / start).rglob("*.py")):
            parts = file.relative_to(root).with_suffix("").parts
            yield file, ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def test_arrows_go_one_way() -> None:
    wrong = [
        f"{file.relative_to(PROJECT)}:{line}: {arrow} is not an arrow of ARROWS in tests/test_rooms.py"
        for file, module in modules()
        for line, arrow in forbidden(file.read_text(encoding="utf-8"), module, file.name == "__init__.py")
    ]
    assert not wrong, "\n".join(wrong)


def test_every_module_has_a_room_and_every_room_modules() -> None:
    rooms = {module: place(module) for _, module in modules()}
    without = [module for module, room in rooms.items() if not room]
    assert not without, f"no row of ARROWS for {', '.join(without)}"
    assert set(rooms.values()) == set(ARROWS)


def test_no_circles() -> None:
    rows = list(ARROWS)
    for row, (room, targets) in enumerate(ARROWS.items()):
        for target in targets:
            assert any(target == each or target.startswith(f"{each}.") for each in rows[:row]), f"{room} -> {target}"


@pytest.mark.parametrize(
    ("module", "source", "arrow"),
    [
        ("zerotag.serving.index", "from zerotag.training.model import Model", "serving -> training.model.Model"),
        ("zerotag.serving.index", "from zerotag.training import model", "serving -> training.model"),
        ("zerotag.serving.index", "import zerotag.packaging.export", "serving -> packaging.export"),
        ("zerotag.serving.index", "from ..training import model", "serving -> training.model"),
        ("zerotag.serving.index", "def load():\n    import torch.nn", "serving -> torch.nn"),
        ("zerotag.serving.index", "from zerotag.data.dataset import Dataset", "serving -> data.dataset.Dataset"),
        ("zerotag.data.photos", "from zerotag.words import lift", "data.photos -> words.lift"),
        ("zerotag.words.lift", "from zerotag.data.photos import open_photo", "words -> data.photos.open_photo"),
        ("zerotag.registry.choice", "from zerotag import Tagger", "registry -> zerotag"),
        ("zerotag.evaluation.report", "from bentoml import models", "evaluation -> bentoml.models"),
        ("zerotag.cli", "from flows.train import train", "cli -> flows.train.train"),
        ("service.app", "from zerotag.training.model import Model", "service -> training.model.Model"),
        ("flows.train", "from service.app import create_app", "flows -> service.app.create_app"),
    ],
)
def test_what_is_found(module: str, source: str, arrow: str) -> None:
    assert list(forbidden(source, module)) == [(source.count("\n") + 1, arrow)]


def test_serving_is_light() -> None:
    """What is imported when a program starts to serve, including by what serving itself imports."""
    code = "import sys, zerotag.serving.tagger, zerotag.serving.index; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    heavy = set(done.stdout.split()) & {*NEVER_IN_SERVING, *NEVER_IN_THE_LIBRARY}
    assert not heavy, f"serving imports {', '.join(heavy)}"
