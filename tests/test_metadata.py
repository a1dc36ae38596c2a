"""Tags in files and beside them, by the command line; exiftool itself reads what was written."""

import json
import os
import shutil
import signal
import struct
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import OTHER_WORDS, TAGS, encoded, package
from typer.testing import CliRunner

from zerotag.cli import app
from zerotag.data import sources
from zerotag.errors import ZerotagError
from zerotag.files import shown
from zerotag.metadata.keywords import GivenTag
from zerotag.metadata.vocabulary_file import read_vocabulary
from zerotag.metadata.writing import open_untagger, open_writer

pytestmark = pytest.mark.skipif(not shutil.which("exiftool"), reason="exiftool is not installed")

KEYWORDS = ["Granny", "sky", "2024.10", "a, b; c"]
# A photograph's other metadata, value for value.
PERSONS = {
    "XMP-dc:Title": "Sunday",
    "XMP-xmp:Rating": "4",
    "GPS:GPSLatitude": "48.137",
    "GPS:GPSLatitudeRef": "N",
    "GPS:GPSLongitude": "11.575",
    "GPS:GPSLongitudeRef": "E",
    "ExifIFD:DateTimeOriginal": "2024:10:06 12:00:00",
}


def run(*arguments: object) -> tuple[int, list[str], str]:
    """Exit status, lines of stdout, and stderr."""
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.stdout.splitlines(), done.stderr


