"""Decode photos of any format to upright 8-bit sRGB images."""

import io
import struct
import warnings
from datetime import datetime
from functools import lru_cache
from pathlib import PurePath
from threading import Lock
from typing import Any

import numpy as np
from PIL import ExifTags, Image, ImageCms, ImageOps, UnidentifiedImageError
from PIL.JpegImagePlugin import JpegImageFile

from zerotag.errors import ZerotagError

# 300 MB as RGB. Of a JPEG that is decoded at a fraction of its size, it bounds the fraction.
MAX_PIXELS = 100_000_000
# A JPEG may have this many times the limit before it is scaled down. Decoding then costs 6 bytes per pixel at most (the
# coefficients of a progressive JPEG), and twice 100 megapixels is what the largest sensors of telephones have.
_JPEG_FACTOR = 2

# Formats that photographs come in, by file extension; what a file really is, its content decides.
PHOTO_SUFFIXES = frozenset(
    ".jpg .jpeg .jpe .jfif .mpo .png .gif .webp .avif .heic .heif .hif .jp2 .j2k .j2c .jpc .jpf .jpx .bmp .dib .tif "
    ".tiff .ppm .pgm .pbm .pnm .tga .psd".split()
)
# Raw files of cameras; their embedded preview is decoded.
RAW_SUFFIXES = frozenset(
    ".dng .cr2 .cr3 .crw .nef .nrw .arw .srf .sr2 .raf .orf .rw2 .rwl .pef .srw .raw .3fr .fff .iiq .mrw .mef .mos "
    ".erf .kdc .dcr .x3f".split()
)
# Image formats that zerotag does not read, with the mend.
UNREAD_SUFFIXES = {
    ".jxl": "JPEG XL is not read. Export it as JPEG.",
    ".psb": "large Photoshop documents are not read. Export it as JPEG.",
    ".xcf": "GIMP's own format is not read. Export it as JPEG.",
    ".exr": "OpenEXR is not read. Export it as JPEG.",
    ".hdr": "Radiance HDR is not read. Export it as JPEG.",
    ".svg": "SVG is a drawing, not a photo. Export it as PNG.",
}

# Major brands of HEIF files, as the ftyp box names them. AVIF's are read by Pillow.
_HEIF_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"})
# Profiles that move no colour further than this, of 255, are sRGB by another name.
_SAME_COLOURS = 2
# The turns that LibRaw names, counterclockwise.
_RAW_TURNS = {3: Image.Transpose.ROTATE_180, 5: Image.Transpose.ROTATE_90, 6: Image.Transpose.ROTATE_270}

# What Pillow raises for broken files.
_UNREADABLE = (OSError, RuntimeError, ValueError, SyntaxError, EOFError, IndexError, struct.error)

_warnings = Lock()


class PhotoError(ZerotagError):
    """An unusable photo, with the reason.

    Args:
        message: for people.
        kind: for statistics: empty, not_an_image, too_large, corrupt or unread.
    """

    def __init__(self, message: str, kind: str = "unread"):
        super().__init__(message)
        self.kind = kind


def open_photo(data: bytes, name: str, max_pixels: int = MAX_PIXELS, least_side: int = 0) -> Image.Image:
    """Decode a photo.

    Applies the EXIF orientation and the ICC profile, takes the first frame of an animation (the primary image of a
    HEIF file), composites transparency on white, and converts 16-bit, CMYK, palette and grey images to 8-bit RGB. Of a
    raw file, it decodes the embedded preview.

    Args:
        data: the encoded photo.
        name: its name in messages; a raw file is known by the extension.
        max_pixels: larger images are rejected before decoding; a JPEG that is scaled down may have twice as many.
        least_side: pixels; a JPEG is decoded at 1/2, 1/4 or 1/8 scale, which is faster, as long as its shorter side
            stays at least this long. 0: full size.

    Raises:
        PhotoError: empty, not an image, truncated, or too large; the message names the photo and the fix.
    """
    if not data:
        raise PhotoError(f"{name}: the file is empty. Replace or remove it.", "empty")
    try:
        if PurePath(name).suffix.lower() in RAW_SUFFIXES:
            return _open_raw(data, name, max_pixels, least_side)
        return _decode(data, name, max_pixels, least_side)
    except PhotoError:
        raise
    except UnidentifiedImageError as error:
        raise PhotoError(f"{name}: not an image that can be read. Replace or remove it.", "not_an_image") from error
    except Image.DecompressionBombError as error:
        raise PhotoError(f"{name}: exceeds the limit of {max_pixels:,} pixels. Downscale it.", "too_large") from error
    except MemoryError as error:
        raise PhotoError(f"{name}: too large for the memory that is left. Downscale it.", "too_large") from error
    except _UNREADABLE as error:
        reason = " ".join(str(error).split()).rstrip(".")  # in one line
        message = f"{name}: corrupt or truncated ({reason}). Download it again or remove it."
        raise PhotoError(message, "corrupt") from error


