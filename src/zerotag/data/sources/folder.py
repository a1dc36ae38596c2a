"""A folder of photos with keywords in the photos or in their sidecars: a person's own tagging, without any table.

The keywords are read once, when the source is fetched, into `keywords.csv` of the raw folder, a table as that of the
source `csv`. Tags that zerotag gave are left out unless a person accepted them, so that no model is trained on what a
model said; those that a person rejected are in a column of their own.
"""

import csv
from dataclasses import dataclass
from pathlib import Path

from zerotag.data.scan import scan
from zerotag.data.sources import csv_table
from zerotag.data.sources.base import Source, need
from zerotag.errors import ZerotagError
from zerotag.files import write_aside
from zerotag.metadata.exiftool import open_exiftool
from zerotag.metadata.keywords import read_photo_keywords

_TABLE = "keywords.csv"
_SEPARATOR = "|"


@dataclass(frozen=True)
class FolderSettings:
    """Attributes:
    photos: the folder; subfolders are included.
    test: share or number of test photos, chosen by a fixed hash of the name.
    min_photos: keywords with fewer photos are dropped.
    """

    photos: str = "data/images"
    test: float = 0.1
    min_photos: int = 1


def fetch(settings: FolderSettings, raw: Path, work: Path, lock: Path) -> None:
    """Write the keywords of all photos that have some, and the photos' sizes, into `raw`.

    Raises:
        ZerotagError: exiftool is not installed, or no photo has keywords.
    """
    folder = need(Path(settings.photos), "folder", "sources.folder.photos")
    photos = scan([folder]).photos
    with open_exiftool() as tool:
        found = read_photo_keywords(tool, photos)
    rows = [(photo, tags, _joined(each.rejected)) for photo, each in found.items() if (tags := _joined(each.keywords))]
    if not rows:
        raise ZerotagError(
            f"{folder}: none of {len(photos)} photos has a keyword, in the photo or in a sidecar "
            "(params.yaml: sources.folder.photos). Give some in your photo program, and let it write them to the files."
        )
    with write_aside(raw) as draft:
        draft.mkdir(parents=True)
        with (draft / _TABLE).open("w", newline="", encoding="utf-8") as file:
            table = csv.writer(file, lineterminator="\n")
            # The size is not read again: with it, another photo under the same name makes other raw data.
            # Where nothing is rejected, the raw data are those of versions that did not know of it.
            decided = any(rejected for *_, rejected in rows)
            table.writerow(["image", "tags", "bytes", *(["rejected"] if decided else [])])
            for photo, tags, rejected in rows:
                cells = [photo.relative_to(folder).as_posix(), tags, photo.stat().st_size]
                table.writerow([*cells, *([rejected] if decided else [])])
    print(f"{len(rows)} of {len(photos)} photos have keywords; the others are left out.")


def _joined(words: list[str]) -> str:
    return _SEPARATOR.join(plain for word in words if (plain := word.replace(_SEPARATOR, " ").strip()))


def read(settings: FolderSettings, raw: Path) -> Source:
    """Read the table that `fetch` wrote, without opening photos.

    Raises:
        ZerotagError: a missing file, or too few photos.
    """
    table = need(raw / _TABLE, "table", "source: folder")
    as_table = csv_table.CsvSettings(str(table), settings.photos, _SEPARATOR, settings.test, settings.min_photos)
    return csv_table.read(as_table, "sources.folder")
