"""Download NUS-WIDE: the archives of lists, tags and ground truth, and the photos of its URL list."""

import asyncio
import csv
import hashlib
import io
import json
import os
import shutil
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from zerotag.data.sources import nus_wide
from zerotag.data.sources.archives import is_archive, members, unpack
from zerotag.data.sources.base import Source, need, write_inventory
from zerotag.data.sources.nus_wide import NusWideSettings, flickr_id, layout, photo_id
from zerotag.data.sources.packed import PhotoStore, open_store
from zerotag.data.sources.web import GoneError, UnavailableError, Web, get, get_file, open_web
from zerotag.errors import ZerotagError
from zerotag.files import write_aside

URL_LIST = "NUS-WIDE-urls.txt"
# Columns of the sizes in the URL list, preferred first.
_LADDER = {"middle": 3, "small": 4, "large": 2, "original": 5}
# Identical bytes for more photos than this are a "photo not available" placeholder.
_PLACEHOLDER_PHOTOS = 10
_PLACEHOLDER = f"a placeholder: more than {_PLACEHOLDER_PHOTOS} URLs return this image"
# This many consecutive failures without a response mean that the network is down.
_NETWORK_DOWN = 500
# The files needed from the archives, and their folders in the official layout.
_PLACES = {"Concepts81.txt": "ConceptsList", "TagList1k.txt": "NUS_WID_Tags", "Train_Tags1k.dat": "NUS_WID_Tags",
           "Test_Tags1k.dat": "NUS_WID_Tags", "Imagelist.txt": "ImageList", "TrainImagelist.txt": "ImageList",
           "TestImagelist.txt": "ImageList", URL_LIST: ""}  # fmt: skip


def fetch(settings: NusWideSettings, raw: Path, work: Path, lock: Path) -> None:
    """Download lists and photos into `raw`, reusing downloads of earlier and interrupted runs.

    `work` keeps the downloads; `raw` hard-links them.

    Args:
        settings: the sources.
        raw: receives the official layout (if downloaded), photos/ (tars and their journal, or inventory.csv for a
            folder of photos), missing.csv and missing_by_tag.csv.
        work: the downloads so far.
        lock: sizes and SHA-256 of the archives, recorded at their first download.

    Raises:
        ZerotagError: an archive cannot be downloaded or differs from the first download, the lists are invalid, or
            too few photos were downloaded.
    """
    work.mkdir(parents=True, exist_ok=True)
    official = work / "official"
    if not settings.folder:
        _fetch_lists(settings, work / "archives", official, lock)
    source = nus_wide.read(settings, official)
    if settings.photos and not is_archive(Path(settings.photos)):
        need(Path(settings.photos), "folder", "sources.nus-wide.photos")
        with write_aside(raw) as draft:
            _link(official, draft)
            write_inventory(source, draft)
    else:
        with open_store(work / "photos") as store:
            if settings.photos:
                _unpack_photos(need(Path(settings.photos), "archive", "sources.nus-wide.photos"), source, store)
            else:
                lists = Path(settings.folder) if settings.folder else official
                while wanted := _addresses(lists / URL_LIST, source, store):
                    asyncio.run(_fetch_photos(wanted, source, store, settings))
                    if not _drop_placeholders(store):
                        break
        missing = _missing(source, store)
        _write_missing(source, store, missing, work)
        _demand(settings.min_share, missing, work)
        with write_aside(raw) as draft:
            for part in ("official", "archives", "photos", "missing.csv", "missing_by_tag.csv"):
                if (work / part).exists():
                    _link(work / part, draft if part == "official" else draft / part)
            with write_aside(draft / "photos" / "journal.jsonl") as journal:
                shutil.copyfile(work / "photos" / "journal.jsonl", journal)  # not linked: it is still appended to


def _link(origin: Path, target: Path) -> None:
    """Hard-link files; copy them if the file system does not support links."""

    def link(file: str, place: str) -> str:
        try:
            os.link(file, place)
        except OSError:
            shutil.copyfile(file, place)
        return place

    if origin.is_dir():
        shutil.copytree(origin, target, copy_function=link, dirs_exist_ok=True)
    elif origin.exists():
        link(str(origin), str(target))


def _fetch_lists(settings: NusWideSettings, archives: Path, official: Path, lock: Path) -> None:
    """Download missing archives, verify them, and unpack the required files."""
    known = json.loads(lock.read_text(encoding="utf-8")) if lock.is_file() else {}
    asyncio.run(_fetch_archives(settings, archives, known))
    with write_aside(lock) as draft:
        draft.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    with write_aside(official) as draft:
        draft.mkdir()
        for url in settings.archives:
            unpack(archives / Path(url).name, lambda name: _official_place(draft, name))


