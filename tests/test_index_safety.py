"""Whatever happens to folders and processes, the index ends up as a fresh one, and is never emptied by accident."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import encoded
from typer.testing import CliRunner

import zerotag
from zerotag.cli import app
from zerotag.files import shown
from zerotag.serving.index import Index, Where, open_index
from zerotag.serving.update import RemovalError, follow, inside, update

PROGRAM = [str(Path(sys.executable).with_name("python")), "-c", "from zerotag.cli import app; app()"]


@pytest.fixture(scope="module")
def tagger(packaged: Path) -> zerotag.Tagger:
    return zerotag.Tagger(packaged, threads=1)


@pytest.fixture
def index(tagger: zerotag.Tagger, tmp_path: Path) -> Index:
    return open_index(str(tmp_path / "index"), tagger)


@pytest.fixture
def run(packaged: Path, tmp_path: Path) -> Callable[..., tuple[int, list[str], str]]:
    def run(*arguments: object) -> tuple[int, list[str], str]:
        options = ["--database", tmp_path / "index", "--model", packaged]
        done = CliRunner().invoke(app, [str(each) for each in (*arguments, *options)])
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        return done.exit_code, done.stdout.splitlines(), done.stderr

    return run


def make(folder: Path, count: int, start: int = 0) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for seed in range(start, start + count):
        (folder / f"{seed:04d}.jpg").write_bytes(encoded(seed, width=24, height=16))
    return folder


def never(pixels: np.ndarray) -> np.ndarray:
    raise AssertionError("a known photo was embedded again")


def content(index: Index) -> dict[tuple[str, str], list[list[float]]]:
    """All that the index says of photos, and that every row is there once."""
    rows = index._table.search().select(["root", "photo", "row", "vector"]).limit(None).to_arrow().to_pylist()
    found: dict[tuple[str, str], dict[int, list[float]]] = {}
    for row in rows:
        photo = found.setdefault((row["root"], row["photo"]), {})
        assert row["row"] not in photo, f"{row['photo']}: row {row['row']} is there twice"
        photo[row["row"]] = [round(value, 4) for value in row["vector"]]
    assert all(set(photo) == {0, 1, 2} for photo in found.values())
    return {key: [photo[row] for row in sorted(photo)] for key, photo in found.items()}


def fresh(tagger: zerotag.Tagger, place: Path, *folders: Path) -> dict[tuple[str, str], list[list[float]]]:
    """What a new index of these folders says."""
    new = open_index(str(place / "fresh"), tagger)
    for folder in folders:
        update(new, tagger, folder, [""])
    return content(new)


def same(one: dict, other: dict) -> None:
    assert set(one) == set(other)
    for key, rows in one.items():
        assert np.allclose(rows, other[key], atol=1e-3), key


def test_a_drive_that_is_not_mounted(run, index: Index, tagger: zerotag.Tagger, tmp_path: Path) -> None:
    drive = make(tmp_path / "drive", 10)
    assert run("index", drive)[1] == ["10 added, 0 unchanged, 0 removed, 0 unusable"]
    before = content(index)
    drive.rename(tmp_path / "away")
    drive.mkdir()
    status, lines, errors = run("index", drive)
    assert (status, lines) == (1, [])
    assert f"{drive}: 10 of 10 indexed photos are no longer there" in errors and "--prune" in errors
    drive.rmdir()
    status, lines, errors = run("index", drive)
    assert (status, lines) == (1, []) and "no such folder. Its 10 photos stay in the index" in errors
    assert content(index) == before
    (tmp_path / "away").rename(drive)
    assert run("index", drive)[1] == ["0 added, 10 unchanged, 0 removed, 0 unusable"]
    shutil.rmtree(drive)
    assert run("index", drive, "--prune")[1] == ["0 added, 0 unchanged, 10 removed, 0 unusable"]
    assert len(index) == 0
    status, _, errors = run("index", drive, "--prune")
    assert status == 1 and errors == f"zerotag: {drive}: no such folder.\n"


def test_a_fifth_may_go(index: Index, tagger: zerotag.Tagger, tmp_path: Path) -> None:
    folder = make(tmp_path / "photos", 10)
    make(folder / "album", 5, 10)
    update(index, tagger, folder, [""])
    for photo in sorted(folder.glob("*.jpg"))[:3]:
        photo.unlink()
    assert update(index, tagger, folder, [""]).removed == 3
    for photo in sorted(folder.glob("album/*.jpg"))[:2]:
        photo.unlink()
    (folder / "new.jpg").write_bytes(encoded(99))
    with pytest.raises(RemovalError, match="2 of 5"):  # of the folder that is updated
        update(index, tagger, folder, ["album"])
    for photo in folder.glob("*.jpg"):
        photo.unlink() if photo.name != "new.jpg" else None
    with pytest.raises(RemovalError, match="9 of 12"):
        update(index, tagger, folder, [""])
    assert len(index) == 12
    done = update(index, tagger, folder, [""], prune=True)
    assert (done.removed, done.added, len(index)) == (9, 1, 4)
    same(content(index), fresh(tagger, tmp_path, folder))


def test_two_folders_live_side_by_side(run, index: Index, tagger: zerotag.Tagger, tmp_path: Path) -> None:
    one, two = make(tmp_path / "one", 5), make(tmp_path / "two", 5, 3)
    assert run("index", one)[1] == ["5 added, 0 unchanged, 0 removed, 0 unusable"]
    _, lines, _ = run("search", "sky", "--top", 100)
    assert sorted(line.split()[1] for line in lines) == [f"{seed:04d}.jpg" for seed in range(5)]
    run("index", two)
    same(content(index), fresh(tagger, tmp_path, one, two))
    _, lines, _ = run("search", "sky, dog", "--top", 100)
    found = sorted(line.split()[1] for line in lines)
    assert found == sorted(str(photo) for folder in (one, two) for photo in folder.iterdir())
    assert {key[1] for key in content(index) if key[0] == str(two)} == {f"{seed:04d}.jpg" for seed in range(3, 8)}
    # Words that are searched in one of them.
    words = tagger.words(["sky", "dog"]).vectors
    assert {hit.root for hit in index.search(words, limit=100, where=Where(root=str(two)))} == {str(two)}
    assert len(index.search(words[:1], limit=3, where=Where(root=str(two)))) == 3


def test_a_folder_in_an_indexed_folder(run, index: Index, tagger: zerotag.Tagger, tmp_path: Path) -> None:
    library = make(tmp_path / "library", 3)
    album = make(library / "album", 3, 3)
    run("index", album)
    assert run("index", library)[1] == ["6 added, 0 unchanged, 0 removed, 0 unusable"]
    same(content(index), fresh(tagger, tmp_path, library))
    make(album, 1, 6)
    assert run("index", album)[1] == ["1 added, 3 unchanged, 0 removed, 0 unusable"]
    same(content(index), fresh(tagger, tmp_path / "again", library))


def test_moved_photos_keep_their_vectors(index: Index, tagger: zerotag.Tagger, tmp_path: Path) -> None:
    folder = make(tmp_path / "photos", 12)
    update(index, tagger, folder, [""])
    for seed in range(10):
        (folder / "2020").mkdir(exist_ok=True)
        (folder / f"{seed:04d}.jpg").rename(folder / "2020" / f"{seed:04d}.jpg")
    for seed in (10, 11):  # copied, with a new time, instead of moved
        (folder / "2020" / f"{seed}.jpeg").write_bytes((folder / f"{seed:04d}.jpg").read_bytes())
        (folder / f"{seed:04d}.jpg").unlink()
    done = update(index, tagger, folder, [""], embed=never)
    assert (done.moved, done.added, done.removed, len(index)) == (12, 0, 0, 12)
    same(content(index), fresh(tagger, tmp_path, folder))


def test_a_moved_folder(index: Index, tagger: zerotag.Tagger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zerotag.serving.update.BATCH", 32)
    folder = make(tmp_path / "photos", 40)
    update(index, tagger, folder, [""])
    moved = folder.rename(tmp_path / "pictures")
    calls = iter([True, False])
    done = update(index, tagger, moved, [""], embed=never, in_time=lambda: next(calls))  # interrupted
    assert (done.moved, done.remaining) == (32, 8)
    done = update(index, tagger, moved, [""], embed=never)
    assert (done.moved, done.unchanged, len(index)) == (8, 32, 40)
    same(content(index), fresh(tagger, tmp_path, moved))


def test_a_copy_leaves_the_first_folder_alone(index: Index, tagger: zerotag.Tagger, tmp_path: Path) -> None:
    folder = make(tmp_path / "drive", 5)
    update(index, tagger, folder, [""])
    shutil.copytree(folder, tmp_path / "backup")
    shutil.rmtree(folder)
    folder.mkdir()  # the mount point of a drive that is taken off
    done = update(index, tagger, tmp_path / "backup", [""], embed=never)
    assert (done.added, done.moved, len(index)) == (5, 0, 10)


def test_what_is_in_a_folder_that_may_not_be_read_stays(
    index: Index, tagger: zerotag.Tagger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make(tmp_path / "photos", 2)
    make(folder / "locked", 8, 2)
    update(index, tagger, folder, [""])
    really = os.scandir

    def forbidden(path: str) -> object:
        if Path(path).name == "locked":
            raise PermissionError(13, "Permission denied", path)
        return really(path)

    monkeypatch.setattr(os, "scandir", forbidden)
    done = update(index, tagger, folder, [""])
    assert (done.removed, len(index)) == (0, 10) and "locked: the folder cannot be read" in done.problems[0]


def test_names_that_are_not_utf_8(index: Index, tagger: zerotag.Tagger, tmp_path: Path) -> None:
    folder = make(tmp_path / "photos", 1)
    file = Path(os.fsdecode(os.fsencode(folder) + b"/caf\xe9.jpg"))
    file.write_bytes(encoded(5))
    (folder / "caf\\xe9.jpg").write_bytes(encoded(6))  # the same name in text
    done = update(index, tagger, folder, [""])
    assert done.added == 2 and list(done.refused) == ["caf\\xe9.jpg"]
    (folder / "caf\\xe9.jpg").unlink()
    update(index, tagger, folder, [""])
    assert set(index.entries()[shown(folder)]) == {"0000.jpg", "caf\\xe9.jpg"}
    assert inside(folder, "caf\\xe9.jpg") == file


def test_an_index_of_version_0_1_is_left_alone(run, tmp_path: Path, tagger: zerotag.Tagger) -> None:
    import lancedb
    import pyarrow as pa

    old = pa.table({"photo": ["a.jpg"], "row": pa.array([0], pa.int16()), "stamp": ["1"], "vector": [[0.0, 1.0]]})
    lancedb.connect(str(tmp_path / "index")).create_table(f"photos-{tagger.network}", old)
    folder = make(tmp_path / "photos", 2)
    assert run("index", folder)[1] == ["2 added, 0 unchanged, 0 removed, 0 unusable"]
    assert len(run("search", "sky")[1]) == 2


@pytest.mark.timeout(300)
def test_two_indexers_at_once_and_one_killed(packaged: Path, tagger: zerotag.Tagger, tmp_path: Path) -> None:
    folder = make(tmp_path / "photos", 2000)
    database = tmp_path / "index"
    command = [*PROGRAM, "index", str(folder), "--database", str(database), "--model", str(packaged)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    start = lambda: subprocess.Popen(  # noqa: E731
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    first, second, third = start(), start(), start()
    index = open_index(str(database), tagger)
    began = time.monotonic()
    while len(index) < 300 and time.monotonic() < began + 120:
        time.sleep(0.02)
    third.send_signal(signal.SIGKILL)
    third.wait()
    for process in (first, second):
        output, errors = process.communicate(timeout=200)
        assert process.returncode == 0 and ", 0 unusable" in output, errors
    found = content(index)
    assert len(found) == len(index) == 2000
    same(found, fresh(tagger, tmp_path, folder))
    done = update(index, tagger, folder, [""], embed=never)
    assert (done.added, done.unchanged) == (0, 2000)


def test_killed_again_and_again(packaged: Path, tagger: zerotag.Tagger, tmp_path: Path) -> None:
    """SIGKILL while photos are moved and removed as well."""
    folder = make(tmp_path / "photos", 300)
    database = tmp_path / "index"
    index = open_index(str(database), tagger)
    update(index, tagger, folder, [""])
    for seed in range(150):
        (folder / "moved").mkdir(exist_ok=True)
        (folder / f"{seed:04d}.jpg").rename(folder / "moved" / f"{seed:04d}.jpg")
    for seed in range(150, 170):
        (folder / f"{seed:04d}.jpg").unlink()
    make(folder, 100, 300)
    script = (
        "import sys, time, zerotag\n"
        "from pathlib import Path\n"
        "from zerotag.serving.index import open_index\n"
        "from zerotag.serving.update import update\n"
        "tagger = zerotag.Tagger(sys.argv[1], threads=1)\n"
        "index = open_index(sys.argv[2], tagger)\n"
        "print('ready', flush=True)\n"
        "update(index, tagger, Path(sys.argv[3]), [''], report=lambda done, total: time.sleep(0.05))\n"
    )
    for delay in (0.1, 0.25, 0.4):
        process = subprocess.Popen(
            [sys.executable, "-c", script, str(packaged), str(database), str(folder)], stdout=subprocess.PIPE
        )
        assert process.stdout
        process.stdout.readline()
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
    update(index, tagger, folder, [""])
    same(content(index), fresh(tagger, tmp_path, folder))


def test_watch(packaged: Path, index: Index, tmp_path: Path) -> None:
    folder = make(tmp_path / "photos", 2)
    command = [*PROGRAM, "index", str(folder), "--watch", "--database", str(tmp_path / "index"), "--model"]
    process = subprocess.Popen([*command, str(packaged)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def wait_for(count: int) -> None:
        began = time.monotonic()
        while len(index) != count:
            assert process.poll() is None and time.monotonic() < began + 60, f"{len(index)} instead of {count}"
            time.sleep(0.05)

    try:
        assert process.stdout and process.stdout.readline() == "2 added, 0 unchanged, 0 removed, 0 unusable\n"
        time.sleep(1)  # until it watches
        make(folder, 1, 2)
        wait_for(3)
        make(folder / "album", 7, 3)
        wait_for(10)
        (folder / "0000.jpg").unlink()
        wait_for(9)
        assert any(line == "0 added, 9 unchanged, 1 removed, 0 unusable\n" for line in process.stdout)  # or it waits
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert (process.returncode, errors) == (0, "")


def test_watching_ends_on_demand(tmp_path: Path) -> None:
    # An interrupt that is raised where Python drops it must still end `zerotag index --watch`.
    until = threading.Event()
    threading.Timer(0.3, until.set).start()
    assert list(follow(tmp_path, str(tmp_path / "index"), until)) == []
