"""The index, DVC's remote and photographs on S3: against moto's server over HTTP, which checks credentials."""

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import httpx
import numpy as np
import pytest
from conftest import free_port

from zerotag.errors import ZerotagError
from zerotag.serving.index import Entry, Index
from zerotag.stores import s3_remedy

pytestmark = [
    pytest.mark.servers,
    pytest.mark.skipif(find_spec("moto") is None, reason="needs an S3 server: pip install 'moto[s3,server]'"),
    pytest.mark.skipif(find_spec("dvc_s3") is None, reason="needs DVC's S3: pip install 'zerotag[s3]'"),
]
NAMES = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL", "AWS_ALLOW_HTTP", "AWS_DEFAULT_REGION")


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """An S3 server with the bucket `album`, and a user of it: environment variables."""
    import boto3

    port = free_port()
    url = f"http://127.0.0.1:{port}"
    log = (tmp_path_factory.mktemp("moto") / "log.txt").open("w")
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)], stdout=log, stderr=subprocess.STDOUT,
        env={**os.environ, "INITIAL_NO_AUTH_ACTION_COUNT": "1000"},
    )  # fmt: skip
    try:
        for _ in range(600):
            try:
                httpx.get(f"{url}/moto-api/")
                break
            except httpx.HTTPError:
                time.sleep(0.1)
        root = {"endpoint_url": url, "region_name": "us-east-1", "aws_access_key_id": "-", "aws_secret_access_key": "-"}
        boto3.Session().client("s3", **root).create_bucket(Bucket="album")
        iam = boto3.Session().client("iam", **root)
        iam.create_user(UserName="team")
        key = iam.create_access_key(UserName="team")["AccessKey"]
        allowed = {"Effect": "Allow", "Action": "s3:*", "Resource": "*"}
        policy = json.dumps({"Version": "2012-10-17", "Statement": [allowed]})
        iam.put_user_policy(UserName="team", PolicyName="team", PolicyDocument=policy)
        # From now on, each request is checked.
        httpx.post(f"{url}/moto-api/reset-auth", content=b"0").raise_for_status()
        yield dict(zip(NAMES, (key["AccessKeyId"], key["SecretAccessKey"], url, "true", "us-east-1"), strict=True))
    finally:
        server.terminate()
        server.wait(30)
        log.close()


