"""Which classes of ImageNet-1k say an everyday word of a photo: a poodle is a dog, a pet and an animal.

vocabulary/kinds.py makes the file.
"""

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np

from zerotag.words.lexicon import singular_and_plural

FILE = Path(__file__).with_name("kinds.txt")
CLASSES = 1000
# Share of chance that a word's classes have to beat: 398 of them say "animal", and have much of the probability
# together in a photo that none of them explains. 0.2 to 0.7 hardly differ (docs/classes.md).
_CHANCE = 0.3


@cache
def read_kinds(file: Path = FILE) -> dict[str, list[int]]:
    """The classes of each word, in lower case; the file's header ends at its first empty line."""
    _, _, lines = file.read_text(encoding="utf-8").partition("\n\n")
    parts = [line.partition(": ") for line in lines.splitlines()]
    return {word.lower(): [int(place) for place in classes.split()] for word, _, classes in parts}


def kinds_of(words: Sequence[str]) -> np.ndarray:
    """What each class says for words, in the singular or the plural: (n, C) float32.

    1 where a class says the word, else 0, minus `_CHANCE` times the mean. The dot product with the classes'
    probabilities is thus what they say together, minus a share of what they would say of any photo.
    """
    table = read_kinds()
    said = np.zeros((len(words), CLASSES), dtype=np.float32)
    for row, word in enumerate(words):
        forms = [word.lower(), *singular_and_plural(word.lower())]
        if found := next((table[form] for form in forms if form in table), None):
            said[row, found] = 1
    return said - _CHANCE * said.mean(axis=1, keepdims=True)
