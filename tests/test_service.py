"""The service over real HTTP: what it answers, and what it refuses."""

import asyncio
import concurrent.futures
import contextlib
import io
import json
import os
import shutil
import socket
import struct
import threading
import time
import zlib
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from benchmarks.serving import memory, read_answer
from conftest import TAGS, Server, encoded, picture, serving, with_plural
from service.app import create_app
from service.gather import Gather
from service.settings import ServeSettings
from service.timeout import Timeout
from starlette.types import Receive, Scope, Send

from zerotag.samples import samples
from zerotag.serving.tagger import Tagger


def send(client: httpx.Client, photo: bytes, name: str = "a.jpg", **options: object) -> httpx.Response:
    return client.post("/tag", files={"photo": (name, photo)}, data=options)


def refused(answer: httpx.Response, status: int, *parts: str) -> None:
    """Refused with a status and a message for people."""
    assert answer.status_code == status, answer.text
    message = answer.json()["error"]
    assert all(part in message for part in parts), message


def test_ready_soon(server: Server) -> None:
    assert server.ready_seconds < 15 or os.getloadavg()[0] > os.cpu_count()  # type: ignore[operator]


def test_tag_is_the_library(client: httpx.Client, packaged: Path) -> None:
    answer = send(client, encoded(3), top=5).json()
    expected = Tagger(packaged).tag(encoded(3), "a.jpg", top=5)
    assert [each["tag"] for each in answer["tags"]] == [each.tag for each in expected]
    for given, own in zip(answer["tags"], expected, strict=True):
        assert given["score"] == pytest.approx(own.score, abs=1e-4)
        assert given["probability"] == pytest.approx(own.probability, abs=1e-4)
        assert (given["seen"], given["principal_vector"]) == (own.seen, own.principal_vector)
    assert answer["model"] == "zerotag:test"
    assert set(answer["milliseconds"]) == {"decode", "network", "score"}


def test_own_words(client: httpx.Client) -> None:
    answer = send(client, encoded(), vocabulary=["boat, sky", "zebras", "qzxv"]).json()
    assert {each["tag"] for each in answer["tags"]} == {"boat", "sky", "zebras"}
    assert {each["tag"]: each["seen"] for each in answer["tags"]} == {"boat": None, "sky": True, "zebras": None}
    assert (answer["missing"], answer["reason"]) == (["qzxv"], "No word vector for qzxv")
    zebras = next(each for each in answer["tags"] if each["tag"] == "zebras")
    assert (zebras["understood"], zebras["made_of"]) == ("itself", "zebra")
    assert {each["understood"] for each in send(client, encoded()).json()["tags"]} == {"itself"}
    refused(send(client, encoded(), vocabulary="qzxv, qqq"), 422, "No word vector", "qzxv")


def test_embed(client: httpx.Client, packaged: Path) -> None:
    answer = client.post("/embed", files={"photo": ("a.jpg", encoded(3))}).json()
    tagger = Tagger(packaged)
    vectors = np.array(answer["vectors"], np.float32)
    assert vectors.shape == (3, 50) and vectors == pytest.approx(tagger.embed(encoded(3), "a.jpg"), abs=1e-4)
    assert (answer["model"], answer["network"]) == ("zerotag:test", tagger.network)
    assert set(answer["milliseconds"]) == {"decode", "network"}
    [best] = tagger.rank(vectors, tagger.words(), top=1, everything=True)
    assert best.score == pytest.approx(send(client, encoded(3), all=True, top=1).json()["tags"][0]["score"], abs=1e-4)

    # Options of tagging mean nothing here.
    assert client.post("/embed", files={"photo": ("a.jpg", encoded(3))}, data={"top": "many"}).status_code == 200

    two = [("photo", ("a.jpg", encoded())), ("photo", ("b.jpg", encoded()))]
    refused(client.post("/embed", files=two), 422, "more than one photo")
    refused(client.post("/embed", files={"photo": ("a.jpg", b"no picture")}), 422, "not an image")
    refused(client.post("/embed", files={"photo": ("a.jpg", bytes(25_000_000))}), 413, "20,000,000")
    refused(client.post("/embed", files={"photo": ("a.png", png_bomb(20_000, 20_000))}), 422, "100,000,000 pixels")
    refused(client.post("/embed", json={}), 415, "multipart/form-data")