@pytest.fixture
def s3(account: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Credentials in the environment."""
    for name, value in account.items():
        monkeypatch.setenv(name, value)
    return account


@contextmanager
def cutting(url: str, cuts: int, after: int) -> Iterator[tuple[str, list[int]]]:
    """A proxy that breaks the first connections off after so many bytes from the server; its URL, and those cut."""
    target = url.removeprefix("http://").split(":")
    cut: list[int] = []
    listener = socket.create_server(("127.0.0.1", 0))

    def forward(source: socket.socket, sink: socket.socket, limit: int | None) -> None:
        passed = 0
        try:
            while data := source.recv(4096):
                sink.sendall(data)
                passed += len(data)
                if limit is not None and passed >= limit and len(cut) < cuts:
                    cut.append(passed)
                    break
        except OSError:
            pass
        for each in (source, sink):
            try:
                each.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue

    def serve() -> None:
        while True:
            try:
                client, _ = listener.accept()
                server = socket.create_connection((target[0], int(target[1])))
            except OSError:
                return
            for arguments in ((client, server, after), (server, client, None)):
                threading.Thread(target=forward, args=arguments, daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", cut
    finally:
        listener.close()


def vectors(count: int) -> np.ndarray:
    """(n, 2, 64) unit vectors."""
    made = np.random.default_rng(0).standard_normal((count, 2, 64)).astype(np.float32)
    return made / np.linalg.norm(made, axis=2, keepdims=True)


def put(index: Index, count: int) -> None:
    names = [f"{number}.jpg" for number in range(count)]
    index.put("/photos", names, [Entry(name, name) for name in names], vectors(count))


def open_s3(name: str, bucket: str = "album") -> Index:
    return Index(f"s3://{bucket}/{name}", "model", (2, 64))


def test_an_index(s3: dict[str, str]) -> None:
    put(open_s3("index"), 40)
    index = open_s3("index")
    assert len(index) == 40 and index.roots() == ["/photos"]
    found = index.find("/photos", "7.jpg")
    assert found is not None
    np.testing.assert_allclose(found[1], vectors(40)[7], atol=1e-3)


def test_an_index_through_a_connection_that_breaks(s3: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    open_s3("cut")
    # In the middle of what is sent, and of what is received.
    with cutting(s3["AWS_ENDPOINT_URL"], cuts=2, after=6000) as (url, cut):
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        index = open_s3("cut")
        for start in range(3):
            put(index, 40 * (start + 1))
        assert len(cut) == 2
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3["AWS_ENDPOINT_URL"])
    assert len(open_s3("cut")) == 120


REFUSED = "refuses the credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"


@pytest.mark.parametrize(
    ("changes", "bucket", "part"),
    [
        ({"AWS_SECRET_ACCESS_KEY": "wrong"}, "album", REFUSED),
        (
            {"AWS_ACCESS_KEY_ID": "AKIAUNKNOWN"},
            "album",
            REFUSED,
        ),
        ({}, "no-such-bucket", "There is no such bucket"),
        ({"AWS_ALLOW_HTTP": "false"}, "album", "needs AWS_ALLOW_HTTP=true"),
        ({"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}, "album", "No S3 server answers: set AWS_ENDPOINT_URL"),
    ],
)
def test_what_is_wrong_is_named(
    s3: dict[str, str], monkeypatch: pytest.MonkeyPatch, changes: dict[str, str], bucket: str, part: str
) -> None:
    for name, value in changes.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ZerotagError, match=r"serve\.index") as caught:
        open_s3("index", bucket)
    assert part in str(caught.value)


def dvc(folder: Path, *arguments: str) -> None:
    environment = {**os.environ, "DVC_NO_ANALYTICS": "1", "DVC_SITE_CACHE_DIR": str(folder / ".dvc" / "site")}
    command = [sys.executable, "-m", "dvc", *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


def test_dvc_pushes_and_pulls_through_a_connection_that_breaks(
    s3: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "prefect"))
    monkeypatch.setenv("DVC_NO_ANALYTICS", "1")
    from flows.pipeline import push

    dvc(tmp_path, "init", "--no-scm")
    dvc(tmp_path, "remote", "add", "--default", "store", "s3://album/store")
    photo = np.random.default_rng(0).bytes(300_000)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "photo.jpg").write_bytes(photo)
    dvc(tmp_path, "add", "data")
    monkeypatch.chdir(tmp_path)
    with monkeypatch.context() as wrong, pytest.raises(ZerotagError, match="refuses the credentials: set AWS_ACCESS"):
        wrong.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
        push()
    with cutting(s3["AWS_ENDPOINT_URL"], cuts=2, after=100_000) as (url, cut), monkeypatch.context() as through:
        through.setenv("AWS_ENDPOINT_URL", url)
        push()
        assert len(cut) == 2
    shutil.rmtree(tmp_path / ".dvc" / "cache")
    shutil.rmtree(tmp_path / "data")
    dvc(tmp_path, "pull")
    assert (tmp_path / "data" / "photo.jpg").read_bytes() == photo


def test_photographs_of_a_bucket_are_data(s3: dict[str, str], tmp_path: Path) -> None:
    import boto3

    bucket = boto3.Session().client("s3")
    for name in ("a.jpg", "2024/b.jpg"):
        bucket.put_object(Bucket="album", Key=f"photos/{name}", Body=name.encode())
    dvc(tmp_path, "init", "--no-scm")
    dvc(tmp_path, "import-url", "s3://album/photos", "data")
    assert (tmp_path / "data" / "2024" / "b.jpg").read_text() == "2024/b.jpg"
    before = (tmp_path / "data.dvc").read_text()
    bucket.put_object(Bucket="album", Key="photos/c.jpg", Body=b"new")
    dvc(tmp_path, "update", "data.dvc")
    assert (tmp_path / "data" / "c.jpg").read_bytes() == b"new"
    assert (tmp_path / "data.dvc").read_text() != before


def test_an_unknown_error_has_no_remedy() -> None:
    assert s3_remedy("the disk is full") == ""
