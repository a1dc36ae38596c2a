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


@cache
def read_kinds(file: Path = FILE) -> dict[str, list[int]]:
    """The classes of each word, in lower case; the file's header ends at its first empty line."""
    _, _, lines = file.read_text(encoding="utf-8").partition("\n\n")
    parts = [line.partition(": ") for line in lines.splitlines()]
    return {word.lower(): [int(place) for place in classes.split()] for word, _, classes in parts}


def kinds_of(words: Sequence[str]) -> np.ndarray:
    """(n, C) float32: 1 where a class says a word, in the singular or the plural; 0 for words that none says."""
    table = read_kinds()
    said = np.zeros((len(words), CLASSES), dtype=np.float32)
    for row, word in enumerate(words):
        forms = [word.lower(), *singular_and_plural(word.lower())]
        if found := next((table[form] for form in forms if form in table), None):
            said[row, found] = 1
    return said
