"""Tags of library photos, accepted and rejected: over HTTP, in sidecars, and in what later runs make of them."""

import asyncio
import concurrent.futures
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from conftest import Server, encoded
from service.app import create_app
from service.settings import ServeSettings
from starlette.testclient import TestClient
from test_metadata import exiftool, keyworded, listed, run, subject, values
from test_service import refused, send

from zerotag.data import sources
from zerotag.errors import ZerotagError
from zerotag.metadata.exiftool import open_exiftool
from zerotag.metadata.keywords import GivenTag, PhotoKeywords, read_photo_keywords
from zerotag.metadata.writing import KeywordError, decide, open_untagger, open_writer
from zerotag.serving.index import open_index
from zerotag.serving.tagger import Tagger
from zerotag.serving.update import update

pytestmark = pytest.mark.skipif(not shutil.which("exiftool"), reason="exiftool is not installed")

LISTS = ("keywords", "given", "accepted", "rejected")


@pytest.fixture
def album(server: Server) -> Iterator[Path]:
    """A folder of the photo root."""
    folder = server.root / "decided"
    folder.mkdir()
    yield folder
    shutil.rmtree(folder)


def lists(answer: httpx.Response) -> tuple[list[str], ...]:
    """What a person gave, what zerotag gave, what was accepted and what was rejected."""
    assert answer.status_code == 200, answer.text
    assert answer.json()["problem"] == ""
    return tuple(answer.json()[name] for name in LISTS)


def test_tags_of_a_library_photo(client: httpx.Client, server: Server, album: Path, packaged: Path) -> None:
    photo = keyworded(album / "a.jpg", 3, words=["Granny"])
    run("tag", photo, "--write", "sidecar", "--tags", "dog,zebra", "--model", packaged)
    before = (photo.read_bytes(), (album / "a.jpg.xmp").read_bytes())
    for options in ({"top": 5}, {"vocabulary": ["boat, sky", "qzxv"]}, {"all": "true", "task": "unseen"}):
        sent = send(client, photo.read_bytes(), **options).json()
        got = client.get("/tags/decided/a.jpg", params=options)
        assert tuple(map(sorted, lists(got))) == (["Granny"], ["dog", "zebra"], [], [])
        for name in ("tags", "missing", "reason", "model"):
            assert got.json()[name] == sent[name]
        assert got.json()["milliseconds"]["network"] > 0
    try:
        client.post("/index", json={"paths": ["decided"]})
        got = client.get("/tags/decided/a.jpg", params=options).json()
        assert got["milliseconds"]["network"] == got["milliseconds"]["decode"] == 0
        assert [each["tag"] for each in got["tags"]] == [each["tag"] for each in sent["tags"]]
        # The index has them in half precision.
        assert [each["score"] for each in got["tags"]] == pytest.approx(
            [each["score"] for each in sent["tags"]], abs=1e-4
        )
        os.utime(photo)  # perhaps another photo under the same name
        assert client.get("/tags/decided/a.jpg").json()["milliseconds"]["network"] > 0
    finally:
        client.delete("/index", params={"path": ""})
    assert (photo.read_bytes(), (album / "a.jpg.xmp").read_bytes()) == before


