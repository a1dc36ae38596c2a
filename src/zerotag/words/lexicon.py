"""Find the vector of a tag among many words.

A tag is looked up as it is, then in lower case, singular and plural; a tag of several words or with
hyphens is the mean of its parts.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Lexicon:
    """Words with vectors.

    Attributes:
        index: row of each word.
        vectors: (W, d), of unit length unless `words.normalise` is off.
    """

    index: Mapping[str, int]
    vectors: np.ndarray

    def vector(self, word: str) -> np.ndarray:
        """(d,) float32 vector of a word of the index."""
        return np.asarray(self.vectors[self.index[word]], dtype=np.float32)


def look_up(tag: str, lexicon: Lexicon) -> tuple[np.ndarray, str] | None:
    """Find the vector of a tag.

    Args:
        tag: a word, or several with blanks, hyphens or underscores between them.
        lexicon: the words that have a vector.

    Returns:
        (d,) float32 and the words it was made of, or None when a part is not known.
    """
    tag = tag.strip()
    # A name of several words may be a word of the lexicon under another spelling.
    for spelling in (tag, tag.replace(" ", "_"), tag.replace(" ", "-"), re.sub(r"[\s\-_]", "", tag)):
        if spelling and (form := _known_form(spelling, lexicon)):
            return lexicon.vector(form), form
    found = [_known_form(part, lexicon) for part in re.split(r"[\s\-_/]+", tag) if part]
    forms = [form for form in found if form is not None]
    if not forms or len(forms) < len(found):
        return None
    parts = np.stack([lexicon.vector(form) for form in forms])
    # The parts' own lengths say how frequent they are, not what they mean: in the direction each counts the same.
    direction = unit(parts).mean(axis=0)
    if np.linalg.norm(direction) == 0:
        return None
    return unit(direction) * np.linalg.norm(parts, axis=1).mean(), " + ".join(forms)


def _known_form(word: str, lexicon: Lexicon) -> str | None:
    """The first form of a word that the lexicon has: other cases, then singular and plural."""
    lower = word.lower()
    forms = [word, lower, word.capitalize(), word.upper()]
    if lower.endswith("ies"):
        forms.append(lower[:-3] + "y")
    if lower.endswith("es"):
        forms.append(lower[:-2])
    if lower.endswith("s"):
        forms.append(lower[:-1])
    if lower.endswith("y"):
        forms.append(lower[:-1] + "ies")
    forms += [lower + "s", lower + "es"]
    return next((form for form in forms if form in lexicon.index), None)


def unit(vectors: np.ndarray) -> np.ndarray:
    """Rows of length 1; a row of zeros stays."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)
