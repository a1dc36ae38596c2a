"""zerotag.Tagger: a photo's tags from a packaged model."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from conftest import OTHER_WORDS, TAGS, encoded, picture, with_plural
from PIL import Image

import zerotag
from zerotag.data.photos import PhotoError, to_pixels
from zerotag.errors import ZerotagError
from zerotag.serving.scoring import score
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


def test_by_default_a_persons_tags(packaged: Path, tmp_path: Path) -> None:
    """Probable ones of the model's own vocabulary, with other forms of a word folded into it."""
    tagger = zerotag.Tagger(with_plural(packaged, tmp_path / "served", 0.5, 0.0))
    principal, own = tagger.embed(encoded(2), "photo"), tagger.words()
    every = tagger.rank(principal, own, 100, everything=True)
    assert len(every) == len(TAGS) and not any(each.also for each in every)
    bar = sorted(each.probability for each in every)[4]
    probable = [each for each in every if each.probability >= bar]
    found = tagger.rank(principal, own, 100, bar)
    forms = [each.tag for each in probable if each.tag in ("cat", "cats")]
    assert [each.tag for each in found] == [each.tag for each in probable if each.tag not in forms[1:]]
    assert {each.tag: each.also for each in found if each.also} == ({forms[0]: ("cats",)} if len(forms) > 1 else {})
    # The threshold is 0.2 unless it is given.
    assert tagger.rank(principal, own, 100) == tagger.rank(principal, own, 100, 0.2)
    assert [each.tag for each in every if each.probability >= bar] == [
        each.tag for each in tagger.rank(principal, own, 100, bar, everything=True)
    ]


def test_folded_words_stay_with_the_better_one(packaged: Path, tmp_path: Path) -> None:
    tagger = zerotag.Tagger(with_plural(packaged, tmp_path / "served", 0.0, 2.0))  # all are probable
    for seed in range(4):
        principal = tagger.embed(encoded(seed), "photo")
        every = [each.tag for each in tagger.rank(principal, tagger.words(), 100, everything=True)]
        better, worse = sorted(("cat", "cats"), key=every.index)
        found = tagger.rank(principal, tagger.words(), 100)
        assert [each.tag for each in found] == [tag for tag in every if tag != worse]
        assert {each.tag: each.also for each in found if each.also} == {better: (worse,)}
        # The best tags are cut after folding.
        assert [each.tag for each in tagger.rank(principal, tagger.words(), 3)] == [each.tag for each in found[:3]]
        folded = tagger.tag(encoded(seed), "photo")
        assert [each.tag for each in folded] == [each.tag for each in found[:10]]


def test_words_that_were_asked_for_are_all_answered(packaged: Path, tmp_path: Path) -> None:
    tagger = zerotag.Tagger(with_plural(packaged, tmp_path / "served", 0.0, -3.0))  # none is probable
    asked = ["cat", "cats", "boat", "sky"]
    found = tagger.tag(encoded(2), "photo", asked)
    assert sorted(each.tag for each in found) == sorted(asked) and not any(each.also for each in found)
    assert found[0].probability == pytest.approx(1 / (1 + math.exp(3)))
    assert tagger.tag(encoded(2), "photo", asked, threshold=0.2) == []
    assert tagger.tag(encoded(2), "photo") == [] == tagger.tag(encoded(2), "photo", task="unseen")
    assert len(tagger.tag(encoded(2), "photo", everything=True)) == 10
    assert len(tagger.tag(encoded(2), "photo", threshold=0.0)) == 10


# A photo's pixels.


