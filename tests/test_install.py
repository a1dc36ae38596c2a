"""The light installation, from the wheel and its lock, in a new virtual environment of each Python that is here."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import PROJECT, encoded
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

LOCK = PROJECT / "requirements-light.lock"
PYTHONS = ("3.11", "3.12", "3.13")
# Tests that need no more than the light installation, and what runs them.
TESTS = ("test_cli.py", "test_index.py", "test_photos.py", "test_tagger.py")
RUNNER = ("httpx", "hypothesis", "pytest", "pytest-timeout")
MEGABYTES = 700


def test_the_lock_is_part_of_the_whole() -> None:
    whole = set((PROJECT / "requirements.lock").read_text(encoding="utf-8").splitlines())
    light = {line.partition(";")[0] for line in LOCK.read_text(encoding="utf-8").splitlines()}
    assert light <= whole


def call(*command: object, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a program without this environment's paths."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
    return subprocess.run(
        [str(each) for each in command],
        cwd=cwd, env={**clean, **environment}, capture_output=True, text=True, timeout=500, check=False,
    )  # fmt: skip


def find_python(version: str, folder: Path) -> Path | None:
    """An interpreter of this version: on the path, or one of pyenv's."""
    pyenv = Path(os.environ.get("PYENV_ROOT", "~/.pyenv")).expanduser() / "versions"
    on_path = shutil.which(f"python{version}")
    for found in ([Path(on_path)] if on_path else []) + sorted(pyenv.glob(f"{version}.*/bin/python")):
        # A shim of pyenv's lies on the path whether or not its version is chosen.
        asked = call(found, "-c", "import sys; print('%d.%d' % sys.version_info[:2])", cwd=folder)
        if asked.returncode == 0 and asked.stdout.strip() == version:
            return found
    return None


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy: a build leaves its files beside the source."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(PROJECT / name, folder)
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
    shutil.copytree(PROJECT / "src", folder / "src", ignore=ignored)
    built = call(sys.executable, "-m", "pip", "wheel", "--no-deps", "--wheel-dir", "dist", ".", cwd=folder)
    assert built.returncode == 0, built.stdout + built.stderr
    return next((folder / "dist").glob("zerotag-*.whl"))


@dataclass(frozen=True)
class Light:
    """An environment.

    Attributes:
        python: its version, as 3.13.
        programs: the folder of its programs.
    """

    python: str
    programs: Path


@pytest.fixture(scope="module", params=PYTHONS)
def light(request: pytest.FixtureRequest, wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Light]:
    """A light installation and nothing more."""
    folder = tmp_path_factory.mktemp(f"python{request.param}")
    python = find_python(request.param, folder)
    if python is None:
        pytest.skip(f"there is no Python {request.param} here")
    assert call(python, "-m", "venv", "venv", cwd=folder).returncode == 0
    programs = folder / "venv" / "bin"
    done = call(programs / "pip", "install", "--requirement", LOCK, wheel, cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    yield Light(request.param, programs)
    shutil.rmtree(folder)


def test_what_is_installed(light: Light) -> None:
    listed = json.loads(call(light.programs / "pip", "list", "--format", "json", cwd=light.programs).stdout)
    names = {canonicalize_name(each["name"]) for each in listed} - {"pip", "setuptools", "zerotag"}
    locked = map(Requirement, LOCK.read_text(encoding="utf-8").splitlines())
    environment = {"python_version": light.python}
    expected = {each.name for each in locked if not each.marker or each.marker.evaluate(environment)}
    assert names == {canonicalize_name(name) for name in expected}
    assert not any("torch" in name for name in names)
    used = sum(file.lstat().st_blocks * 512 for file in light.programs.parent.rglob("*"))
    assert used < MEGABYTES * 1e6


def test_tags_a_folder(light: Light, packaged: Path, tmp_path: Path) -> None:
    (tmp_path / "holiday").mkdir()
    (tmp_path / "holiday" / "a.jpg").write_bytes(encoded(1))
    done = call(light.programs / "zerotag", "tag", "holiday", "--model", packaged, cwd=tmp_path)
    assert done.returncode == 0 and done.stdout.startswith("holiday/a.jpg: "), done.stderr


def test_a_command_says_which_extra_it_needs(light: Light, tmp_path: Path) -> None:
    done = call(light.programs / "zerotag", "profile", "paper", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.endswith("This needs the extra `train`: pip install 'zerotag[train]'\n")
    # Without a packaged model, the starter would be built, with torch.
    (tmp_path / "a.jpg").write_bytes(encoded(1))
    done = call(light.programs / "zerotag", "tag", "a.jpg", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "zerotag: No module named 'torch'. This needs the extra `train`: pip install 'zerotag[train]'. "
        "Or name a packaged model with --model.\n"
    )


@pytest.mark.parametrize(
    ("module", "extra"),
    [("zerotag.training.model", "train"), ("zerotag.packaging.export", "train"), ("flows.deploy", "flows")],
)
def test_a_module_says_which_extra_it_needs(light: Light, module: str, extra: str) -> None:
    done = call(light.programs / "python", "-c", f"import {module}", cwd=PROJECT)
    assert done.returncode == 1
    assert "ZerotagError: No module named" in done.stderr and f"pip install 'zerotag[{extra}]'" in done.stderr


@pytest.fixture(scope="module")
def packages(packaged: Path, packaged_encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the packages that tests/conftest.py makes with torch, by their fixtures' names."""
    folder = tmp_path_factory.mktemp("packages")
    (folder / "packaged").symlink_to(packaged)
    (folder / "packaged_encoder").symlink_to(packaged_encoder)
    return folder


def test_the_light_part_passes_its_tests(light: Light, packages: Path) -> None:
    locked = ("--constraint", PROJECT / "requirements.lock")
    done = call(light.programs / "pip", "install", *locked, *RUNNER, cwd=light.programs)
    assert done.returncode == 0, done.stdout + done.stderr
    tests = (Path("tests") / name for name in TESTS)
    command = (light.programs / "python", "-m", "pytest", "-p", "no:cacheprovider", *tests)
    done = call(*command, cwd=PROJECT, ZEROTAG_TEST_PACKAGES=str(packages))
    assert done.returncode == 0, done.stdout + done.stderr
