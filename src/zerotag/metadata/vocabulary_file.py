"""A person's own vocabulary: a text file with one keyword a line, as Lightroom exports its keyword list.

::

    Animals                      a keyword
    <tab>Dog                     below Animals: written as Animals|Dog
    <tab><tab>{hound}            a synonym of Dog
    <tab>Cat<tab>{kitten, tom}<tab>0.4    its synonyms and its threshold, in two further columns
    [Places]                     in brackets: only a heading, never a tag itself

A synonym helps to find a keyword, and the keyword is given: `Hund {dog}` tags in German with English word vectors.
"""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from zerotag.errors import ZerotagError

_LONGEST = 200
_BRACES = re.compile(r"\{([^{}]*)\}")


@dataclass
class Keyword:
    """A keyword.

    Attributes:
        name: as it is given.
        path: the keyword with its parents.
        line: in the file.
        synonyms: other words for it.
        threshold: minimum probability; None for that of the command.
    """

    name: str
    path: tuple[str, ...]
    line: int
    synonyms: list[str]
    threshold: float | None = None


@dataclass(frozen=True)
class VocabularyFile:
    """A person's vocabulary.

    Attributes:
        file: where it was read from.
        keywords: in the file's order, without headings.
    """

    file: Path
    keywords: list[Keyword]

    @cached_property
    def words(self) -> list[str]:
        """All keywords and synonyms, once each."""
        return list(dict.fromkeys(word for each in self.keywords for word in (each.name, *each.synonyms)))

    @cached_property
    def path(self) -> dict[str, tuple[str, ...]]:
        """Path of each keyword; the name alone of one that has several places in the hierarchy."""
        places = Counter(each.name for each in self.keywords)
        return {each.name: each.path if places[each.name] == 1 else (each.name,) for each in self.keywords}

    def report(self, known: Iterable[str]) -> list[str]:
        """What a person should know of the file, one line each.

        Args:
            known: the words that have a vector.
        """
        vectors = set(known)
        lines = []
        lost = [each for each in self.keywords if not vectors & {each.name, *each.synonyms}]
        if lost:
            some = ", ".join(f"{each.name} (line {each.line})" for each in lost[:20])
            more = f" and {len(lost) - 20} more" * (len(lost) > 20)
            lines.append(
                f"{self.file}: {len(lost)} of {len(self.keywords)} keywords have no vector and are never given: "
                f"{some}{more}. Add synonyms in braces."
            )
        if several := [name for name, count in Counter(each.name for each in self.keywords).items() if count > 1]:
            lines.append(f"{self.file}: written without parents, as they have several: {', '.join(several[:20])}.")
        return lines


def read_vocabulary(file: Path) -> VocabularyFile:
    """Read a vocabulary.

    Raises:
        ZerotagError: it cannot be read, or a line is invalid; the message names the line.
    """
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ZerotagError(f"{file}: cannot be read ({error}). Save it as UTF-8 text, one keyword a line.") from error
    keywords: list[Keyword] = []
    parents: list[Keyword] = []  # the last keyword or heading at each depth
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"{file}, line {number}"
        depth = len(line) - len(line.lstrip("\t"))
        columns = [column.strip() for column in line.strip().split("\t")]
        if depth > len(parents):
            raise ZerotagError(f"{where}: {columns[0]} has {depth} tabs, but nothing above it is its parent.")
        if columns[0].startswith("{"):
            if not depth:
                raise ZerotagError(f"{where}: the synonym {columns[0]} belongs to no keyword. Put tabs before it.")
            parents[depth - 1].synonyms += _synonyms(columns[0], where)
            continue
        name, heading = _name(columns[0], where)
        synonyms = _synonyms(columns[1], where) if len(columns) > 1 and columns[1] else []
        threshold = _threshold(columns[2], where) if len(columns) > 2 and columns[2] else None
        if len(columns) > 3:
            raise ZerotagError(f"{where}: has {len(columns)} columns; the three are keyword, {{synonyms}}, threshold.")
        above = parents[depth - 1].path if depth else ()
        keyword = Keyword(name, (*above, name), number, synonyms, threshold)
        parents[depth:] = [keyword]
        if not heading:
            keywords.append(keyword)
    if not keywords:
        raise ZerotagError(f"{file}: has no keyword. Write one on each line.")
    return VocabularyFile(file, keywords)


def _name(text: str, where: str) -> tuple[str, bool]:
    """The keyword without its brackets, and whether it had some."""
    heading = text.startswith("[") and text.endswith("]")
    name = text[1:-1].strip() if heading else text
    name = name.removeprefix("~")  # Lightroom's mark of a keyword that is not sorted
    if not name or len(name) > _LONGEST:
        raise ZerotagError(f"{where}: a keyword has 1 to {_LONGEST} characters.")
    return name, heading


def _synonyms(text: str, where: str) -> list[str]:
    if _BRACES.sub("", text).strip():
        raise ZerotagError(
            f"{where}: {text!r} is not a synonym in braces, such as {{hound}}. A threshold is the third."
        )
    found = [word.strip() for group in _BRACES.findall(text) for word in group.split(",")]
    if any(len(word) > _LONGEST for word in found):
        raise ZerotagError(f"{where}: a synonym has at most {_LONGEST} characters.")
    return [word for word in found if word]


def _threshold(text: str, where: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise ZerotagError(f"{where}: the threshold {text!r} is not a probability from 0 to 1.")
    return value
