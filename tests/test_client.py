"""The Python client: against the OpenAPI description, and against a running service."""

import dataclasses
import inspect
import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, get_type_hints
from urllib.parse import parse_qsl, urlsplit

import pytest
from conftest import Server, encoded
from pydantic import TypeAdapter
from service.app import create_app
from service.settings import ServeSettings

import zerotag.client
from zerotag import Client
from zerotag.client import ServiceError, TagOptions
from zerotag.errors import ZerotagError

OPTIONS: TagOptions = {"top": 3, "threshold": 0.5, "all": True, "vocabulary": ["a, b", "c"], "task": "unseen"}
JPEG = encoded()
# Every method with every parameter; a search sends an example photo or names one.
CALLS: dict[str, list[dict[str, Any]]] = {
    "tag": [{"photo": JPEG, **OPTIONS}],
    "tag_batch": [{"photos": [JPEG], **OPTIONS}],
    "embed": [{"photo": JPEG}],
    "tags": [{"path": "a b/#1.jpg", **OPTIONS}],
    "decide": [{"path": "a.jpg", "accept": ["a"], "reject": ["b"], "forget": ["c"], **OPTIONS}],
    "search": [
        {"words": ["a"], "without": ["b"], "folder": "c", "since": date(2024, 1, 2), "until": "2024-02-03", "limit": 1,
         "offset": 2, **example}
        for example in ({"like": "a.jpg"}, {"photo": JPEG})
    ],
    "index": [{"paths": ["a"], "prune": True}],
    "index_state": [{}],
    "remove": [{"paths": ["a", "b"]}],
    "photo": [{"path": "a.jpg", "side": 64}],
    "model": [{}],
}  # fmt: skip


@pytest.fixture(scope="module")
def openapi() -> dict[str, Any]:
    return create_app(ServeSettings(log="")).openapi()


class Recorder:
    """In place of connections: what is sent, and no answer."""

    def __init__(self) -> None:
        self.method, self.path, self.kind = "", "", ""
        self.query: dict[str, Any] = {}
        self.body: dict[str, Any] = {}

    def request(self, method: str, url: str, fields: Any = None, json: Any = None, redirect: bool = True) -> Any:
        self.method, self.path = method, urlsplit(url).path
        self.query = dict(parse_qsl(urlsplit(url).query, strict_parsing=bool(urlsplit(url).query)))
        self.kind = "multipart/form-data" if fields else "application/json" if json is not None else ""
        self.body = dict(fields) if fields else json or {}
        raise InterruptedError


def sent(method: str, arguments: dict[str, Any]) -> Recorder:
    client, recorder = Client("http://here"), Recorder()
    client._pool = recorder  # type: ignore[assignment]
    with pytest.raises(InterruptedError):
        getattr(client, method)(**arguments)
    return recorder