def test_vocabulary_file(packaged: Path, tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("Haustier\t{dog, cat}\nqzxv\nboat\t\t1\n")
    with serving(packaged, tmp_path, workers="1", vocabulary=str(tmp_path / "words.txt")) as running:
        answer = httpx.post(f"{running.url}/tag", files={"photo": ("a.jpg", encoded())}, timeout=60).json()
        assert [each["tag"] for each in answer["tags"]] == ["Haustier"] and answer["missing"] == []
        files = [("photos", ("a.jpg", encoded()))]
        answer = httpx.post(f"{running.url}/tag/batch", files=files, data={"task": "unseen"}, timeout=60).json()
        assert [each["tag"] for each in answer["photos"][0]["tags"]] == ["Haustier"]
        options = {"vocabulary": "boat"}
        answer = httpx.post(f"{running.url}/tag", files={"photo": ("a.jpg", encoded())}, data=options, timeout=60)
        assert [each["tag"] for each in answer.json()["tags"]] == ["boat"]
    assert "1 of 3 keywords have no vector" in (tmp_path / "output.txt").read_text()


def test_own_words_as_a_json_list(client: httpx.Client) -> None:
    for vocabulary in ('["boat","sky"]', ['["boat"]', "sky"]):
        answer = send(client, encoded(), vocabulary=vocabulary).json()
        assert {each["tag"] for each in answer["tags"]} == {"boat", "sky"} and answer["missing"] == []
    for vocabulary in ('["boat"', "[boat, sky]", "[1]"):
        refused(send(client, encoded(), vocabulary=vocabulary), 422, "not a JSON list of words")
    refused(send(client, encoded(), vocabulary="[]"), 422, "no word")
    batch = client.post("/tag/batch", files=[("photos", encoded())], data={"vocabulary": '["boat"]'}).json()
    assert [each["tag"] for each in batch["photos"][0]["tags"]] == ["boat"]


def test_two_photos_are_for_the_batch(client: httpx.Client) -> None:
    two = [("photo", ("a.jpg", encoded(1))), ("photo", ("b.jpg", encoded(2)))]
    refused(client.post("/tag", files=two), 422, "more than one photo", "/tag/batch")
    text = [("photo", ("a.jpg", encoded(1))), ("photo", (None, "https://example.com/b.jpg"))]
    refused(client.post("/tag", files=text), 422, "photo")


def test_unseen_only_and_threshold(client: httpx.Client) -> None:
    answer = send(client, encoded(), task="unseen", top=100, all=True).json()
    assert {each["tag"] for each in answer["tags"]} == {"dog", "sea", "tree"}
    every = send(client, encoded(), top=100, all=True).json()["tags"]
    bar = sorted(each["probability"] for each in every)[6]
    kept = send(client, encoded(), top=100, threshold=bar, all=True).json()["tags"]
    assert [each["tag"] for each in kept] == [each["tag"] for each in every if each["probability"] >= bar]


def test_probable_tags_by_default(packaged: Path, tmp_path: Path) -> None:
    """The application without a server: a package whose words are all probable, and one without a probable word."""

    def ask(package: Path, path: str = "/tag", **options: object) -> dict[str, Any]:
        async def post() -> httpx.Response:
            transport = httpx.ASGITransport(create_app(ServeSettings(str(package), log="")))
            async with httpx.AsyncClient(transport=transport, base_url="http://here") as one:
                name = "photo" if path == "/tag" else "photos"
                return await one.post(path, files={name: ("a.jpg", encoded())}, data={"top": 50, **options})

        answer = asyncio.run(post())
        assert answer.status_code == 200, answer.text
        return answer.json()

    probable = with_plural(packaged, tmp_path / "probable", 0.0, 2.0)
    for path in ("/tag", "/tag/batch"):
        answer = ask(probable, path)
        tags = answer["tags"] if path == "/tag" else answer["photos"][0]["tags"]
        assert len(tags) == len(TAGS) - 1
        assert {each["tag"]: each["also"] for each in tags if each["also"]} in ({"cat": ["cats"]}, {"cats": ["cat"]})
    every = ask(probable, all=True)["tags"]
    assert len(every) == len(TAGS) and not any(each["also"] for each in every)
    asked = ask(probable, vocabulary="cat, cats")["tags"]
    assert sorted(each["tag"] for each in asked) == ["cat", "cats"]

    improbable = with_plural(packaged, tmp_path / "improbable", 0.0, -3.0)
    assert ask(improbable)["tags"] == []
    assert len(ask(improbable, all="true")["tags"]) == len(ask(improbable, threshold=0)["tags"]) + 1 == len(TAGS)
    assert len(ask(improbable, vocabulary="boat")["tags"]) == 1


def test_sample_photos(server: Server) -> None:
    listed = httpx.get(f"{server.url}/page/samples").json()
    assert [(each["photo"], each["title"], each["credit"]) for each in listed] == [
        (each.file.name, each.title, each.credit) for each in samples()
    ]
    for each in samples():
        answer = httpx.get(f"{server.url}/page/samples/{each.file.name}")
        assert answer.headers["content-type"] == "image/jpeg" and answer.content == each.file.read_bytes()
    for name in ("credits.csv", "__init__.py", "..%2fsamples%2fcat.jpg", "none.jpg"):
        assert httpx.get(f"{server.url}/page/samples/{name}").status_code == 404


def test_batch_where_one_is_bad(client: httpx.Client) -> None:
    photos = [encoded(1), b"no picture", encoded(2), encoded(1)[:500]]
    files = [("photos", (f"{n}.jpg", data)) for n, data in enumerate(photos)]
    answer = client.post("/tag/batch", files=files, data={"all": True})
    rows = answer.json()["photos"]
    assert [bool(row["tags"]) for row in rows] == [True, False, True, False]
    assert "not an image" in rows[1]["error"] and "truncated" in rows[3]["error"] and rows[0]["error"] is None
    alone = send(client, photos[2], all=True).json()["tags"]
    assert [each["tag"] for each in rows[2]["tags"]] == [each["tag"] for each in alone]
    too_many = client.post("/tag/batch", files=[("photos", ("a.jpg", encoded()))] * 33)
    refused(too_many, 413, "33 photos")


def test_every_kind_of_picture(client: httpx.Client) -> None:
    for kind in ("PNG", "WEBP", "GIF", "BMP", "TIFF"):
        assert send(client, encoded(1, kind), f"a.{kind.lower()}").status_code == 200


def png_bomb(width: int, height: int) -> bytes:
    """A PNG of a few bytes that claims to be huge."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = zlib.compress(bytes(1000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def test_pictures_that_are_refused(client: httpx.Client) -> None:
    refused(send(client, b"This is a text."), 422, "a.jpg", "not an image")
    refused(send(client, encoded()[:700]), 422, "truncated")
    refused(send(client, b""), 422, "empty")
    refused(send(client, png_bomb(20_000, 20_000)), 422, "100,000,000 pixels")
    refused(
        send(client, b'<svg xmlns="http://www.w3.org/2000/svg"><circle r="5"/></svg>', "a.svg"), 422, "not an image"
    )
    refused(send(client, bytes(25_000_000)), 413, "20,000,000")


def test_large_files_arrive_whole(client: httpx.Client) -> None:
    # What follows the end of a JPEG is ignored, but a file that lost its beginning is none.
    answers = [send(client, encoded() + bytes(more)) for more in (0, 3_000_000, 9_000_000)]
    assert [answer.status_code for answer in answers] == [200] * 3
    assert all(answer.json()["tags"] == answers[0].json()["tags"] for answer in answers)
    files = [("photos", (f"{seed}.jpg", encoded(seed) + bytes(9_000_000))) for seed in range(2)]
    batch = client.post("/tag/batch", files=files).json()
    alone = [send(client, encoded(seed)).json()["tags"] for seed in range(2)]
    assert [photo["tags"] for photo in batch["photos"]] == alone


def test_fifty_megabytes_are_not_read(client: httpx.Client, server: Server) -> None:
    # Told by its length, and one that does not tell its length.
    # Where the connection is closed while we still send, it is refused as well.
    with contextlib.suppress(httpx.WriteError):
        refused(send(client, bytes(50_000_000)), 413, "bytes")

    def endless():
        for _ in range(60):
            yield bytes(1_000_000)

    with contextlib.suppress(httpx.WriteError, httpx.ReadError):
        answer = client.post("/tag", content=endless(), headers={"content-type": "multipart/form-data; boundary=x"})
        assert answer.status_code in (400, 413)


def test_a_url_is_not_fetched(client: httpx.Client) -> None:
    answer = client.post("/tag", data={"photo": "http://127.0.0.1:1/a.jpg"}, files={"x": b""})
    refused(answer, 422, "photo")
    refused(send(client, b"http://127.0.0.1:1/a.jpg"), 422, "not an image")


def test_options_that_are_refused(client: httpx.Client) -> None:
    refused(send(client, encoded(), top=-1), 422, "top")
    refused(send(client, encoded(), top="many"), 422, "top")
    refused(send(client, encoded(), threshold=2), 422, "threshold")
    refused(send(client, encoded(), task="none"), 422, "task")
    refused(send(client, encoded(), vocabulary=",".join(f"word{n}" for n in range(10_000))), 422, "10,000 words")
    refused(send(client, encoded(), vocabulary=", ,"), 422, "no word")
    many = [("vocabulary", (None, f"word{n}")) for n in range(10_000)]
    answer = client.post("/tag", files=[("photo", ("a.jpg", encoded())), *many])
    assert 400 <= answer.status_code < 500 and answer.json()["error"]


def test_wrong_content_types(client: httpx.Client) -> None:
    refused(client.post("/tag", content=encoded(), headers={"content-type": "image/jpeg"}), 415, "multipart/form-data")
    refused(client.post("/tag", json={"photo": "a"}), 415, "multipart/form-data")
    refused(client.post("/tag"), 415, "multipart/form-data")
    refused(client.post("/search", content=b"x", headers={"content-type": "text/plain"}), 415, "application/json")
    refused(client.get("/tag"), 405)


def test_broken_multipart(client: httpx.Client) -> None:
    headers = {"content-type": "multipart/form-data; boundary=x"}
    for body in (
        b"--x\r\nnonsense",
        b"--y\r\n\r\n--y--",
        b"--x\r\nContent-Disposition: form-data\r\n\r\na\r\n--x--",
        b"",
    ):
        answer = client.post("/tag", content=body, headers=headers)
        assert 400 <= answer.status_code < 500 and answer.json()["error"], body
    answer = client.post("/tag", content=b"x", headers={"content-type": "multipart/form-data"})
    assert 400 <= answer.status_code < 500


def test_slow_clients_are_cut_off_and_hinder_nobody(client: httpx.Client, server: Server) -> None:
    port = int(server.url.rsplit(":", 1)[1])
    slow = []
    for _ in range(30):
        one = socket.create_connection(("127.0.0.1", port))
        one.sendall(
            b"POST /tag HTTP/1.1\r\nHost: a\r\nContent-Type: multipart/form-data; boundary=x\r\n"
            b"Content-Length: 5000\r\n\r\n--x\r\n"
        )
        slow.append(one)
    started = time.monotonic()
    assert send(client, encoded()).status_code == 200
    assert time.monotonic() - started < 3
    slow[0].settimeout(20)
    assert b" 408 " in slow[0].recv(1000).split(b"\r\n")[0]
    for one in slow:
        one.close()


def test_two_hundred_at_once(client: httpx.Client, server: Server) -> None:
    photo = encoded(0, width=1600, height=1200)
    gate = threading.Barrier(200)

    def one(_: int) -> httpx.Response:
        with httpx.Client(base_url=server.url, timeout=60) as own:
            gate.wait(30)
            return send(own, photo)

    with concurrent.futures.ThreadPoolExecutor(200) as pool:
        answers = list(pool.map(one, range(200)))
    statuses = [answer.status_code for answer in answers]
    assert set(statuses) <= {200, 503} and 200 in statuses
    for answer in answers:
        if answer.status_code == 503:
            assert int(answer.headers["retry-after"]) >= 1
            refused(answer, 503, "busy")
    assert 503 in statuses


def test_index_search_and_removal(client: httpx.Client, server: Server) -> None:
    album = server.root / "album"
    album.mkdir()
    for seed in range(40):
        (album / f"{seed:02d}.jpg").write_bytes(encoded(seed))
    (album / "broken.jpg").write_bytes(b"no picture")
    done = client.post("/index", json={"paths": ["album"]}).json()
    assert (done["added"], done["indexed"], done["remaining"]) == (40, 40, 0)
    assert list(done["refused"]) == ["album/broken.jpg"]
    again = client.post("/index", json={"paths": [""]}).json()
    assert (again["added"], again["unchanged"], again["removed"]) == (0, 40, 0)
    assert client.get("/index").json() == {"indexed": 40, "root": True}

    first = client.post("/search", json={"words": ["boat"], "limit": 25}).json()
    second = client.post("/search", json={"words": ["boat"], "limit": 25, "offset": first["next"]}).json()
    found = first["photos"] + second["photos"]
    assert len(found) == 40 and second["next"] is None
    scores = {}
    for seed in range(40):
        tags = send(client, encoded(seed), vocabulary="boat").json()["tags"]
        scores[f"album/{seed:02d}.jpg"] = tags[0]["score"]
    # The same score as tagging, best first.
    assert {row["photo"]: row["score"] for row in found} == pytest.approx(scores, abs=1e-4)
    assert [row["score"] for row in found] == sorted((row["score"] for row in found), reverse=True)

    both = client.post("/search", json={"words": ["boat", "sky"], "limit": 5}).json()["photos"]
    assert both[0]["score"] <= min(scores[both[0]["photo"]], first["photos"][0]["score"]) + 1e-4
    without = client.post("/search", json={"words": ["boat"], "without": ["sky"], "limit": 200}).json()["photos"]
    assert len(without) < 40

    # By an indexed photo, which is not among the results, and by a photo that is sent.
    like = client.post("/search", json={"like": "album/03.jpg", "limit": 200}).json()
    assert len(like["photos"]) == 39 and "album/03.jpg" not in {row["photo"] for row in like["photos"]}
    sent = {"photo": ("a.jpg", encoded(3))}
    answer = client.post("/search", files=sent, data={"limit": "1", "words": "", "since": ""}).json()
    assert answer["photos"] == [{"photo": "album/03.jpg", "score": pytest.approx(1, abs=0.01)}] and answer["next"] == 1
    words = {"words": ["boat, sky"], "without": '["dog"]', "folder": "album", "since": "2000-01-01", "limit": "200"}
    answer = client.post("/search", files=sent, data=words).json()
    assert 0 < len(answer["photos"]) <= 40 and set(answer["understood"]) == {"boat", "sky", "dog"}
    same = {"words": ["boat", "sky"], "without": ["dog"], "like": "album/03.jpg", "folder": "album", "limit": 200}
    both_ways = client.post("/search", json=same).json()["photos"]
    assert [row for row in answer["photos"] if row["photo"] != "album/03.jpg"] == [
        {"photo": row["photo"], "score": pytest.approx(row["score"], abs=1e-2)} for row in both_ways
    ]
    for narrow in ({"folder": "elsewhere"}, {"until": "2000-01-01"}):
        assert client.post("/search", json={"words": ["boat"], **narrow}).json()["photos"] == []
    refused(client.post("/search", json={"like": "album/none.jpg"}), 404, "album/none.jpg: not an indexed photo")

    small = client.get(f"/photo/{both[0]['photo']}", params={"side": 64})
    assert small.headers["content-type"] == "image/jpeg" and len(small.content) < 10_000

    (album / "00.jpg").unlink()
    (album / "01.jpg").write_bytes(encoded(100))
    changed = client.post("/index", json={"paths": ["album"]}).json()
    assert (changed["added"], changed["removed"], changed["indexed"]) == (1, 1, 39)
    assert client.delete("/index", params={"path": "album/02.jpg"}).json() == {"removed": 1, "indexed": 38}
    assert client.delete("/index", params={"path": "album"}).json() == {"removed": 38, "indexed": 0}
    assert client.post("/search", json={"words": ["boat"]}).json()["photos"] == []
    shutil.rmtree(album)


def test_an_index_is_emptied_only_if_asked(client: httpx.Client, server: Server, tmp_path: Path) -> None:
    album = server.root / "trip"
    album.mkdir()
    for seed in range(4):
        (album / f"{seed}.jpg").write_bytes(encoded(seed))
    (album / ".hidden.jpg").write_bytes(encoded())
    (album / "drawing.svg").write_text("<svg/>")
    done = client.post("/index", json={"paths": ["trip"]}).json()
    assert (done["added"], done["skipped"]) == (4, {"hidden": 1})
    assert done["problems"] == [f"{album / 'drawing.svg'}: SVG is a drawing, not a photo. Export it as PNG."]
    (album / "3.jpg").rename(album / "4.jpg")
    done = client.post("/index", json={"paths": ["trip"]}).json()
    assert (done["added"], done["moved"], done["removed"], done["indexed"]) == (0, 1, 0, 4)
    album.rename(tmp_path / "away")
    album.mkdir()
    refused(client.post("/index", json={"paths": ["trip"]}), 409, "4 of 4 indexed photos are no longer there")
    assert client.get("/index").json()["indexed"] == 4
    done = client.post("/index", json={"paths": ["trip"], "prune": True}).json()
    assert (done["removed"], done["indexed"]) == (4, 0)
    album.rmdir()


def test_paths_outside_of_the_root(client: httpx.Client, server: Server, tmp_path: Path) -> None:
    (tmp_path / "secret.jpg").write_bytes(encoded())
    (server.root / "link.jpg").symlink_to(tmp_path / "secret.jpg")
    (server.root / "linked").symlink_to(tmp_path)
    try:
        for path in ("..", "../..", "a/../../b", str(tmp_path), "/etc", "link.jpg", "linked", "linked/secret.jpg"):
            refused(client.post("/index", json={"paths": [path]}), 403, "outside")
        for path in ("link.jpg", "linked/secret.jpg", "..%2f..%2fetc%2fpasswd", "%2fetc%2fpasswd"):
            assert client.get(f"/photo/{path}").status_code in (403, 404)
        # What a folder's links lead to is not taken along.
        assert client.post("/index", json={"paths": [""]}).json()["indexed"] == 0
        refused(client.post("/index", json={"paths": ["nowhere"]}), 404, "no such file")
        refused(client.post("/index", json={"paths": ["a\0b"]}), 404, "null byte")
        refused(client.post("/index", json={"paths": ["x" * 5000]}), 404)
    finally:
        (server.root / "link.jpg").unlink()
        (server.root / "linked").unlink()


def test_searches_that_are_refused(client: httpx.Client) -> None:
    refused(client.post("/search", json={"words": []}), 422, "No word", "example photo")
    refused(client.post("/search", json={"words": [" "]}), 422, "No word")
    refused(client.post("/search", json={"words": ["boat", "qzxv"]}), 422, "qzxv")
    refused(client.post("/search", json={"words": ["boat"], "limit": 0}), 422, "limit")
    refused(client.post("/search", json={"words": ["a" * 300]}), 422, "longer than 100 characters")
    refused(client.post("/search", json={"words": [f"word{n}" for n in range(10_000)]}), 422, "10,000")
    refused(client.post("/search", content=b"{", headers={"content-type": "application/json"}), 422)
    refused(client.post("/search", json=["boat"]), 422)
    refused(client.post("/search", json={"words": ["boat"], "since": "yesterday"}), 422, "since", "date")
    refused(
        client.post("/search", json={"words": ["boat"], "since": "2024-02-01", "until": "2024-01-01"}), 422, "after"
    )
    refused(client.post("/search", json={"words": ["boat"], "folder": "../.."}), 422, "outside")
    refused(client.post("/search", json={"words": ["boat"], "folder": "/etc"}), 422, "below the photo root")
    refused(client.post("/search", files={"words": (None, " ")}), 422, "No word", "example photo")
    refused(client.post("/search", files={"photo": ("a.jpg", b"no picture")}), 422, "a.jpg", "not an image")
    refused(client.post("/search", files={"photo": (None, "a.jpg")}), 422, "photo", "the image file itself")
    refused(client.post("/search", files=[("photo", ("a.jpg", encoded()))] * 2), 422, "more than one photo")
    refused(client.post("/search", files={"words": (None, "boat"), "limit": (None, "0")}), 422, "limit")
    refused(client.post("/search", files={"words": (None, "boat"), "until": (None, "May")}), 422, "until", "date")


def test_model_health_metrics_and_log(client: httpx.Client, server: Server) -> None:
    send(client, encoded())
    send(client, b"no picture")
    facts = client.get("/model").json()
    assert (facts["version"], facts["tags"], facts["unseen"], facts["words"]) == ("test", len(TAGS), 3, 20)
    assert facts["calibration"] == {"method": "made up", "fitted_on": "nothing", "photos": 0}
    assert client.get("/model/card").text.startswith("# zerotag test\n")
    for path in ("/livez", "/readyz", "/healthz"):
        assert client.get(path).status_code == 200
    metrics = client.get("/metrics").text
    for name in ("zerotag_step_seconds_bucket", "zerotag_tags_total", "zerotag_photos_total", "zerotag_refused_total",
                 "zerotag_batch_size_bucket", "bentoml_service_request_duration_seconds"):  # fmt: skip
        assert name in metrics, name
    lines = [json.loads(line) for file in server.log.iterdir() for line in file.read_text().splitlines()]
    tagged = [line for line in lines if line["event"] == "tag"]
    assert {"time", "model", "brightness", "contrast", "tags"} <= set(tagged[-1])
    assert not any("after.jpg" in json.dumps(line) for line in tagged)


def test_cors_is_off(client: httpx.Client) -> None:
    answer = client.get("/model", headers={"origin": "http://elsewhere.example"})
    assert not [name for name in answer.headers if name.startswith("access-control")]


def test_only_this_machine_may_connect(server: Server) -> None:
    port = int(server.url.rsplit(":", 1)[1])
    address = socket.gethostbyname(socket.gethostname())
    if address.startswith("127."):
        pytest.skip("this machine has no other address")
    with pytest.raises(OSError), socket.create_connection((address, port), timeout=2):
        pass


def test_no_torch_in_the_serving_processes(server: Server) -> None:
    port = int(server.url.rsplit(":", 1)[1])
    workers = [
        entry
        for entry in Path("/proc").iterdir()
        if entry.name.isdigit()
        and b"bentoml" in (command := _read(entry / "cmdline"))
        and f"ZEROTAG_PORT={port}".encode() in _read(entry / "environ")
        and command
    ]
    assert len(workers) >= 3
    for worker in workers:
        maps = _read(worker / "maps")
        assert not [name for name in (b"libtorch", b"/gensim/", b"/sklearn/", b"/onnx/") if name in maps]


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def test_api_key_and_cors_when_configured(packaged: Path, tmp_path: Path) -> None:
    settings = {"api_key": "secret", "cors": "[http://photos.example]", "workers": "1", "root": ""}
    with (
        serving(packaged, tmp_path, **settings) as running,
        httpx.Client(base_url=running.url, timeout=60) as client,
    ):
        refused(send(client, encoded()), 401, "X-API-Key")
        assert client.get("/").status_code == 200
        client.headers["X-API-Key"] = "wrong"
        refused(client.get("/model"), 401)
        client.headers["X-API-Key"] = "secret"
        assert send(client, encoded()).status_code == 200
        refused(client.post("/index", json={"paths": [""]}), 403, "root")
        answer = client.get("/model", headers={"origin": "http://photos.example"})
        assert answer.headers["access-control-allow-origin"] == "http://photos.example"
        other = client.get("/model", headers={"origin": "http://elsewhere.example"})
        assert "access-control-allow-origin" not in other.headers


def test_phrases(packaged_encoder: Path, tmp_path: Path) -> None:
    phrase = "a dog on the beach"
    with (
        serving(packaged_encoder, tmp_path, workers="1") as running,
        httpx.Client(base_url=running.url, timeout=60) as client,
    ):
        answer = send(client, encoded(), vocabulary=f"{phrase}, boats, 海滩上的狗").json()
        how = {each["tag"]: (each["understood"], each["made_of"]) for each in answer["tags"]}
        assert how == {phrase: ("encoded", phrase), "boats": ("itself", "boat")}
        assert answer["missing"] == ["海滩上的狗"]
        assert answer["reason"] == "The text encoder knows Latin letters only, not 海滩上的狗"
        expected = Tagger(packaged_encoder).tag(encoded(), "a.jpg", [phrase])[0].score
        assert next(each["score"] for each in answer["tags"] if each["tag"] == phrase) == pytest.approx(
            expected, abs=1e-4
        )

        (running.root / "a.jpg").write_bytes(encoded())
        client.post("/index", json={})
        found = client.post("/search", json={"words": [phrase, "sky"], "without": ["boats"]}).json()
        assert found["understood"] == {phrase: "encoded", "sky": "itself", "boats": "itself"}
        found = client.post("/search", json={"words": [phrase]}).json()
        assert found["photos"][0]["score"] == pytest.approx(expected, abs=1e-4)

        for word, part in (
            ("海滩上的狗", "Latin letters only"),
            ("🐕", "Latin letters only"),
            ("a" * 300, "100 characters"),
        ):
            refused(send(client, encoded(), vocabulary=word), 422, part)
            refused(client.post("/search", json={"words": ["sky", word]}), 422, part)
        refused(send(client, encoded(), vocabulary="so long " * 40), 422, "200 characters")


def test_transparent_picture(client: httpx.Client) -> None:
    buffer = io.BytesIO()
    picture(5).convert("RGBA").save(buffer, "PNG")
    assert send(client, buffer.getvalue(), "a.png").status_code == 200


def test_fuzz(server: Server) -> None:
    """Schemathesis against the OpenAPI description: no 5xx, whatever is sent."""
    import schemathesis
    from hypothesis import HealthCheck, Phase, given, settings

    schema = schemathesis.openapi.from_url(f"{server.url}/openapi.json")
    operations = [result.ok() for result in schema.get_all_operations()]
    assert {f"{each.method.upper()} {each.path}" for each in operations} == {
        "POST /tag", "POST /tag/batch", "POST /search", "GET /index", "POST /index", "DELETE /index",
        "GET /photo/{path}", "GET /model", "GET /tags/{path}", "POST /tags/{path}",
        "POST /embed",
    }  # fmt: skip
    for operation in operations:

        @given(case=operation.as_strategy())
        @settings(
            max_examples=25,
            deadline=None,
            derandomize=True,
            database=None,
            phases=[Phase.explicit, Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        def run(case: schemathesis.Case) -> None:
            answer = case.call(timeout=30)
            assert answer.status_code < 500, (answer.status_code, answer.text, case.as_curl_command())

        run()


async def waiting(gather: Gather[int, int], jobs: list[int], calls: list[list[int]]) -> list[asyncio.Future[int]]:
    """Ask for jobs, of which all but the first wait: it was called for, and is not done."""
    asked = [asyncio.ensure_future(gather(jobs[0]))]
    while not calls:
        await asyncio.sleep(0.001)
    asked += [asyncio.ensure_future(gather(job)) for job in jobs[1:]]
    await asyncio.sleep(0.01)
    return asked


def test_photos_that_wait_go_together() -> None:
    calls: list[list[int]] = []
    busy = threading.Event()

    def work(jobs: list[int]) -> list[int | Exception]:
        calls.append(jobs)
        busy.wait(10)
        if 12 in jobs:
            raise ValueError("unlucky")
        return [KeyError(job) if job == 13 else 2 * job for job in jobs]

    async def many(jobs: list[int]) -> list[int | BaseException]:
        busy.clear()
        asked = await waiting(Gather([work], 4), jobs, calls)
        asked[2].cancel()  # its client has gone
        await asyncio.sleep(0)
        busy.set()
        return await asyncio.gather(*asked, return_exceptions=True)

    answers = asyncio.run(many([0, 1, 2, 3, 4, 13, 5]))
    assert calls == [[0], [1, 3, 4], [13, 5]]  # the first one does not wait for others
    assert [answers[place] for place in (0, 1, 3, 4, 6)] == [0, 2, 6, 8, 10]
    assert isinstance(answers[2], asyncio.CancelledError) and isinstance(answers[5], KeyError)
    calls.clear()
    answers = asyncio.run(many([0, 1, 2, 3, 12, 5]))
    assert calls == [[0], [1, 3, 12], [5]]
    assert answers[0] == 0 and isinstance(answers[4], ValueError) and isinstance(answers[1], ValueError)
    assert answers[5] == 10


def test_heavy_jobs_count_for_several() -> None:
    calls: list[list[int]] = []
    busy = threading.Event()

    def work(jobs: list[int]) -> list[int | Exception]:
        calls.append(jobs)
        busy.wait(10)
        return list(jobs)

    async def many(jobs: list[int]) -> list[int]:
        asked = await waiting(Gather([work], 8, weight=lambda job: job), jobs, calls)
        busy.set()
        return await asyncio.gather(*asked)

    jobs = [1, 4, 3, 1, 2, 9, 7, 2]
    assert asyncio.run(many(jobs)) == jobs
    assert calls == [[1], [4, 3, 1], [2], [9], [7], [2]]


def test_requests_in_a_pipeline_are_answered_in_order(server: Server) -> None:
    """Uploads that do not wait for the answer to the one before, on one connection."""
    address, port = server.url.removeprefix("http://").split(":")

    def request(top: int) -> bytes:
        fields = (("top", b"%d" % top), ("all", b"true"), ('photo"; filename="a.jpg', encoded()))
        parts = [b'--x\r\nContent-Disposition: form-data; name="%s"\r\n\r\n%s\r\n' % (name.encode(), value)
                 for name, value in fields]  # fmt: skip
        body = b"".join(parts) + b"--x--\r\n"
        head = "POST /tag HTTP/1.1\r\nHost: a\r\nContent-Type: multipart/form-data; boundary=x\r\n"
        return head.encode() + b"Content-Length: %d\r\n\r\n" % len(body) + body

    with socket.create_connection((address, int(port)), timeout=30) as one, one.makefile("rb") as answers:
        one.sendall(b"".join(request(top) for top in range(1, 9)))
        for top in range(1, 9):
            assert b" 200 " in answers.readline()
            length = 0
            while (line := answers.readline()) != b"\r\n":
                if line.lower().startswith(b"content-length:"):
                    length = int(line.split(b":")[1])
            assert len(json.loads(answers.read(length))["tags"]) == top


def test_answered_requests_leave_nothing(server: Server) -> None:
    """BentoML would keep 5 kB of each for two minutes."""
    address, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((address, int(port)), timeout=30) as one, one.makefile("rb") as answers:

        def ask(times: int) -> None:
            for _ in range(times):
                one.sendall(8 * b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n")
                assert [read_answer(answers) for _ in range(8)] == 8 * [200]

        ask(100)
        before = memory(int(port))
        ask(500)
        assert memory(int(port)) - before < 8  # MB


def test_time_limit_of_answers() -> None:
    gone = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            if scope["path"] == "/late":
                await asyncio.sleep(30)
            if scope["path"] == "/error":
                raise TimeoutError("of its own")
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await asyncio.sleep(0.4)  # a long answer that began in time
            await send({"type": "http.response.body", "body": b"done"})
        except asyncio.CancelledError:
            gone.append(scope["path"])
            raise

    async def ask() -> list[httpx.Response]:
        transport = httpx.ASGITransport(Timeout(app, 0.2))
        async with httpx.AsyncClient(transport=transport, base_url="http://a") as client:
            with pytest.raises(TimeoutError, match="of its own"):
                await client.get("/error")
            return await asyncio.gather(client.get("/late"), client.get("/"))

    late, long = asyncio.run(ask())
    refused(late, 504, "0.2 s", "Retry")
    assert gone == ["/late"] and long.text == "done"
