"""One spelling for every tag, whichever source it comes from and whoever types it."""

import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence

# Spellings of the hyphen and the apostrophe.
_HYPHENS = "\u2010\u2011\u2012\u2013\u2014\u2015\u2212\ufe63\uff0d"
_APOSTROPHES = "\u2018\u2019\u201b\u02bc\u02b9\u00b4\u0060\uff07"
_SAME_SIGN = str.maketrans({**dict.fromkeys(_HYPHENS, "-"), **dict.fromkeys(_APOSTROPHES, "'")})
_JOINERS = "\u200c\u200d"
# Of emoji, beside symbols (So) and skin colours (Sk).
_MODIFIERS = frozenset((*_JOINERS, "\ufe0f", "\u20e3"))
# Separators wherever they stand, beside brackets and quotation marks.
_SEPARATORS = frozenset("_,;|\\")
_MARKS = frozenset("^~=<>")


def normalise_tag(text: str) -> str:
    """The spelling of a tag, with its case.

    Unicode is composed (NFC), invisible characters go, blanks are single. Underscores, brackets, quotation marks,
    commas and semicolons separate words; other punctuation goes at both ends of a word and stays inside it. Symbols
    such as emoji go if a word remains. `car_(sedan)` gives "car sedan", `#sunset` "sunset", `black & white`
    "black white"; `new year's eve`, `t-shirt` and `u.s.` stay as they are.

    Returns:
        The tag; empty if nothing but punctuation is given.
    """
    composed = unicodedata.normalize("NFC", text).translate(_SAME_SIGN)
    signs: list[str] = []
    for place, sign in enumerate(composed):
        category = unicodedata.category(sign)
        if sign in _JOINERS:
            # They join emoji, and shape the letters of some scripts; elsewhere they are invisible.
            if signs and unicodedata.category(composed[place - 1]) in ("Lo", "Mn", "Mc", "So", "Sk"):
                signs.append(sign)
        elif category == "Cf":
            continue
        elif sign == "," and composed[place - 1 : place].isdigit() and composed[place + 1 : place + 2].isdigit():
            signs.append(sign)  # 1,000
        elif category in ("Cc", "Zs", "Zl", "Zp", "Ps", "Pe", "Pi", "Pf") or sign in _SEPARATORS or sign == '"':
            signs.append(" ")
        else:
            signs.append(sign)
    words = [word for part in "".join(signs).split() if (word := _bare(part))]
    named = [word for word in map(_without_symbols, words) if any(sign.isalnum() for sign in word)]
    return " ".join(named or words)


def _bare(word: str) -> str:
    """A word without punctuation at its ends; an abbreviation such as u.s. keeps its last point."""
    start, end = 0, len(word)
    while start < end and _is_mark(word[start]):
        start += 1
    while end > start and _is_mark(word[end - 1]):
        end -= 1
    bare = word[start:end]
    return f"{bare}." if re.fullmatch(r"(\w\.)+\w", bare) and word[end : end + 1] == "." else bare


def _is_mark(sign: str) -> bool:
    return sign in _MARKS or unicodedata.category(sign).startswith("P")


def _without_symbols(word: str) -> str:
    """A word without emoji and their modifiers."""
    if word.isascii() or word.isalpha():
        return word
    return _bare("".join(sign for sign in word if not _is_symbol(sign)))


def _is_symbol(sign: str) -> bool:
    return sign in _MODIFIERS or unicodedata.category(sign) in ("So", "Sk")


def tag_key(text: str) -> str:
    """What two spellings of one tag have in common: the normalised tag without case; empty if none is left."""
    return unicodedata.normalize("NFC", normalise_tag(text).casefold())


def one_spelling(counts: Mapping[str, int]) -> tuple[dict[str, str], dict[str, list[str]]]:
    """Choose one spelling for all tags that have the same key: the commonest, at a tie the one in lower case.

    Args:
        counts: number of photos by the spelling that a source gives.

    Returns:
        The tag of each spelling, without those that name nothing; and for each tag that is spelled in any other way
        than its own, all its spellings.
    """
    spellings: dict[str, list[str]] = {}
    for given in counts:
        if key := tag_key(given):
            spellings.setdefault(key, []).append(given)
    tags, merged = {}, {}
    for given_ones in spellings.values():
        votes: Counter[str] = Counter()
        for given in given_ones:
            votes[normalise_tag(given)] += counts[given]
        tag = min(votes, key=lambda each: (-votes[each], each != each.lower(), each))
        tags.update(dict.fromkeys(given_ones, tag))
        if given_ones != [tag]:
            merged[tag] = sorted(given_ones)
    return tags, merged


def with_one_spelling(tags_of_photos: Sequence[Sequence[str]]) -> tuple[list[list[str]], dict[str, list[str]]]:
    """The photos' tags in one spelling each, see `one_spelling`; tags that name nothing are dropped."""
    tags, merged = one_spelling(Counter(tag for given in tags_of_photos for tag in dict.fromkeys(given)))
    return [list(dict.fromkeys(tags[tag] for tag in given if tag in tags)) for given in tags_of_photos], merged
