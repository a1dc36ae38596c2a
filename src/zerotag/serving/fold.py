"""Fold near-synonyms of an answer into one tag: car, cars and auto are one thing to say of a photo."""

from collections.abc import Sequence

import numpy as np

from zerotag.words.lexicon import singular_and_plural, unit

# Cosine of MiniLM's word vectors above which two words say the same of a photo: sea and ocean 0.87, beach and sandy
# beach 0.88, skis and skiing 0.87; but dog and animal 0.84, bear and brown bear 0.83, beach and sand 0.75.
LIKENESS = 0.85
# A more general word names a group if its score falls short of the best one's by at most this share of it.
_NEARLY = 0.25


def fold(words: Sequence[str], vectors: np.ndarray | None, scores: np.ndarray) -> list[list[int]]:
    """Group words, the best first.

    A word joins the first group whose best word it is another form of, or resembles. A group is named by the word
    that is most like its others, among those that score nearly as well as its best: dog before poodle and spaniel, but
    polar bear where bear scores far less.

    Args:
        words: n words, in descending order of score.
        vectors: (n, d) their word vectors from a text encoder; None if they cannot be compared by cosine.
        scores: (n,).

    Returns:
        Groups of places among the n, each with the one that names it first, in descending order of its score.
    """
    forms = [{word.lower(), *singular_and_plural(word.lower())} for word in words]
    directions = np.zeros((len(words), 1)) if vectors is None else unit(vectors)
    alike = directions @ directions.T
    np.fill_diagonal(alike, 1)  # exactly, or rounding would name a group of two
    groups: list[list[int]] = []
    for place in range(len(words)):
        for group in groups:
            if words[place].lower() in forms[group[0]] or alike[place, group[0]] >= LIKENESS:
                group.append(place)
                break
        else:
            groups.append([place])
    named = [_named(group, alike, scores) for group in groups]
    return sorted(named, key=lambda group: scores[group[0]], reverse=True)


def _named(group: list[int], alike: np.ndarray, scores: np.ndarray) -> list[int]:
    if len(group) == 1:
        return group
    best = scores[group[0]]
    near = [place for place in group if scores[place] >= best - _NEARLY * abs(best)]
    name = max(near, key=lambda place: alike[place, group].mean())
    return [name, *(place for place in group if place != name)]
