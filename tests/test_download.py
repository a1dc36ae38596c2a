"""The download of NUS-WIDE from a web that is slow, cut off, busy and dead, by a process that is killed."""

import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
import urllib.request
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import bad_web
import numpy as np
import pandas as pd
import pytest
import yaml
from conftest import PROJECT, free_port

from zerotag.data import sources
from zerotag.data.sources.archives import members, unpack
from zerotag.data.sources.packed import open_store, read_records
from zerotag.errors import ZerotagError

CONCEPTS = ["dog", "sky", "tower"]
USER_TAGS = ["abandoned", "sky", "beach", "dog", "zoo"]
# How a photo of the middle size is served, by turns, and what becomes of a photo of which only this size exists.
KINDS = {
    "good": True, "slow": True, "dead": False, "gone": False, "moved": False, "same": False, "garbage": False,
    "error": True, "busy": True, "cut": True, "short": True, "endless": True, "silent": True,
}  # fmt: skip
FAST = {"first_wait": 0.02, "per_second": 0, "stall_seconds": 1, "longest_wait": 2, "attempts": 3}


def kind_of(number: int) -> str:
    """Most photos are well; every tenth or so is not."""
    bad = list(KINDS)[1:]
    kind = bad[number // 10 % len(bad)] if number % 10 == 3 else "good"
    return "good" if kind == "busy" and number > 700 else kind  # each holds the host up for a second


class Site:
    """A server with the dataset's archives and photos."""

    def __init__(self, url: str, archives: list[str], photos: int):
        self.url, self.archives, self.photos = url, archives, photos

    def asked(self) -> dict[str, dict[str, int]]:
        with urllib.request.urlopen(f"{self.url}/asked") as answer:
            return json.load(answer)

    def settings(self, **changes: Any) -> dict[str, Any]:
        return {
            "archives": self.archives,
            "counts": {"train": self.photos * 3 // 5, "test": self.photos - self.photos * 3 // 5, "concepts": 3},
            "min_share": 0.5,
            **changes,
            "web": {**FAST, **changes.get("web", {})},
        }


def write_archives(folder: Path, url: str, photos: int, kind: Callable[[int], str] = kind_of) -> None:
    """The official archives, in the kinds that the dataset has: .zip, and .rar for the addresses."""
    random = np.random.default_rng(0)
    train = photos * 3 // 5
    names = [f"actor\\{number:05d}_{5_000_000 + number}.jpg" for number in range(photos)]
    parts = {"Train": range(train), "Test": range(train, photos)}
    concepts = zipfile.ZipFile(folder / "ConceptsList.zip", "w")
    concepts.writestr("ConceptsList/Concepts81.txt", "\n".join(CONCEPTS) + "\n")
    concepts.close()
    lists = zipfile.ZipFile(folder / "ImageList.zip", "w")
    tags = zipfile.ZipFile(folder / "NUS_WID_Tags.zip", "w", zipfile.ZIP_DEFLATED)
    truth = zipfile.ZipFile(folder / "Groundtruth.zip", "w", zipfile.ZIP_DEFLATED)
    lists.writestr("ImageList/Imagelist.txt", "\r\n".join(names) + "\r\n")
    tags.writestr("NUS_WID_Tags/TagList1k.txt", "\n".join(USER_TAGS) + "\n")
    for part, rows in parts.items():
        lists.writestr(f"ImageList/{part}Imagelist.txt", "".join(f"{names[row]}\r\n" for row in rows))
        table = random.integers(0, 2, (len(rows), len(USER_TAGS)))
        tags.writestr(f"NUS_WID_Tags/{part}_Tags1k.dat", "".join(" ".join(map(str, row)) + " \n" for row in table))
        for concept in CONCEPTS:
            values = "".join(f"{value}\n" for value in random.integers(0, 2, len(rows)))
            truth.writestr(f"Groundtruth/TrainTestLabels/Labels_{concept}_{part}.txt", values)
    for file in (lists, tags, truth):
        file.close()
    lines = ["Photo_file\tPhoto_id\turl_Large\turl_Middle\turl_Small\turl_Original"]
    for number, name in enumerate(names):
        middle = f"{url}/photo/{kind(number)}/{number}.jpg"
        # Some have a smaller size that is well; most have the one size only.
        small = f"{url}/photo/good/{number}_m.jpg" if number % 50 == 13 else "null"
        lines.append(f"C:\\ImageData\\Flickr\\{name}  {5_000_000 + number}  null  {middle}  {small}  null")
    (folder / "NUS-WIDE-urls.rar").write_bytes(stored_rar("NUS-WIDE-urls.txt", "\r\n".join(lines).encode()))


def stored_rar(name: str, data: bytes) -> bytes:
    """A RAR 3 archive of one member that is not compressed."""

    def block(kind: int, flags: int, head: bytes, body: bytes = b"") -> bytes:
        header = bytes([kind]) + flags.to_bytes(2, "little") + (7 + len(head)).to_bytes(2, "little") + head
        return (zlib.crc32(header) & 0xFFFF).to_bytes(2, "little") + header + body

    def number(value: int, size: int) -> bytes:
        return value.to_bytes(size, "little")

    head = number(len(data), 4) * 2 + b"\x02" + number(zlib.crc32(data), 4) + number(0x4A21_0000, 4)
    head += b"\x1d\x30" + number(len(name), 2) + number(0x20, 4) + name.encode()
    end = block(0x7B, 0x4000, b"")
    return b"Rar!\x1a\x07\x00" + block(0x73, 0, bytes(6)) + block(0x74, 0x8000, head, data) + end


def start_site(folder: Path, photos: int, kind: Callable[[int], str] = kind_of) -> tuple[Site, subprocess.Popen[bytes]]:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    folder.mkdir(exist_ok=True)
    write_archives(folder, url, photos, kind)
    names = ("ConceptsList.zip", "ImageList.zip", "Groundtruth.zip", "NUS_WID_Tags.zip", "NUS-WIDE-urls.rar")
    server = subprocess.Popen([sys.executable, PROJECT / "tests" / "bad_web.py", str(port), str(folder)])
    site = Site(url, [f"{url}/archives/{name}" for name in names], photos)
    for _ in range(100):
        try:
            site.asked()
            break
        except OSError:
            time.sleep(0.1)
    return site, server


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """A site of 200 photos."""
    one, server = start_site(tmp_path / "site", 200)
    yield one
    server.kill()
    server.wait()


def fetch(site: Site, folder: Path, **changes: Any) -> sources.Source:
    settings = site.settings(**changes)
    sources.fetch("nus-wide", settings, folder / "raw", folder / "work", folder / "downloads.lock")
    return sources.read("nus-wide", settings, folder / "raw")


def test_a_download_killed_three_times(tmp_path: Path) -> None:
    site, server = start_site(tmp_path / "site", 5000)
    (tmp_path / "params.yaml").write_text(
        yaml.safe_dump({"source": "nus-wide", "sources": {"nus-wide": site.settings(web={"connections": 32})}})
    )
    journal = tmp_path / "work" / "download" / "photos" / "journal.jsonl"
    before: list[dict[str, Any]] = []
    try:
        for kill_after in (600, 1900, 3300, None):
            stage = subprocess.Popen(
                [sys.executable, PROJECT / "stages" / "download.py"], cwd=tmp_path, stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip
            if kill_after is None:
                said, _ = stage.communicate(timeout=300)
                assert stage.returncode == 0, said.decode()
                break
            while not journal.is_file() or journal.read_bytes().count(b"\n") < kill_after:
                assert stage.poll() is None
                time.sleep(0.05)
            os.killpg(stage.pid, signal.SIGKILL)
            stage.wait()
            # Whatever is on record now must not be asked for any more.
            before.append({"asked": site.asked()["asked"], "records": read_records(journal.parent)})
        seen = site.asked()
    finally:
        server.kill()
        server.wait()
    for moment in before:
        for record in moment["records"].values():
            if record.file or record.final:
                path = "/" + record.url.split("/", 3)[3]
                assert seen["asked"][path] == moment["asked"][path], record
    # A photo that was on its way when the process was killed is fetched again, no other.
    again = [path for path, times in seen["served"].items() if times > 1]
    assert len(again) <= 3 * 32
    source = sources.read("nus-wide", site.settings(), tmp_path / "raw")
    wanted = [KINDS[kind_of(number)] or number % 50 == 13 for number in range(5000)]
    got = [file.size is not None for file in source.files]
    assert [kind_of(number) for number in range(5000) if got[number] != wanted[number]] == []
    for number in (0, 13, 23, 83, 4999):
        name = f"{number}_m" if number == 13 and not KINDS[kind_of(13)] else str(number)
        if wanted[number]:
            assert source.files[number].read() == bad_web.photo(name), number
    missing = pd.read_csv(tmp_path / "raw" / "missing.csv")
    assert len(missing) == 5000 - sum(wanted)
    numbers = missing["photo"].str.extract(r"/(\d+)_")[0].astype(int)
    for kind, words in {
        "dead": "HTTP 404", "gone": "HTTP 410", "moved": "placeholder", "same": "placeholder",
        "garbage": "not an image",
    }.items():  # fmt: skip
        problems = missing["problem"][[kind_of(number) == kind for number in numbers]]
        assert len(problems) > 20 and problems.str.contains(words).all(), kind
    by_tag = pd.read_csv(tmp_path / "raw" / "missing_by_tag.csv", keep_default_na=False)
    total = by_tag[by_tag["tag"] == ""].set_index("split")["missing"]
    assert total.to_dict() == missing["split"].value_counts().to_dict()
    train = np.array(source.train)
    lost = ~np.array(wanted)
    column = source.tags.index("zoo")
    row = by_tag[(by_tag["tag"] == "zoo") & (by_tag["split"] == "test")].iloc[0]
    assert row["photos"] == source.labels[~train][:, [column]].sum()
    assert row["missing"] == source.labels[~train & lost][:, [column]].sum()
    assert b"photos downloaded" in said and b"HTTP 404" in said


def test_retry_after_is_heeded_for_the_whole_host(tmp_path: Path) -> None:
    site, server = start_site(tmp_path / "site", 40, lambda number: "busy" if number == 0 else "good")
    try:
        started = time.monotonic()
        fetch(site, tmp_path, web={"connections": 1})
        assert time.monotonic() - started > 1
        assert site.asked()["asked"]["/photo/busy/0.jpg"] == 2
    finally:
        server.kill()
        server.wait()


def test_the_rate_is_limited(site: Site, tmp_path: Path) -> None:
    started = time.monotonic()
    fetch(site, tmp_path, web={"per_second": 100})
    assert time.monotonic() - started > 1.8  # 200 photos


def test_what_is_missing_for_now_is_asked_for_again(site: Site, tmp_path: Path) -> None:
    fetch(site, tmp_path, web={"attempts": 1})
    first = site.asked()["asked"]
    source = fetch(site, tmp_path)
    now = site.asked()["asked"]
    more = Counter(path.split("/")[2] for path in now if now[path] > first.get(path, 0) and path.startswith("/photo"))
    # Not those that are here, nor the dead ones.
    assert set(more) == {"garbage", "error", "cut", "short", "endless"}
    # The one picture that stands for several photos is not recognised when they are so few.
    wanted = [KINDS[kind_of(number)] or number % 50 == 13 or kind_of(number) == "same" for number in range(200)]
    assert [file.size is not None for file in source.files] == wanted


def test_too_few_photos_stop_the_download_and_lose_nothing(site: Site, tmp_path: Path) -> None:
    with pytest.raises(ZerotagError, match=r"(?s)Only \d+\.\d% .* fewer than 99% .*min_share.*missing\.csv"):
        fetch(site, tmp_path, min_share=0.99)
    assert not (tmp_path / "raw").exists()
    assert len(pd.read_csv(tmp_path / "work" / "missing.csv")) > 0
    asked = site.asked()["asked"]["/photo/good/0.jpg"]
    fetch(site, tmp_path)
    assert site.asked()["asked"]["/photo/good/0.jpg"] == asked == 1


def test_an_archive_that_changed_is_refused(site: Site, tmp_path: Path) -> None:
    fetch(site, tmp_path)
    lock = json.loads((tmp_path / "downloads.lock").read_text())
    assert set(lock) == {
        "ConceptsList.zip",
        "ImageList.zip",
        "Groundtruth.zip",
        "NUS_WID_Tags.zip",
        "NUS-WIDE-urls.rar",
    }
    assert lock["ConceptsList.zip"]["bytes"] == (tmp_path / "site" / "ConceptsList.zip").stat().st_size
    with zipfile.ZipFile(tmp_path / "site" / "ConceptsList.zip", "w") as file:
        file.writestr("ConceptsList/Concepts81.txt", "\n".join(["cat", *CONCEPTS[1:]]))
    other = tmp_path / "other"
    other.mkdir()
    (tmp_path / "downloads.lock").rename(other / "downloads.lock")
    with pytest.raises(ZerotagError, match=r"(?s)ConceptsList\.zip: \d+ bytes .* but the first download .*run again"):
        fetch(site, other)
    assert not (other / "raw").exists()


def test_archives_that_are_not_there(site: Site, tmp_path: Path) -> None:
    site.archives[0] += "x"
    with pytest.raises(ZerotagError, match=r"ConceptsList\.zipx cannot be downloaded \(HTTP 404\).*sources\.nus-wide"):
        fetch(site, tmp_path)


def test_lists_of_another_size(site: Site, tmp_path: Path) -> None:
    with pytest.raises(ZerotagError, match=r"train = 120, expected 161789.*sources\.nus-wide\.counts"):
        fetch(site, tmp_path, counts={"train": 161_789})


@pytest.mark.parametrize("name", ["photos.zip", "photos.tar.gz", "photos.rar"])
def test_photos_from_an_archive(site: Site, tmp_path: Path, name: str) -> None:
    archive = tmp_path / name
    inside = {
        f"Flickr/actor/{number:05d}_{5_000_000 + number}.jpg": bad_web.photo(str(number)) for number in range(150)
    }
    if name.endswith(".zip"):
        with zipfile.ZipFile(archive, "w") as packed:
            for member, data in inside.items():
                packed.writestr(member, data)
    elif name.endswith(".rar"):
        inside = dict(list(inside.items())[:1])
        archive.write_bytes(stored_rar(*next((member.replace("/", "\\"), data) for member, data in inside.items())))
    else:
        with tarfile.open(archive, "w:gz") as packed:
            for member, data in inside.items():
                entry = tarfile.TarInfo(member)
                entry.size = len(data)
                packed.addfile(entry, io.BytesIO(data))
    source = fetch(site, tmp_path, photos=str(archive), min_share=0.0)
    assert [file.size is not None for file in source.files] == [number < len(inside) for number in range(200)]
    assert source.files[0].read() == bad_web.photo("0")
    assert "not in the archive" in source.files[199].missing
    assert not any(path.startswith("/photo") for path in site.asked()["asked"])


@pytest.mark.parametrize("name", ["../outside.txt", "/outside.txt", "a/../../outside.txt", "C:\\outside.txt"])
@pytest.mark.parametrize("kind", ["zip", "tar", "rar"])
def test_no_member_leaves_its_folder(tmp_path: Path, name: str, kind: str) -> None:
    archive = tmp_path / f"bad.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(archive, "w") as packed:
            packed.writestr(name, "x")
    elif kind == "rar":
        archive.write_bytes(stored_rar(name, b"x"))
    else:
        with tarfile.open(archive, "w") as packed:
            entry = tarfile.TarInfo(name)
            entry.size = 1
            packed.addfile(entry, io.BytesIO(b"x"))
    with pytest.raises(ZerotagError, match=r"bad\.\w+: member .* outside of"):
        unpack(archive, lambda member: tmp_path / "inside" / member)
    assert not list(tmp_path.glob("**/outside.txt"))


@pytest.mark.parametrize("kind", ["zip", "tar.gz", "rar"])
def test_a_damaged_archive(tmp_path: Path, kind: str) -> None:
    archive = tmp_path / f"bad.{kind}"
    data = np.random.default_rng(0).bytes(50_000)
    if kind == "zip":
        with zipfile.ZipFile(archive, "w") as packed:
            packed.writestr("a.txt", data)
    elif kind == "rar":
        archive.write_bytes(stored_rar("a.txt", data))
    else:
        with tarfile.open(archive, "w:gz") as packed:
            entry = tarfile.TarInfo("a.txt")
            entry.size = len(data)
            packed.addfile(entry, io.BytesIO(data))
    assert [content.read() for _, content in members(archive, lambda name: True)] == [data]
    whole = archive.read_bytes()
    archive.write_bytes(whole[:25_000] + b"\0" * 100 + whole[25_100:])
    with pytest.raises(ZerotagError, match=r"bad\.\S+: cannot be unpacked .*Download it again"):
        list(members(archive, lambda name: True))
    archive.write_bytes(b"not an archive at all")
    with pytest.raises(ZerotagError, match=r"bad\.\S+: cannot be unpacked"):
        list(members(archive, lambda name: True))


def test_a_store_that_was_cut_off_is_mended(tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        for number in range(5):
            store.add([f"{number}.jpg"], bytes([number]) * 700, "u")
    [tar] = tmp_path.glob("*.tar")
    # A photo without a line in the journal, and half a line.
    whole = tar.read_bytes()
    tar.write_bytes(whole[: read_records(tmp_path)["4.jpg"].offset + 300])
    journal = tmp_path / "journal.jsonl"
    journal.write_bytes(journal.read_bytes() + b'{"id": "5.jpg", "fi')
    with open_store(tmp_path) as store:
        assert store.records["4.jpg"].problem == "its bytes were lost" and not store.records["4.jpg"].final
        store.add(["6.jpg"], b"six", "u")
    records = {name: record for name, record in read_records(tmp_path).items() if record.file}
    assert set(records) == {"0.jpg", "1.jpg", "2.jpg", "3.jpg", "6.jpg"}
    for path in sorted(tmp_path.glob("*.tar")):
        with tarfile.open(path) as packed:
            for member in packed:
                record = records[member.name]
                assert (record.file, record.offset, record.size) == (path.name, member.offset_data, member.size)
