"""Data sources: one file each, one line of params.yaml says which one runs.

A source has settings (its section of params.yaml), `fetch`, which brings what is not here yet into the
raw folder, and `read`, which lists photos and tags.
"""

import csv
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zerotag.errors import ZerotagError
from zerotag.files import write_aside
from zerotag.settings import from_params
from zerotag.sources import coco, csv_table, nus_wide, scenes
from zerotag.sources.base import Source

__all__ = ["SOURCES", "Source", "fetch", "read"]


@dataclass(frozen=True)
class SourceKind:
    """How a source is configured, fetched into the raw folder, and read with its raw folder."""

    settings: type
    read: Callable[[Any, Path], Source]
    fetch: Callable[[Any, Path], None] | None = None


@dataclass(frozen=True)
class ScenesSettings:
    """Attributes:
    photos: how many pictures are rendered.
    size: their side in pixels.
    seed: the same seed gives the same pictures.
    """

    photos: int = 1600
    size: int = 160
    seed: int = 0


def _fetch_scenes(settings: ScenesSettings, raw: Path) -> None:
    scenes.render(raw, settings.photos, settings.size, settings.seed)


def _read_scenes(settings: ScenesSettings, raw: Path) -> Source:
    return nus_wide.read(nus_wide.NusWideSettings(str(raw), str(raw / "images")), "source: scenes")


SOURCES: dict[str, SourceKind] = {
    "scenes": SourceKind(ScenesSettings, _read_scenes, _fetch_scenes),
    "csv": SourceKind(csv_table.CsvSettings, lambda settings, raw: csv_table.read(settings)),
    "coco": SourceKind(coco.CocoSettings, lambda settings, raw: coco.read(settings)),
    "nus-wide": SourceKind(nus_wide.NusWideSettings, lambda settings, raw: nus_wide.read(settings)),
}


def _kind(name: str, params: dict[str, Any]) -> tuple[SourceKind, Any]:
    if name not in SOURCES:
        raise ZerotagError(f"params.yaml: source = {name!r} is unknown; there are {', '.join(SOURCES)}.")
    kind = SOURCES[name]
    return kind, from_params(kind.settings, params, f"sources.{name}")


def fetch(name: str, params: dict[str, Any], raw: Path) -> None:
    """Bring what a source lacks into the folder `raw`, and list there what the source consists of.

    Args:
        name: one of `SOURCES`.
        params: its parameters.
        raw: the folder to make.

    Raises:
        ZerotagError: an unknown source or parameter, or files that are not there.
    """
    kind, settings = _kind(name, params)
    if kind.fetch:
        kind.fetch(settings, raw)
        return
    # Nothing to bring: the inventory makes the photos' state a versioned output all the same.
    source = kind.read(settings, raw)
    with write_aside(raw) as draft:
        draft.mkdir()
        with (draft / "inventory.csv").open("w", newline="", encoding="utf-8") as file:
            table = csv.writer(file, lineterminator="\n")
            table.writerow(["file", "bytes"])
            for path in source.files:
                table.writerow([path.as_posix(), path.stat().st_size if path.is_file() else "missing"])


def read(name: str, params: dict[str, Any], raw: Path) -> Source:
    """Read a fetched source.

    Raises:
        ZerotagError: as `fetch`, and whatever is wrong with the source's files.
    """
    kind, settings = _kind(name, params)
    return kind.read(settings, raw)
