"""The search index: exact, complete, and whole after a kill."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import encoded

import zerotag
from zerotag.errors import ZerotagError
from zerotag.serving.index import Entry, Index, open_index, search_words
from zerotag.serving.update import inside, update

PHOTOS, ROWS, DIMENSIONS = 3000, 7, 50


def unit(random: np.random.Generator, count: int) -> np.ndarray:
    words = random.standard_normal((count, DIMENSIONS)).astype(np.float32)
    return words / np.linalg.norm(words, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Index, list[str], np.ndarray]:
    matrices = (
        np.random.default_rng(0).standard_normal((PHOTOS, ROWS, DIMENSIONS)).astype(np.float16).astype(np.float32)
    )
    names = [f"it's/{number:05d}.jpg" for number in range(PHOTOS)]
    index = Index(str(tmp_path_factory.mktemp("index")), "random", (ROWS, DIMENSIONS))
    for start in range(0, PHOTOS, 1000):
        index.put("/photos", names[start : start + 1000], [Entry("1", "")] * 1000, matrices[start : start + 1000])
    index.tidy()
    return index, names, matrices


@pytest.mark.parametrize(("wanted", "unwanted"), [(1, 0), (2, 0), (3, 1), (1, 2)])
def test_search_is_brute_force(filled, wanted: int, unwanted: int) -> None:
    index, names, matrices = filled
    random = np.random.default_rng(wanted + 10 * unwanted)
    for offset in (0, 7):
        words, without = unit(random, wanted), unit(random, unwanted)
        scores = np.min([(matrices @ word).max(axis=1) for word in words], axis=0)
        for word in without:
            scores = np.where((matrices @ word).max(axis=1) >= scores, -np.inf, scores)
        best = np.argsort(-scores, kind="stable")[offset : offset + 12]
        found = index.search(words, without if unwanted else None, limit=12, offset=offset)
        assert [hit.photo for hit in found] == [names[place] for place in best]
        assert [hit.score for hit in found] == pytest.approx(scores[best].tolist(), abs=1e-5)


def test_paging_reaches_every_photo_once(filled) -> None:
    index, names, _ = filled
    word = unit(np.random.default_rng(5), 1)
    found = [hit.photo for offset in range(0, PHOTOS + 500, 500) for hit in index.search(word, None, 500, offset)]
    assert sorted(found) == names


def test_put_replaces_and_remove_removes(filled) -> None:
    index, names, matrices = filled
    assert len(index) == PHOTOS
    index.put("/photos", names[:3], [Entry("2", "")] * 3, matrices[:3])
    known = index.entries()["/photos"]
    assert len(index) == PHOTOS and [known[name].stamp for name in names[2:4]] == ["2", "1"]
    index.remove("/photos", [*names[:3], "not there"])
    index.remove("/other", names)
    assert len(index) == PHOTOS - 3
    index.put("/photos", names[:3], [Entry("1", "")] * 3, matrices[:3])


def test_models_do_not_mix(filled, tmp_path: Path) -> None:
    one, other = (Index(str(tmp_path), name, (ROWS, DIMENSIONS)) for name in ("one", "other"))
    one.put("/photos", ["a.jpg"], [Entry("1", "")], filled[2][:1])
    assert (len(one), len(other)) == (1, 0)
    assert other.search(unit(np.random.default_rng(0), 2)) == []


def make_album(root: Path, photos: int) -> None:
    (root / "album").mkdir(parents=True)
    for seed in range(photos):
        (root / "album" / f"{seed:03d}.jpg").write_bytes(encoded(seed))


def test_update(packaged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zerotag.serving.update.BATCH", 32)
    make_album(tmp_path / "photos", 50)
    (tmp_path / "photos" / "bad.jpg").write_bytes(b"no picture")
    tagger = zerotag.Tagger(packaged)
    index = open_index(str(tmp_path / "index"), tagger)
    first = update(index, tagger, tmp_path / "photos", [""])
    assert (first.added, list(first.refused)) == (50, ["bad.jpg"])

    def never(pixels: np.ndarray) -> np.ndarray:
        raise AssertionError("an unchanged folder was embedded again")

    again = update(index, tagger, tmp_path / "photos", ["", "album", "album/000.jpg"], embed=never)
    assert (again.added, again.removed) == (0, 0)
    os.utime(tmp_path / "photos" / "album" / "000.jpg", (1, 1))
    (tmp_path / "photos" / "album" / "001.jpg").unlink()
    changed = update(index, tagger, tmp_path / "photos", [""])
    assert (changed.added, changed.removed, len(index)) == (1, 1, 49)
    calls = iter([True, False])
    shutil.copytree(tmp_path / "photos" / "album", tmp_path / "photos" / "copy")
    partly = update(index, tagger, tmp_path / "photos", ["copy"], in_time=lambda: next(calls))
    assert (partly.added, partly.remaining, len(index)) == (32, 17, 81)

    words, _ = search_words(tagger, ["boat"], [])
    hits = index.search(words.vectors, limit=100)
    best = tagger.tag((tmp_path / "photos" / hits[0].photo).read_bytes(), "best", ["boat"])[0]
    assert best.score == pytest.approx(hits[0].score, abs=1e-4)
    with pytest.raises(ZerotagError, match="qzxv"):
        search_words(tagger, ["boat"], ["qzxv"])


def test_many_new_photos_are_stored_in_fewer_dimensions(
    packaged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"_MANY": 90, "FEWER": 8, "_FITTED": 40}.items():
        monkeypatch.setattr(f"zerotag.serving.index.{name}", value)
    monkeypatch.setattr("zerotag.serving.update.BATCH", 32)
    make_album(tmp_path / "photos", 100)
    (tmp_path / "photos" / "bad.jpg").write_bytes(b"no picture")
    tagger = zerotag.Tagger(packaged)
    index = open_index(str(tmp_path / "index"), tagger)
    reports, calls = [], iter([True, False])
    # What it is fitted to is embedded and stored at once, however little time there is.
    first = update(
        index,
        tagger,
        tmp_path / "photos",
        [""],
        in_time=lambda: next(calls),
        report=lambda done, total: reports.append((done, total)),
    )
    assert (first.added + len(first.refused), first.remaining, reports) == (64, 37, [(32, 101), (64, 101)])
    rest = update(index, tagger, tmp_path / "photos", [""])
    assert (rest.added + first.added, len(index), index.dimensions) == (100, 100, 8)
    stored = {photo for batch in index.first_rows() for _, photo in batch[0]}
    assert stored == {f"album/{number:03d}.jpg" for number in range(100)}
    make_album(tmp_path / "few", 20)
    few = open_index(str(tmp_path / "few index"), tagger)
    update(few, tagger, tmp_path / "few", [""])
    assert few.basis is None and few.dimensions == tagger.info["dimensions"]


def test_a_killed_indexing_goes_on(packaged: Path, tmp_path: Path) -> None:
    make_album(tmp_path / "photos", 200)
    tagger = zerotag.Tagger(packaged)
    script = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "import zerotag\n"
        "from zerotag.serving.index import open_index\n"
        "from zerotag.serving.update import update\n"
        "tagger = zerotag.Tagger(sys.argv[1])\n"
        "slow = lambda pixels: (time.sleep(0.2), tagger.principal_vectors(pixels))[1]\n"
        "update(open_index(sys.argv[2], tagger), tagger, Path(sys.argv[3]), [''], embed=slow)\n"
    )
    command = [sys.executable, "-c", script, str(packaged), str(tmp_path / "index"), str(tmp_path / "photos")]
    process = subprocess.Popen(command)
    index = open_index(str(tmp_path / "index"), tagger)
    started = time.monotonic()
    while len(index) < 64 and time.monotonic() < started + 60:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    there = len(index)
    assert 64 <= there < 200
    done = update(index, tagger, tmp_path / "photos", [""])
    assert (done.added, done.unchanged, len(index)) == (200 - there, there, 200)


def test_inside(tmp_path: Path) -> None:
    (tmp_path / "root" / "a").mkdir(parents=True)
    (tmp_path / "root" / "out").symlink_to(tmp_path)
    assert inside(tmp_path / "root", "a/../a") == (tmp_path / "root" / "a").resolve()
    for path in ("..", "a/../..", "/", "out", str(tmp_path)):
        with pytest.raises(ZerotagError, match="outside"):
            inside(tmp_path / "root", path)
    with pytest.raises(ZerotagError, match="no such"):
        inside(tmp_path / "root", "b")


def test_lancedb_without_what_its_servers_need() -> None:
    """The clients of its catalogue servers are there when they are asked for, and not before."""
    code = (
        "import sys\n"
        "from zerotag.serving.engine import import_lancedb\n"
        "lancedb = import_lancedb()\n"
        "clients = 'lance_namespace_urllib3_client'\n"
        "assert clients in sys.modules and f'{clients}.api' not in sys.modules\n"
        "lancedb.connect_namespace('rest', {'uri': 'http://127.0.0.1:9'})\n"
        "from lance_namespace_urllib3_client import TableApi\n"
        "assert f'{clients}.api' in sys.modules and TableApi.__module__.startswith(clients)\n"
        "try:\n"
        "    from lance_namespace_urllib3_client import no_such_client\n"
        "except ImportError:\n"
        "    print('as ever')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == "as ever\n", done.stderr


def test_lancedb_without_pandas() -> None:
    """It is not imported for LanceDB; where it is imported later, pyarrow takes its data frames as ever."""
    pytest.importorskip("pandas")
    code = (
        "import sys\n"
        "from zerotag.serving.engine import import_lancedb\n"
        "import_lancedb()\n"
        "assert 'pandas' not in sys.modules\n"
        "import pandas, pyarrow\n"
        "frame = pandas.DataFrame({'a': [1, 2]})\n"
        "assert pyarrow.table(frame).to_pandas().equals(frame)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
