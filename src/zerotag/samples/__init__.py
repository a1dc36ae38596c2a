"""Six photographs to try zerotag on, from the sample images of scikit-learn and scikit-image, scaled down.

credits.csv names their authors and licences; whoever shows a photograph shows its credit.
"""

import csv
from dataclasses import dataclass
from pathlib import Path

_FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Sample:
    """A sample photograph.

    Attributes:
        file: a JPEG.
        title: what it shows.
        credit: author and licence, to be shown beside it.
        source: an address.
    """

    file: Path
    title: str
    credit: str
    source: str


def samples() -> list[Sample]:
    """The sample photographs; the first is the one that the page opens with."""
    with (_FOLDER / "credits.csv").open(newline="", encoding="utf-8") as lines:
        return [
            Sample(_FOLDER / row["photo"], row["title"], f"{row['by']}, {row['licence']}", row["source"])
            for row in csv.DictReader(lines)
        ]