def time_taken(data: bytes, name: str) -> datetime | None:
    """When a photo was taken, by its camera's clock (exif's DateTimeOriginal); None if it does not say.

    Args:
        data: the encoded photo.
        name: its name.
    """
    try:
        exif = _opened(data, name).getexif()
        text = str(exif.get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.DateTimeOriginal, ""))
        return datetime.strptime(text.strip("\0 ")[:19], "%Y:%m:%d %H:%M:%S")
    except (PhotoError, Image.DecompressionBombError, *_UNREADABLE):
        return None


def is_srgb(picture: Image.Image) -> bool:
    """Whether the colours of an RGB image are sRGB's, by its ICC profile or for want of one."""
    profile = picture.info.get("icc_profile")
    return not profile or _transform(profile, "RGB") is None


def to_pixels(picture: Image.Image, size: int, crop: float = 0.0) -> np.ndarray:
    """Prepare a picture as a network's input, (S, S, 3) uint8.

    Training and serving share this function, so that they see the same pixels.

    Args:
        picture: RGB.
        size: S.
        crop: how much of the excess of the longer side is cut off, half at each end, before the rest is squeezed: 0
            for nothing, 1 for a square; in between, geometrically.
    """
    if crop:
        shorter = min(picture.size)
        width, height = (round(side ** (1 - crop) * shorter**crop) for side in picture.size)
        left, top = (picture.size[0] - width) // 2, (picture.size[1] - height) // 2
        picture = picture.crop((left, top, left + width, top + height))
    # A copy: torch warns of arrays that it cannot write to.
    return np.array(picture.resize((size, size), Image.Resampling.BILINEAR))


def _decode(data: bytes, name: str, max_pixels: int, least_side: int) -> Image.Image:
    picture = _opened(data, name)
    # Pillow's JPEG decoder scales; other formats are decoded at full size.
    scaled = least_side > 0 and isinstance(picture, JpegImageFile)
    _check_size(picture, name, max_pixels * (_JPEG_FACTOR if scaled else 1))
    if scaled:
        picture.draft(None, (least_side, least_side))
        _check_size(picture, name, max_pixels)
    picture.load()
    ImageOps.exif_transpose(picture, in_place=True)  # without a copy of what is upright already
    return _to_rgb(picture)


def _opened(data: bytes, name: str) -> Image.Image:
    """Read the header. The classes are used without Pillow's own limit, which is lower than that of JPEGs here."""
    if data[:3] == b"\xff\xd8\xff":
        return JpegImageFile(io.BytesIO(data))  # of an MPO, the first picture
    if data[4:8] == b"ftyp" and data[8:12] in _HEIF_BRANDS and b"avif" not in data[8:64]:
        try:
            from pi_heif import HeifImageFile
        except ImportError as error:
            raise PhotoError(f"{name}: HEIC photos need the package pi-heif: `pip install pi-heif`.") from error
        return HeifImageFile(io.BytesIO(data))
    # The filters of warnings are the process's, not the thread's. Only headers are read here.
    with _warnings, warnings.catch_warnings():
        # The limit is stricter than Pillow's warning.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        return Image.open(io.BytesIO(data))


