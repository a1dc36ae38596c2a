"""Decoding and packing: what the shards hold, whoever made them and however often."""

import hashlib
import io
import os
import pickle
import tarfile
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
from conftest import encoded, picture
from PIL import Image

from zerotag.data import prepare as module
from zerotag.data.dataset import Dataset
from zerotag.data.prepare import PrepareSettings, prepare
from zerotag.data.sources.base import PhotoFile, Source
from zerotag.data.statistics import statistics
from zerotag.data.workers import clean_fork
from zerotag.errors import ZerotagError

SETTINGS = PrepareSettings(shorter_side=64, shard_photos=4, workers=1)


def source_of(files: list[Path], ids: list[str] | None = None) -> Source:
    """Photos with the tags sea and (each second) sky; each third is a test photo."""
    labels = np.ones((len(files), 2), dtype=np.uint8)
    labels[::2, 1] = 0
    train = np.arange(len(files)) % 3 > 0
    ids = ids or [file.name for file in files]
    return Source(
        ids, [PhotoFile(file) for file in files], ["sea", "sky"], sp.csr_matrix(labels), train, frozenset({"sky"})
    )


@pytest.fixture
def source(photo_folder: Path) -> Source:
    return source_of(sorted((photo_folder / "images").iterdir()))


def content(folder: Path) -> dict[str, str]:
    """Hashes of all files below a folder."""
    return {
        file.relative_to(folder).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in folder.rglob("*")
        if file.is_file()
    }


def opened(dataset: Dataset, row: int) -> Image.Image:
    return Image.open(io.BytesIO(dataset.photo_bytes(row)))


def test_what_is_written(source: Source, tmp_path: Path) -> None:
    prepare(source, SETTINGS, tmp_path / "prepared", tmp_path / "work")
    dataset = Dataset.read(tmp_path / "prepared")
    assert dataset.photos["id"].tolist() == source.ids
    assert dataset.photos["train"].tolist() == source.train.tolist()
    assert dataset.photos["sha256"][3] == hashlib.sha256(source.files[3].read()).hexdigest()
    assert (dataset.photos[["width", "height"]] == (160, 120)).all(axis=None)
    assert sorted(dataset.photos["shard"].unique()) == ["00000.tar", "00001.tar", "00002.tar"]
    assert (dataset.labels != source.labels).nnz == 0
    assert dataset.tags.to_dict("list") == {
        "tag": ["sea", "sky"], "concept": [0, 1], "train_photos": [8, 4], "test_photos": [4, 2],
        "spellings": ["", ""],
    }  # fmt: skip
    assert dataset.usable.all() and dataset.train.size == 8 and dataset.test.size == 4
    assert dataset.columns(["sky", "sea"]).tolist() == [1, 0]
    assert not (tmp_path / "work").exists()


def test_the_shorter_side_is_reduced_and_small_photos_stay_as_they_are(tmp_path: Path) -> None:
    sizes = {"wide": (300, 100), "tall": (100, 200), "small": (80, 60), "thin": (1000, 1)}
    files = []
    for name, (width, height) in sizes.items():
        files.append(tmp_path / f"{name}.jpg")
        files[-1].write_bytes(encoded(1, width=width, height=height))
    prepare(source_of(files), SETTINGS, tmp_path / "prepared", tmp_path / "work")
    dataset = Dataset.read(tmp_path / "prepared")
    assert [opened(dataset, row).size for row in range(4)] == [(192, 64), (64, 128), (80, 60), (1000, 1)]
    assert dataset.photo_bytes(2) == files[2].read_bytes()
    assert dataset.photos["width"].tolist() == [300, 100, 80, 1000]  # of the original


