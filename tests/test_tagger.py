"""zerotag.Tagger: a photo's tags from a packaged model."""

from pathlib import Path

import pytest
from conftest import OTHER_WORDS, TAGS, encoded

import zerotag
from zerotag.data.photos import PhotoError
from zerotag.errors import ZerotagError
from zerotag.serving.tagger import split_words


def test_tagger(packaged: Path) -> None:
    tagger = zerotag.Tagger(packaged)
    found = tagger.tag(encoded(2), "photo", top=100, everything=True)
    assert {each.tag for each in found} == set(TAGS)
    assert {each.tag for each in found if not each.seen} == {"dog", "sea", "tree"}
    scores = [each.score for each in found]
    assert scores == sorted(scores, reverse=True)
    principal = tagger.embed(encoded(2), "photo")
    for each in found:
        vector = tagger.vocabulary.vectors[TAGS.index(each.tag)]
        assert each.score == pytest.approx((principal @ vector).max(), abs=1e-5)
        assert each.principal_vector == (principal @ vector).argmax()
    own = tagger.tag(encoded(2), "photo", [OTHER_WORDS[0], "sky"])
    assert {each.tag: each.seen for each in own} == {"boat": None, "sky": True}
    with pytest.raises(PhotoError):
        tagger.tag(b"", "photo")
    with pytest.raises(ZerotagError, match="seen in training"):
        tagger.words(["sky"], "unseen")


def test_a_tag_in_any_spelling(packaged: Path) -> None:
    tagger = zerotag.Tagger(packaged)
    sky = tagger.tag(encoded(2), "photo", ["sky"])[0]
    for spelling in ("Sky", "#SKY", "sky.", "s\u00adky", "(sky)"):
        found = tagger.tag(encoded(2), "photo", [spelling, "boat"])
        (same,) = [each for each in found if each.tag == spelling]
        assert (same.score, same.seen, same.made_of) == (sky.score, True, "sky")
        assert same.probability == sky.probability  # its own line
    assert tagger.words(["Boat", "boat", "#boat"]).words == ["Boat"]
    assert tagger.words(["sailing boats & (boat)", "boat"]).missing == ["sailing boats & (boat)"]
    assert split_words(['["lake", "boat, old"]', "sea, sand", " "]) == ["lake", "boat, old", "sea", "sand"]
    for text in ('["lake"', "[1]", '[["lake"]]'):
        with pytest.raises(ZerotagError, match="not a JSON list of words"):
            split_words([text])