def _official_place(folder: Path, name: str) -> Path | None:
    """The path of an archive's member in the official layout, whatever its folder in the archive."""
    parts = name.split("/")
    file = parts[-1]
    if file in _PLACES:
        return folder / _PLACES[file] / file
    # AllLabels/ has one file per concept, TrainTestLabels/ two.
    if file.startswith("Labels_") and file.endswith(".txt"):
        kind = "TrainTestLabels" if file.endswith(("_Train.txt", "_Test.txt")) else "AllLabels"
        return folder / "Groundtruth" / kind / file
    return None


async def _fetch_archives(settings: NusWideSettings, folder: Path, known: dict[str, dict[str, object]]) -> None:
    async with open_web(settings.web) as web:
        for url in settings.archives:
            file = folder / Path(url).name
            if not file.is_file():
                try:
                    await get_file(web, url, file)
                except (GoneError, UnavailableError) as error:
                    raise ZerotagError(
                        f"{url} cannot be downloaded ({error}). Check the network, or put the official files into a "
                        "folder (params.yaml: sources.nus-wide.folder)."
                    ) from error
            found = {"bytes": file.stat().st_size, "sha256": sha256_of(file)}
            first = known.setdefault(file.name, {**found, "first": datetime.now(UTC).date().isoformat(), "url": url})
            if any(first[name] != found[name] for name in found):
                file.unlink()
                raise ZerotagError(
                    f"{url}: {found['bytes']} bytes with SHA-256 {found['sha256']}, but the first download "
                    f"({first['first']}) had {first['bytes']} with {first['sha256']}. It was deleted: run again; "
                    f"if the dataset itself has changed, remove its entry from downloads.lock."
                )