def test_every_kind_is_stored_as_an_upright_rgb_jpeg(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    left_dark = Image.new("RGB", (60, 40), "white")
    left_dark.paste("black", (0, 0, 30, 40))
    left_dark.save(tmp_path / "a-phone.jpg", exif=exif, quality=95)
    picture().convert("CMYK").save(tmp_path / "b-print.jpg")
    picture().convert("L").save(tmp_path / "c-grey.jpg")
    Image.fromarray(np.full((40, 60), 2570, dtype=np.uint16)).save(tmp_path / "d-scan.png")
    picture().save(tmp_path / "e-moving.gif", save_all=True, append_images=[picture(1)])
    files = sorted(tmp_path.iterdir())
    prepare(source_of(files), SETTINGS, tmp_path / "prepared", tmp_path / "work")
    dataset = Dataset.read(tmp_path / "prepared")
    assert dataset.usable.all()
    for row in range(len(files)):
        stored = opened(dataset, row)
        assert (stored.format, stored.mode) == ("JPEG", "RGB")
        assert stored.getexif().get(0x0112, 1) == 1
    phone = opened(dataset, 0)  # turned clockwise: what was left is on top
    assert phone.size == (40, 60) and dataset.photos["height"][0] == 60
    assert max(phone.getpixel((20, 10))) < 30 and min(phone.getpixel((20, 50))) > 220
    assert opened(dataset, 3).getpixel((20, 20)) == (10, 10, 10)


def test_the_bytes_do_not_depend_on_the_number_of_workers(source: Source, tmp_path: Path) -> None:
    for workers in (1, 2):
        settings = replace(SETTINGS, workers=workers)
        prepare(source, settings, tmp_path / f"prepared{workers}", tmp_path / "work")
    assert content(tmp_path / "prepared1") == content(tmp_path / "prepared2")


def interrupt(source: Source, work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run until the last shard, which fails."""
    make = module._make_shard

    def failing(shard: str, *arguments: object, **settings: object) -> object:
        if shard == "00002":
            raise KeyboardInterrupt
        return make(shard, *arguments, **settings)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(module, "_make_shard", failing)
        with pytest.raises(KeyboardInterrupt):
            prepare(source, SETTINGS, work.parent / "prepared", work)
    assert not (work.parent / "prepared").exists()


def count_decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of photos that are decoded from now on."""
    decoded: list[str] = []

    def counting(data: bytes, name: str, settings: PrepareSettings) -> tuple[int, int, bytes]:
        decoded.append(Path(name).name)
        return encode(data, name, settings)

    encode = module._encode
    monkeypatch.setattr(module, "_encode", counting)
    return decoded


def test_an_interrupted_run_goes_on_with_the_missing_shards(
    source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(source, SETTINGS, tmp_path / "undisturbed", tmp_path / "work")
    interrupt(source, tmp_path / "work", monkeypatch)
    (tmp_path / "work" / ".00002.tar.12345678.draft").write_bytes(b"what a killed process leaves")
    decoded = count_decoded(monkeypatch)
    monkeypatch.setattr(module, "ProcessPoolExecutor", lambda *_, **options: ThreadPoolExecutor(1))  # so that it counts
    prepare(source, replace(SETTINGS, workers=2), tmp_path / "prepared", tmp_path / "work")
    assert decoded == source.ids[8:]
    assert content(tmp_path / "prepared") == content(tmp_path / "undisturbed")


def test_changed_photos_or_settings_start_anew(source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    interrupt(source, tmp_path / "work", monkeypatch)
    source.files[0].path.write_bytes(encoded(99))
    decoded = count_decoded(monkeypatch)
    prepare(source, SETTINGS, tmp_path / "prepared", tmp_path / "work")
    assert decoded == source.ids
    interrupt(source_of([file.path for file in source.files]), tmp_path / "other" / "work", monkeypatch)
    decoded.clear()
    prepare(source, replace(SETTINGS, quality=50), tmp_path / "other" / "prepared", tmp_path / "other" / "work")
    assert decoded == source.ids


def test_a_run_that_fails_leaves_the_old_data_set(
    source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(source, SETTINGS, tmp_path / "prepared", tmp_path / "work")
    before = content(tmp_path / "prepared")
    monkeypatch.setattr(sp, "save_npz", lambda file, matrix: Path("/dev/full").write_text("x" * 100))
    with pytest.raises(ZerotagError, match=rf"{tmp_path / 'prepared'}: the disk is full"):
        prepare(source, SETTINGS, tmp_path / "prepared", tmp_path / "work")
    assert content(tmp_path / "prepared") == before


def test_a_disk_that_fills_in_a_shard_is_named(source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tarfile.TarFile, "addfile", lambda *_: Path("/dev/full").write_text("x" * 100))
    with pytest.raises(ZerotagError, match=r"00000\.tar: the disk is full") as caught:
        prepare(source, SETTINGS, tmp_path / "prepared", tmp_path / "work")
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value), "a worker's error must reach the user"
    assert not (tmp_path / "prepared").exists()


def test_bad_photos_are_recorded_and_the_others_are_stored(tmp_path: Path) -> None:
    bad = {
        "a.jpg": (b"", "is empty"),
        "b.jpg": (b"not a picture at all, only words", "not an image"),
        "c.jpg": (encoded()[:-2000], "truncated"),
        "e.jpg": (None, "no such photo"),
        "f.jpg": (None, "cannot be read"),  # a folder
    }
    for name, (data, _) in bad.items():
        if data is not None:
            (tmp_path / name).write_bytes(data)
    (tmp_path / "f.jpg").mkdir()
    good = encoded(width=80, height=60)
    (tmp_path / "d.jpg").write_bytes(good)
    Image.new("1", (70_000, 20)).save(tmp_path / "g.png")  # decodes, but no JPEG is as wide
    names = [*sorted([*bad, "d.jpg"]), "g.png"]
    prepare(source_of([tmp_path / name for name in names]), SETTINGS, tmp_path / "prepared", tmp_path / "work")
    dataset = Dataset.read(tmp_path / "prepared")
    problems = dict(zip(dataset.photos["id"], dataset.photos["problem"], strict=True))
    for name, (_, problem) in {**bad, "g.png": (None, "70000 x 20")}.items():
        assert problems[name].startswith(f"{tmp_path / name}: ") and problem in problems[name]
    assert problems["d.jpg"] == "" and dataset.photo_bytes(3) == good
    assert dataset.usable.tolist() == [name == "d.jpg" for name in names]
    assert dataset.train.size + dataset.test.size == 1
    assert (dataset.photos["shard"] == "").tolist() == [name != "d.jpg" for name in names]


def test_one_pixel_is_stored_for_validation_to_judge(tmp_path: Path) -> None:
    Image.new("RGB", (1, 1)).save(tmp_path / "dot.png")
    prepare(source_of([tmp_path / "dot.png"]), SETTINGS, tmp_path / "prepared", tmp_path / "work")
    photo = Dataset.read(tmp_path / "prepared").photos.iloc[0]
    assert (photo["width"], photo["height"], photo["problem"]) == (1, 1, "")


def test_no_photo_and_a_photo_twice(source: Source, tmp_path: Path) -> None:
    with pytest.raises(ZerotagError, match="no photo"):
        prepare(source_of([]), SETTINGS, tmp_path / "prepared", tmp_path / "work")
    twice = source_of([file.path for file in source.files], [*source.ids[:-1], "04.jpg"])
    with pytest.raises(ZerotagError, match=r"04\.jpg is listed twice"):
        prepare(twice, SETTINGS, tmp_path / "prepared", tmp_path / "work")


@pytest.mark.parametrize("name", ["photos.parquet", "tags.csv", "labels.npz"])
def test_a_data_set_that_is_not_whole(source: Source, tmp_path: Path, name: str) -> None:
    prepare(source, SETTINGS, tmp_path / "prepared", tmp_path / "work")
    (tmp_path / "prepared" / name).unlink()
    with pytest.raises(ZerotagError) as caught:
        Dataset.read(tmp_path / "prepared")
    assert str(tmp_path / "prepared" / name) in str(caught.value) and "dvc repro prepare" in str(caught.value)


def test_the_digest_follows_the_content(source: Source, tmp_path: Path) -> None:
    prepare(source, SETTINGS, tmp_path / "one", tmp_path / "work")
    prepare(source, SETTINGS, tmp_path / "two", tmp_path / "work")
    prepare(replace(source, train=~source.train), SETTINGS, tmp_path / "three", tmp_path / "work")
    source.files[0].path.write_bytes(encoded(99))
    prepare(source, SETTINGS, tmp_path / "four", tmp_path / "work")
    one, two, three, four = (Dataset.read(tmp_path / name).digest for name in ("one", "two", "three", "four"))
    assert one == two and len({one, three, four}) == 3


def test_rejected_tags(source: Source, tmp_path: Path) -> None:
    prepare(source, SETTINGS, tmp_path / "prepared", tmp_path / "work")
    without = Dataset.read(tmp_path / "prepared")
    assert without.rejected is None and without.rejected_of(["sky"]) is None
    before = content(tmp_path / "prepared")
    rejected = sp.csr_matrix(1 - source.labels.toarray())
    prepare(replace(source, rejected=rejected), SETTINGS, tmp_path / "prepared", tmp_path / "work")
    dataset = Dataset.read(tmp_path / "prepared")
    assert content(tmp_path / "prepared").items() > before.items()
    assert dataset.digest != without.digest
    found = dataset.rejected_of(["sky"])
    assert found is not None and found.toarray().tolist() == rejected[:, 1].toarray().tolist()
    assert dataset.rejected_of(["sea"]) is None
    assert "rejected: 6 tags of 6 photos" in list(statistics(dataset))


def test_tags_that_look_like_numbers_or_nothing_stay_words(source: Source, tmp_path: Path) -> None:
    prepare(replace(source, tags=["2010", "007"]), SETTINGS, tmp_path / "one", tmp_path / "work")
    assert Dataset.read(tmp_path / "one").tags["tag"].tolist() == ["2010", "007"]
    prepare(replace(source, tags=["null", "nan"]), SETTINGS, tmp_path / "two", tmp_path / "work")
    assert Dataset.read(tmp_path / "two").tags["tag"].tolist() == ["null", "nan"]


@pytest.mark.parametrize(("longer", "shorter"), [(300, 200), (1500, 1000)])
def test_both_ways_to_decode_give_the_picture(tmp_path: Path, longer: int, shorter: int) -> None:
    """The fast decoder, and the one that decodes very large photos at a fraction of their size."""
    (tmp_path / "a.jpg").write_bytes(encoded(3, width=longer, height=shorter))
    prepare(source_of([tmp_path / "a.jpg"] * 2, ["a", "b"]), SETTINGS, tmp_path / "prepared", tmp_path / "work")
    dataset = Dataset.read(tmp_path / "prepared")
    assert dataset.photos[["width", "height"]].iloc[0].tolist() == [longer, shorter]
    small = Image.open(io.BytesIO(dataset.photo_bytes(0)))
    assert small.size == (96, 64)
    expected = Image.open(tmp_path / "a.jpg").convert("RGB").resize((96, 64), Image.Resampling.BICUBIC)
    difference = np.abs(np.asarray(small, dtype=float) - np.asarray(expected, dtype=float))
    assert difference.mean() < 4


def test_what_the_data_consist_of(source: Source, tmp_path: Path) -> None:
    source.files[1].path.write_bytes(source.files[0].path.read_bytes())
    source.files[5].path.write_bytes(b"no photo")
    prepare(source, SETTINGS, tmp_path / "prepared", tmp_path / "work")
    said = "\n".join(statistics(Dataset.read(tmp_path / "prepared")))
    train = int(source.train.sum())
    assert f"train: {train:,} photos, 1 of them unusable" in said
    assert "tags: 2, of them 1 ground-truth concepts" in said
    assert "duplicates: 1 photos duplicate an earlier one; 1 distinct ones occur in both train and test" in said
    counts = np.asarray(source.labels[source.train].sum(axis=0)).ravel()
    assert f"positives per tag: {counts.min()} to {counts.max()}" in said


def test_workers_do_not_inherit_the_locks_of_this_process() -> None:
    with ProcessPoolExecutor(1, clean_fork("zerotag.data.prepare")) as pool:
        assert pool.submit(os.getppid).result() != os.getpid()
