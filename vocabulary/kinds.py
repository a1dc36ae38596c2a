"""Make src/zerotag/words/kinds.txt: which classes of ImageNet-1k say an everyday word (a poodle: dog, pet).

The hierarchy is WordNet 3.0's, whose synsets ImageNet's classes are (Debian's package wordnet-base has its files).
kinds.txt, beside this file, corrects and adds by hand.

    python vocabulary/kinds.py FOLDER    # FOLDER holds WordNet's data.noun and index.noun
"""

import sys
from collections import defaultdict
from pathlib import Path

from timm.data import ImageNetInfo

from zerotag.words.everyday import read_words

HERE = Path(__file__).parent
EDITS = HERE / "kinds.txt"
KINDS = HERE.parent / "src" / "zerotag" / "words" / "kinds.txt"

HEADER = """\
# Words, and the classes of ImageNet-1k that say them. Made by vocabulary/kinds.py; change vocabulary/kinds.txt.
# From WordNet 3.0 (c) Princeton University, WordNet licence; edited by hand, that part is zerotag's (Apache-2.0).
"""


class WordNet:
    """Nouns of WordNet 3.0 and the classes of ImageNet-1k below them.

    Args:
        folder: holds data.noun and index.noun.
    """

    def __init__(self, folder: Path):
        self._senses = {}
        for line in (folder / "index.noun").read_text(encoding="utf-8").splitlines():
            if not line.startswith(" "):
                parts = line.split()
                self._senses[parts[0].replace("_", " ")] = parts[-int(parts[2]) :]
        above = _hypernyms(folder / "data.noun")
        self._below: dict[str, set[int]] = defaultdict(set)
        for place, label in enumerate(ImageNetInfo("imagenet-1k").label_names()):
            todo = [label.removeprefix("n")]
            while todo:
                synset = todo.pop()
                self._below[synset].add(place)
                todo += above[synset]

    def classes(self, name: str) -> set[int]:
        """Classes below a noun: below its first sense that has any, or below sense n of "noun#n"."""
        noun, _, sense = name.lower().partition("#")
        senses = self._senses.get(noun, [])
        covered = [self._below[each] for each in senses if each in self._below]
        if sense:
            return self._below[senses[int(sense) - 1]]
        return covered[0] if covered else set()


def _hypernyms(file: Path) -> dict[str, list[str]]:
    """The synsets right above each synset."""
    above = {}
    for line in file.read_text(encoding="utf-8").splitlines():
        if line.startswith(" "):
            continue
        parts = line.partition(" | ")[0].split()
        # number, file, kind, how many words (hexadecimal), each with an id, how many pointers, each of four parts
        pointers = parts[5 + 2 * int(parts[3], 16) :]
        above[parts[0]] = [pointers[at + 1] for at in range(0, len(pointers), 4) if pointers[at] in ("@", "@i")]
    return above


def read_edits(path: Path = EDITS) -> tuple[set[str], dict[str, list[str]]]:
    """Words to leave out, and names for words.

    Raises:
        ValueError: a line that is neither a heading, nor a comment, nor an edit.
    """
    without: set[str] = set()
    names: dict[str, list[str]] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        word, equals, right = line.partition(" = ")
        if not line or line.startswith(("#", "[")):
            continue
        if line.startswith("- "):
            without |= {each.strip() for each in line[2:].split(",")}
        elif equals:
            names[word] = [each.strip() for each in right.split(",")]
        else:
            raise ValueError(
                f"{path}, line {number}: {line!r} is no [heading], no # comment, no - and words, no word = …"
            )
    return without, names


def kinds(wordnet: WordNet, words: list[str], without: set[str], names: dict[str, list[str]]) -> dict[str, list[int]]:
    """Classes of each word that has any.

    Raises:
        ValueError: a name without classes, or an edit that changes nothing.
    """
    found = {word: wordnet.classes(word) for word in words}
    if idle := sorted(word for word in without if not found.pop(word, None)):
        raise ValueError(f"Left out, but they have no classes anyway: {', '.join(idle)}.")
    for word, parts in names.items():
        classes: set[int] = set()
        for part in parts:
            name = part.removeprefix("not ")
            more = wordnet.classes(name)
            if not more:
                raise ValueError(f"{word} = {part}: no class of ImageNet-1k is below that noun.")
            classes = classes - more if part != name else classes | more
        if found.get(word) == classes:
            raise ValueError(f"{word}: WordNet gives these classes anyway, delete the line.")
        found[word] = classes
    return {word: sorted(classes) for word, classes in sorted(found.items()) if classes}


def main() -> None:
    """Write the file."""
    found = kinds(WordNet(Path(sys.argv[1])), read_words(), *read_edits())
    lines = [f"{word}: {' '.join(map(str, classes))}\n" for word, classes in found.items()]
    KINDS.write_text(HEADER + "\n" + "".join(lines), encoding="utf-8", newline="\n")
    print(f"{KINDS.relative_to(HERE.parent)}: {len(found)} words")


if __name__ == "__main__":
    main()
