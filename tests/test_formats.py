"""Every format and oddity that a photo library holds: tagged, or refused with the mend."""

import io
import struct
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import PROJECT, encoded, picture
from PIL import Image, ImageCms
from typer.testing import CliRunner

from zerotag.cli import app
from zerotag.data.photos import PhotoError, is_srgb, open_photo

# A HEIC of 64 x 48 pixels, red beside blue, that is turned by a quarter (made with pillow-heif).
TURNED = PROJECT / "tests" / "photos" / "turned.heic"
RED, BLUE = (200, 30, 30), (30, 30, 200)


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def halves(width: int = 64, height: int = 48) -> Image.Image:
    """Red beside blue."""
    image = Image.new("RGB", (width, height), RED)
    image.paste(BLUE, (width // 2, 0, width, height))
    return image


def profile(*primaries: tuple[float, float, float]) -> bytes:
    """An ICC profile of linear light with these primaries for red, green and blue (XYZ, adapted to D50)."""

    def number(value: float) -> bytes:
        return struct.pack(">i", round(value * 65536))

    def xyz(values: tuple[float, float, float]) -> bytes:
        return b"XYZ \0\0\0\0" + b"".join(map(number, values))

    text = b"text\0\0\0\0none\0\0\0\0"
    tags = {
        b"desc": b"desc\0\0\0\0" + struct.pack(">I", 5) + b"none\0" + bytes(78) + b"\0",
        b"cprt": text,
        b"wtpt": xyz((0.9642, 1.0, 0.8249)),
        **{name: xyz(values) for name, values in zip((b"rXYZ", b"gXYZ", b"bXYZ"), primaries, strict=True)},
        **dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), b"curv\x00\x00\x00\x00\x00\x00\x00\x00"),
    }
    table, body, start = b"", b"", 128 + 4 + 12 * len(tags)
    for name, data in tags.items():
        table += name + struct.pack(">II", start + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    rest = struct.pack(">I", len(tags)) + table + body
    d50 = b"".join(map(number, (0.9642, 1.0, 0.8249)))
    header = struct.pack(">I4sI4s4s4s", 128 + len(rest), b"none", 0x02100000, b"mntr", b"RGB ", b"XYZ ")
    header += bytes(12) + b"acsp" + bytes(28) + d50
    return header.ljust(128, b"\0") + rest


SRGB_PRIMARIES = ((0.4361, 0.2225, 0.0139), (0.3851, 0.7169, 0.0971), (0.1431, 0.0606, 0.7141))


def raw(preview: bytes = b"", turned: int = 1) -> bytes:
    """A DNG of 64 x 64 sensor values, with a JPEG of 128 x 96 pixels as its preview."""
    side = 64
    sensor = np.full((side, side), 2000, dtype="<u2").tobytes()
    blobs: list[bytes] = []

    def entries(tags: list[tuple[int, int, object]], at: int) -> bytes:
        """An image file directory; values that do not fit go behind everything, at `at`."""
        out = struct.pack("<H", len(tags))
        for tag, kind, value in sorted(tags):
            values = value if isinstance(value, (tuple, bytes)) else (value,)
            if kind in (1, 2):
                data = bytes(values)
            elif kind == 5:
                data = b"".join(struct.pack("<II", *pair) for pair in values)
            elif kind == 10:
                data = b"".join(struct.pack("<ii", *pair) for pair in values)
            else:
                data = struct.pack(f"<{len(values)}{'H' if kind == 3 else 'I'}", *values)
            count = len(values)
            if len(data) > 4:
                place = at + sum(map(len, blobs))
                blobs.append(data + bytes(len(data) % 2))
                data = struct.pack("<I", place)
            out += struct.pack("<HHI", tag, kind, count) + data.ljust(4, b"\0")
        return out + bytes(4)

    first, second, start = 8, 600, 1000
    preview_at = start + 600
    sensor_at = preview_at + len(preview) + len(preview) % 2
    shared = [
        (271, 2, b"Maker\0"), (272, 2, b"Camera\0"), (274, 3, turned), (50706, 1, bytes((1, 4, 0, 0))),
        (50708, 2, b"Maker Camera\0"),
        (50721, 10, ((1, 1), (0, 1), (0, 1), (0, 1), (1, 1), (0, 1), (0, 1), (0, 1), (1, 1))), (50778, 3, 21),
        (50728, 5, ((1, 1), (1, 1), (1, 1))),
    ]  # fmt: skip
    values = [
        (254, 4, 0), (256, 4, side), (257, 4, side), (258, 3, 16), (259, 3, 1), (262, 3, 32803), (273, 4, sensor_at),
        (277, 3, 1), (278, 4, side), (279, 4, len(sensor)), (33421, 3, (2, 2)), (33422, 1, bytes((0, 1, 1, 2))),
        (50714, 3, 0), (50717, 3, 4000),
    ]  # fmt: skip
    if preview:
        width, height = Image.open(io.BytesIO(preview)).size
        one = entries(
            [
                (254, 4, 1), (256, 4, width), (257, 4, height), (258, 3, (8, 8, 8)), (259, 3, 7), (262, 3, 6),
                (273, 4, preview_at), (277, 3, 3), (278, 4, height), (279, 4, len(preview)), (330, 4, second), *shared,
            ],
            start,
        )  # fmt: skip
        two = entries(values, start)
    else:
        one, two = entries([*values, *shared], start), b""
    data = struct.pack("<2sHI", b"II", 42, first) + one
    data = data.ljust(second, b"\0") + two
    data = data.ljust(start, b"\0") + b"".join(blobs)
    return data.ljust(preview_at, b"\0") + preview.ljust(sensor_at - preview_at, b"\0") + sensor


def sixteen_bits() -> Image.Image:
    return Image.fromarray(np.tile(np.linspace(0, 65535, 64).astype(np.uint16), (48, 1)))


def palette() -> Image.Image:
    image = halves().convert("P", palette=Image.Palette.ADAPTIVE)
    image.info["transparency"] = 0
    return image


# Name, and how it is made.
GOOD: dict[str, Callable[[], bytes]] = {
    "a.jpg": lambda: saved(halves(), "JPEG"),
    "a.JPEG": lambda: saved(halves(), "JPEG", progressive=True),
    "a.jfif": lambda: saved(halves(), "JPEG"),
    "two.mpo": lambda: saved(halves(), "MPO", save_all=True, append_images=[picture()]),
    "a.png": lambda: saved(halves(), "PNG"),
    "palette.png": lambda: saved(palette(), "PNG"),
    "16-bit.png": lambda: saved(sixteen_bits(), "PNG"),
    "a.gif": lambda: saved(halves(), "GIF", save_all=True, append_images=[picture()]),
    "a.webp": lambda: saved(halves(), "WEBP"),
    "a.avif": lambda: saved(halves(), "AVIF"),
    "phone.heic": TURNED.read_bytes,
    "camera.HIF": TURNED.read_bytes,
    "a.jp2": lambda: saved(halves(), "JPEG2000"),
    "a.j2k": lambda: saved(halves(), "JPEG2000", no_jp2=True),
    "a.bmp": lambda: saved(halves(), "BMP"),
    "a.tif": lambda: saved(halves(), "TIFF", compression="tiff_lzw"),
    "lab.tiff": lambda: saved(Image.new("LAB", (64, 48), (160, 150, 150)), "TIFF"),
    "print.jpg": lambda: saved(halves().convert("CMYK"), "JPEG"),
    "a.ppm": lambda: saved(halves(), "PPM"),
    "a.tga": lambda: saved(halves(), "TGA"),
    "preview.dng": lambda: raw(saved(halves(128, 96), "JPEG")),
    "no-preview.dng": raw,
    "heic-by-name.jpg": TURNED.read_bytes,
    "jpeg-by-name.heic": lambda: saved(halves(), "JPEG"),
    "profile.jpg": lambda: saved(halves(), "JPEG", icc_profile=profile(*SRGB_PRIMARIES)),
    "broken-profile.jpg": lambda: saved(halves(), "JPEG", icc_profile=b"no profile"),
    "100-megapixels.jpg": lambda: saved(Image.new("RGB", (11648, 8736), RED), "JPEG", quality=30),
    "panorama.jpg": lambda: saved(halves(2000, 16), "JPEG"),
}
BAD: dict[str, tuple[Callable[[], bytes], str]] = {
    "empty.jpg": (lambda: b"", "the file is empty. Replace or remove it."),
    "web-page.jpg": (lambda: b"<!doctype html><p>Not found", "not an image that can be read. Replace or remove it."),
    "cut.heic": (lambda: TURNED.read_bytes()[:500], "Download it again or remove it."),
    "cut.avif": (lambda: saved(picture(), "AVIF")[:-200], "remove it."),
    "stub.heic": (lambda: b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "Download it again or remove it."),
    "cut.jp2": (lambda: saved(picture(), "JPEG2000")[:300], "remove it."),
    "no-raw.cr2": (lambda: saved(halves(), "PNG"), "LibRaw cannot read this raw file"),
    "no-raw-text.nef": (lambda: b"words " * 100, "Export it as JPEG."),
    "large.png": (lambda: saved(Image.new("1", (10_001, 10_000)), "PNG"), "exceed the limit of 100,000,000. Downscale"),
    "larger.jpg": (
        lambda: b"\xff\xd8\xff\xc0\0\x0b\x08\xff\xff\xff\xff\1\1\x11\0\xff\xda\0\x08\1\1\0\0\x3f\0",
        "65535 x 65535 pixels exceed the limit of 200,000,000. Downscale it.",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", GOOD)
def test_tagged(name: str, packaged: Path, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(GOOD[name]())
    done = CliRunner().invoke(app, ["tag", str(tmp_path), "--top", "1", "--model", str(packaged)])
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout.startswith(f"{tmp_path / name}: ")


@pytest.mark.parametrize("name", BAD)
def test_refused_with_the_mend(name: str, packaged: Path, tmp_path: Path) -> None:
    make, mend = BAD[name]
    (tmp_path / name).write_bytes(make())
    (tmp_path / "good.jpg").write_bytes(encoded())
    done = CliRunner().invoke(app, ["tag", str(tmp_path), "--top", "1", "--model", str(packaged)])
    assert done.exit_code == 1 and done.stdout.startswith(f"{tmp_path / 'good.jpg'}: ")
    line, last = done.stderr.splitlines()
    assert line.startswith(f"zerotag: {tmp_path / name}: ") and mend in line
    assert "1 of 2 photos cannot be tagged" in last


@pytest.mark.parametrize(
    ("name", "file", "package"),
    [("a.heic", "turned.heic", "pi_heif"), ("a.dng", None, "rawpy")],
)
def test_a_missing_package_is_named(name: str, file: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(PhotoError, match=f"pip install {package.replace('_', '-')}"):
        open_photo(TURNED.read_bytes() if file else raw(), name)


def test_a_heic_is_upright() -> None:
    opened = open_photo(TURNED.read_bytes(), "phone.heic")
    assert opened.size == (48, 64)
    top, bottom = opened.getpixel((24, 10)), opened.getpixel((24, 54))
    assert np.abs(np.subtract(top, RED)).max() < 12 and np.abs(np.subtract(bottom, BLUE)).max() < 12


@pytest.mark.parametrize(("orientation", "size"), [(1, (128, 96)), (6, (96, 128)), (3, (128, 96))])
def test_a_raw_preview_is_upright(orientation: int, size: tuple[int, int]) -> None:
    opened = open_photo(raw(saved(halves(128, 96), "JPEG"), orientation), "a.dng")
    assert opened.size == size
    left_top = opened.getpixel((5, 5))
    assert np.abs(np.subtract(left_top, BLUE if orientation == 3 else RED)).max() < 12
    exif = Image.Exif()
    exif[0x0112] = orientation  # a preview that knows it itself is not turned twice
    assert open_photo(raw(saved(halves(128, 96), "JPEG", exif=exif), orientation), "a.dng").size == size


def test_colours_are_converted_to_srgb() -> None:
    grey = Image.new("RGB", (16, 16), (128, 128, 128))
    # Half of the light is a lighter grey in sRGB.
    linear = saved(grey, "PNG", icc_profile=profile(*SRGB_PRIMARIES))
    assert np.abs(np.subtract(open_photo(linear, "a.png").getpixel((8, 8)), 188)).max() <= 1
    red, green, blue = SRGB_PRIMARIES
    swapped = saved(Image.new("RGB", (16, 16), RED), "PNG", icc_profile=profile(blue, green, red))
    shade = open_photo(swapped, "a.png").getpixel((8, 8))
    assert shade[2] > 200 and shade[0] < 120
    assert not is_srgb(Image.open(io.BytesIO(swapped)))


def test_colours_of_srgb_are_untouched() -> None:
    data = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    photo = picture()
    assert np.array_equal(np.asarray(open_photo(saved(photo, "PNG", icc_profile=data), "a.png")), np.asarray(photo))
    assert is_srgb(photo)


@pytest.mark.parametrize("progressive", [False, True])
def test_100_megapixels_at_a_fraction(progressive: bool) -> None:
    data = saved(halves(12_000, 9_000), "JPEG", quality=30, progressive=progressive)
    with pytest.raises(PhotoError, match="12000 x 9000 pixels exceed the limit of 100,000,000"):
        open_photo(data, "a.jpg")
    opened = open_photo(data, "a.jpg", least_side=448)
    assert opened.size == (1500, 1125)
    assert np.abs(np.subtract(opened.getpixel((10, 10)), RED)).max() < 12


def test_the_limit_is_that_of_the_fraction() -> None:
    data = saved(halves(640, 480), "JPEG")
    assert open_photo(data, "a.jpg", max_pixels=640 * 480 // 2, least_side=100).size == (160, 120)
    with pytest.raises(PhotoError, match="exceed the limit of 153,600"):
        open_photo(data, "a.jpg", max_pixels=640 * 480 // 2, least_side=300)
    with pytest.raises(PhotoError, match="exceed the limit of 200,000"):
        open_photo(data, "a.jpg", max_pixels=100_000, least_side=50)