def test_without_a_crop_the_whole_photo_is_squeezed() -> None:
    photo = picture(1, 97, 41)
    squeezed = np.asarray(photo.resize((32, 32), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(to_pixels(photo, 32), squeezed)
    np.testing.assert_array_equal(to_pixels(photo, 32, 0.0), squeezed)


@pytest.mark.parametrize(
    ("size", "box"), [((96, 40), (28, 0, 68, 40)), ((40, 96), (0, 28, 40, 68)), ((50, 50), (0, 0, 50, 50))]
)
def test_a_whole_crop_leaves_a_square(size: tuple[int, int], box: tuple[int, int, int, int]) -> None:
    photo = picture(1, *size)
    expected = np.asarray(photo.crop(box).resize((32, 32), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(to_pixels(photo, 32, 1.0), expected)


def test_half_a_crop_is_geometric() -> None:
    # 160 x 40: the longer side becomes sqrt(160 * 40) = 80, 40 pixels less at each end.
    photo = picture(1, 160, 40)
    expected = np.asarray(photo.crop((40, 0, 120, 40)).resize((32, 32), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(to_pixels(photo, 32, 0.5), expected)
    turned = np.asarray(photo.transpose(Image.Transpose.ROTATE_90).crop((0, 40, 40, 120)).resize((32, 32), 2))
    np.testing.assert_array_equal(to_pixels(photo.transpose(Image.Transpose.ROTATE_90), 32, 0.5), turned)


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (3, 2)])
def test_a_crop_of_any_photo(size: tuple[int, int]) -> None:
    for crop in (0.0, 0.3, 0.5, 1.0):
        assert to_pixels(Image.new("RGB", size), 8, crop).shape == (8, 8, 3)


def test_a_package_names_its_crop(packaged: Path, tmp_path: Path) -> None:
    folder = with_plural(packaged, tmp_path / "served", 1.0, 0.0)
    info = json.loads((folder / "tagger.json").read_text())
    (folder / "tagger.json").write_text(json.dumps({**info, "crop": 0.5}))
    photo = encoded(3, "PNG", 160, 40)
    np.testing.assert_array_equal(
        zerotag.Tagger(folder).pixels(photo, "photo"), to_pixels(picture(3, 160, 40), 64, 0.5)
    )  # fmt: skip
    np.testing.assert_array_equal(zerotag.Tagger(packaged).pixels(photo, "photo"), to_pixels(picture(3, 160, 40), 64))


def test_two_views_average_a_photo_and_its_mirror_image(packaged: Path) -> None:
    one, two = zerotag.Tagger(packaged), zerotag.Tagger(packaged, views=2)
    pixels = np.stack([to_pixels(picture(seed, 90, 60), 64) for seed in (1, 2)])
    expected = (one.principal_vectors(pixels) + one.principal_vectors(pixels[:, :, ::-1])) / 2
    np.testing.assert_allclose(two.principal_vectors(pixels), expected, atol=1e-6)
    np.testing.assert_allclose(two.principal_vectors(pixels[:, :, ::-1]), expected, atol=1e-5)
    with pytest.raises(ZerotagError, match="views = 3: use 1, or 2"):
        zerotag.Tagger(packaged, views=3).principal_vectors(pixels)


@pytest.mark.parametrize(("rows", "dimensions", "tags"), [(1, 2000, 300), (3, 50, 7), (7, 300, 925), (2, 384, 1)])
def test_scores_are_the_formulas_and_do_not_depend_on_other_photos(rows: int, dimensions: int, tags: int) -> None:
    random = np.random.default_rng(rows)
    matrices = random.normal(size=(9, rows, dimensions)).astype(np.float32)
    vectors = random.normal(size=(tags, dimensions)).astype(np.float32)
    scores, winner = score(matrices, vectors)
    products = np.array([[[row @ vector for vector in vectors] for row in matrix] for matrix in matrices.astype(float)])
    assert scores == pytest.approx(products.max(axis=1), abs=1e-3)
    assert np.take_along_axis(products, winner[:, None], axis=1)[:, 0] == pytest.approx(scores, abs=1e-3)
    for photo in range(9):
        alone = score(matrices[photo], vectors)
        several = score(matrices[photo : photo + 2], vectors)
        for whole, one, two in zip((scores, winner), alone, several, strict=True):
            assert np.array_equal(one, whole[photo]) and np.array_equal(two, whole[photo : photo + 2])
