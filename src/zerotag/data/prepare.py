"""Decode every photo once and pack the dataset into shards.

Each photo is rotated by its EXIF orientation, downscaled to a given shorter side, and stored in a WebDataset
tar shard; `zerotag.data.dataset` describes the resulting folder. Shards are independent and written in
parallel: an interrupted run resumes at the missing shards, and the bytes do not depend on the number of workers.
"""

import hashlib
import io
import json
import os
import shutil
import tarfile
import warnings
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, closing, suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.sparse as sp
from PIL import Image
from tqdm import tqdm

from zerotag.data.photos import MAX_PIXELS, PhotoError, is_srgb, open_photo
from zerotag.data.sources.base import PhotoFile, Source
from zerotag.data.workers import clean_fork
from zerotag.errors import ZerotagError
from zerotag.files import write_aside

# The maximum side that libjpeg supports.
_JPEG_SIDE = 65_500


@dataclass(frozen=True)
class PrepareSettings:
    """Attributes:
    shorter_side: larger photos are downscaled to this many pixels on their shorter side.
    shard_photos: photos per shard.
    quality: JPEG quality of re-encoded photos.
    workers: processes; 0 means one per core, 1 this one.
    """

    shorter_side: int = 256
    shard_photos: int = 1000
    quality: int = 95
    workers: int = 0


# One of `prepare`'s shards: its name, its photos' ids, and their files.
Shard = tuple[str, list[str], list[PhotoFile]]
# Calls a function with the parts of each shard, yields its results in order, and shows the progress.
Spread = Callable[[Callable[..., pd.DataFrame], list[Shard]], Generator[pd.DataFrame, None, None]]


def prepare(source: Source, settings: PrepareSettings, folder: Path, work: Path, spread: Spread | None = None) -> None:
    """Write the prepared dataset of a source.

    Args:
        source: photos and tags.
        settings: sizes.
        folder: the dataset's folder, written atomically.
        work: keeps finished shards, so that an interrupted run resumes; removed at the end.
        spread: calls a function on the shards in another way than in processes of this machine.

    Raises:
        ZerotagError: the source lists no photos, or a photo twice.
    """
    if not source.ids:
        raise ZerotagError("The source lists no photos. Check its parameters in params.yaml.")
    if len(set(source.ids)) < len(source.ids):
        twice = pd.Series(source.ids).value_counts().index[0]
        raise ZerotagError(f"Photo {twice} is listed twice by the source. Remove one of them.")
    starts = range(0, len(source.ids), settings.shard_photos)
    shards = [
        (f"{number:05d}", source.ids[start : start + settings.shard_photos],
         source.files[start : start + settings.shard_photos])
        for number, start in enumerate(starts)
    ]  # fmt: skip
    work.mkdir(parents=True, exist_ok=True)
    _forget_other_work(work, source, settings)
    make = partial(_make_shard, work=work, settings=settings)
    with closing((spread or partial(_in_processes, workers=settings.workers))(make, shards)) as tables:
        photos = pd.concat(tables, ignore_index=True)
    photos.insert(2, "train", source.train)
    with write_aside(folder) as draft:
        (draft / "shards").mkdir(parents=True)
        photos.to_parquet(draft / "photos.parquet", index=False)
        _tag_table(source).to_csv(draft / "tags.csv", index=False)
        sp.save_npz(draft / "labels.npz", source.labels)
        if source.rejected is not None:
            sp.save_npz(draft / "rejected.npz", source.rejected)
        for shard in sorted(work.glob("*.tar")):
            shutil.copyfile(shard, draft / "shards" / shard.name)
    shutil.rmtree(work)


def _forget_other_work(work: Path, source: Source, settings: PrepareSettings) -> None:
    """Remove leftover shards unless made from the same, unmodified files and the same settings."""
    state = hashlib.sha256()
    # The number of workers does not change the bytes, so a run may resume with another one.
    state.update(json.dumps({**asdict(settings), "workers": 0}).encode())
    for name, file in zip(source.ids, source.files, strict=True):
        stat = file.path.stat() if file.path.is_file() else None
        part = (file.offset, file.size) if file.size is not None else ()
        state.update(f"{name}\t{stat and (stat.st_size, stat.st_mtime_ns, *part)}\n".encode())
    mark = work / "made-from"
    if not mark.is_file() or mark.read_text() != state.hexdigest():
        for path in work.iterdir():
            path.unlink()
        mark.write_text(state.hexdigest())


def _in_processes(
    make: Callable[..., pd.DataFrame], shards: list[Shard], workers: int
) -> Generator[pd.DataFrame, None, None]:
    with ExitStack() as stack:
        bar = stack.enter_context(tqdm(total=sum(len(ids) for _, ids, _ in shards), desc="prepare", unit="photo"))
        each: Callable[..., Iterator[pd.DataFrame]] = map
        if workers != 1:
            pool = ProcessPoolExecutor(workers or os.cpu_count(), clean_fork(__name__), initializer=_one_thread)
            each = stack.enter_context(pool).map
        for table in each(make, *zip(*shards, strict=True)):
            bar.update(len(table))
            yield table


