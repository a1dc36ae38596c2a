"""Which model answers: the champion, else a model trained on photographs, else the starter.

A model trained on the rendered scenes proves that the pipeline runs and knows nothing of photographs; it only answers
when it is named.
"""

import hashlib
import subprocess
import sys
from pathlib import Path

from zerotag.errors import ZerotagError, require
from zerotag.files import hold
from zerotag.registry.champion import champion_package
from zerotag.serving.package import read_info

STARTER = Path("work/starter")
_SOURCES = Path(__file__).parents[1]
# What a starter depends on; when one of them changes, it is built anew.
_STARTER_FILES = (
    "words/everyday.txt", "words/kinds.txt", "words/kinds.py", "words/lift.py", "words/text_encoders.py",
    "words/vectors.py", "training/heads.py", "training/classifier.py", "training/methods.py", "packaging/starter.py",
    "packaging/starter.json", "packaging/export.py", "packaging/text_encoder.py", "training/onnx_export.py",
)  # fmt: skip


def package_to_serve(project: Path = Path()) -> Path:
    """The package of the model that answers; the starter is built where it has to.

    Raises:
        ZerotagError: the starter cannot be built.
    """
    trained = champion_package(project)
    if (trained / "tagger.json").is_file() and not _of_scenes(trained):
        return trained
    return starter_package(project)


def _of_scenes(package: Path) -> bool:
    return read_info(package)["training"]["data"]["source"] == "scenes"


def starter_package(project: Path = Path()) -> Path:
    """The starter's package, built at first use and after a change of what it is made from.

    Raises:
        ZerotagError: it cannot be built.
    """
    folder = project / STARTER
    if _is_current(folder):
        return folder
    require("torch", "Or name a packaged model with --model.")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with hold(folder.with_suffix(".lock"), "the building of the starter", wait=True):
        if not _is_current(folder):  # another process may have built it meanwhile
            print("zerotag: building the starter tagger, once (about half a minute)", file=sys.stderr)
            # A process of its own: torch's memory goes with it.
            command = [sys.executable, "-m", "zerotag.packaging.starter", str(folder)]
            # 2, not sys.stderr, which is no file in a notebook or where it is captured.
            if subprocess.run(command, stdout=2, check=False).returncode:
                raise ZerotagError("The starter tagger cannot be built; see above. Name a model with --model.")
    return folder


def _is_current(folder: Path) -> bool:
    return (folder / "tagger.json").is_file() and read_info(folder).get("starter") == starter_digest()


def starter_digest() -> str:
    """Hash of what the starter is made from."""
    return hashlib.sha256(b"".join((_SOURCES / name).read_bytes() for name in _STARTER_FILES)).hexdigest()[:12]
