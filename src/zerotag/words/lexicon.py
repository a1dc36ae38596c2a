"""Look up the vector of a tag in a table of word vectors.

A tag is tried in its normalised spelling (`zerotag.words.tags`), then lowercased, then in singular and plural, then as
given; a tag of several words or with hyphens is the mean of its parts.
"""

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from zerotag.words.tags import normalise_tag


@dataclass(frozen=True)
class Lexicon:
    """A table of word vectors.

    Attributes:
        index: row of each word.
        vectors: (W, d), unit length unless `words.normalise` is off.
    """

    index: Mapping[str, int]
    vectors: np.ndarray

    def vector(self, word: str) -> np.ndarray:
        """The (d,) float32 vector of a word in the index."""
        return np.asarray(self.vectors[self.index[word]], dtype=np.float32)


def look_up(tag: str, lexicon: Lexicon) -> tuple[np.ndarray, str] | None:
    """Look up the vector of a tag.

    Args:
        tag: one word, or several separated by spaces, hyphens or underscores.
        lexicon: the word vectors.

    Returns:
        The (d,) float32 vector and the words it was composed of, or None if a part is unknown.
    """
    if hit := look_up_word(tag, lexicon):
        return hit
    known: list[str] = []
    for part in re.split(r"[\s\-_/]+", normalise_tag(tag)):
        if part:
            forms = _forms_of_part(part, lexicon)
            if not forms:
                return None
            known += forms
    if not known:
        return None
    parts = np.stack([lexicon.vector(form) for form in known])
    # A vector's length reflects word frequency, not meaning: average unit vectors, so that all parts weigh the same.
    direction = unit(parts).mean(axis=0)
    if np.linalg.norm(direction) == 0:
        return None
    return unit(direction) * np.linalg.norm(parts, axis=1).mean(), " + ".join(known)


def _forms_of_part(part: str, lexicon: Lexicon) -> list[str]:
    """The forms of a word in the lexicon, or of its pieces if punctuation joins several; empty if one is unknown."""
    pieces = re.split(r"[\W_]+", part)
    # year's: the table may have it, only year, or years.
    for whole in (part, part.removesuffix("'s"), part.replace("'", "")):
        if whole and (form := _known_form(whole, lexicon)):
            return [form]
    forms = [_known_form(piece, lexicon) for piece in pieces if piece]
    return [form for form in forms if form] if len(forms) > 1 and all(forms) else []


def look_up_word(tag: str, lexicon: Lexicon) -> tuple[np.ndarray, str] | None:
    """Look up a tag that is a single word of the lexicon, in any form.

    Returns:
        The (d,) float32 vector and the form in the lexicon, or None.
    """
    normal = normalise_tag(tag)
    # The lexicon may hold a compound as one word, spelled another way.
    spellings = (normal, normal.replace(" ", "_"), normal.replace(" ", "-"), re.sub(r"[\s\-_]", "", normal))
    for spelling in (*spellings, tag.strip(), unicodedata.normalize("NFD", normal)):
        if spelling and (form := _known_form(spelling, lexicon)):
            return lexicon.vector(form), form
    return None


def _known_form(word: str, lexicon: Lexicon) -> str | None:
    """The first form of a word in the lexicon: case variants, then singular and plural."""
    cases = [word, word.lower(), word.capitalize(), word.upper()]
    return next((form for form in (*cases, *singular_and_plural(word.lower())) if form in lexicon.index), None)


def singular_and_plural(word: str) -> list[str]:
    """What may be the singular or the plural of an English word in lower case, by its ending."""
    forms = []
    if word.endswith("ies"):
        forms.append(word[:-3] + "y")
    if word.endswith("es"):
        forms.append(word[:-2])
    if word.endswith("s"):
        forms.append(word[:-1])
    if word.endswith("y"):
        forms.append(word[:-1] + "ies")
    return [*forms, word + "s", word + "es"]


def unit(vectors: np.ndarray) -> np.ndarray:
    """Normalise rows to unit length; zero rows stay zero."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)
