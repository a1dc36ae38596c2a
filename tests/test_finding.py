"""Finding photos by an example, by folder and by date, and as a folder of links."""

import io
import json
import os
from collections.abc import Callable
from datetime import date, datetime
from pathlib import Path

import numpy as np
import pytest
from conftest import encoded, picture
from PIL import Image
from typer.testing import CliRunner

import zerotag
from zerotag.cli import app
from zerotag.data.photos import time_taken
from zerotag.errors import ZerotagError
from zerotag.serving.index import Entry, Index, Where, open_index
from zerotag.serving.update import update

PHOTOS, ROWS, DIMENSIONS = 300, 3, 20


def dated(seed: int, taken: str) -> bytes:
    """A photo that says when it was taken."""
    buffer = io.BytesIO()
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0x9003] = taken
    picture(seed).save(buffer, "JPEG", exif=exif)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def album(packaged: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """An indexed folder, and its database: two photos of 2023, ten of 2024, four without a date, of 2020 as files."""
    place = tmp_path_factory.mktemp("finding")
    for folder in ("trip/day 1", "trip/day 10", "home"):
        (place / "photos" / folder).mkdir(parents=True)
    for seed in range(10):
        day = "day 1" if seed < 5 else "day 10"
        (place / "photos" / "trip" / day / f"{seed}.jpg").write_bytes(dated(seed, f"2024:06:{seed + 1:02} 23:59:59"))
    (place / "photos" / "old.jpg").write_bytes(dated(10, "2023:01:01 00:00:00"))
    (place / "photos" / "older.jpg").write_bytes(dated(11, "2023:01:01 00:00:00"))
    for seed in range(12, 16):
        photo = place / "photos" / "home" / f"{seed}.jpg"
        photo.write_bytes(encoded(seed))
        os.utime(photo, (datetime(2020, 5, 1, 12).timestamp(),) * 2)
    tagger = zerotag.Tagger(packaged, threads=1)
    update(open_index(str(place / "index"), tagger), tagger, place / "photos", [""])
    return place / "photos", place / "index"


@pytest.fixture
def run(packaged: Path, album: tuple[Path, Path]) -> Callable[..., tuple[int, list[str], str]]:
    def run(*arguments: object) -> tuple[int, list[str], str]:
        options = ["--database", album[1], "--model", packaged]
        done = CliRunner().invoke(app, [str(each) for each in (*arguments, *options)])
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        return done.exit_code, done.stdout.splitlines(), done.stderr

    return run


def names(lines: list[str]) -> set[str]:
    return {line.split(maxsplit=1)[1] for line in lines}


def similarity(example: np.ndarray, matrices: np.ndarray) -> np.ndarray:
    """As `Index.search` defines it."""
    cosines = np.einsum("nmd,kd->nmk", matrices, example) / np.linalg.norm(matrices, axis=2)[:, :, None]
    return (cosines / np.linalg.norm(example, axis=1)).max(axis=1).mean(axis=1)


def test_words_and_an_example_are_brute_force(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    matrices = random.standard_normal((PHOTOS, ROWS, DIMENSIONS)).astype(np.float16).astype(np.float32)
    photos = [f"{number:03d}.jpg" for number in range(PHOTOS)]
    index = Index(str(tmp_path), "random", (ROWS, DIMENSIONS))
    index.put("/photos", photos, [Entry("", "")] * PHOTOS, matrices)
    words, example = random.standard_normal((2, DIMENSIONS)).astype(np.float32), matrices[7]

    scores = similarity(example, matrices)
    found = index.search(None, limit=20, like=example)
    assert [hit.photo for hit in found] == [photos[place] for place in np.argsort(-scores)[:20]]
    assert found[0].photo == "007.jpg" and found[0].score == pytest.approx(1, abs=1e-4)
    assert [hit.score for hit in found] == pytest.approx(np.sort(scores)[:-21:-1].tolist(), abs=1e-3)

    every = [*((matrices @ word).max(axis=1) for word in words), scores]
    standard = [(each - each.mean()) / each.std() for each in every]
    least = np.min([standard[0], standard[2]], axis=0)
    without = np.where(standard[1] >= least, -np.inf, least)
    for unwanted, expected in ((None, least), (words[1:], without)):
        found = index.search(words[:1], unwanted, limit=20, like=example)
        assert [hit.photo for hit in found] == [photos[place] for place in np.argsort(-expected)[:20]]
        assert [hit.score for hit in found] == pytest.approx(np.sort(expected)[:-21:-1].tolist(), abs=1e-2)
    found = index.search(None, limit=PHOTOS, like=example, where=Where(apart_from=("/photos", "007.jpg")))
    assert len(found) == PHOTOS - 1 and "007.jpg" not in {hit.photo for hit in found}


def test_photos_like_one(run, album: tuple[Path, Path], tmp_path: Path) -> None:
    indexed = album[0] / "trip" / "day 1" / "3.jpg"
    status, lines, _ = run("search", "--like", indexed, "--top", 100)
    assert status == 0 and len(lines) == 15 and "trip/day 1/3.jpg" not in names(lines)
    copy = tmp_path / "copy.jpg"
    copy.write_bytes(indexed.read_bytes())
    _, lines, _ = run("search", "--like", copy, "--json")
    assert json.loads(lines[0])["photo"] == "trip/day 1/3.jpg"
    assert json.loads(lines[0])["score"] == pytest.approx(1, abs=0.01)
    _, lines, _ = run("search", "sky", "--like", copy, "--without", "dog", "--top", 100)
    assert 0 < len(lines) < 16
    for arguments, reason in (
        (("search",), "No word to search for. Give at least one, or an example photo."),
        (("search", "--like", tmp_path / "none.jpg"), "none.jpg: no such file"),
        (("search", "--like", tmp_path), "no such file"),
    ):
        status, lines, errors = run(*arguments)
        assert (status, lines) == (1, []) and reason in errors


def test_photos_of_a_folder(run, album: tuple[Path, Path], tmp_path: Path) -> None:
    def found(folder: object) -> set[str]:
        status, lines, errors = run("search", "sky", "--top", 100, "--folder", folder)
        assert status == 0, errors
        return names(lines)

    day = {f"trip/day 1/{seed}.jpg" for seed in range(5)}
    assert found("trip/day 1") == found("./trip/day 1/") == found(album[0] / "trip" / "day 1") == day
    assert len(found("trip")) == 10 and len(found(album[0])) == len(found(album[0].parent)) == len(found(".")) == 16
    assert found("tri") == set()
    for folder, reason in (("../photos", "outside"), (tmp_path, "in no indexed folder")):
        status, lines, errors = run("search", "sky", "--folder", folder)
        assert (status, lines) == (1, []) and reason in errors


def test_photos_of_a_time(run, album: tuple[Path, Path]) -> None:
    def found(*days: str) -> set[str]:
        return names(run("search", "sky", "--top", 100, *days)[1])

    first = {f"trip/day 1/{seed}.jpg" for seed in range(5)}
    assert found("--since", "2024-06-01", "--until", "2024-06-05") == first  # both days count
    assert found("--until", "2022-12-31") == {f"home/{seed}.jpg" for seed in range(12, 16)}
    assert found("--since", "2023-01-01", "--until", "2023-01-01") == {"old.jpg", "older.jpg"}
    assert found("--since", "2024-06-04", "--folder", "trip/day 1") == {"trip/day 1/3.jpg", "trip/day 1/4.jpg"}
    assert found("--since", "2025-01-01") == set()
    status, _, errors = run("search", "sky", "--since", "2025-01-01", "--until", "2024-01-01")
    assert status == 1 and "since 2025-01-01 is after until 2024-01-01" in errors
    assert run("search", "sky", "--since", "yesterday")[0] == 2


def test_when_a_photo_was_taken() -> None:
    assert time_taken(dated(0, "2024:02:29 01:02:03"), "a.jpg") == datetime(2024, 2, 29, 1, 2, 3)
    for data in (encoded(), dated(0, "0000:00:00 00:00:00"), dated(0, "    :  :     :  :  "), b"", b"no picture"):
        assert time_taken(data, "a.jpg") is None


def test_a_folder_of_links(run, album: tuple[Path, Path], tmp_path: Path) -> None:
    folder = tmp_path / "links"
    _, lines, _ = run("search", "sky", "--paths", "--top", 12, "--links", folder)
    links = sorted(file for file in folder.iterdir() if file.is_symlink())
    assert [str(link.readlink()) for link in links] == lines
    assert links[0].name == f"001 {Path(lines[0]).name}" and links[11].name.startswith("012 ")
    run("search", "sky", "--top", 2, "--links", folder)
    assert len([file for file in folder.iterdir() if file.is_symlink()]) == 2
    (folder / "notes.txt").write_text("a person's")
    status, lines, errors = run("search", "sky", "--links", folder)
    assert (status, lines) == (1, []) and "it holds" in errors and "notes.txt" in errors
    assert len(list(folder.iterdir())) == 4
    status, _, errors = run("search", "sky", "--links", album[0])
    assert status == 1 and "not a link of an earlier search" in errors
    (tmp_path / "file").touch()
    assert "not a folder" in run("search", "sky", "--links", tmp_path / "file")[2]


def test_links_to_any_name(packaged: Path, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    odd = [b"caf\xe9.jpg", b"line\nbreak.jpg", b"x" * 240 + b".jpg"]
    for seed, name in enumerate(odd):
        Path(os.fsdecode(os.fsencode(folder) + b"/" + name)).write_bytes(encoded(seed))
    options = ["--database", str(tmp_path / "index"), "--model", str(packaged)]
    CliRunner().invoke(app, ["index", str(folder), *options], catch_exceptions=False)
    CliRunner().invoke(app, ["search", "sky", "--links", str(tmp_path / "links"), *options], catch_exceptions=False)
    links = [file for file in (tmp_path / "links").iterdir() if file.is_symlink()]
    assert {os.fsencode(link.readlink().name) for link in links} == set(odd) and all(link.exists() for link in links)
    assert all(link.name.isprintable() and link.suffix == ".jpg" for link in links)


def test_an_index_that_does_not_know_dates_is_taken_over(
    packaged: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    import lancedb
    import pyarrow as pa

    tagger = zerotag.Tagger(packaged, threads=1)
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_bytes(dated(0, "2024:06:01 12:00:00"))
    new = open_index(str(tmp_path / "new"), tagger)
    update(new, tagger, tmp_path / "photos", [""])
    root = str(tmp_path / "photos")
    (entry,) = new.entries()[root].values()
    found = new.find(root, "a.jpg")
    assert found is not None and found[0] == entry
    matrix = found[1]
    schema = pa.schema(
        [
            pa.field("root", pa.string(), nullable=False),
            pa.field("photo", pa.string(), nullable=False),
            pa.field("row", pa.int16(), nullable=False),
            pa.field("stamp", pa.string(), nullable=False),
            pa.field("digest", pa.string(), nullable=False),
            pa.field("vector", pa.list_(pa.float32(), matrix.shape[1]), nullable=False),
        ]
    )
    rows = [
        {"root": root, "photo": "a.jpg", "row": row, "stamp": entry.stamp, "digest": entry.digest, "vector": vector}
        for row, vector in enumerate(matrix.tolist())
    ]
    database = lancedb.connect(str(tmp_path / "index"))
    database.create_table(f"library-{tagger.network}", pa.Table.from_pylist(rows, schema))
    index = open_index(str(tmp_path / "index"), tagger)
    assert "was taken over" in caplog.text and root in caplog.text
    words = tagger.words(["sky"]).vectors
    (hit,) = index.search(words)
    assert hit.score == pytest.approx(new.search(words)[0].score, abs=1e-3)
    assert index.search(words, where=Where(since=date(2000, 1, 1))) == []

    def never(pixels: np.ndarray) -> np.ndarray:
        raise AssertionError("a known photo was embedded again")

    update(index, tagger, tmp_path / "photos", [""], embed=never)
    assert index.entries() == {root: {"a.jpg": entry}} and entry.taken == datetime(2024, 6, 1, 12)
    assert len(index.search(words, where=Where(since=date(2024, 6, 1)))) == 1
    caplog.clear()
    assert len(open_index(str(tmp_path / "index"), tagger)) == 1 and not caplog.text


def test_an_absolute_folder_needs_an_index(tmp_path: Path) -> None:
    index = Index(str(tmp_path), "random", (ROWS, DIMENSIONS))
    word = np.ones((1, DIMENSIONS), np.float32)
    assert index.search(word) == index.search(None, like=word) == index.search(word, like=word) == []
    with pytest.raises(ZerotagError, match="in no indexed folder"):
        index.search(word, where=Where(folder=str(tmp_path)))
    with pytest.raises(ZerotagError, match="Neither a word nor a photo"):
        index.search(None)


def test_duplicates(packaged: Path, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    (folder / "copies").mkdir(parents=True)
    for seed in range(30):
        (folder / f"{seed}.jpg").write_bytes(encoded(seed))
    (folder / "copies" / "a.jpg").write_bytes(encoded(3))
    (folder / "copies" / "b.jpg").write_bytes(encoded(3))
    picture(4).resize((80, 60)).save(folder / "copies" / "smaller.jpg")
    picture(5).crop((2, 2, 160, 120)).save(folder / "copies" / "cut.jpg", quality=70)
    picture(5).save(folder / "copies" / "worse.jpg", quality=50)

    def run(*arguments: str) -> tuple[list[str], str]:
        options = ["--database", str(tmp_path / "index"), "--model", str(packaged)]
        done = CliRunner().invoke(app, [*arguments, *options], catch_exceptions=False)
        return done.stdout.splitlines(), done.stderr

    assert run("duplicates") == ([], "zerotag: no duplicates found.\n")
    run("index", str(folder))
    groups = [json.loads(line) for line in run("duplicates", "--json")[0]]
    assert [[Path(photo).relative_to(folder).as_posix() for photo in group["photos"]] for group in groups] == [
        ["3.jpg", "copies/a.jpg", "copies/b.jpg"],
        ["4.jpg", "copies/smaller.jpg"],
        ["5.jpg", "copies/cut.jpg", "copies/worse.jpg"],
    ]
    assert [group["same"] for group in groups] == [True, False, False]
    assert groups[0]["similarity"] == 1 and all(0.93 <= group["similarity"] <= 1 for group in groups)
    lines, _ = run("duplicates")
    assert lines[:5] == ["same content:", *(f"  {photo}" for photo in groups[0]["photos"]), ""]
    assert lines[5].startswith("alike (")
    assert len(run("duplicates", "--json", "--similarity", "1")[0]) == 1
    # Moved photos keep what they look like.
    (folder / "copies").rename(folder / "moved")
    run("index", str(folder))
    assert len(run("duplicates", "--json")[0]) == 3
