"""Decode photos of any format to upright 8-bit RGB images."""

import io
import struct
import warnings

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from zerotag.errors import ZerotagError

# 100 megapixels: more than any current camera, and 300 MB as RGB.
MAX_PIXELS = 100_000_000


class PhotoError(ZerotagError):
    """An unusable photo, with the reason."""


def open_photo(data: bytes, name: str, max_pixels: int = MAX_PIXELS, least_side: int = 0) -> Image.Image:
    """Decode a photo.

    Applies the EXIF orientation, takes the first frame of an animation, composites transparency on white,
    and converts 16-bit, CMYK, palette and grey images to 8-bit RGB.

    Args:
        data: the encoded photo.
        name: its name in messages.
        max_pixels: larger images are rejected before decoding.
        least_side: pixels; a JPEG is decoded at 1/2, 1/4 or 1/8 scale, which is faster, as long as its shorter side
            stays at least this long. 0: full size.

    Raises:
        PhotoError: empty, not an image, truncated, or too large; the message names the photo and the fix.
    """
    if not data:
        raise PhotoError(f"{name}: the file is empty. Replace or remove it.")
    try:
        with warnings.catch_warnings():
            # The limit below is stricter than Pillow's warning.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            picture = Image.open(io.BytesIO(data))
            width, height = picture.size
            if width * height > max_pixels:
                raise PhotoError(f"{name}: {width} x {height} pixels exceed the limit of {max_pixels:,}. Downscale it.")
            picture.seek(0)
            if least_side:
                picture.draft(None, (least_side, least_side))
            picture.load()
            return _to_rgb(ImageOps.exif_transpose(picture))
    except PhotoError:
        raise
    except UnidentifiedImageError as error:
        raise PhotoError(f"{name}: not an image that can be read. Replace or remove it.") from error
    except Image.DecompressionBombError as error:
        raise PhotoError(f"{name}: exceeds the limit of {max_pixels:,} pixels. Downscale it.") from error
    except (OSError, ValueError, SyntaxError, EOFError, IndexError, struct.error) as error:
        raise PhotoError(f"{name}: corrupt or truncated ({error}). Download it again or remove it.") from error


def _to_rgb(picture: Image.Image) -> Image.Image:
    if picture.mode in ("I", "F") or picture.mode.startswith("I;16"):
        values = np.asarray(picture, dtype=np.float64)
        # 16-bit images use their full range; floats have no fixed range.
        top = 65535.0 if picture.mode != "F" else max(float(values.max()), 1e-9)
        return Image.fromarray((values / top * 255).clip(0, 255).astype(np.uint8)).convert("RGB")
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        paper = Image.new("RGBA", picture.size, "white")
        return Image.alpha_composite(paper, picture).convert("RGB")
    return picture.convert("RGB")