def sha256_of(file: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _unpack_photos(archive: Path, source: Source, store: PhotoStore) -> None:
    wanted = {name for name in source.ids if not _stored(store, name)}
    if not wanted:
        return
    by_flickr: dict[str, list[str]] = {}
    for name in wanted:
        by_flickr.setdefault(flickr_id(name), []).append(name)
    first = ""

    def ids(path: str) -> list[str]:
        return [name] if (name := photo_id(path)) in wanted else by_flickr.get(flickr_id(path), [])

    def is_wanted(path: str) -> bool:
        nonlocal first
        first = first or path
        return bool(ids(path))

    with tqdm(desc=f"photos of {archive.name}", total=len(wanted), unit="photo") as bar:
        for path, content in members(archive, is_wanted):
            store.add(ids(path), content.read(), str(archive))
            bar.update(len(ids(path)))
        if not bar.n and len(wanted) == len(source.ids):
            raise ZerotagError(
                f"{archive}: has none of the photos (params.yaml: sources.nus-wide.photos). "
                + layout(source.ids[0], first)
            )
    store.lose([name for name in source.ids if name not in store.records], str(archive), "not in the archive", False)


def _stored(store: PhotoStore, name: str) -> bool:
    return name in store.records and bool(store.records[name].file)


def _addresses(file: Path, source: Source, store: PhotoStore) -> dict[tuple[str, ...], list[str]]:
    """Photos still to download: the URLs of a photo, best first, and its ids.

    The list has some photos twice, under different paths; they are downloaded once.
    """
    if not file.is_file():
        raise ZerotagError(f"{file} is missing: unpack NUS-WIDE-urls.rar there, or set sources.nus-wide.photos.")
    addresses: dict[str, tuple[str, ...]] = {}
    with file.open(encoding="latin-1") as lines:
        for number, line in enumerate(lines, start=1):
            fields = line.rsplit(None, 5)  # a path may contain spaces
            if not fields or fields[0] == "Photo_file":
                continue
            if len(fields) != 6:
                raise ZerotagError(f"{file}, line {number}: expected a path, an id and four URLs. Download it again.")
            sizes = (fields[column] for column in _LADDER.values())
            addresses[photo_id(fields[0])] = tuple(dict.fromkeys(url for url in sizes if url != "null"))
    wanted: dict[tuple[str, ...], list[str]] = {}
    unknown = []
    for name in source.ids:
        record = store.records.get(name)
        if record is not None and (record.file or record.final):
            continue
        ladder = addresses.get(name, ())
        if record is not None and record.problem.startswith(_PLACEHOLDER):
            ladder = ladder[ladder.index(record.url) + 1 :] if record.url in ladder else ()
            if not ladder:
                store.lose([name], record.url, record.problem, True)
                continue
        if ladder:
            wanted.setdefault(ladder, []).append(name)
        else:
            unknown.append(name)
    if unknown:
        store.lose(unknown, "", "no URL in the list", True)
    return wanted


async def _fetch_photos(
    wanted: dict[tuple[str, ...], list[str]], source: Source, store: PhotoStore, settings: NusWideSettings
) -> None:
    """Download photos over many concurrent connections."""
    left = iter(wanted.items())
    done = len(source.ids) - sum(map(len, wanted.values()))
    lost = failed = 0

    async def work(web: Web, bar: tqdm) -> None:
        nonlocal lost, failed
        for urls, names in left:
            problems = []
            final = True
            for url in urls:
                try:
                    store.add(names, await get(web, url, damage), url)
                    failed = 0
                    break
                except GoneError as error:
                    problems.append(f"{url}: {error}")
                    failed = 0
                except UnavailableError as error:
                    problems.append(f"{url}: {error}")
                    final = False
                    failed += 1
            else:
                store.lose(names, urls[-1], "; ".join(problems), final)
                lost += len(names)
            bar.update(len(names))
            bar.set_postfix(missing=lost, refresh=False)
            if failed >= _NETWORK_DOWN:
                raise ZerotagError(
                    f"{failed} consecutive requests failed, the last with: {problems[-1]}. Check the network "
                    "and run again to resume."
                )

    with tqdm(desc="photos", total=len(source.ids), initial=done, unit="photo", smoothing=0.05) as bar:
        async with open_web(settings.web) as web:
            try:
                async with asyncio.TaskGroup() as group:
                    for _ in range(settings.web.connections):
                        group.create_task(work(web, bar))
            except* ZerotagError as errors:
                raise errors.exceptions[0] from None


def damage(data: bytes) -> str:
    """What is wrong with a photo's bytes, without decoding it; empty if nothing."""
    try:
        with Image.open(io.BytesIO(data)) as picture:
            kind = picture.format
    except Exception:  # Pillow's readers raise many types
        return f"not an image ({data[:20]!r}…)"
    # Some cameras append data after the end marker.
    if kind == "JPEG" and b"\xff\xd9" not in data[-4096:]:
        return f"truncated after {len(data)} bytes"
    return ""


def _drop_placeholders(store: PhotoStore) -> bool:
    """Record photos with identical content from many URLs as missing; returns whether there were any."""
    contents = Counter(sha for sha, _ in {(record.sha256, record.url) for record in store.records.values()} if sha)
    found = False
    for record in list(store.records.values()):
        if record.file and contents[record.sha256] > _PLACEHOLDER_PHOTOS:
            # Not final: its other sizes have not been tried.
            store.lose([record.id], record.url, _PLACEHOLDER, False)
            found = True
    return found


def _missing(source: Source, store: PhotoStore) -> np.ndarray:
    """(N,) bool."""
    return np.array([not _stored(store, name) for name in source.ids])


def _write_missing(source: Source, store: PhotoStore, missing: np.ndarray, folder: Path) -> None:
    """Write tables of missing photos, by photo and by split and tag; print totals."""
    parts = {"train": source.train, "test": ~source.train}
    with write_aside(folder / "missing.csv") as draft, draft.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["photo", "split", "problem", "url"])
        for row in np.flatnonzero(missing):
            record = store.records[source.ids[row]]
            table.writerow([record.id, "train" if source.train[row] else "test", record.problem, record.url])
    with write_aside(folder / "missing_by_tag.csv") as draft, draft.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["split", "tag", "photos", "missing", "share"])
        for split, part in parts.items():
            for tag, photos, lost in [("", part.sum(), (part & missing).sum()), *_by_tag(source, part, missing)]:
                table.writerow([split, tag, photos, lost, f"{lost / max(photos, 1):.4f}"])
            lost, photos = int((part & missing).sum()), int(part.sum())
            print(f"{split:>9}: {photos - lost:,} of {photos:,} photos downloaded, {lost:,} missing", flush=True)
    reasons = Counter(_kind_of(store.records[source.ids[row]].problem) for row in np.flatnonzero(missing))
    for reason, count in reasons.most_common(8):
        print(f"{count:9,} × {reason}", flush=True)


def _kind_of(problem: str) -> str:
    """A problem without its URLs, for counting."""
    return "; ".join(part.rpartition("://")[2].partition(": ")[2] or part for part in problem.split("; "))


def _by_tag(source: Source, part: np.ndarray, missing: np.ndarray) -> Iterator[tuple[str, int, int]]:
    photos = np.asarray(source.labels[part].sum(axis=0)).ravel()
    lost = np.asarray(source.labels[part & missing].sum(axis=0)).ravel()
    yield from zip(source.tags, photos.tolist(), lost.tolist(), strict=True)


def _demand(min_share: float, missing: np.ndarray, work: Path) -> None:
    share = 1 - missing.mean()
    if share < min_share:
        raise ZerotagError(
            f"Only {share:.1%} of the photos were downloaded, fewer than {min_share:.0%} (params.yaml: "
            f"sources.nus-wide.min_share); {work / 'missing.csv'} lists the reasons. Run again to retry failed photos, "
            "lower the share, or request the photos with the dataset's form."
        )