def _check_size(picture: Image.Image, name: str, limit: int) -> None:
    width, height = picture.size
    if width * height > limit:
        message = f"{name}: {width} x {height} pixels exceed the limit of {limit:,}. Downscale it."
        raise PhotoError(message, "too_large")


def _open_raw(data: bytes, name: str, max_pixels: int, least_side: int) -> Image.Image:
    """Decode the preview of a raw file, or develop it at half its size if it has none."""
    try:
        import rawpy
    except ImportError as error:
        raise PhotoError(f"{name}: raw files need the package rawpy: `pip install rawpy`.") from error
    try:
        with rawpy.imread(io.BytesIO(data)) as raw:
            try:
                preview = raw.extract_thumb()
            except (rawpy.LibRawNoThumbnailError, rawpy.LibRawUnsupportedThumbnailError):
                return Image.fromarray(raw.postprocess(half_size=True, use_camera_wb=True))
            turn = _RAW_TURNS.get(raw.sizes.flip)
    except rawpy.LibRawError as error:
        raise PhotoError(f"{name}: LibRaw cannot read this raw file ({error}). Export it as JPEG.") from error
    content: Any = preview.data
    if preview.format != rawpy.ThumbFormat.JPEG:
        picture, turned = Image.fromarray(content), False
    else:
        # A preview with an orientation of its own is already upright.
        turned = JpegImageFile(io.BytesIO(content)).getexif().get(0x0112, 1) != 1
        picture = _decode(content, name, max_pixels, least_side)
    return picture.transpose(turn) if turn and not turned else picture


def _to_rgb(picture: Image.Image) -> Image.Image:
    if picture.mode in ("I", "F") or picture.mode.startswith("I;16"):
        values = np.asarray(picture, dtype=np.float64)
        # 16-bit images use their full range; floats have no fixed range.
        top = 65535.0 if picture.mode != "F" else max(float(values.max()), 1e-9)
        return Image.fromarray((values / top * 255).clip(0, 255).astype(np.uint8)).convert("RGB")
    profile = picture.info.get("icc_profile") or (b"" if picture.mode != "LAB" else _lab())
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        paper = Image.new("RGBA", picture.size, "white")
        return _to_srgb(Image.alpha_composite(paper, picture), profile)
    return _to_srgb(picture, profile)


def _to_srgb(picture: Image.Image, profile: bytes) -> Image.Image:
    """Convert colours to sRGB by an ICC profile; a profile that is broken or of another colour space is ignored."""
    # The profile of a palette image applies to its colours.
    mode = picture.mode if picture.mode in ("L", "CMYK", "LAB") else "RGB"
    transform = _transform(profile, mode) if profile else None
    if transform is None:
        return picture if picture.mode == "RGB" else picture.convert("RGB")
    return _transformed(picture if picture.mode == mode else picture.convert(mode), transform)


def _transformed(picture: Image.Image, transform: Any) -> Image.Image:
    converted = ImageCms.applyTransform(picture, transform)
    assert converted is not None  # it is not in place
    return converted


@lru_cache(64)
def _transform(profile: bytes, mode: str) -> Any:
    """A transform of images of this mode to sRGB; None if there is none or it would change nothing."""
    try:
        transform = ImageCms.buildTransform(
            ImageCms.ImageCmsProfile(io.BytesIO(profile)), ImageCms.createProfile("sRGB"), mode, "RGB",
            ImageCms.Intent.RELATIVE_COLORIMETRIC, ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )  # fmt: skip
    except (ImageCms.PyCMSError, OSError, ValueError):
        return None
    if mode in ("RGB", "L"):
        levels = np.linspace(0, 255, 9).astype(np.uint8)
        colours = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(1, -1, 3)
        before = Image.fromarray(colours) if mode == "RGB" else Image.fromarray(levels[None])
        after = _transformed(before, transform)
        moved = np.abs(np.asarray(after, dtype=int) - np.asarray(before.convert("RGB"), dtype=int))
        if moved.max() <= _SAME_COLOURS:
            return None
    return transform


@lru_cache(1)
def _lab() -> bytes:
    """The profile of TIFF's CIE L*a*b* mode, for which Pillow has no conversion of its own."""
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
