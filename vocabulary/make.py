"""Make src/zerotag/words/everyday.txt, the words that the starter tagger knows.

Candidates are nouns of WordNet that ImageNet's 21k and 22k label sets use, as timm carries them, as far as GloVe
says that they are common. Most are no words for a photo, and most of a photo's words are not among them: edits.txt,
written by hand, takes words out and puts words in.

    python vocabulary/make.py                 # write the file again
    python vocabulary/make.py --candidates    # print the candidates of each heading, the most frequent first
"""

import sys
from collections import Counter
from pathlib import Path

from timm.data import ImageNetInfo

from zerotag.words.vectors import GLOVE, load_lexicon

HERE = Path(__file__).parent
EDITS = HERE / "edits.txt"
EVERYDAY = HERE.parent / "src" / "zerotag" / "words" / "everyday.txt"

# WordNet 3.0 numbers its nouns by topic (its lexicographer files), so a synset's number says what kind of thing it is:
# first and last number, the heading that its words go under, and the rank in GloVe below which a word is common enough.
# Artifacts are the fewest: "saw", "can" and "court" are things too, and the more frequent a word, the likelier that it
# has another meaning. People are left out on purpose: that topic is full of what one does not call a person.
TOPICS = (
    (1313093, 2662993, "animals", 30_000),
    (2663211, 4615644, "objects", 9_000),
    (7555000, 7937621, "food and drink", 20_000),
    (9186592, 9478210, "landscape and nature", 30_000),
    (11530008, 13239921, "plants", 30_000),
)

HEADER = """\
# Everyday photo words: one a line, under headings. Made by vocabulary/make.py; change vocabulary/edits.txt, not this.
# From nouns of WordNet 3.0 (c) Princeton University, WordNet licence, as timm (Apache-2.0) lists them for ImageNet's
# labels, by their rank in GloVe 6B (PDDL 1.0); edited by hand, and that part is under zerotag's licence (Apache-2.0).
"""


def candidates() -> dict[str, list[str]]:
    """Common one-word nouns of ImageNet's labels under the heading of their topic, the most frequent first."""
    ranks = load_lexicon(GLOVE).index  # most frequent first
    # The 12k set is those labels of the 21k set that have many photos: what is not photographed is not in it.
    photographed = set(ImageNetInfo("imagenet-12k").label_names())
    labels = {
        label: info.label_name_to_description(label)
        for info in (ImageNetInfo("imagenet-21k-goog"), ImageNetInfo("imagenet-22k"))
        for label in info.label_names()
        if label in photographed
    }
    found: dict[str, set[str]] = {heading: set() for _, _, heading, _ in TOPICS}
    for label, description in labels.items():
        # The lemmas of a synset are alternatives, the usual one first.
        word = description.split(", ")[0]
        for first, last, heading, common in TOPICS:
            if first <= int(label[1:]) <= last and word.isalpha() and ranks.get(word.lower(), common) < common:
                found[heading].add(word)
    return {heading: sorted(words, key=lambda word: (ranks[word.lower()], word)) for heading, words in found.items()}


def read_edits(path: Path = EDITS) -> dict[str, dict[str, list[str]]]:
    """What is taken out ("-") and put in ("+") under each heading.

    Raises:
        ValueError: a line that is neither a heading, nor a comment, nor words to take out or put in.
    """
    edits: dict[str, dict[str, list[str]]] = {}
    heading = None
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        line = line.strip()
        if line.startswith("[") and line.endswith("]"):
            heading = line[1:-1]
            edits[heading] = {"-": [], "+": []}
        elif line.startswith(("- ", "+ ")) and heading:
            edits[heading][line[0]] += [word for part in line[2:].split(",") if (word := part.strip())]
        elif line and not line.startswith("#"):
            raise ValueError(f"{path}, line {number}: {line!r} is no [heading], no # comment, no - or + and words.")
    return edits


def edited(found: dict[str, list[str]], edits: dict[str, dict[str, list[str]]]) -> dict[str, list[str]]:
    """The words under each heading, alphabetically: candidates less those taken out, and those put in.

    A candidate that is put in under another heading moves there.

    Raises:
        ValueError: an edit that changes nothing (a word taken out that is no candidate of that heading, or put in where
            it is already), or a word that comes out twice.
    """
    moved = {word for edit in edits.values() for word in edit["+"]}
    words = {}
    for heading, edit in edits.items():
        here = set(found.get(heading, []))
        idle = [*(set(edit["-"]) - here), *(set(edit["+"]) & here)]
        if idle:
            raise ValueError(f"[{heading}]: edits that change nothing, delete them: {', '.join(sorted(idle))}.")
        words[heading] = sorted([*(here - set(edit["-"]) - moved), *edit["+"]], key=lambda word: (word.lower(), word))
    times = Counter(word for group in words.values() for word in group)
    if twice := sorted(word for word, count in times.items() if count > 1):
        raise ValueError(f"There twice, take one out: {', '.join(twice)}.")
    return words


def text(words: dict[str, list[str]]) -> str:
    """The file: its header, then each heading with its words below."""
    return HEADER + "".join(f"\n# {heading}\n" + "".join(f"{w}\n" for w in group) for heading, group in words.items())


def main() -> None:
    """Write the file, or print the candidates."""
    if sys.argv[1:] == ["--candidates"]:
        for heading, group in candidates().items():
            print(f"[{heading}] {', '.join(group)}\n")
        return
    words = edited(candidates(), read_edits())
    EVERYDAY.write_text(text(words), encoding="utf-8", newline="\n")
    print(f"{EVERYDAY.relative_to(HERE.parent)}: {sum(map(len, words.values()))} words")


if __name__ == "__main__":
    main()
