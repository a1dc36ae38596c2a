"""The processes that work on photos: what they answer, and what happens when one of them is ended."""

import asyncio
import os
import pickle
import signal
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import pytest
from conftest import encoded, serving
from service.app import create_app
from service.channel import Channel
from service.model import Asked, Model, Photo, Seen, Work
from service.processes import Loaded
from service.settings import ServeSettings

from zerotag.errors import ZerotagError
from zerotag.serving.tagger import Tagger


@dataclass
class Deadly(Model):
    """A model with a decoder that some photos are too much for."""

    def __call__(self, photos: list[Photo]) -> list[Seen | Exception]:
        """As the model does, or not at all."""
        if any(photo.name == "deadly.jpg" for photo in photos):
            os.kill(os.getpid(), signal.SIGSEGV)
        if any(photo.name == "wrong.jpg" for photo in photos):
            raise ValueError("no such network")
        return super().__call__(photos)


@contextmanager
def processes(model: Model, number: int) -> Iterator[list[Work]]:
    """Processes of a model, which are ended."""
    loaded = Loaded(model)
    try:
        yield loaded.processes(number)
    finally:
        loaded.close()


def workers(url: str) -> list[int]:
    """The processes that load, or work on photos, for the service at an address; the one that forks comes first."""
    port = f"ZEROTAG_PORT={url.rpartition(':')[2]}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            told = {name: (entry / name).read_bytes().split(b"\0") for name in ("cmdline", "environ")}
            if entry.name.isdigit() and b"service.worker" in told["cmdline"] and port in told["environ"]:
                found.append(int(entry.name))
    return sorted(found)


def test_they_answer_as_the_model_does(packaged: Path) -> None:
    model = Model(packaged, 1, 10_000_000)
    own = model.tagger.words(["boat", "sky"])
    photos = [
        Photo(encoded(0), "a.jpg"),
        Photo(b"no photo", "b.jpg"),
        Photo(encoded(1), "c.jpg", Asked(None, "all", 3, None, True)),
        Photo(encoded(2), "d.jpg", Asked(None, "unseen", 5, 0.0, True)),
        Photo(encoded(3), "e.jpg", Asked(own, "all", 5, None, True)),
        Photo(encoded(4), "f.jpg", Asked(own, "all", 5, None, True)),
    ]
    here = model(photos)
    with processes(model, 2) as others:
        for work in others:
            for seen, expected in zip(work(photos), here, strict=True):
                if isinstance(expected, Exception):
                    assert (type(seen), str(seen)) == (type(expected), str(expected))
                    continue
                assert isinstance(seen, Seen)
                assert seen.principal == pytest.approx(expected.principal, abs=1e-5)
                assert [tag.tag for tag in seen.tags] == [tag.tag for tag in expected.tags]
                assert (seen.brightness, seen.contrast) == (expected.brightness, expected.contrast)
    assert isinstance(here[0], Seen) and here[0].tags == [] and isinstance(here[3], Seen)
    assert {tag.seen for tag in here[3].tags} == {False}


def test_brightness_and_contrast_of_a_photo(packaged: Path) -> None:
    model = Model(packaged, 1, 10_000_000)
    [seen] = model([Photo(encoded(5), "a.jpg")])
    assert isinstance(seen, Seen)
    pixels = model.tagger.pixels(encoded(5), "a.jpg") / 255
    assert seen.brightness == pytest.approx(pixels.mean(), abs=0.01)
    assert seen.contrast == pytest.approx(pixels.std(), abs=0.01)


def test_a_photo_that_ends_its_process_fails_alone(packaged: Path) -> None:
    names = ["a.jpg", "deadly.jpg", "b.jpg"]
    with processes(Deadly(packaged, 1, 10_000_000), 1) as [work]:
        first, deadly, last = work([Photo(encoded(), name) for name in names])
        assert isinstance(first, Seen) and isinstance(last, Seen)
        assert isinstance(deadly, ZerotagError) and "deadly.jpg" in str(deadly)
        with pytest.raises(ValueError, match="no such network"):
            work([Photo(encoded(), "wrong.jpg")])
        [after] = work([Photo(encoded(), "a.jpg")])
        assert isinstance(after, Seen) and np.array_equal(after.principal, first.principal)


