"""Open a photograph of any kind as an upright 8-bit RGB picture, or say what is wrong with it."""

import io
import struct
import warnings

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from zerotag.errors import ZerotagError

# 100 megapixels: more than any camera of today, less than what fills memory (300 MB as RGB).
MAX_PIXELS = 100_000_000


class PhotoError(ZerotagError):
    """A photograph that cannot be used, with the reason."""


def open_photo(data: bytes, name: str, max_pixels: int = MAX_PIXELS, least_side: int = 0) -> Image.Image:
    """Decode a photograph.

    EXIF rotation is applied, the first frame of an animation is taken, transparency is laid on white,
    16-bit, CMYK, palette and grey pictures become 8-bit RGB.

    Args:
        data: the encoded photo.
        name: what it is called in messages.
        max_pixels: larger pictures are refused before they are decoded.
        least_side: pixels; a JPEG is decoded at 1/2, 1/4 or 1/8 of its size, which takes less time, as long as its
            shorter side stays this long. 0: at its own size.

    Raises:
        PhotoError: empty, not a picture, truncated, or too large; the message names the photo and the mend.
    """
    if not data:
        raise PhotoError(f"{name}: the file is empty. Replace it or take it out.")
    try:
        with warnings.catch_warnings():
            # Our own limit below is stricter than Pillow's warning.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            picture = Image.open(io.BytesIO(data))
            width, height = picture.size
            if width * height > max_pixels:
                raise PhotoError(
                    f"{name}: {width} x {height} pixels is more than the {max_pixels:,} allowed. Scale it down."
                )
            picture.seek(0)
            if least_side:
                picture.draft(None, (least_side, least_side))
            picture.load()
            return _to_rgb(ImageOps.exif_transpose(picture))
    except PhotoError:
        raise
    except UnidentifiedImageError as error:
        raise PhotoError(f"{name}: not a picture that can be read. Replace it or take it out.") from error
    except Image.DecompressionBombError as error:
        raise PhotoError(f"{name}: more than the {max_pixels:,} pixels allowed. Scale it down.") from error
    except (OSError, ValueError, SyntaxError, EOFError, IndexError, struct.error) as error:
        raise PhotoError(f"{name}: damaged or truncated ({error}). Fetch it again or take it out.") from error


def _to_rgb(picture: Image.Image) -> Image.Image:
    if picture.mode in ("I", "F") or picture.mode.startswith("I;16"):
        values = np.asarray(picture, dtype=np.float64)
        # 16-bit pictures use the whole of their range; floats may lie anywhere.
        top = 65535.0 if picture.mode != "F" else max(float(values.max()), 1e-9)
        return Image.fromarray((values / top * 255).clip(0, 255).astype(np.uint8)).convert("RGB")
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        paper = Image.new("RGBA", picture.size, "white")
        return Image.alpha_composite(paper, picture).convert("RGB")
    return picture.convert("RGB")
