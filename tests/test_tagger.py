"""zerotag.Tagger: a photo's tags from a packaged model."""

from pathlib import Path

import pytest
from conftest import OTHER_WORDS, TAGS, encoded

import zerotag
from zerotag.data.photos import PhotoError
from zerotag.errors import ZerotagError


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
