"""Data sources, one module each; `source` in params.yaml selects one.

A source has settings (its section of params.yaml), `fetch`, which downloads missing data into the raw folder,
and `read`, which lists photos and tags.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zerotag.data.sources import coco, csv_table, folder, nus_wide, nus_wide_download, scenes
from zerotag.data.sources.base import Source, write_inventory
from zerotag.errors import ZerotagError
from zerotag.files import write_aside
from zerotag.settings import from_params

__all__ = ["SOURCES", "Source", "fetch", "read"]


@dataclass(frozen=True)
class SourceKind:
    """Settings class of a source, `read` (raw folder) and `fetch` (raw folder, work folder, lock file)."""

    settings: type
    read: Callable[[Any, Path], Source]
    fetch: Callable[[Any, Path, Path, Path], None] | None = None


@dataclass(frozen=True)
class ScenesSettings:
    """Attributes:
    photos: number of images to render.
    pixels: side of an image.
    seed: the same seed gives the same images.
    """

    photos: int = 1600
    pixels: int = 160
    seed: int = 0


def _fetch_scenes(settings: ScenesSettings, raw: Path, work: Path, lock: Path) -> None:
    scenes.render(raw, settings.photos, settings.pixels, settings.seed)


def _read_scenes(settings: ScenesSettings, raw: Path) -> Source:
    layout = nus_wide.NusWideSettings(str(raw), str(raw / "images"), counts={})
    return nus_wide.read(layout, raw, "source: scenes")


SOURCES: dict[str, SourceKind] = {
    "scenes": SourceKind(ScenesSettings, _read_scenes, _fetch_scenes),
    "csv": SourceKind(csv_table.CsvSettings, lambda settings, raw: csv_table.read(settings)),
    "folder": SourceKind(folder.FolderSettings, folder.read, folder.fetch),
    "coco": SourceKind(coco.CocoSettings, lambda settings, raw: coco.read(settings)),
    "nus-wide": SourceKind(nus_wide.NusWideSettings, nus_wide.read, nus_wide_download.fetch),
}


def _kind(name: str, params: dict[str, Any]) -> tuple[SourceKind, Any]:
    if name not in SOURCES:
        raise ZerotagError(f"params.yaml: source = {name!r} is unknown; there are {', '.join(SOURCES)}.")
    kind = SOURCES[name]
    return kind, from_params(kind.settings, params, f"sources.{name}")


def fetch(name: str, params: dict[str, Any], raw: Path, work: Path, lock: Path) -> None:
    """Download missing data of a source into `raw`, or write an inventory of local data there.

    Args:
        name: one of `SOURCES`.
        params: its parameters.
        raw: the output folder.
        work: keeps downloads, so that an interrupted run resumes.
        lock: checksums of downloads, verified on later downloads.

    Raises:
        ZerotagError: an unknown source or parameter, or missing files.
    """
    kind, settings = _kind(name, params)
    if kind.fetch:
        kind.fetch(settings, raw, work, lock)
        return
    with write_aside(raw) as draft:
        write_inventory(kind.read(settings, raw), draft)


def read(name: str, params: dict[str, Any], raw: Path) -> Source:
    """Read a fetched source.

    Raises:
        ZerotagError: as `fetch`, or invalid source files.
    """
    kind, settings = _kind(name, params)
    return kind.read(settings, raw)