def test_accept_reject_and_forget(client: httpx.Client, album: Path, packaged: Path) -> None:
    photo = keyworded(album / "a.jpg", words=["Granny", "sky"])
    bytes_before = photo.read_bytes()
    tagging = ("tag", photo, "--write", "sidecar", "--tags", "dog,zebra,guitar", "--model", packaged)
    run(*tagging)

    def post(**decision: list[str]) -> httpx.Response:
        return client.post("/tags/decided/a.jpg", json=decision, params={"top": 3})

    answer = post(accept=["dog", "Lake Garda", "SKY"], reject=["zebra", "castle"])
    assert len(answer.json()["tags"]) == 3
    own, after = ["Granny", "sky", "dog", "Lake Garda"], ["guitar"]
    assert lists(answer) == (own, after, ["dog", "Lake Garda"], ["zebra", "castle"])
    assert lists(client.get("/tags/decided/a.jpg")) == lists(answer)
    assert set(subject(album / "a.jpg.xmp")) == {*own, *after}  # with those of the photo, as only one of them is read
    assert set(values(album / "a.jpg.xmp")["XMP-digiKam:TagsList"]) == {*own, *after}

    # A rejected tag is not written again, neither there, nor into the photo, nor to a table.
    _, lines, _ = run(*tagging)
    assert "(there already: dog)" in lines[-1] and "(rejected: zebra)" in lines[-1]
    assert set(subject(album / "a.jpg.xmp")) == {*own, *after}
    for write in ("embed", "csv"):
        _, lines, errors = run(*tagging[:3], write, *tagging[4:])
        assert "(rejected: zebra)" in lines[-1] and not errors
    assert "zebra" not in (album / "zerotag.csv").read_text() + " ".join(subject(photo))

    # What a person accepted stays, as does what they rejected.
    run("untag", album)
    assert photo.read_bytes() == bytes_before
    assert set(subject(album / "a.jpg.xmp")) == set(own)
    assert lists(client.get("/tags/decided/a.jpg")) == (own, [], ["dog", "Lake Garda"], ["zebra", "castle"])

    assert lists(post(reject=["Dog"])) == (
        ["Granny", "sky", "Lake Garda"],
        [],
        ["Lake Garda"],
        ["zebra", "castle", "Dog"],
    )
    assert lists(post(accept=["zebra"]))[2:] == (["Lake Garda", "zebra"], ["castle", "Dog"])
    refused(post(reject=["granny", "boat"]), 409, "granny", "keyword of your own")
    assert lists(post(forget=["Granny", "nothing"]))[2:] == (["Lake Garda", "zebra"], ["castle", "Dog"])
    assert lists(post(forget=["dog", "Lake Garda", "zebra", "castle"])) == (["Granny", "sky"], [], [], [])
    assert sorted(file.name for file in album.iterdir()) == ["a.jpg"]  # as there is nothing to say any more
    assert photo.read_bytes() == bytes_before


def test_decisions_at_once(client: httpx.Client, server: Server, album: Path) -> None:
    """By two processes of the service, and a third one that tags."""
    photo = album / "a.jpg"
    photo.write_bytes(encoded())
    words = [f"word{number}" for number in range(12)]

    def one(word: str) -> int:
        decision = {"accept" if word.endswith(("1", "3", "5", "7")) else "reject": [word]}
        return httpx.post(f"{server.url}/tags/decided/a.jpg", json=decision, timeout=60).status_code

    with open_writer("sidecar", "model") as save, concurrent.futures.ThreadPoolExecutor(6) as pool:
        statuses = pool.map(one, words)
        for number in range(5):
            save(photo, [GivenTag(f"own{number}", 0.5)])
        assert set(statuses) == {200}
    _, given, accepted, rejected = lists(client.get("/tags/decided/a.jpg"))
    assert given == ["own4"] and sorted(accepted + rejected) == sorted(words)
    assert [file.name for file in sorted(album.iterdir())] == ["a.jpg", "a.jpg.xmp"]


def test_decisions_that_are_refused(client: httpx.Client, server: Server, album: Path, tmp_path: Path) -> None:
    (album / "a.jpg").write_bytes(encoded())
    url = "/tags/decided/a.jpg"
    for decision, part in (
        ({"accept": "dog"}, "accept"),
        ({"acept": ["dog"]}, "acept"),
        ({"accept": [""]}, "accept.0"),
        ({"accept": [" \n"]}, "accept.0"),
        ({"accept": ["a\nb"]}, "line breaks"),
        ({"reject": ["x" * 201]}, "reject.0"),
        ({"reject": ["w"] * 1001}, "reject"),
        ({"accept": ["dog"], "reject": ["Dog"]}, "both in accept and in reject"),
        ([], "body"),
    ):
        refused(client.post(url, json=decision), 422, part)
    refused(client.post(url, json={}, params={"top": 0}), 422, "top")
    refused(client.get(url, params={"threshold": 2}), 422, "threshold")
    refused(client.get(url, params={"vocabulary": "qzxv"}), 422, "qzxv")

    # What a page of another origin can send without being asked for permission first.
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", None):
        headers = {"content-type": kind} if kind else {}
        for path, content in ((url, b'{"accept": ["dog"]}'), ("/index", b'{"paths": [""]}')):
            refused(client.post(path, content=content, headers=headers), 415, "application/json")

    (album / "b.txt").write_text("no photo")
    for path in ("decided/none.jpg", "decided/b.txt", "decided", "a%00b.jpg", "x" * 5000):
        refused(client.get(f"/tags/{path}"), 404)
        refused(client.post(f"/tags/{path}", json={"accept": ["dog"]}), 404)
    (album / "c.jpg").write_bytes(b"no picture")
    refused(client.get("/tags/decided/c.jpg"), 422, "not an image")
    (tmp_path / "secret.jpg").write_bytes(encoded())
    (album / "link.jpg").symlink_to(tmp_path / "secret.jpg")
    (album / "a.jpg.xmp").symlink_to(tmp_path / "secret.xmp")
    for path in (
        "decided/link.jpg",
        f"%2e%2e/{tmp_path.name}/secret.jpg",
        f"%2f{tmp_path}/secret.jpg",
        "decided/a.jpg",
    ):
        for answer in (client.get(f"/tags/{path}"), client.post(f"/tags/{path}", json={"accept": ["dog"]})):
            refused(answer, 403, "outside")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["secret.jpg"]