def test_a_channel_is_closed_in_the_middle_of_a_message() -> None:
    ours, theirs = socket.socketpair()
    one, other = Channel(ours), Channel(theirs)
    messages = [b"x" * 3_000_000, [1, b"y" * 100_000, b"z"], None]
    with ThreadPoolExecutor(1) as pool:
        for message in messages:
            sent = pool.submit(one.send, message)
            assert other.receive() == message
            sent.result()
    ours.sendall(pickle.dumps(messages)[:1000])
    one.close()
    with pytest.raises(EOFError):
        other.receive()
    with pytest.raises(OSError):
        other.send(messages)
    other.close()


def test_a_model_that_cannot_be_loaded(tmp_path: Path) -> None:
    with pytest.raises(ZerotagError, match=str(tmp_path)), processes(Model(tmp_path, 1, 1), 1):
        pass


@pytest.mark.parametrize("threads", [False, True])
def test_threads_where_processes_cannot_be_forked(
    packaged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threads: bool
) -> None:
    if threads:
        monkeypatch.setattr("service.app.forks", lambda: False)
    app = create_app(ServeSettings(str(packaged), index=str(tmp_path / "index"), log=""))

    async def ask() -> tuple[list[str], int]:
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://here") as client,
        ):
            files = [("photos", (f"{seed}.jpg", encoded(seed))) for seed in range(8)]
            answer = await client.post("/tag/batch", files=files, data={"all": True, "top": 1})
            assert answer.status_code == 200, answer.text
            return [photo["tags"][0]["tag"] for photo in answer.json()["photos"]], len(loading() - before)

    def loading() -> set[str]:
        children = [
            pid for task in Path("/proc/self/task").iterdir() for pid in (task / "children").read_text().split()
        ]
        return {pid for pid in children if b"service.worker" in Path("/proc", pid, "cmdline").read_bytes()}

    before = loading()  # of other tests
    tagger = Tagger(packaged)
    expected = [tagger.tag(encoded(seed), "a.jpg", top=1, everything=True)[0].tag for seed in range(8)]
    assert asyncio.run(ask()) == (expected, 0 if threads else 1)


def test_killed_processes_lose_no_answer(packaged: Path, tmp_path: Path) -> None:
    with serving(packaged, tmp_path, workers="1") as running:
        forking, *working = workers(running.url)
        answering = int(Path(f"/proc/{forking}/stat").read_text().rpartition(")")[2].split()[1])
        assert os.sched_getscheduler(answering) == os.SCHED_BATCH
        until = time.monotonic() + 6

        def send(seed: int) -> int:
            answered = 0
            with httpx.Client(base_url=running.url, timeout=60) as client:
                while time.monotonic() < until:
                    answer = client.post("/tag", files={"photo": ("a.jpg", encoded(seed))})
                    assert answer.status_code == 200, answer.text
                    answered += 1
            return answered

        with ThreadPoolExecutor(8) as pool:
            clients = [pool.submit(send, seed) for seed in range(8)]
            for pid in (working[0], forking, working[-1]):
                time.sleep(1)
                os.kill(pid, signal.SIGKILL)
            assert all(client.result() > 2 for client in clients)
        now = workers(running.url)
        assert {os.sched_getscheduler(pid) for pid in now} == {os.SCHED_OTHER}
        assert len(now) == 1 + len(working) and not set(now) & {working[0], forking, working[-1]}
        assert "Another one takes its place" in (tmp_path / "output.txt").read_text()
    end = time.monotonic() + 10
    while left := workers(running.url):
        assert time.monotonic() < end, left
        time.sleep(0.1)
