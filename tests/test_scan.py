"""Scanning folders: every photo once, in order, and nothing passed over in silence."""

import os
import time
import unicodedata
from pathlib import Path

import pytest
from conftest import encoded
from typer.testing import CliRunner

from zerotag.cli import app
from zerotag.data.scan import in_words, scan
from zerotag.errors import ZerotagError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "photos").mkdir()
    return tmp_path / "photos"


def make(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def names(folder: Path, **options: object) -> list[str]:
    return [photo.relative_to(folder).as_posix() for photo in scan([folder], **options).photos]


def test_photos_in_order_of_folders_and_names(folder: Path) -> None:
    make(folder, "b.jpg", "a/2.PNG", "a/10.heic", "a.jpg", "c/d/e.Jpeg", "B.jpg", "notes.txt", "clip.mov", "nothing")
    found = scan([folder])
    assert [photo.relative_to(folder).as_posix() for photo in found.photos] == [
        "B.jpg", "a/10.heic", "a/2.PNG", "a.jpg", "b.jpg", "c/d/e.Jpeg",
    ]  # fmt: skip
    assert found.skipped == {"other": 2, "video": 1} and found.problems == []
    assert in_words(found.skipped) == "1 video, 2 other"
    given = scan([folder / "b.jpg", folder / "a", folder / "notes.txt"]).photos
    assert [photo.name for photo in given] == ["b.jpg", "10.heic", "2.PNG", "notes.txt"]


def test_hidden_files_and_junk_are_counted(folder: Path) -> None:
    make(
        folder, "a.jpg", "._a.jpg", ".thumbnails/x.jpg", ".hidden.jpg", "@eaDir/a.jpg/SYNOPHOTO_THUMB_XL.jpg",
        "#recycle/b.jpg", "Thumbs.db", "My.lrdata/p.jpg", "Apple.photoslibrary/originals/0/c.heic",
        "Apple.photoslibrary/resources/derivatives/c.jpg", "old/$RECYCLE.BIN/d.jpg",
    )  # fmt: skip
    found = scan([folder])
    assert names(folder) == ["Apple.photoslibrary/originals/0/c.heic", "a.jpg"]
    assert found.skipped == {"hidden": 3, "junk": 6}
    # What is given itself is taken.
    assert names(folder / ".thumbnails") == ["x.jpg"]
    assert scan([folder / "._a.jpg"]).photos == [folder / "._a.jpg"]


def test_raw_files_beside_a_photo(folder: Path) -> None:
    make(
        folder,
        "1.CR2",
        "1.JPG",
        "2.dng",
        "3.nef",
        "3.NEF.jpg",
        "deep/4.arw",
        "4.jpg",
        "5.raf",
        "5.heic",
        "6.cr3",
        "6.txt",
    )
    found = scan([folder])
    assert names(folder) == ["1.JPG", "2.dng", "3.NEF.jpg", "4.jpg", "5.heic", "6.cr3", "deep/4.arw"]
    assert found.skipped == {"raw": 3, "other": 1}


def test_formats_that_are_not_read_are_named(folder: Path) -> None:
    make(folder, "a.jpg", "b.jxl", "c.xcf")
    problems = scan([folder]).problems
    assert [line.partition(": ")[0] for line in sorted(problems)] == [str(folder / "b.jxl"), str(folder / "c.xcf")]
    assert all("Export it as JPEG" in line for line in problems)


def test_exclude(folder: Path) -> None:
    make(folder, "a.jpg", "b.png", "2019/screenshots/c.jpg", "2019/d.jpg", "screenshots/e.jpg", "caf\u00e9/f.jpg")
    assert names(folder, exclude=["*.png", "2019/screenshots"]) == [
        "2019/d.jpg", "a.jpg", "caf\u00e9/f.jpg", "screenshots/e.jpg",
    ]  # fmt: skip
    assert names(folder, exclude=["screenshots/", "cafe\u0301", "2019/d*"]) == ["a.jpg", "b.png"]
    assert scan([folder], ["*"]).skipped == {"excluded": 5}


def test_links_are_followed_once(folder: Path, tmp_path: Path) -> None:
    make(folder, "album/a.jpg", "zoo/b.jpg")
    make(tmp_path / "other", "c.jpg", "d/e.jpg")
    make(tmp_path, "f.jpg")
    for link, target in {
        "again": folder / "zoo", "loop": folder, "album/up": folder / "album", "other": tmp_path / "other",
        "other2": tmp_path / "other", "f.jpg": tmp_path / "f.jpg", "zoo/a.jpg": folder / "album" / "a.jpg",
        "gone.jpg": tmp_path / "nowhere", "gone.txt": tmp_path / "nowhere",
    }.items():  # fmt: skip
        (folder / link).symlink_to(target)
    (tmp_path / "other" / "back").symlink_to(folder)
    found = scan([folder])
    assert [photo.relative_to(folder).as_posix() for photo in found.photos] == [
        "album/a.jpg", "f.jpg", "other/c.jpg", "other/d/e.jpg", "zoo/b.jpg",
    ]  # fmt: skip
    assert found.skipped == {"linked": 6, "other": 1}
    (problem,) = found.problems
    assert problem.startswith(f"{folder / 'gone.jpg'}: a link that leads nowhere")
    inside = scan([folder], within=folder)
    assert [photo.name for photo in inside.photos] == ["a.jpg", "b.jpg"] and inside.skipped["outside"] == 3


def test_a_folder_that_may_not_be_read_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(folder, "a.jpg", "locked/b.jpg", "z.jpg")
    really = os.scandir

    def forbidden(path: str) -> object:
        if Path(path).name == "locked":
            raise PermissionError(13, "Permission denied", path)
        return really(path)

    monkeypatch.setattr(os, "scandir", forbidden)  # root may read everything
    found = scan([folder])
    assert [photo.name for photo in found.photos] == ["a.jpg", "z.jpg"] and found.unread == [folder / "locked"]
    assert found.problems == [f"{folder / 'locked'}: the folder cannot be read (Permission denied). Allow access."]


def test_names_in_any_form(folder: Path) -> None:
    composed, apart = (unicodedata.normalize(form, "M\u00fcller.jpg") for form in ("NFC", "NFD"))
    make(folder, apart, "Mz.jpg", "Ma.jpg")
    assert [name[1] for name in names(folder)] == ["a", "z", "u"]
    assert scan([folder / composed]).photos == [folder / apart]
    (folder / apart).rename(folder / composed)
    assert [name[1] for name in names(folder)] == ["a", "z", "\u00fc"]
    assert scan([folder / apart]).photos == [folder / composed]


def test_nothing_there(folder: Path) -> None:
    assert scan([folder]).photos == []
    with pytest.raises(ZerotagError, match="no such file or folder"):
        scan([folder / "nowhere"])


def test_output_is_utf_8(folder: Path, packaged: Path) -> None:
    for name in (b"caf\xe9.jpg", "caf\u00e9 2.jpg".encode(), b"line\nbreak.jpg"):
        Path(os.fsdecode(os.fsencode(folder) + b"/" + name)).write_bytes(encoded())
    Path(os.fsdecode(os.fsencode(folder) + b"/bad\xff.jpg")).write_bytes(b"no photo")
    for options in ([], ["--json"]):
        done = CliRunner().invoke(app, ["tag", str(folder), "--model", str(packaged), *options])
        assert done.exit_code == 1 and len(done.stdout_bytes.decode("utf-8").splitlines()) == 3
        assert f"{folder}/bad\\xff.jpg: not an image" in done.stderr_bytes.decode("utf-8")
        assert "caf\\xe9.jpg" in done.stdout.replace("\\\\", "\\")
    arguments = ["--database", str(folder.parent / "index"), "--model", str(packaged)]
    done = CliRunner().invoke(app, ["index", str(folder), *arguments])
    assert done.exit_code == 0 and "3 added" in done.stdout and "bad\\xff.jpg" in done.stderr
    found = CliRunner().invoke(app, ["search", "sky", *arguments]).stdout_bytes.decode("utf-8").splitlines()
    assert sorted(line[8:] for line in found) == ["caf\\xe9.jpg", "caf\u00e9 2.jpg", "line\\x0abreak.jpg"]
    piped = CliRunner().invoke(app, ["search", "sky", "-0", *arguments]).stdout_bytes
    assert piped.endswith(b"\0") and len(piped[:-1].split(b"\0")) == 3
    found_files = [Path(os.fsdecode(path)) for path in piped[:-1].split(b"\0")]
    assert all(file.is_absolute() and file.is_file() for file in found_files)
    lines = CliRunner().invoke(app, ["search", "sky", "--paths", *arguments, "--top", "1"]).stdout_bytes
    assert lines == piped.split(b"\0")[0] + b"\n"
    both = CliRunner().invoke(app, ["search", "sky", "-0", "--json", *arguments])
    assert both.exit_code == 1 and "exclude each other" in both.stderr


def test_5_000_files_in_a_quarter_of_a_second(folder: Path) -> None:
    for number in range(50):
        (folder / f"{number:03d}").mkdir()
        for photo in range(100):
            (folder / f"{number:03d}" / f"IMG_{photo:04d}.jpg").touch()
    started = time.process_time()  # other programs may be running
    found = scan([folder])
    assert len(found.photos) == 5000
    assert time.process_time() - started < 0.25