def resolved(openapi: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    """A schema without references."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return openapi["components"]["schemas"][name]
    return schema


def operation_of(openapi: dict[str, Any], recorder: Recorder) -> tuple[str, dict[str, Any]]:
    for path, operations in openapi["paths"].items():
        start, parameter, _ = path.partition("{")
        if recorder.path == path or (parameter and recorder.path.startswith(start)):
            return f"{recorder.method} {path}", operations[recorder.method.lower()]
    raise AssertionError(recorder.path)


def parameters_of(openapi: dict[str, Any], operation: dict[str, Any]) -> set[tuple[str, str]]:
    """Where a parameter is (the query, or a kind of body), and its name."""
    names = {("query", each["name"]) for each in operation.get("parameters", []) if each["in"] == "query"}
    for kind, content in operation.get("requestBody", {"content": {}})["content"].items():
        names |= {(kind, each) for each in resolved(openapi, content["schema"])["properties"]}
    return names


def test_every_operation_has_a_method(openapi: dict[str, Any]) -> None:
    used = {operation_of(openapi, sent(method, calls[0]))[0] for method, calls in CALLS.items()}
    paths = openapi["paths"].items()
    assert used == {f"{method.upper()} {path}" for path, operations in paths for method in operations}


@pytest.mark.parametrize("method", CALLS)
def test_every_parameter_is_known_on_both_sides(method: str, openapi: dict[str, Any]) -> None:
    used: set[tuple[str, str]] = set()
    for arguments in CALLS[method]:
        recorder = sent(method, arguments)
        _, operation = operation_of(openapi, recorder)
        used |= {("query", each) for each in recorder.query} | {(recorder.kind, each) for each in recorder.body}
    assert used == parameters_of(openapi, operation)


def test_no_parameter_of_the_client_is_forgotten_above() -> None:
    public = {name for name, _ in inspect.getmembers(Client, inspect.isfunction) if not name.startswith("_")}
    assert public == {*CALLS, "accept", "reject", "close"}
    assert set(OPTIONS) == set(TagOptions.__annotations__)
    for method, calls in CALLS.items():
        parameters = inspect.signature(getattr(Client, method)).parameters
        names = {name for name in parameters if name not in ("self", "options")}
        names |= set(OPTIONS) if "options" in parameters else set()
        assert names == {name for arguments in calls for name in arguments}, method


def plain(schema: dict[str, Any], whole: dict[str, Any]) -> Any:
    """What a schema says of the types alone."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return plain((whole.get("$defs") or whole["components"]["schemas"])[name], whole)
    if "properties" in schema:
        return {name: plain(each, whole) for name, each in schema["properties"].items()}
    if "anyOf" in schema:
        return sorted((plain(each, whole) for each in schema["anyOf"]), key=str)
    if "items" in schema:
        return [plain(schema["items"], whole)]
    if isinstance(schema.get("additionalProperties"), dict):
        return {"*": plain(schema["additionalProperties"], whole)}
    return schema.get("enum") or schema["type"]


def test_every_field_of_an_answer_is_known_on_both_sides(openapi: dict[str, Any]) -> None:
    kinds = set()
    for method, calls in CALLS.items():
        _, operation = operation_of(openapi, sent(method, calls[0]))
        kind = get_type_hints(getattr(Client, method))["return"]
        content = operation["responses"]["200"]["content"]
        if kind is bytes:
            assert list(content) == ["image/jpeg"]
            continue
        assert content["application/json"]["schema"]["$ref"].rpartition("/")[2] == kind.__name__
        own = TypeAdapter(kind).json_schema()
        assert plain(own, own) == plain(content["application/json"]["schema"], openapi), method
        kinds.add(kind)
    parts = {each for each in vars(zerotag.client).values() if dataclasses.is_dataclass(each)}
    assert kinds < parts and {each.__name__ for each in parts} <= set(openapi["components"]["schemas"])


def test_values_arrive_as_they_are() -> None:
    recorder = sent("tag", CALLS["tag"][0])
    assert {name: value for name, value in recorder.body.items() if name != "photo"} == {
        "top": "3", "threshold": "0.5", "all": "true", "vocabulary": '["a, b", "c"]', "task": "unseen",
    }  # fmt: skip
    assert sent("tags", {"path": "a b/#1?.jpg"}).path == "/tags/a%20b/%231%3F.jpg"
    assert sent("tags", {"path": "../model"}).path == "/tags/%2E%2E/model"
    assert sent("search", {"words": "two words"}).body == {"words": ["two words"], "limit": 20, "offset": 0}
    assert sent("search", CALLS["search"][0]).body["since"] == "2024-01-02"


def test_against_the_service(server: Server, packaged: Path, tmp_path: Path) -> None:
    (tmp_path / "ünï.jpg").write_bytes(encoded(3))
    folder = server.root / "a #b"
    folder.mkdir()
    for seed in range(3):
        (folder / f"{seed}.jpg").write_bytes(encoded(seed))
    with Client(server.url + "/") as client:
        found = client.tag(tmp_path / "ünï.jpg", top=2, vocabulary=["boat", "sky", "qzxv"])
        assert len(found.tags) == 2 and found.missing == ["qzxv"] and found.model == "zerotag:test"
        assert client.tag(encoded(3), top=2, vocabulary=["boat", "sky"]).tags == found.tags
        batch = client.tag_batch([str(tmp_path / "ünï.jpg"), b"none"], all=True)
        assert [each.photo for each in batch.photos] == ["ünï.jpg", "photo"]
        assert [bool(each.error) for each in batch.photos] == [False, True] and len(batch.photos[0].tags) == 10
        vectors = client.embed(encoded(3))
        assert (len(vectors.vectors), len(vectors.vectors[0])) == (3, 50)
        try:
            assert client.index(["a #b"]).added == 3 and client.index_state().indexed == 3
            page = client.search(["boat"], limit=2)
            assert page.next == 2 and page.understood == {"boat": "itself"}
            found_by = (
                client.search(photo=tmp_path / "ünï.jpg", folder="a #b", limit=1),
                client.search(like="a #b/1.jpg"),
            )
            assert len(found_by[0].photos) == 1 and {each.photo for each in found_by[1].photos} == {
                "a #b/0.jpg",
                "a #b/2.jpg",
            }
            assert client.search(["boat"], photo=encoded(2), until=date(1990, 1, 1)).photos == []
            assert client.photo(page.photos[0].photo, side=32).startswith(b"\xff\xd8")
            tags = client.tags("a #b/1.jpg", all=True)
            assert tags.milliseconds.network == 0 and len(tags.tags) == 10
            if not tags.problem:  # exiftool is installed
                assert client.accept("a #b/1.jpg", "dog").accepted == ["dog"]
                assert client.reject("a #b/1.jpg", "cat", "dog").rejected == ["cat", "dog"]
                assert client.decide("a #b/1.jpg", forget=["cat", "dog"]).rejected == []
            assert client.remove("a #b").removed == 3
        finally:
            client.remove([""])
            shutil.rmtree(folder)
        assert client.model().version == "test"
        with pytest.raises(ZerotagError, match=r"^photo: not an image") as caught:
            client.tag(b"none")
        assert isinstance(caught.value, ServiceError) and caught.value.status == 422
        with pytest.raises(ServiceError, match="outside"):
            client.tags("../a.jpg")
        with pytest.raises(ServiceError, match=r"no-photo.jpg: cannot be read"):
            client.tag("no-photo.jpg")
        with pytest.raises(ServiceError, match="Give one of them"):
            client.search(photo=encoded(), like="a.jpg")


@contextmanager
def answering(*answers: tuple[int, dict[str, str], bytes]) -> Iterator[tuple[str, list[Any]]]:
    """A server with prepared answers, and the requests that came."""
    left, asked = list(answers), []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(dict(self.headers))
            status, headers, body = left.pop(0)
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{running.server_port}", asked
        finally:
            running.shutdown()
            thread.join()


def test_busy_and_broken_services() -> None:
    busy = (503, {"Retry-After": "1"}, b'{"error": "The service is busy."}')
    fine = (200, {}, json.dumps({"indexed": 1, "root": True, "added later": 1}).encode())
    with answering(busy, fine) as (url, asked), Client(url, api_key="secret") as client:
        assert client.index_state().indexed == 1
        assert len(asked) == 2 and asked[1]["X-API-Key"] == "secret"
    with answering(busy) as (url, _), Client(url, retries=0) as client:
        with pytest.raises(ServiceError, match=r"^The service is busy\.$") as caught:
            client.index_state()
        assert caught.value.status == 503
    strange = (
        (502, {}, b"<html>", "status 502"),
        (302, {"Location": "http://127.0.0.1:1/"}, b"", "status 302"),
        (200, {}, b"<html>", "not an answer"),
        (200, {}, b"{}", "not an answer"),
    )
    for status, headers, body, part in strange:
        with (
            answering((status, headers, body)) as (url, _),
            Client(url) as client,
            pytest.raises(ServiceError, match=part),
        ):
            client.index_state()
    with Client("http://127.0.0.1:1", timeout=1) as client, pytest.raises(ServiceError, match="no answer") as caught:
        client.model()
    assert caught.value.status is None


def test_it_is_light() -> None:
    code = "import sys, zerotag; print(*sys.modules); zerotag.Client; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    before, after = (set(line.split()) for line in done.stdout.splitlines())
    assert not before & {"urllib3", "pydantic", "numpy"} and "urllib3" in after
    assert not after & {"numpy", "torch", "onnxruntime", "PIL", "fastapi"}
