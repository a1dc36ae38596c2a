"""Packages: a folder with everything needed for serving, and nothing specific to training.

::

    model.onnx         the network, written by `zerotag.packaging.export`
    tagger.json        name and version, metrics, data, dependency versions, licences
    card.md            the model card, which says the same to people (`zerotag.serving.card`)
    vocabulary.csv     tag, split (seen or unseen)
    vectors.npy        (T, d) float32 unit word vectors of the vocabulary, used for scoring
    lift.npz           the original word vectors, if the vocabulary is lifted
    lexicon.txt        W words for open-vocabulary look-up, one per line, most frequent first
    lexicon.npy        (W, d) float16 word vectors of the lexicon, not lifted
    calibration.json   mapping from scores to probabilities, by tag
    profile.json       brightness and contrast of training photos, and how frequent tags are there
                       (`zerotag.registry.drift`), against which the service watches its photos
    encoder/           the text encoder that the word vectors come from, for phrases (`zerotag.serving.text_encoder`):
                       model.onnx, tokenizer.json, encoder.json; only for sentence-transformers models
"""

import json
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from zerotag.errors import ZerotagError
from zerotag.evaluation.calibration import Calibration
from zerotag.files import write_aside
from zerotag.serving.card import model_card
from zerotag.words.lexicon import Lexicon
from zerotag.words.vocabulary import Vocabulary

CARD = "card.md"
# Folder of the text encoder in a package.
ENCODER = "encoder"
_BLOCK = 50_000


@dataclass(frozen=True)
class PackageSettings:
    """Attributes:
    words: number of words taken from the general lexicon, most frequent first.
    encoded_words: likewise, if the package has a text encoder, which encodes any other word when it is asked for.
    """

    words: int = 400_000
    encoded_words: int = 10_000


def write_package(
    folder: Path,
    network: Path,
    vocabulary: Vocabulary,
    lexicon: Lexicon,
    calibration: Calibration,
    info: dict[str, Any],
    words: int = 400_000,
    encoder: Path | None = None,
    profile: Mapping[str, Any] | None = None,
) -> None:
    """Write a package folder atomically.

    Args:
        folder: output folder.
        network: an ONNX file.
        vocabulary: the tags used in training and evaluation, with their vectors.
        lexicon: words by frequency, from the same source as the vocabulary's vectors.
        calibration: calibration of this network's scores.
        info: content of tagger.json.
        words: number of words taken from the lexicon.
        encoder: folder written by `zerotag.packaging.text_encoder`; None if phrases are averaged from their parts.
        profile: content of profile.json; None to leave it out.
    """
    with write_aside(folder) as draft:
        draft.mkdir()
        shutil.copyfile(network, draft / "model.onnx")
        (draft / "tagger.json").write_text(json.dumps(info, indent=2) + "\n", encoding="utf-8")
        (draft / "calibration.json").write_text(json.dumps(calibration.content(), indent=1) + "\n", encoding="utf-8")
        card = model_card(info, calibration.figures, int(vocabulary.seen.sum()), len(vocabulary.tags))
        (draft / CARD).write_text(card, encoding="utf-8")
        if profile:
            (draft / "profile.json").write_text(json.dumps(profile) + "\n", encoding="utf-8")
        vocabulary.write(draft)
        write_lexicon(lexicon, draft, words)
        if encoder:
            shutil.copytree(encoder, draft / ENCODER)


def write_lexicon(lexicon: Lexicon, folder: Path, words: int) -> None:
    """Write the first words of a lexicon as lexicon.txt and lexicon.npy.

    Half precision changes a word's score in the fourth digit and halves the file size.
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
        ZerotagError: the folder is not a package.
    """
    if not (folder / "tagger.json").is_file():
        hint = " It is a training folder; the package stage turns it into a package." * (folder / "model.pt").is_file()
        raise ZerotagError(f"{folder}: no packaged model (tagger.json is missing).{hint} Run `dvc repro` first.")
    return json.loads((folder / "tagger.json").read_text(encoding="utf-8"))


def read_lexicon(folder: Path) -> Lexicon:
    """Read a package's lexicon; the vectors are memory-mapped."""
    words = (folder / "lexicon.txt").read_text(encoding="utf-8").split("\n")[:-1]
    return Lexicon({word: row for row, word in enumerate(words)}, np.load(folder / "lexicon.npy", mmap_mode="r"))


def git_revision() -> str:
    """Git commit of the current folder, with suffix -dirty if files are modified; `none` outside a repository."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip() or "none"
