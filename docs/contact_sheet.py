"""Draw the README's picture, docs/samples.png: python -m docs.contact_sheet.

The sample photographs with the starter's tags, as `zerotag tag src/zerotag/samples` prints them, and their credits.
"""

from pathlib import Path

from matplotlib.font_manager import FontProperties, findfont
from PIL import Image, ImageDraw, ImageFont, ImageOps

from zerotag.registry.served import starter_package
from zerotag.samples import Sample, samples
from zerotag.serving.tagger import Tag, Tagger

PROJECT = Path(__file__).resolve().parents[1]
COLUMNS, PHOTO, GAP, MARGIN, TEXT = 3, (384, 256), 12, 12, 96
PAPER, INK, SOFT, ACCENT = "#ffffff", "#1d2140", "#636a85", "#3f4fc4"


def main() -> None:
    """Tag the samples, and draw them."""
    tagger = Tagger(starter_package(PROJECT))
    tagged = [(each, tagger.tag(each.file.read_bytes(), each.file.name)) for each in samples()]
    drawn = sheet(tagged)
    # 256 colours at a third of the file size; Pillow dithers only with a palette that is given.
    drawn.quantize(palette=drawn.quantize(256, kmeans=1)).save(PROJECT / "docs" / "samples.png", optimize=True)


def sheet(tagged: list[tuple[Sample, list[Tag]]]) -> Image.Image:
    """The contact sheet."""
    rows = -(-len(tagged) // COLUMNS)
    width, height = PHOTO[0] + GAP, PHOTO[1] + TEXT
    whole = Image.new("RGB", (2 * MARGIN + COLUMNS * width - GAP, MARGIN + rows * height), PAPER)
    for place, (sample, tags) in enumerate(tagged):
        left, top = MARGIN + place % COLUMNS * width, MARGIN + place // COLUMNS * height
        with Image.open(sample.file) as photo:
            # Cut more at the bottom, since faces are further up.
            fitted = ImageOps.fit(photo.convert("RGB"), PHOTO, Image.Resampling.LANCZOS, centering=(0.5, 0.1))
        whole.paste(fitted, (left, top))
        caption(ImageDraw.Draw(whole), left, top + PHOTO[1] + 8, sample, tags)
    return whole


def caption(draw: ImageDraw.ImageDraw, left: int, top: int, sample: Sample, tags: list[Tag]) -> None:
    """Tags with probabilities, near-synonyms folded into them, and the credit."""
    if not tags:
        write(draw, left, top, "no probable tag", 20, SOFT)
    end = left
    for tag in tags:
        word, share = f"{tag.tag} ", f"{tag.probability:.0%}   "
        if end + length(word, 20, bold=True) + length(share, 20) > left + PHOTO[0]:
            break
        end = write(draw, end, top, word, 20, INK, bold=True)
        end = write(draw, end, top, share, 20, ACCENT)
    also = [word for tag in tags for word in tag.also]
    if also:
        write(draw, left, top + 28, f"({', '.join(also)})", 15, SOFT)
    write(draw, left, top + 30 + 22 * bool(also), f"Photo: {sample.title}, {sample.credit}", 12, SOFT)


def write(draw: ImageDraw.ImageDraw, x: int, y: int, text: str, size: int, colour: str, bold: bool = False) -> int:
    """Write a line of text; where it ends."""
    draw.text((x, y), text, colour, font(size, bold))
    return x + length(text, size, bold)


def length(text: str, size: int, bold: bool = False) -> int:
    """Length of a line of text in pixels."""
    return round(font(size, bold).getlength(text))


def font(size: int, bold: bool) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which matplotlib brings."""
    return ImageFont.truetype(findfont(FontProperties(family="DejaVu Sans", weight="bold" if bold else "normal")), size)


if __name__ == "__main__":
    main()
