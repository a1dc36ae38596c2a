"""Photographs of every kind, good and bad."""

import io
import struct
import time
import tracemalloc
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from conftest import encoded, picture
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from zerotag.data.photos import PhotoError, open_photo


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def blank_png(width: int, height: int) -> bytes:
    """A 1-bit PNG of zeros: small as a file, large as a picture."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    packer = zlib.compressobj(9)
    row = b"\0" * (1 + (width + 7) // 8)
    rows = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


# Bad ones.


@pytest.mark.parametrize(
    ("data", "problem", "mend"),
    [
        (b"", "empty", "Replace or remove it"),
        (b"these are words, not a picture\n" * 20, "not an image", "Replace or remove it"),
        (encoded()[:2000], "truncated", "Download it again"),
        (encoded()[:-2000], "truncated", "Download it again"),
        (encoded(kind="PNG")[:-3000], "truncated", "Download it again"),
        (encoded(kind="GIF")[:-3000], "truncated", "Download it again"),
    ],
    ids=["empty", "text", "short JPEG", "cut JPEG", "cut PNG", "cut GIF"],
)
def test_a_bad_file_is_named_with_the_reason(data: bytes, problem: str, mend: str) -> None:
    with pytest.raises(PhotoError) as caught:
        open_photo(data, "holiday/beach.jpg")
    message = str(caught.value)
    assert message.startswith("holiday/beach.jpg: ")
    assert problem in message and mend in message


@pytest.mark.parametrize("side", [10_001, 20_000])
def test_a_bomb_is_refused_before_it_is_decoded(side: int) -> None:
    bomb = blank_png(side, side)
    assert len(bomb) < 100_000
    open_photo(encoded(), "warm up")
    tracemalloc.start()
    started = time.perf_counter()
    with pytest.raises(PhotoError) as caught:
        open_photo(bomb, "bomb.png")
    seconds = time.perf_counter() - started
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert "bomb.png" in str(caught.value) and "pixels" in str(caught.value) and "Downscale it" in str(caught.value)
    assert peak < 1_000_000
    assert seconds < 0.5


def test_the_limit_is_the_callers() -> None:
    assert open_photo(encoded(width=160, height=120), "a.jpg", max_pixels=19_200).size == (160, 120)
    with pytest.raises(PhotoError, match="160 x 120 pixels exceed the limit of 19,199"):
        open_photo(encoded(width=160, height=120), "a.jpg", max_pixels=19_199)


@settings(max_examples=300, deadline=None)
@given(
    kind=st.sampled_from(["JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "ICO", "PPM"]),
    cut=st.floats(0, 1),
    changes=st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), max_size=6),
)
def test_damage_gives_a_picture_or_a_photo_error(kind: str, cut: float, changes: list[tuple[float, int]]) -> None:
    data = bytearray(encoded(1, kind, 24, 16))
    for place, value in changes:
        data[int(place * len(data))] = value
    try:
        opened = open_photo(bytes(data[: round(cut * len(data))]), "a.jpg", max_pixels=1_000_000)
    except PhotoError as error:
        assert str(error).startswith("a.jpg: ")
    else:
        assert opened.mode == "RGB"


# Good ones.


def test_one_pixel_decodes() -> None:
    opened = open_photo(saved(Image.new("RGB", (1, 1), (200, 100, 50)), "PNG"), "dot.png")
    assert opened.size == (1, 1) and opened.getpixel((0, 0)) == (200, 100, 50)


def test_cmyk() -> None:
    opened = open_photo(saved(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG", quality=95), "print.jpg")
    red, green, blue = opened.getpixel((8, 8))
    assert opened.mode == "RGB" and red > 200 and green < 60 and blue < 60


def test_16_bit_values_are_scaled() -> None:
    ramp = np.linspace(0, 65535, 256).round().astype(np.uint16)
    opened = open_photo(saved(Image.fromarray(np.tile(ramp, (4, 1))), "PNG"), "scan.png")
    values = np.asarray(opened)
    assert values.shape == (4, 256, 3)
    assert np.abs(values[0, :, 0].astype(int) - np.arange(256)).max() <= 1
    assert (values == values[..., :1]).all()


def test_16_bit_dark_photo_stays_dark() -> None:
    opened = open_photo(saved(Image.fromarray(np.full((4, 4), 2570, dtype=np.uint16)), "PNG"), "night.png")
    assert (np.asarray(opened) == 10).all()


def test_grey_palette_and_bilevel() -> None:
    grey = picture().convert("L")
    assert np.array_equal(np.asarray(open_photo(saved(grey, "PNG"), "grey.png"))[..., 2], np.asarray(grey))
    palette = picture().convert("P", palette=Image.Palette.ADAPTIVE)
    opened = open_photo(saved(palette, "PNG"), "palette.png")
    assert np.array_equal(np.asarray(opened), np.asarray(palette.convert("RGB")))
    assert open_photo(saved(grey.convert("1"), "PNG"), "fax.png").mode == "RGB"


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency_is_laid_on_white(mode: str) -> None:
    if mode == "P":
        image = Image.new("P", (8, 8), 0)
        image.putpalette([0, 0, 0, 255, 0, 0])
        image.paste(1, (4, 0, 8, 8))
        data = saved(image, "PNG", transparency=0)
    else:
        image = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
        image.paste((90, 90, 90, 255), (4, 0, 8, 8))
        data = saved(image.convert(mode), "PNG")
    opened = open_photo(data, "logo.png")
    assert opened.getpixel((0, 0)) == (255, 255, 255)
    assert opened.getpixel((6, 4)) == ((255, 0, 0) if mode == "P" else (90, 90, 90))


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_an_animation_gives_its_first_frame(kind: str) -> None:
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "lime", "blue")]
    options = {"lossless": True} if kind == "WEBP" else {}
    opened = open_photo(saved(frames[0], kind, save_all=True, append_images=frames[1:], **options), "moving")
    assert opened.size == (16, 16) and opened.getpixel((8, 8)) == (255, 0, 0)


UPRIGHT: dict[int, Callable[[Image.Image], Image.Image]] = {
    1: lambda image: image,
    2: lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    3: lambda image: image.transpose(Image.Transpose.ROTATE_180),
    4: lambda image: image.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
    5: lambda image: image.transpose(Image.Transpose.TRANSPOSE),
    6: lambda image: image.transpose(Image.Transpose.ROTATE_270),
    7: lambda image: image.transpose(Image.Transpose.TRANSVERSE),
    8: lambda image: image.transpose(Image.Transpose.ROTATE_90),
}


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_a_turned_photo_stands_upright(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = picture(3, 40, 24)
    opened = open_photo(saved(stored, "PNG", exif=exif), "phone.png")
    assert np.array_equal(np.asarray(opened), np.asarray(UPRIGHT[orientation](stored)))


def test_damaged_exif_does_not_matter() -> None:
    data = saved(picture(), "JPEG", exif=b"Exif\0\0MM\0\x2a\xff\xff\xff\xff broken")
    assert open_photo(data, "a.jpg").size == (160, 120)