def test_without_exiftool_and_in_a_read_only_folder(
    packaged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "photos"
    keyworded(root / "a.jpg")
    settings = ServeSettings(str(packaged), root=str(root), index=str(tmp_path / "index"), log="")

    def ask(method: str, **options: Any) -> httpx.Response:
        async def one() -> httpx.Response:
            transport = httpx.ASGITransport(create_app(settings))
            async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
                return await client.request(method, "/tags/a.jpg", params={"all": True}, **options)

        return asyncio.run(one())

    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != root and access(path, mode))
    refused(ask("POST", json={"accept": ["dog"]}), 403, str(root), "read-only")
    assert [file.name for file in root.iterdir()] == ["a.jpg"]
    monkeypatch.setenv("PATH", str(tmp_path))
    refused(ask("POST", json={"accept": ["dog"]}), 501, "apt install libimage-exiftool-perl")
    answer = ask("GET").json()  # tags all the same
    assert len(answer["tags"]) == 10 and "apt install" in answer["problem"]
    assert [answer[name] for name in LISTS] == [[]] * 4


def test_tags_do_not_depend_on_the_dimensions_of_the_index(packaged: Path, tmp_path: Path) -> None:
    root = tmp_path / "photos"
    keyworded(root / "a.jpg")
    tagger = Tagger(packaged)
    index = open_index(str(tmp_path / "index"), tagger, 3)
    assert update(index, tagger, root, [""]).added == 1 and index.basis
    settings = ServeSettings(str(packaged), root=str(root), index=str(tmp_path / "index"), log="")
    tags = TestClient(create_app(settings)).get("/tags/a.jpg").json()["tags"]
    best = tagger.tag((root / "a.jpg").read_bytes(), "a.jpg")
    assert [(each["tag"], each["score"]) for each in tags] == [
        (each.tag, pytest.approx(each.score, abs=1e-5)) for each in best
    ]


def said(photo: Path, **decision: list[str]) -> PhotoKeywords:
    with open_exiftool() as tool:
        decide(tool, photo, **decision)
        return read_photo_keywords(tool, [photo])[photo]


