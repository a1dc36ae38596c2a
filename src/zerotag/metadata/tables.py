"""Tags in a table beside the photos, zerotag.csv in each of their folders.

One line per photo: `image,tags,probabilities,model,date`, with tags separated by |. It can be the table of
`source: csv` (params.yaml: sources.csv).
"""

import csv
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from zerotag.errors import ZerotagError
from zerotag.files import shown, write_aside
from zerotag.metadata.keywords import GivenTag

TABLE = "zerotag.csv"
_COLUMNS = ["image", "tags", "probabilities", "model", "date"]
_Row = dict[str, str]
# Photos after which the tables are written, so that a killed run loses few.
_KEEP = 200


@contextmanager
def open_tables(
    dry_run: bool,
) -> Iterator[Callable[[Path, Sequence[GivenTag]], tuple[Path, tuple[str, ...], tuple[str, ...]]]]:
    """Yield a function that replaces a photo's line, and returns the table, the tags added and those removed.

    Raises:
        ZerotagError: a table cannot be read or written.
    """
    open_: dict[Path, dict[str, _Row]] = {}
    changed: dict[Path, int] = {}

    def save(photo: Path, given: Sequence[GivenTag]) -> tuple[Path, tuple[str, ...], tuple[str, ...]]:
        table = photo.with_name(TABLE)
        if table not in open_:
            open_[table] = _read(table)
        name = shown(photo.name)
        before = _tags(open_[table].get(name))
        after = [each.tag for each in given]
        if not given and not before:
            return table, (), ()
        if not os.access(table.parent, os.W_OK):  # named now, so that the other tables are written in the end
            raise ZerotagError(f"{shown(table.parent)}: the folder is read-only, so {TABLE} cannot be written.")
        if given:
            open_[table][name] = {
                "image": name,
                "tags": "|".join(after),
                "probabilities": "|".join(f"{each.probability:g}" for each in given),
                "model": given[0].model,
                "date": given[0].date,
            }
        else:
            del open_[table][name]
        changed[table] = changed.get(table, 0) + 1
        if not dry_run and changed[table] >= _KEEP:
            _write(table, open_[table])
            changed[table] = 0
        return table, tuple(tag for tag in after if tag not in before), tuple(tag for tag in before if tag not in after)

    try:
        yield save
    finally:
        if not dry_run:
            for table, photos in changed.items():
                if photos:
                    _write(table, open_[table])


def _tags(row: _Row | None) -> list[str]:
    return [tag for tag in row["tags"].split("|") if tag] if row else []


def _read(table: Path) -> dict[str, _Row]:
    if not table.is_file():
        return {}
    with table.open(newline="", encoding="utf-8") as lines:
        reader = csv.DictReader(lines)
        if reader.fieldnames != _COLUMNS:
            raise ZerotagError(f"{shown(table)}: not a table of zerotag's ({','.join(_COLUMNS)}). Move it away.")
        return {row["image"]: row for row in reader}


def _write(table: Path, rows: dict[str, _Row]) -> None:
    try:
        if not rows:
            table.unlink(missing_ok=True)
            return
        with write_aside(table) as draft, draft.open("w", newline="", encoding="utf-8") as lines:
            writer = csv.DictWriter(lines, _COLUMNS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows[name] for name in sorted(rows))
    except OSError as error:
        raise ZerotagError(f"{shown(table)}: cannot be written ({error.strerror}).") from error
