"""Find the vector of a tag among many words.

A tag is looked up as it is, then in lower case, singular and plural; a tag of several words or with
hyphens is the mean of its parts. All vectors that are given out are of unit length.
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
        vectors: (W, d), of any length.
    """

    index: Mapping[str, int]
    vectors: np.ndarray

    def unit(self, word: str) -> np.ndarray:
        """(d,) float32 vector of a word of the index, of unit length."""
        return _unit(self.vectors[self.index[word]])


def look_up(tag: str, lexicon: Lexicon) -> tuple[np.ndarray, str] | None:
    """Find the unit vector of a tag.

    Args:
        tag: a word, or several with blanks, hyphens or underscores between them.
        lexicon: the words that have a vector.

    Returns:
        (d,) float32 of unit length and the words it was made of, or None when a part is not known.
    """
    tag = tag.strip()
    # A name of several words may be a word of the lexicon under another spelling.
    for spelling in (tag, tag.replace(" ", "_"), tag.replace(" ", "-"), re.sub(r"[\s\-_]", "", tag)):
        if spelling and (form := _known_form(spelling, lexicon)):
            return lexicon.unit(form), form
    found = [_known_form(part, lexicon) for part in re.split(r"[\s\-_/]+", tag) if part]
    forms = [form for form in found if form is not None]
    if not forms or len(forms) < len(found):
        return None
    # The parts' own lengths say how frequent they are, not what they mean: each counts the same.
    mean = np.mean([lexicon.unit(form) for form in forms], axis=0)
    return (_unit(mean), " + ".join(forms)) if np.linalg.norm(mean) > 0 else None


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


def _unit(vector: np.ndarray) -> np.ndarray:
    return (vector / max(float(np.linalg.norm(vector)), 1e-12)).astype(np.float32)
