"""Encode phrases with an exported text encoder, using tokenizers, numpy and ONNX Runtime, without torch."""

import json
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from tokenizers import Tokenizer

from zerotag.errors import ZerotagError
from zerotag.words.lexicon import unit
from zerotag.words.text_encoders import in_prompts

MODEL, TOKENIZER, FACTS = "model.onnx", "tokenizer.json", "encoder.json"
INPUTS, OUTPUT = ("input_ids", "attention_mask"), "vectors"


class TextEncoder:
    """An exported text encoder: n words or phrases -> (n, d) float32 unit vectors.

    A word's vector is the mean of its vectors in each of the prompts that the vocabulary was encoded with. It is not of
    unit length if `words.normalise` is off.

    Args:
        folder: folder written by `zerotag.packaging.text_encoder`.
        threads: threads per call; phrases are too short to benefit from more than one.

    Attributes:
        facts: content of encoder.json.

    Raises:
        ZerotagError: the encoder is missing or corrupt.
    """

    def __init__(self, folder: Path, threads: int = 1):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        try:
            self.facts: dict[str, Any] = json.loads((folder / FACTS).read_text(encoding="utf-8"))
            self._tokenizer = Tokenizer.from_file(str(folder / TOKENIZER))
            self._tokenizer.no_padding()
            self._tokenizer.enable_truncation(self.facts["max_tokens"])
            self._session = onnxruntime.InferenceSession(
                str(folder / MODEL), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # ONNX Runtime and tokenizers raise errors without a common base
            raise ZerotagError(f"{folder}: not a usable text encoder ({error}). Run `dvc repro`.") from error

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """Encode texts, truncated to the model's maximum length.

        Texts are encoded one at a time, so that a vector does not depend on the other texts, not even in rounding.
        """
        vectors = in_prompts(lambda given: np.stack([*map(self._encode, given)]), texts, self.facts["prompts"])
        return unit(vectors) if self.facts["normalise"] else vectors

    def _encode(self, text: str) -> np.ndarray:
        encoding = self._tokenizer.encode(text)
        values = (np.array([encoding.ids]), np.array([encoding.attention_mask]))
        return self._session.run([OUTPUT], dict(zip(INPUTS, values, strict=True)))[0][0]

    def knows(self, text: str) -> bool:
        """Whether a text is in a script that the encoder was trained on.

        Of the text's letters, digits and pictographs, at least half must be digits or letters of a known script, not
        counting unknown tokens. A script is known if the tokenizer has word pieces in it. An English tokenizer has
        single letters at most for Chinese, Arabic or Cyrillic, and nothing for emoji, so their vectors would be
        meaningless.
        Other languages in Latin script are accepted, and understood as far as they resemble English.
        """
        encoding = self._tokenizer.encode(text)
        lost: set[int] = set()
        for piece, (start, end) in zip(encoding.tokens, encoding.offsets, strict=True):
            if piece == self.facts["unknown_token"]:
                lost.update(range(start, end))
        counted = [place for place, sign in enumerate(text) if sign.isalnum() or unicodedata.category(sign) == "So"]
        known = [place for place in counted if place not in lost and self._knows_sign(text[place])]
        return 2 * len(known) >= max(1, len(counted))

    def _knows_sign(self, sign: str) -> bool:
        return sign.isdecimal() or script(sign) in self.facts["scripts"]

    @property
    def letters(self) -> str:
        """The known scripts, for messages."""
        return ", ".join(name.title() for name in self.facts["scripts"])


def script(letter: str) -> str:
    """A letter's script (LATIN, CYRILLIC, CJK, …), the first word of its Unicode name."""
    return unicodedata.name(letter, "?").split()[0]
