"""What writing tags costs: to sidecars, into photos, again, and out again; and pyexiv2 beside exiftool.

./run python -m benchmarks.metadata [--photos 200] [--pyexiv2]    (the latter after ./run pip install pyexiv2)
"""

import argparse
import importlib
import resource
import shutil
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image

from zerotag.metadata import Write
from zerotag.metadata.exiftool import EMPTY, open_exiftool
from zerotag.metadata.keywords import GivenTag, read_photo_keywords
from zerotag.metadata.writing import open_untagger, open_writer

TAGS = ["dog", "beach", "sea", "sky", "sunset"]


def make_photos(folder: Path, number: int) -> list[Path]:
    """Copies of one JPEG of 12 megapixels."""
    small = np.random.default_rng(0).integers(0, 255, (75, 100, 3), dtype=np.uint8)
    first = folder / "0.jpg"
    Image.fromarray(small).resize((4000, 3000)).save(first, quality=90)
    for place in range(1, number):
        shutil.copyfile(first, folder / f"{place}.jpg")
    return [folder / f"{place}.jpg" for place in range(number)]


def measure(name: str, photos: list[Path], work: Callable[[list[Path]], object]) -> None:
    """Print photos per second, and processor time, which other programs on the machine hardly change."""
    cpu, started = processor_seconds(), time.perf_counter()
    work(photos)
    seconds, cpu = time.perf_counter() - started, processor_seconds() - cpu
    print(f"| {name} | {len(photos) / seconds:.0f} | {1000 * cpu / len(photos):.1f} ms |")


def processor_seconds() -> float:
    """Of this process and of the exiftool processes that it has stopped."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def tag(photos: list[Path], write: Write, tags: list[str], model: str) -> None:
    """Give all photos the same tags."""
    with open_writer(write, model) as save:
        for photo in photos:
            save(photo, [GivenTag(each, 0.5) for each in tags])


def untag(photos: list[Path]) -> None:
    """Take the tags out."""
    with open_untagger() as remove:
        for photo in photos:
            remove(photo)


def read(photos: list[Path]) -> None:
    """Read keywords, as `source: folder` does."""
    with open_exiftool() as tool:
        read_photo_keywords(tool, photos)


def pyexiv2(photos: list[Path], sidecar: bool) -> None:
    """Write the fields with pyexiv2, on a copy aside, without a record and without reading what is there."""
    # Under the GPL, and so no dependency of zerotag's.
    library = importlib.import_module("pyexiv2")

    for photo in photos:
        target, draft = photo.with_suffix(".xmp") if sidecar else photo, photo.with_suffix(".draft")
        shutil.copyfile(EMPTY if sidecar else photo, draft)
        with library.Image(str(draft)) as image:
            image.modify_xmp({"Xmp.dc.subject": TAGS, "Xmp.digiKam.TagsList": TAGS})
        draft.replace(target)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--photos", type=int, default=200)
    parser.add_argument("--pyexiv2", action="store_true")
    options = parser.parse_args()
    with TemporaryDirectory() as temporary:
        photos = make_photos(Path(temporary), options.photos)
        print(f"{options.photos} JPEGs of {photos[0].stat().st_size / 1e6:.1f} MB, five tags each\n")
        print("| | photos/s | processor time per photo |\n|---|---|---|")
        for write in ("csv", "sidecar", "embed"):
            measure(f"`tag --write {write}`", photos, partial(tag, write=write, tags=TAGS, model="first"))
            other = partial(tag, write=write, tags=[*TAGS[2:], "castle"], model="second")
            measure(f"`tag --write {write}`, by another model", photos, other)
            measure("`untag`", photos, untag)
        measure("`source: folder`", photos, read)
        if options.pyexiv2:
            measure("pyexiv2, sidecar", photos, partial(pyexiv2, sidecar=True))
            measure("pyexiv2, embed", photos, partial(pyexiv2, sidecar=False))


if __name__ == "__main__":
    main()
