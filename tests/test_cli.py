"""The command line: what it prints, and what it does with what is wrong."""

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from conftest import PROJECT, TAGS, encoded, with_plural
from typer.testing import CliRunner

from zerotag.cli import app

UNSEEN = {"dog", "sea", "tree"}


def run(*arguments: object) -> tuple[int, list[str], str]:
    """Exit status, lines of stdout, and stderr."""
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.stdout.splitlines(), done.stderr


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder with two photos, one of them deeper, and something else."""
    folder = tmp_path / "holiday"
    (folder / "deep").mkdir(parents=True)
    (folder / "a.jpg").write_bytes(encoded(1))
    (folder / "deep" / "b.PNG").write_bytes(encoded(2, "PNG"))
    (folder / "notes.txt").write_text("no photo")
    return folder


def test_an_index_that_became_large_comes_with_advice(
    photos: Path, packaged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("zerotag.serving.index.FEWER", 8)
    assert "dimensions" not in run("index", photos, "--database", tmp_path / "other", "--model", packaged)[2]
    monkeypatch.setattr("zerotag.cli._LARGE", 1e-9)
    database = ("--database", tmp_path / "index", "--model", packaged)
    errors = run("index", photos, *database)[2]
    assert "the vectors of 2 photos take" in errors and "in 8 dimensions" in errors
    assert "dimensions" not in run("index", photos, *database)[2]  # nothing was added
    small = ("--database", tmp_path / "small", "--model", packaged, "--dimensions", "8")
    assert "dimensions" not in run("index", photos, *small)[2]


def test_files_and_folders(photos: Path, packaged: Path, tmp_path: Path) -> None:
    (tmp_path / "c.jpg").write_bytes(encoded(3))
    status, lines, errors = run("tag", tmp_path / "c.jpg", photos, "--all", "--model", packaged)
    assert (status, errors) == (0, "zerotag: passed over: 1 other.\n")
    assert [line.partition(": ")[0] for line in lines] == [
        str(tmp_path / "c.jpg"), str(photos / "a.jpg"), str(photos / "deep" / "b.PNG"),
    ]  # fmt: skip
    for line in lines:
        words = [each.split()[0] for each in line.partition(": ")[2].split(", ")]
        assert len(words) == 10 and {word.rstrip("*") for word in words} <= set(TAGS)
        assert {word[:-1] for word in words if word.endswith("*")} == UNSEEN & {word.rstrip("*") for word in words}


def test_for_people(photos: Path, packaged: Path, tmp_path: Path) -> None:
    """Probable tags with their probabilities, and what was folded into them."""
    options = ("--model", with_plural(packaged, tmp_path / "served", 0.0, 2.0))
    status, [line], errors = run("tag", photos / "a.jpg", "--top", 20, *options)
    assert (status, errors) == (0, "")
    shown = line.removeprefix(f"{photos / 'a.jpg'}: ").split(", ")
    assert len(shown) == len(TAGS) - 1
    [folded] = [each for each in shown if each.startswith("cat")]
    assert folded in ("cat 88% (cats)", "cats 88% (cat)")
    assert {each for each in shown if "*" in each} == {"dog* 88%", "sea* 88%", "tree* 88%"}
    _, [line], _ = run("tag", photos / "a.jpg", "--top", 20, "--all", *options)
    assert line.count("88%") == len(TAGS) and "(" not in line
    _, [line], _ = run("tag", photos / "a.jpg", "--json", "--top", 20, *options)
    assert [each["also"] for each in json.loads(line)["tags"] if each["also"]] in ([["cats"]], [["cat"]])


def test_no_probable_tag(photos: Path, packaged: Path, tmp_path: Path) -> None:
    options = ("--model", with_plural(packaged, tmp_path / "served", 0.0, -3.0))
    assert run("tag", photos / "a.jpg", *options) == (
        0, [f"{photos / 'a.jpg'}: no probable tag; --all shows the best"], "",
    )  # fmt: skip
    assert run("tag", photos / "a.jpg", "--tags", "sky", *options)[1] == [f"{photos / 'a.jpg'}: sky 5%"]
    assert run("tag", photos / "a.jpg", "--all", "--top", 2, *options)[1][0].count("5%") == 2
    assert json.loads(run("tag", photos / "a.jpg", "--json", *options)[1][0])["tags"] == []


def test_json_and_top(photos: Path, packaged: Path) -> None:
    status, lines, _ = run("tag", photos, "--json", "--all", "--top", 3, "--model", packaged)
    assert status == 0 and len(lines) == 2
    first = json.loads(lines[0])
    assert first["photo"] == str(photos / "a.jpg") and len(first["tags"]) == 3
    assert {"tag", "score", "seen"} <= set(first["tags"][0])
    scores = [each["score"] for each in first["tags"]]
    assert scores == sorted(scores, reverse=True)
    assert all(each["seen"] == (each["tag"] not in UNSEEN) for each in first["tags"])


def test_ones_own_words(photos: Path, packaged: Path) -> None:
    words = "dog, Lighthouses, sky,, zebra-boat ,qwertyzxcv"
    status, lines, errors = run("tag", photos / "a.jpg", "--tags", words, "--json", "--model", packaged)
    assert status == 0
    assert errors == "zerotag: No word vector for qwertyzxcv: skipped.\n"
    tags = {each["tag"]: each for each in json.loads(lines[0])["tags"]}
    assert {tag: each["seen"] for tag, each in tags.items()} == {
        "dog": False, "Lighthouses": None, "sky": True, "zebra-boat": None,
    }  # fmt: skip
    assert {tag: (each["understood"], each["made_of"]) for tag, each in tags.items()} == {
        "dog": ("itself", "dog"), "Lighthouses": ("itself", "lighthouse"), "sky": ("itself", "sky"),
        "zebra-boat": ("parts", "zebra + boat"),
    }  # fmt: skip
    assert run("tag", photos / "a.jpg", "--tags", "dog, zebra-boat", "--model", packaged)[2] == (
        "zerotag: 'zebra-boat' understood as zebra + boat\n"
    )


def test_phrases(photos: Path, packaged_encoder: Path, tmp_path: Path) -> None:
    options = ("--model", packaged_encoder)
    phrase = "a dog on the beach"
    status, lines, errors = run("tag", photos / "a.jpg", "--tags", f"{phrase}, boats, 海滩上的狗", "--json", *options)
    assert (status, errors) == (0, "zerotag: The text encoder knows Latin letters only, not 海滩上的狗: skipped.\n")
    how = {each["tag"]: (each["understood"], each["made_of"]) for each in json.loads(lines[0])["tags"]}
    assert how == {phrase: ("encoded", phrase), "boats": ("itself", "boat")}
    note = f"zerotag: {phrase!r} encoded as a whole\n"
    assert run("tag", photos / "a.jpg", "--tags", f"{phrase}, boats", *options)[2] == note
    run("index", photos, "--database", tmp_path / "index", *options)
    status, lines, errors = run("search", phrase, "--database", tmp_path / "index", *options)
    assert (status, len(lines), errors) == (0, 2, note)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("a" * 300, "A word is longer than 100 characters."),
        ("dog, " + "a" * 300, "A word is longer than 100 characters."),
        ("so long " * 40, "A phrase is longer than 200 characters."),
        ("海滩上的狗", "The text encoder knows Latin letters only, not 海滩上的狗. Try other words."),
        ("🐕", "The text encoder knows Latin letters only, not 🐕. Try other words."),
    ],
)
def test_what_is_no_word_or_phrase(photos: Path, packaged_encoder: Path, words: str, message: str) -> None:
    status, lines, errors = run("tag", photos, "--tags", words, "--model", packaged_encoder)
    assert (status, lines, errors) == (1, [], f"zerotag: {message}\n")


def test_no_word_that_is_known(photos: Path, packaged: Path) -> None:
    status, lines, errors = run("tag", photos, "--tags", "qwertyzxcv", "--model", packaged)
    assert (status, lines) == (1, [])
    assert errors.startswith("zerotag: ") and "qwertyzxcv" in errors and "Try other words" in errors


def test_a_bad_photo_does_not_stop_the_others(photos: Path, packaged: Path) -> None:
    (photos / "aa.jpg").write_bytes(encoded()[:2000])
    (photos / "ab.jpg").write_bytes(b"")
    status, lines, errors = run("tag", photos, "--json", "--model", packaged)
    assert status == 1
    assert [Path(json.loads(line)["photo"]).name for line in lines] == ["a.jpg", "b.PNG"]
    assert f"zerotag: {photos / 'aa.jpg'}: corrupt or truncated" in errors
    assert f"zerotag: {photos / 'ab.jpg'}: the file is empty" in errors
    assert "2 of 4 photos cannot be tagged" in errors


def test_a_photo_that_may_not_be_read_does_not_stop_the_others(
    photos: Path, packaged: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = Path.read_bytes

    def forbidden(path: Path) -> bytes:
        if path.name == "a.jpg":
            raise PermissionError(13, "Permission denied", str(path))
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", forbidden)
    status, lines, errors = run("tag", photos, "--model", packaged)
    assert status == 1 and len(lines) == 1
    assert str(photos / "a.jpg") in errors and "Permission denied" in errors


def test_no_model(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    status, lines, errors = run("tag", photos, "--model", tmp_path / "nowhere")
    assert (status, lines) == (1, [])
    assert errors.startswith("zerotag: ") and "dvc repro" in errors and str(tmp_path / "nowhere") in errors


def test_no_photo(packaged: Path, tmp_path: Path) -> None:
    status, _, errors = run("tag", tmp_path / "gone.jpg", "--model", packaged)
    assert status == 1 and f"{tmp_path / 'gone.jpg'}: no such file or folder" in errors
    status, _, errors = run("tag", tmp_path, "--model", packaged)
    assert status == 1 and f"{tmp_path}: no photo in this folder" in errors


def test_top_must_be_positive(photos: Path, packaged: Path) -> None:
    status, _, errors = run("tag", photos, "--top", 0, "--model", packaged)
    assert status == 2 and "--top" in errors


def test_as_a_program(photos: Path, packaged: Path) -> None:
    command = [str(Path(sys.executable).with_name("zerotag")), "tag", str(photos / "a.jpg"), "--model", str(packaged)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{photos / 'a.jpg'}: ")


def test_index_and_search(photos: Path, packaged: Path, tmp_path: Path) -> None:
    (photos / "bad.jpg").write_bytes(b"no picture")
    database = ("--database", tmp_path / "index", "--model", packaged)
    status, lines, errors = run("index", photos, *database)
    assert status == 0 and lines == ["2 added, 0 unchanged, 0 removed, 1 unusable"]
    assert "bad.jpg: not an image" in errors
    assert run("index", photos, *database)[1] == ["0 added, 2 unchanged, 0 removed, 1 unusable"]
    status, lines, _ = run("search", "boat, sky", "--json", *database)
    assert status == 0
    found = {hit["photo"]: hit["score"] for hit in map(json.loads, lines)}
    assert set(found) == {"a.jpg", "deep/b.PNG"}
    _, tagged, _ = run("tag", photos / "a.jpg", "--tags", "boat,sky", "--json", "--model", packaged)
    least = min(each["score"] for each in json.loads(tagged[0])["tags"])
    assert found["a.jpg"] == pytest.approx(least, abs=1e-4)
    status, _, errors = run("search", "qwertyzxcv", *database)
    assert status == 1 and "qwertyzxcv" in errors
    assert run("search", "boat", "--offset", 2, *database)[1] == []


def test_version() -> None:
    declared = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["version"]
    assert run("--version") == (0, [f"zerotag {declared}"], "")


def test_completion_in_bash() -> None:
    """The script that bash is given completes commands, the commands of a command, and options."""
    complete = """
        script=$(zerotag --show-completion bash) && eval "$script" || exit 1
        complete -p zerotag >&2
        offer() { COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _zerotag_completion zerotag; echo "${COMPREPLY[@]}"; }
        offer zerotag ""
        offer zerotag s
        offer zerotag champion ""
        offer zerotag tag --th
    """
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        ["bash", "--norc", "-c", complete],
        env={**os.environ, "PATH": path}, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0 and "complete -o default -F _zerotag_completion zerotag" in done.stderr, done.stderr
    first, *others = done.stdout.splitlines()
    assert {"tag", "index", "search", "profile", "champion"} <= set(first.split())
    assert others == ["search", "show challenger rollback", "--threshold"]