def _one_thread() -> None:
    # Processes share the cores; torch reads it when it is imported.
    os.environ["OMP_NUM_THREADS"] = "1"


def _make_shard(
    shard: str, ids: list[str], files: list[PhotoFile], work: Path, settings: PrepareSettings
) -> pd.DataFrame:
    """Write one shard and its table, or reuse them from an interrupted run."""
    table_path = work / f"{shard}.parquet"
    if table_path.is_file():
        return pd.read_parquet(table_path)
    tar_path = work / f"{shard}.tar"
    rows = []
    with write_aside(tar_path) as draft:
        with tarfile.open(draft, "w") as tar:
            for number, (name, file) in enumerate(zip(ids, files, strict=True)):
                row = {
                    "id": name, "file": str(file), "sha256": "", "width": 0, "height": 0, "problem": "",
                    "shard": "", "member": "",
                }  # fmt: skip
                try:
                    data = file.read()
                except FileNotFoundError:
                    why = f" ({file.missing})" if file.missing else ""
                    row["problem"] = f"{file}: no such photo{why}. Download it or remove it from the list."
                except OSError as error:
                    row["problem"] = f"{file}: cannot be read ({error.strerror}). Fix it or remove it from the list."
                else:
                    row["sha256"] = hashlib.sha256(data).hexdigest()
                    try:
                        row["width"], row["height"], jpeg = _encode(data, str(file), settings)
                        member = f"{number:06d}.jpg"
                        _add(tar, member, jpeg)
                        row["shard"], row["member"] = tar_path.name, member
                    except PhotoError as error:
                        row["problem"] = str(error)
                rows.append(row)
        table = pd.DataFrame(rows)
        with tarfile.open(draft) as written:
            places = {member.name: (member.offset_data, member.size) for member in written}
        place = [places.get(member, (0, 0)) for member in table.pop("member")]
        table["offset"] = np.array([offset for offset, _ in place], dtype=np.int64)
        table["size"] = np.array([size for _, size in place], dtype=np.int64)
    with write_aside(table_path) as draft:
        table.to_parquet(draft, index=False)
    return table


def _add(tar: tarfile.TarFile, member: str, data: bytes) -> None:
    info = tarfile.TarInfo(member)
    info.size, info.mode = len(data), 0o444
    # Fixed owner and time: the same photos give the same bytes.
    info.uname = info.gname = "zerotag"
    tar.addfile(info, io.BytesIO(data))


def _encode(data: bytes, name: str, settings: PrepareSettings) -> tuple[int, int, bytes]:
    """Width and height of the upright photo, and its downscaled JPEG; the original bytes if nothing changes."""
    width, height, plain = _header(data)
    side, shorter = settings.shorter_side, min(width, height)
    if plain and shorter <= side:
        open_photo(data, name, least_side=2 * side)
        return width, height, data
    # Slow to import, and no small photo needs them.
    import torch
    from torchvision.io import ImageReadMode, decode_jpeg, encode_jpeg
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms.v2.functional import resize

    pixels = None
    # torchvision decodes faster; Pillow decodes very large photos at reduced scale, supports all other formats, and
    # reports what is wrong.
    if plain and shorter < 4 * side and width * height <= MAX_PIXELS:
        with suppress(RuntimeError):
            pixels = decode_jpeg(torch.frombuffer(bytearray(data), dtype=torch.uint8), ImageReadMode.RGB)
    if pixels is None:
        picture = open_photo(data, name, least_side=2 * side)
        if not shorter:  # a header that only `open_photo` reads
            width, height = picture.size
            shorter = min(width, height)
        pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1)
    if shorter > side:
        scale = side / shorter
        reduced = [max(1, round(height * scale)), max(1, round(width * scale))]
        # Three times faster than Pillow's resize.
        pixels = resize(pixels, reduced, InterpolationMode.BICUBIC, antialias=True)
    if max(pixels.shape) > _JPEG_SIDE:
        size = f"{pixels.shape[2]} x {pixels.shape[1]}"
        raise PhotoError(f"{name}: {size} pixels exceed the {_JPEG_SIDE:,} per side of a JPEG. Crop it.")
    return width, height, encode_jpeg(pixels, settings.quality).numpy().tobytes()


def _header(data: bytes) -> tuple[int, int, bool]:
    """Upright width and height, and whether it is an upright sRGB JPEG; zeros if Pillow cannot read the header."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data)) as photo:
                orientation = photo.getexif().get(0x0112, 1)
                width, height = photo.size if orientation < 5 else photo.size[::-1]
                plain = photo.format == "JPEG" and photo.mode == "RGB" and orientation == 1 and is_srgb(photo)
                return width, height, plain
    except Exception:  # `open_photo` reports the cause
        return 0, 0, False


def _tag_table(source: Source) -> pd.DataFrame:
    train = source.labels[source.train].sum(axis=0)
    test = source.labels[~source.train].sum(axis=0)
    return pd.DataFrame(
        {
            "tag": source.tags,
            "concept": [int(tag in source.concepts) for tag in source.tags],
            "train_photos": np.asarray(train).ravel(),
            "test_photos": np.asarray(test).ravel(),
            "spellings": [" | ".join(source.spellings.get(tag, [])) for tag in source.tags],
        }
    )