def test_training_reads_what_was_decided(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    photos = [keyworded(folder / f"{number}.jpg", number, words=["sky", "Sail boat"]) for number in range(4)]

    def read() -> sources.Source:
        params = {"photos": str(folder), "test": 2}
        sources.fetch("folder", params, tmp_path / "raw", tmp_path / "work", tmp_path / "lock")
        return sources.read("folder", params, tmp_path / "raw")

    with open_writer("sidecar", "model") as save:
        for photo in photos:
            save(photo, [GivenTag("dog", 0.5), GivenTag("cat", 0.4)])
    source = read()
    assert source.tags == ["Sail boat", "sky"] and source.rejected is None
    assert (tmp_path / "raw" / "keywords.csv").read_text().startswith("image,tags,bytes\n")
    said(photos[0], accept=["dog"], reject=["cat"])
    said(photos[1], reject=["dogs", "Dog", "zebra"])
    source = read()
    assert source.tags == ["Sail boat", "dog", "sky"]  # nobody has cat or zebra, so they are no tags to learn
    assert source.labels.toarray().tolist() == [[1, 1, 1], *[[1, 0, 1]] * 3]
    assert source.rejected is not None
    assert source.rejected.toarray().tolist() == [[0, 0, 0], [0, 1, 0], [0, 0, 0], [0, 0, 0]]


def test_a_hierarchy_and_other_places(tmp_path: Path) -> None:
    """Accepted tags keep their parents; tags in the photo itself and in either sidecar are found."""
    photo = keyworded(tmp_path / "a.jpg", words=["Granny"])
    (tmp_path / "a.xmp").write_bytes((Path(__file__).parents[1] / "src/zerotag/metadata/empty.xmp").read_bytes())
    exiftool("-q", "-overwrite_original", "-XMP-xmp:Rating=4", tmp_path / "a.xmp")
    given = [GivenTag("dog", 0.5, ("Animals", "dog")), GivenTag("cat", 0.5, ("Animals", "cat")), GivenTag("boat", 0.5)]
    with open_writer("embed", "model") as save:
        save(photo, [GivenTag("boat", 0.4), GivenTag("car", 0.4)])
    with open_writer("sidecar", "model", "photo.xmp") as save:
        save(photo, given)
    assert said(photo, accept=["Dog"], reject=["boat"]) == PhotoKeywords(
        ["Granny", "dog"], ["car", "cat"], ["Dog"], ["boat"]
    )
    assert "boat" not in listed(values(photo)["XMP-dc:Subject"])
    with open_untagger() as remove:
        remove(photo)
    found = values(tmp_path / "a.xmp")
    assert set(found["XMP-lr:HierarchicalSubject"]) == {"Animals|dog", "Granny"}
    assert set(found["XMP-digiKam:TagsList"]) == {"Animals/dog", "Granny"} == {*found["XMP-digiKam:TagsList"]}
    with open_writer("sidecar", "model") as save:  # into the other sidecar
        assert save(photo, given).added == ("cat",)
    said(photo, forget=["dog", "boat"])
    assert said(photo) == PhotoKeywords(["Granny"], ["cat"], [], [])
    found = values(tmp_path / "a.xmp")
    assert {name for name in found if name.startswith("XMP-") and name != "XMP-x:XMPToolkit"} == {"XMP-xmp:Rating"}
    # A sidecar that may be another photo's is left alone.
    (tmp_path / "a.cr2").write_bytes(b"raw")
    (tmp_path / "a.jpg.xmp").unlink()
    said(photo, reject=["boat"])
    assert (tmp_path / "a.jpg.xmp").is_file() and values(tmp_path / "a.xmp") == found


def test_a_person_may_decide_elsewhere_too(tmp_path: Path) -> None:
    photo = tmp_path / "a.jpg"
    photo.write_bytes(encoded())
    odd = ["</etc/passwd", "=x", "a, b; c", "50 % {x}|[y]", "$Make @x", "Ümläut", "2024.10", "true"]
    assert said(photo, accept=["dog"], reject=["cat"]).keywords == ["dog"]
    exiftool("-q", "-overwrite_original", "-XMP-dc:Subject-=dog", "-XMP-digiKam:TagsList-=dog",
             "-XMP-dc:Subject+=cat", tmp_path / "a.jpg.xmp")  # fmt: skip
    assert said(photo) == PhotoKeywords(["cat"], [], [], [])
    with pytest.raises(KeywordError, match="cat"):
        said(photo, reject=["dog", "cat"])
    assert said(photo, accept=["cat", "dog"]) == PhotoKeywords(["dog", "cat"], [], ["dog"], [])
    assert said(photo, forget=["dog", "cat"]) == PhotoKeywords(["cat"], [], [], [])
    found = said(photo, accept=odd)
    assert set(found.keywords) == {"cat", *odd} and set(found.accepted) == set(odd)
    assert said(photo, forget=odd) == PhotoKeywords(["cat"], [], [], [])
    assert listed(values(tmp_path / "a.jpg.xmp").get("XMP-digiKam:TagsList")) == []
    (tmp_path / "a.jpg.xmp").write_bytes(b"not XMP")
    with pytest.raises(ZerotagError, match=r"a.jpg.xmp"):
        said(photo, accept=["dog"])
    assert (tmp_path / "a.jpg.xmp").read_bytes() == b"not XMP"