def exiftool(*arguments: object) -> str:
    done = subprocess.run(["exiftool", *map(str, arguments)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def values(file: Path, *tags: str) -> dict[str, Any]:
    """All metadata of a file but the file system's, or some of them."""
    options = [f"-{tag}" for tag in tags] or ["-all:all", "--System:all", "--ExifTool:all"]
    [found] = json.loads(exiftool("-j", "-G1", "-struct", "-n", *options, file), parse_float=str, parse_int=str)
    found.pop("SourceFile")
    return found


def subject(file: Path) -> list[str]:
    return listed(values(file, "XMP-dc:Subject").get("XMP-dc:Subject"))


def listed(value: Any) -> list[str]:
    return value if isinstance(value, list) else [] if value is None else [value]


def keyworded(file: Path, seed: int = 0, words: Iterable[str] = KEYWORDS) -> Path:
    """A JPEG with a person's keywords, title, rating and position."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(encoded(seed))
    given = [f"-{group}={word}" for word in words for group in ("XMP-dc:Subject", "IPTC:Keywords")]
    exiftool("-q", "-overwrite_original", "-codedcharacterset=utf8", *given,
             *(f"-{name}={value}" for name, value in PERSONS.items()), file)  # fmt: skip
    return file


def scan(jpeg: bytes) -> bytes:
    """What a JPEG has but metadata: all segments except APPn and comments, and the coded pixels."""
    place, kept = 2, b""
    while True:
        marker, size = jpeg[place + 1], struct.unpack(">H", jpeg[place + 2 : place + 4])[0]
        if marker == 0xDA:
            return kept + jpeg[place:]
        if not (0xE0 <= marker <= 0xEF or marker == 0xFE):
            kept += jpeg[place : place + 2 + size]
        place += 2 + size


@pytest.fixture(scope="session")
def other_model(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same network under another version."""
    folder = tmp_path_factory.mktemp("other")
    vectors = np.random.default_rng(1).standard_normal((len(TAGS + OTHER_WORDS), 50)).astype(np.float32)
    served = package(trained, folder, vectors)
    info = json.loads((served / "tagger.json").read_text())
    (served / "tagger.json").write_text(json.dumps(info | {"version": "second"}))
    return served


@pytest.mark.parametrize("write", ["embed", "sidecar"])
def test_round_trip(write: str, packaged: Path, other_model: Path, tmp_path: Path) -> None:
    """Tagged, tagged by another model, untagged: all that the person had is as before."""
    photo = keyworded(tmp_path / "a.jpg")
    os.utime(photo, ns=(1_700_000_000_123_456_789, 1_600_000_000_123_456_789))
    photo.chmod(0o640)
    bytes_before, before, stat = photo.read_bytes(), values(photo), photo.stat()
    target = photo if write == "embed" else tmp_path / "a.jpg.xmp"

    status, lines, errors = run("tag", photo, "--write", write, "--all", "--top", 12, "--model", packaged)
    assert (status, errors) == (0, "")
    given = [tag for tag in subject(target) if tag not in KEYWORDS]
    assert sorted(given) == sorted(set(TAGS) - {"sky"})  # the person has it already
    assert set(KEYWORDS) <= set(subject(target))
    assert f"wrote {target}" in lines[1] and "there already: sky" in lines[1]
    tagged = json.loads(
        exiftool("-config", Path(sys.modules["zerotag.metadata"].__path__[0]) / "zerotag.config",
                 "-j", "-struct", "-XMP-zerotag:Tags", target)
    )[0]["Tags"]  # fmt: skip
    assert {each["Tag"] for each in tagged} == set(given)
    assert all(each["Model"] == "zerotag:test" and 0 <= each["Probability"] <= 1 for each in tagged)
    assert all(each["Date"].startswith("20") for each in tagged)

    status, _, errors = run("tag", photo, "--write", write, "--tags", "zebra,guitar", "--model", other_model)
    assert (status, errors) == (0, "")
    assert sorted(set(subject(target)) - set(KEYWORDS)) == ["guitar", "zebra"]
    if write == "embed":
        assert (photo.stat().st_mtime_ns, photo.stat().st_mode) == (stat.st_mtime_ns, stat.st_mode)
        assert scan(photo.read_bytes()) == scan(bytes_before)
        assert {name: value for name, value in values(photo).items() if name in before and "Subject" not in name} == {
            name: value for name, value in before.items() if "Subject" not in name
        }
    else:
        assert photo.read_bytes() == bytes_before

    status, lines, errors = run("untag", tmp_path)
    assert (status, errors) == (0, "") and "-guitar" in lines[0] + lines[-1]
    assert values(photo) == before and photo.read_bytes() == bytes_before
    assert [file.name for file in tmp_path.iterdir()] == ["a.jpg"]
    assert photo.stat().st_mtime_ns == stat.st_mtime_ns


def test_a_photo_without_metadata_is_as_before(packaged: Path, tmp_path: Path) -> None:
    for kind, name in (("JPEG", "a.jpg"), ("PNG", "b.png"), ("TIFF", "c.tif"), ("WEBP", "d.webp"), ("GIF", "e.gif")):
        (tmp_path / name).write_bytes(encoded(3, kind))

    def all_values() -> dict[str, Any]:
        # GIF87a has no place for metadata, so exiftool makes it GIF89a.
        return {file.name: values(file, "all:all", "-System:all", "-ExifTool:all", "-GIFVersion")
                for file in tmp_path.iterdir()}  # fmt: skip

    before = all_values()
    jpeg = (tmp_path / "a.jpg").read_bytes()
    assert run("tag", tmp_path, "--write", "embed", "--all", "--model", packaged)[0] == 0
    assert all(len(subject(tmp_path / name)) == 10 for name in before)
    assert run("untag", tmp_path)[0] == 0
    assert all_values() == before
    assert (tmp_path / "a.jpg").read_bytes() == jpeg


DARKTABLE = """<?xml version="1.0" encoding="UTF-8"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/" x:xmptk="XMP Core 4.4.0-Exiv2">
 <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
  <rdf:Description rdf:about="" xmlns:darktable="http://darktable.sf.net/" xmlns:xmp="http://ns.adobe.com/xap/1.0/"
    xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:lr="http://ns.adobe.com/lightroom/1.0/"
    xmp:Rating="4" darktable:xmp_version="5" darktable:history_end="2">
   <darktable:history><rdf:Seq>
     <rdf:li darktable:num="0" darktable:operation="exposure" darktable:enabled="1" darktable:modversion="6"
      darktable:params="0000000040a0093bd8ce3740" darktable:multi_name=""/>
     <rdf:li darktable:num="1" darktable:operation="flip" darktable:enabled="1" darktable:multi_name=" one "/>
   </rdf:Seq></darktable:history>
   <dc:subject><rdf:Bag><rdf:li>Green Street</rdf:li><rdf:li>place</rdf:li><rdf:li>jpg</rdf:li></rdf:Bag></dc:subject>
   <lr:hierarchicalSubject><rdf:Bag>
     <rdf:li>place|Green Street</rdf:li><rdf:li>darktable|format|jpg</rdf:li>
   </rdf:Bag></lr:hierarchicalSubject>
  </rdf:Description>
 </rdf:RDF>
</x:xmpmeta>
"""


def test_darktables_sidecar_keeps_the_rest(packaged: Path, tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(encoded())
    sidecar = tmp_path / "a.jpg.xmp"
    sidecar.write_text(DARKTABLE)
    before = values(sidecar)
    run("tag", tmp_path, "--write", "sidecar", "--tags", "dog,place", "--model", packaged)
    after = values(sidecar)
    assert after["XMP-dc:Subject"] == ["Green Street", "place", "jpg", "dog"]
    # darktable and digiKam read these first, and then no other field.
    assert set(after["XMP-lr:HierarchicalSubject"]) >= {"place|Green Street", "darktable|format|jpg", "dog"}
    assert set(after["XMP-digiKam:TagsList"]) >= {"place/Green Street", "dog"}
    assert "place" not in after["XMP-lr:HierarchicalSubject"]  # the person's own already, as a parent
    assert not any("darktable" in path for path in after["XMP-digiKam:TagsList"])
    ours = ("XMP-dc:", "XMP-lr:", "XMP-digiKam:", "XMP-zerotag:", "XMP-http")
    assert {name: value for name, value in after.items() if not name.startswith(ours)} == {
        name: value for name, value in before.items() if not name.startswith(ours)
    }
    assert run("untag", tmp_path)[0] == 0
    assert values(sidecar) == before


def test_sidecar_names_and_what_photos_share(packaged: Path, tmp_path: Path) -> None:
    for name in ("a.jpg", "a.png"):
        (tmp_path / name).write_bytes(encoded(1, "PNG" if name.endswith("png") else "JPEG"))
    options = ("--write", "sidecar", "--sidecar-name", "photo.xmp", "--all", "--model", packaged)
    status, _, errors = run("tag", tmp_path, *options)
    assert status == 1 and "a.png: shares the sidecar a.xmp with a.jpg" in errors and "photo.jpg.xmp" in errors
    assert len(subject(tmp_path / "a.xmp")) == 10


def test_hierarchy_as_lightroom_and_digikam_write_it(packaged: Path, tmp_path: Path) -> None:
    keyworded(tmp_path / "a.jpg", words=["Granny"])
    (tmp_path / "words.txt").write_text("Animals\n\tdog\n\tcat\n[Things]\n\tguitar\n\tblack/white\nqzxv\n")
    status, _, errors = run(
        "tag", tmp_path / "a.jpg", "--write", "sidecar", "--vocabulary", tmp_path / "words.txt", "--model", packaged
    )
    assert status == 0, errors
    assert "words.txt: 3 of 6 keywords have no vector" in errors and "qzxv (line 7)" in errors
    found = values(tmp_path / "a.jpg.xmp")
    assert set(found["XMP-dc:Subject"]) == {"Granny", "dog", "cat", "guitar"}
    assert set(found["XMP-lr:HierarchicalSubject"]) == {"Granny", "Animals|dog", "Animals|cat", "Things|guitar"}
    assert set(found["XMP-digiKam:TagsList"]) == {"Granny", "Animals/dog", "Animals/cat", "Things/guitar"}
    xml = (tmp_path / "a.jpg.xmp").read_text()
    for name, kind in (("dc:subject", "Bag"), ("lr:hierarchicalSubject", "Bag"), ("digiKam:TagsList", "Seq")):
        assert f"<rdf:{kind}>" in xml.partition(f"<{name}>")[2].partition(f"</{name}>")[0]


def test_dry_run_changes_nothing(packaged: Path, tmp_path: Path) -> None:
    photo = keyworded(tmp_path / "a.jpg")
    before = photo.read_bytes()
    for write in ("embed", "sidecar", "csv"):
        status, lines, _ = run("tag", photo, "--write", write, "--dry-run", "--tags", "dog,sky", "--model", packaged)
        assert status == 0 and lines[1].startswith("  would write ") and "+dog" in lines[1]
    assert photo.read_bytes() == before and list(tmp_path.iterdir()) == [photo]
    run("tag", photo, "--write", "embed", "--tags", "dog", "--model", packaged)
    tagged = photo.read_bytes()
    status, lines, _ = run("untag", photo, "--dry-run")
    assert (status, lines) == (0, [f"  would write {photo}: -dog"]) and photo.read_bytes() == tagged


def test_the_same_tags_again_write_nothing(packaged: Path, tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(encoded())
    options = ("--write", "sidecar", "--all", "--model", packaged)
    run("tag", tmp_path, *options)
    before = (tmp_path / "a.jpg.xmp").stat().st_ino
    status, lines, _ = run("tag", tmp_path, *options)
    assert status == 0 and "no change" in lines[1]
    assert (tmp_path / "a.jpg.xmp").stat().st_ino == before


def test_table(packaged: Path, tmp_path: Path) -> None:
    for name in ("a.jpg", "deep/b.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(encoded())
    run("tag", tmp_path, "--write", "csv", "--all", "--top", 2, "--model", packaged)
    run("tag", tmp_path / "a.jpg", "--write", "csv", "--tags", "northern dog,zebra", "--model", packaged)
    lines = (tmp_path / "zerotag.csv").read_text().splitlines()
    assert lines[0] == "image,tags,probabilities,model,date" and len(lines) == 2
    assert lines[1].startswith("a.jpg,zebra,") and lines[1].split(",")[3] == "zerotag:test"
    assert len((tmp_path / "deep" / "zerotag.csv").read_text().splitlines()) == 2
    assert run("untag", tmp_path)[0] == 0
    assert not list(tmp_path.rglob("*.csv"))


@pytest.mark.parametrize(("write", "name"), [("sidecar", "b.jpg.xmp"), ("csv", "zerotag.csv")])
def test_a_folder_that_may_not_be_written_does_not_stop_the_others(
    write: str, name: str, packaged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for photo in (tmp_path / "locked" / "a.jpg", tmp_path / "open" / "b.jpg"):
        photo.parent.mkdir()
        photo.write_bytes(encoded())
    locked = tmp_path / "locked"
    if os.geteuid() == 0:  # to root, no folder is read-only
        access = os.access
        monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != locked and access(path, mode))
    locked.chmod(0o555)
    status, _, errors = run("tag", tmp_path, "--write", write, "--all", "--model", packaged)
    locked.chmod(0o755)
    assert status == 1 and f"{locked}: the folder is read-only" in errors and "1 of 2 photos" in errors
    assert [file.name for file in locked.iterdir()] == ["a.jpg"] and (tmp_path / "open" / name).is_file()


def test_a_photo_that_exiftool_cannot_write_is_named(packaged: Path, tmp_path: Path) -> None:
    (tmp_path / "a.bmp").write_bytes(encoded(0, "BMP"))
    status, _, errors = run("tag", tmp_path, "--write", "embed", "--all", "--model", packaged)
    assert status == 1 and f"{tmp_path / 'a.bmp'}: exiftool cannot write to it: Writing of BMP" in errors
    assert run("tag", tmp_path, "--write", "sidecar", "--all", "--model", packaged)[0] == 0


def test_a_killed_run_leaves_whole_files(packaged: Path, tmp_path: Path) -> None:
    before = {}
    for number in range(24):
        photo = tmp_path / f"{number:02}.jpg"
        photo.write_bytes(encoded(number))
        before[photo] = scan(photo.read_bytes())
    command = [sys.executable, "-u", "-c", "from zerotag.cli import app; app()", "tag", str(tmp_path),
               "--write", "embed", "--all", "--model", str(packaged)]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    for _ in range(16):
        process.stdout.readline()
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    counts = {len(subject(photo)) for photo in before}
    assert counts == {0, 10} and all(scan(photo.read_bytes()) == pixels for photo, pixels in before.items())
    draft = tmp_path / ".00.jpg.0123abcd.draft"
    draft.write_bytes(b"half")
    assert run("tag", tmp_path, "--write", "embed", "--all", "--model", packaged)[0] == 0
    assert draft.exists()  # may be another run's
    assert {len(subject(photo)) for photo in before} == {10}


def test_without_exiftool(packaged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.jpg").write_bytes(encoded())
    monkeypatch.setenv("PATH", str(tmp_path))
    status, _, errors = run("tag", tmp_path, "--write", "sidecar", "--all", "--model", packaged)
    assert status == 1 and "apt install libimage-exiftool-perl" in errors
    assert run("tag", tmp_path, "--model", packaged)[0] == 0


def test_strange_names(tmp_path: Path) -> None:
    names = [b"-a\n b\\.jpg", b"caf\xe9.jpg", b"#$HOME@.jpg", "日本 [x]*.jpg".encode(), b" .jpg"]
    with open_writer("embed", "model") as save, open_untagger() as remove:
        for photo in [tmp_path / os.fsdecode(name) for name in names]:
            photo.write_bytes(encoded())
            assert str(save(photo, [GivenTag("dog", 0.5)])) == f"{shown(photo)}: +dog"
            shutil.copy(photo, tmp_path / "copy.jpg")
            assert subject(tmp_path / "copy.jpg") == ["dog"]
            assert [change.removed for change in remove(photo)] == [("dog",)]
            assert photo.read_bytes() == encoded()


def test_what_is_improbable_is_not_written(packaged: Path, tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(encoded())
    options = ("--tags", "dog,zebra", "--write", "sidecar", "--model", packaged)
    run("tag", tmp_path, *options, "--threshold", 1)
    assert not (tmp_path / "a.jpg.xmp").exists()
    run("tag", tmp_path, *options)
    assert len(subject(tmp_path / "a.jpg.xmp")) == 2
    run("tag", tmp_path, *options, "--threshold", 1)
    assert not (tmp_path / "a.jpg.xmp").exists()


def test_a_photo_that_is_gone_is_not_made(tmp_path: Path) -> None:
    with open_writer("embed", "model") as save, pytest.raises(ZerotagError, match=r"a.jpg: exiftool cannot write"):
        save(tmp_path / "a.jpg", [GivenTag("dog", 0.5)])
    assert not list(tmp_path.iterdir())


def test_raw_files_are_not_written(tmp_path: Path) -> None:
    with open_writer("embed", "model") as save, pytest.raises(ZerotagError, match=r"a.CR2: .*Use --write sidecar"):
        save(tmp_path / "a.CR2", [GivenTag("dog", 0.5)])


# A person's own vocabulary.


def test_vocabulary_file(tmp_path: Path) -> None:
    file = tmp_path / "list.txt"
    file.write_text(
        "\ufeffAnimals\r\n\tDog\t\t0.25\r\n\t\t{hound}\r\n\t\t{puppy, whelp}\r\n\t~Turkey\r\n[Places]\r\n"
        "\tTurkey\r\n\tMunich\t{München}{Monaco di Baviera}\t1\r\n\r\nHund\t{dog}\r\n",
        encoding="utf-8",
    )
    own = read_vocabulary(file)
    assert [(each.name, each.path, each.synonyms, each.threshold) for each in own.keywords] == [
        ("Animals", ("Animals",), [], None),
        ("Dog", ("Animals", "Dog"), ["hound", "puppy", "whelp"], 0.25),
        ("Turkey", ("Animals", "Turkey"), [], None),
        ("Turkey", ("Places", "Turkey"), [], None),
        ("Munich", ("Places", "Munich"), ["München", "Monaco di Baviera"], 1.0),
        ("Hund", ("Hund",), ["dog"], None),
    ]
    assert own.path["Turkey"] == ("Turkey",) and own.path["Dog"] == ("Animals", "Dog")
    assert own.report({"dog", "Turkey", "Animals", "hound"}) == [
        f"{file}: 1 of 6 keywords have no vector and are never given: Munich (line 8). Add synonyms in braces.",
        f"{file}: written without parents, as they have several: Turkey.",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no keyword"),
        ("[Places]\n", "has no keyword"),
        ("a\n\t\tb\n", "line 2: b has 2 tabs"),
        ("{hound}\n", "line 1: the synonym {hound} belongs to no keyword"),
        ("dog\thound\n", "line 1: 'hound' is not a synonym in braces"),
        ("dog\t{hound}\thalf\n", "line 1: the threshold 'half'"),
        ("dog\t\t1.5\n", "line 1: the threshold '1.5'"),
        ("dog\t\t0.5\tx\n", "line 1: has 4 columns"),
        ("x" * 201, "line 1: a keyword has 1 to 200 characters"),
    ],
)
def test_vocabulary_files_that_are_wrong(text: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "list.txt"
    file.write_text(text)
    with pytest.raises(ZerotagError) as caught:
        read_vocabulary(file)
    assert str(file) in str(caught.value) and message in str(caught.value)


def test_synonyms_and_thresholds(packaged: Path, tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(encoded())
    _, lines, _ = run("tag", tmp_path, "--tags", "dog,cat,guitar", "--json", "--model", packaged)
    alone = {each["tag"]: each for each in json.loads(lines[0])["tags"]}
    (tmp_path / "list.txt").write_text(f"Haustier\t{{dog, cat}}\nGitarre\t{{guitar}}\t{1.0}\n")
    _, lines, errors = run("tag", tmp_path, "--vocabulary", tmp_path / "list.txt", "--json", "--model", packaged)
    [found] = json.loads(lines[0])["tags"]
    best = max(alone["dog"], alone["cat"], key=lambda each: each["score"])
    assert found == {**best, "tag": "Haustier"} and "no vector" not in errors
    status, _, errors = run("tag", tmp_path, "--vocabulary", tmp_path / "list.txt", "--tags", "x", "--model", packaged)
    assert status == 1 and "--tags and --vocabulary" in errors


# Photos with keywords as a data source.


def test_folder_as_a_source(packaged: Path, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    for number in range(4):
        keyworded(folder / "deep" / f"{number}.jpg", number, words=["sky", "northern lights", "2024.10"])
    (folder / "without.jpg").write_bytes(encoded())
    (folder / "a.jpg").write_bytes(encoded())
    (folder / "a.jpg.xmp").write_text(DARKTABLE)
    assert run("tag", folder, "--write", "sidecar", "--tags", "zebra", "--model", packaged)[0] == 0
    assert run("tag", folder / "a.jpg", "--write", "embed", "--tags", "guitar", "--model", packaged)[0] == 0
    params = {"photos": str(folder), "test": 2}
    sources.fetch("folder", params, tmp_path / "raw", tmp_path / "work", tmp_path / "lock")
    source = sources.read("folder", params, tmp_path / "raw")
    assert source.ids == ["a.jpg", *(f"deep/{number}.jpg" for number in range(4))]
    # Neither zerotag's tags, nor darktable's own, nor the parents of a keyword.
    assert source.tags == ["2024.10", "Green Street", "northern lights", "sky"]
    assert source.labels.toarray().tolist() == [[0, 1, 0, 0], *[[1, 0, 1, 1]] * 4]
    assert source.train.sum() == 3 and source.files[0].read() == (folder / "a.jpg").read_bytes()


def test_folders_that_are_no_source(tmp_path: Path) -> None:
    def fetch(**params: Any) -> None:
        sources.fetch("folder", params, tmp_path / "raw", tmp_path / "work", tmp_path / "lock")

    with pytest.raises(ZerotagError, match=r"nowhere: no such folder \(params.yaml: sources.folder.photos\)"):
        fetch(photos=str(tmp_path / "nowhere"))
    (tmp_path / "a.jpg").write_bytes(encoded())
    with pytest.raises(ZerotagError, match=r"none of 1 photos has a keyword"):
        fetch(photos=str(tmp_path))
    keyworded(tmp_path / "a.jpg")
    fetch(photos=str(tmp_path))
    with pytest.raises(ZerotagError, match=r"sources.folder.test = 5"):
        sources.read("folder", {"photos": str(tmp_path), "test": 5}, tmp_path / "raw")
