"""A package: one folder with all that serving needs, and nothing of training.

::

    model.onnx         the network, as `zerotag.packaging.export` writes it
    tagger.json        what is served: name and version, figures, data, versions, licences
    vocabulary.csv     tag, split (seen or unseen)
    vectors.npy        (T, d) float32 unit vectors of the vocabulary, which tags are scored by
    lift.npz           the word vectors that they were lifted from, where they were
    lexicon.txt        W words, one a line, the most frequent first: what any other word is looked up in
    lexicon.npy        (W, d) float16 word vectors of them, not lifted
    calibration.json   score to probability, by tag
"""

import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from zerotag.errors import ZerotagError
from zerotag.evaluation.calibration import Calibration
from zerotag.files import write_aside
from zerotag.words.lexicon import Lexicon
from zerotag.words.vocabulary import Vocabulary

_BLOCK = 50_000


@dataclass(frozen=True)
class PackageSettings:
    """Attributes:
    words: how many words of the general lexicon are taken, the most frequent first.
    """

    words: int = 400_000


def write_package(
    folder: Path,
    network: Path,
    vocabulary: Vocabulary,
    lexicon: Lexicon,
    calibration: Calibration,
    info: dict[str, Any],
    words: int = 400_000,
) -> None:
    """Write a package's folder, aside and then renamed.

    Args:
        folder: where to.
        network: an ONNX file.
        vocabulary: the tags that were trained and judged, with their vectors.
        lexicon: words in order of frequency; all of the source that the vocabulary's vectors come from.
        calibration: of this network's scores.
        info: the content of tagger.json.
        words: how many words of the lexicon are taken.
    """
    with write_aside(folder) as draft:
        draft.mkdir()
        shutil.copyfile(network, draft / "model.onnx")
        (draft / "tagger.json").write_text(json.dumps(info, indent=2) + "\n", encoding="utf-8")
        (draft / "calibration.json").write_text(json.dumps(calibration.content(), indent=1) + "\n", encoding="utf-8")
        vocabulary.write(draft)
        write_lexicon(lexicon, draft, words)


def write_lexicon(lexicon: Lexicon, folder: Path, words: int) -> None:
    """Write the first words of a lexicon as lexicon.txt and lexicon.npy.

    Half precision: a word's score changes in the fourth digit, and the file is half as large.
    """
    chosen = [(word, row) for word, row in lexicon.index.items() if "\n" not in word and "\r" not in word][:words]
    table = np.empty((len(chosen), lexicon.vectors.shape[1]), dtype=np.float16)
    for start in range(0, len(chosen), _BLOCK):
        table[start : start + _BLOCK] = lexicon.vectors[[row for _, row in chosen[start : start + _BLOCK]]]
    np.save(folder / "lexicon.npy", table)
    (folder / "lexicon.txt").write_text("".join(f"{word}\n" for word, _ in chosen), encoding="utf-8", newline="\n")


def read_info(folder: Path) -> dict[str, Any]:
    """Read a package's tagger.json.

    Raises:
        ZerotagError: the folder is no package.
    """
    if not (folder / "tagger.json").is_file():
        hint = " It is a training folder: the package stage makes a package of it." * (folder / "model.pt").is_file()
        raise ZerotagError(f"{folder}: no packaged model here (tagger.json is missing).{hint} Run `dvc repro` first.")
    return json.loads((folder / "tagger.json").read_text(encoding="utf-8"))


def read_lexicon(folder: Path) -> Lexicon:
    """Read a package's lexicon; the vectors stay on disk until a word is asked for."""
    words = (folder / "lexicon.txt").read_text(encoding="utf-8").split("\n")[:-1]
    return Lexicon({word: row for row, word in enumerate(words)}, np.load(folder / "lexicon.npy", mmap_mode="r"))


def git_revision() -> str:
    """The current folder's commit, with -dirty where files differ from it; none outside of Git."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip() or "none"
