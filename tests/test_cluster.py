"""Photos on a Ray cluster of two nodes: what comes out is what one machine makes, whatever dies on the way."""

import http.server
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import pyarrow as pa
import pytest
import scipy.sparse as sp
import torch
from benchmarks.cluster import Nodes, nodes
from conftest import encoded, free_port
from moto.server import ThreadedMotoServer
from pyarrow import csv, parquet
from typer.testing import CliRunner

from zerotag.cli import app
from zerotag.cluster import index as cluster_index
from zerotag.cluster import tag as cluster_tag
from zerotag.cluster.connect import cluster_address, connected
from zerotag.cluster.index import index_photos
from zerotag.cluster.photos import file_system, list_photos
from zerotag.cluster.shards import ShardReport
from zerotag.cluster.spread import Spread
from zerotag.cluster.stages import compute_blocks, make_shards, principal_vectors_of
from zerotag.cluster.tag import tag_photos
from zerotag.data.dataset import Dataset
from zerotag.data.prepare import PrepareSettings, prepare
from zerotag.data.sources.base import PhotoFile, Source
from zerotag.errors import ZerotagError
from zerotag.evaluation.evaluate import principal_vectors
from zerotag.serving.index import Where, open_index
from zerotag.serving.keywords import Wanted
from zerotag.serving.tagger import Tagger
from zerotag.serving.update import update
from zerotag.training import features as features_module
from zerotag.training.backbones import build_backbone
from zerotag.training.features import compute_features
from zerotag.training.model import load_model

SHARD = 32


@pytest.fixture(scope="module")
def cluster() -> Iterator[Nodes]:
    """Two nodes of a core each, as processes of this machine."""
    with nodes(2, free_port()) as started:
        yield started


@pytest.fixture
def spread(cluster: Nodes) -> Iterator[Spread]:
    with connected(cluster.address) as connection:
        assert connection
        yield connection


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A hundred photos in two folders; one is broken, two are the same."""
    folder = tmp_path_factory.mktemp("photos")
    (folder / "sub").mkdir()
    for number in range(100):
        place = folder / "sub" if number % 3 else folder
        (place / f"{number:03d}.jpg").write_bytes(encoded(number % 99))
    (folder / "sub" / "050.jpg").write_bytes(encoded()[:300])
    return folder


def local_tags(photos: Path, packaged: Path, *options: str) -> dict[str, list[dict[str, Any]]]:
    done = CliRunner().invoke(app, ["tag", str(photos), "--json", "--model", str(packaged), *options])
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return {line["photo"]: line["tags"] for line in lines}


def rows_of(output: Path | str) -> list[dict[str, Any]]:
    return [row for file in sorted(Path(output).glob("*.parquet")) for row in parquet.read_table(file).to_pylist()]


def assert_same_tags(rows: list[dict[str, Any]], expected: dict[str, list[dict[str, Any]]], failed: int) -> None:
    """The same photos, tags and figures, in the same order, each once."""
    good = [row for row in rows if row["error"] is None]
    assert [row["photo"] for row in good] == list(expected)
    for row in good:
        own = [{name: each[name] for name in row["tags"][0]} for each in expected[row["photo"]]] if row["tags"] else []
        assert row["tags"] == own
    assert len(rows) - len(good) == failed and all(not row["tags"] for row in rows if row["error"])


def table_of(database: Path | str, packaged: Path) -> pa.Table:
    """The whole index, sorted."""
    index = open_index(str(database), Tagger(packaged))
    return index._table.to_arrow().sort_by([("root", "ascending"), ("photo", "ascending"), ("row", "ascending")])


def test_tags_are_those_of_one_machine(cluster: Nodes, photos: Path, packaged: Path, tmp_path: Path) -> None:
    command = ["tag", str(photos), "--all", "--tags", "sky, sea, boat, nosuchword", "--model", str(packaged)]
    command += ["--cluster", cluster.address, "--output", str(tmp_path / "tags"), "--shard", str(SHARD)]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 1, done.output
    assert "99 photos tagged" in done.stdout and "1 of 100 photos cannot be tagged" in done.stderr
    assert "shard" in done.stderr and "050.jpg: " in done.stderr and "No word vector for nosuchword" in done.stderr
    rows = rows_of(tmp_path / "tags")
    assert_same_tags(rows, local_tags(photos, packaged, "--all", "--tags", "sky, sea, boat"), failed=1)
    assert [row["photo"][-7:] for row in rows if row["error"]] == ["050.jpg"]

    # What is finished is not done again, and other options need another folder.
    before = {file: file.stat().st_mtime_ns for file in (tmp_path / "tags").glob("*.parquet")}
    again = CliRunner().invoke(app, command)
    assert "(4 shards, 4 of them from an earlier run)" in again.stdout and again.exit_code == 1
    assert {file: file.stat().st_mtime_ns for file in before} == before
    other = CliRunner().invoke(app, [*command, "--top", "3"])
    assert other.exit_code == 1 and "made with another top" in other.stderr


@pytest.mark.parametrize("many", [10_000, 90])
def test_an_index_is_that_of_one_machine(
    spread: Spread, photos: Path, packaged: Path, tmp_path: Path, many: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # From so many on, it has few dimensions, for which these photos are looked at first.
    for name, value in {"_MANY": many, "_FITTED": 40, "FEWER": 5}.items():
        monkeypatch.setattr(f"zerotag.serving.index.{name}", value)
    folder = shutil.copytree(photos, tmp_path / "photos")
    local = open_index(str(tmp_path / "local"), Tagger(packaged))
    reports: list[ShardReport] = []
    run = partial(index_photos, spread, str(folder), packaged, str(tmp_path / "ours"), shard=SHARD)

    def same(**expected: int) -> None:
        one = update(local, Tagger(packaged), folder, ["."])
        many = run(report=reports.append)
        assert one == many and {name: getattr(one, name) for name in expected} == expected
        assert table_of(tmp_path / "ours", packaged).equals(table_of(tmp_path / "local", packaged))

    same(added=99, unchanged=0)
    assert sorted(each.number for each in reports) == [0, 1, 2, 3] and sum(each.photos for each in reports) == 100
    assert [name for each in reports for name in each.failed] == ["sub/050.jpg"]
    # Changed, copied, moved, removed.
    (folder / "000.jpg").write_bytes(encoded(1000))
    shutil.copy(folder / "003.jpg", folder / "copy.jpg")
    (folder / "006.jpg").rename(folder / "sub" / "moved.jpg")
    (folder / "009.jpg").unlink()
    same(added=2, moved=1, removed=1, unchanged=96)
    assert not list((tmp_path / "ours").glob("pending-*"))
    words = Tagger(packaged).words(["boat"]).vectors
    index = open_index(str(tmp_path / "ours"), Tagger(packaged))
    assert bool(index.basis) == (many == 90)
    assert index.search(words) == local.search(words) and len(local.search(words)) == 20


def test_a_node_dies(cluster: Nodes, photos: Path, packaged: Path, tmp_path: Path) -> None:
    """What it was at is done by another node; nothing is lost or done twice."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(640):
        (folder / f"{number:04d}.jpg").write_bytes(encoded(number % 20) + str(number).encode())
    third = cluster.add()
    killed: list[str] = []

    def kill(done: ShardReport) -> None:
        if not killed:
            killed.append(done.node)
            cluster.kill(third)

    with connected(cluster.address) as spread:
        assert spread
        done = index_photos(spread, str(folder), packaged, str(tmp_path / "ours"), shard=SHARD, report=kill)
    assert killed and done.added == 640 and not done.refused
    update(open_index(str(tmp_path / "local"), Tagger(packaged)), Tagger(packaged), folder, ["."])
    assert table_of(tmp_path / "ours", packaged).equals(table_of(tmp_path / "local", packaged))


def run_until(command: list[str], enough: Callable[[], bool]) -> None:
    """Run a driver until then, and kill it."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    code = "from zerotag.cli import app; app()"
    child = subprocess.Popen([sys.executable, "-c", code, *command], env=environment, stderr=subprocess.PIPE, text=True)
    end = time.monotonic() + 90
    while not enough() and child.poll() is None and time.monotonic() < end:
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    _, said = child.communicate()
    assert child.returncode == -signal.SIGKILL, said


def test_the_driver_dies(cluster: Nodes, packaged: Path, tmp_path: Path) -> None:
    """The next run goes on: it keeps what is finished."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(640):
        (folder / f"{number:04d}.jpg").write_bytes(encoded(number % 20) + str(number).encode())
    common = ["--model", str(packaged), "--cluster", cluster.address, "--shard", str(SHARD)]
    tags, database = tmp_path / "tags", tmp_path / "ours"
    run_until(["tag", str(folder), "--output", str(tags), *common], lambda: len(list(tags.glob("*.parquet"))) >= 3)
    before = {file: file.stat().st_mtime_ns for file in tags.glob("*.parquet")}
    assert 3 <= len(before) < 20
    run_until(
        ["index", str(folder), "--database", str(database), *common],
        lambda: len(list(database.glob("pending-*/*.json"))) >= 3,
    )
    pending = list(database.glob("pending-*/*.json"))
    assert 3 <= len(pending) < 20 and len(open_index(str(database), Tagger(packaged))) == 0

    reports: list[ShardReport] = []
    with connected(cluster.address) as spread:
        assert spread
        done = tag_photos(spread, list_photos([str(folder)]), packaged, Wanted(), str(tags), shard=SHARD)
        index_photos(spread, str(folder), packaged, str(database), shard=SHARD, report=reports.append)
    assert len(before) <= done.kept < 20 and {file: file.stat().st_mtime_ns for file in before} == before
    assert sum(each.kept for each in reports) >= len(pending) and len(reports) == 20
    assert_same_tags(rows_of(tags), local_tags(folder, packaged), failed=0)
    update(open_index(str(tmp_path / "local"), Tagger(packaged)), Tagger(packaged), folder, ["."])
    assert table_of(database, packaged).equals(table_of(tmp_path / "local", packaged))


def test_on_gpus_tasks_decode(
    cluster: Nodes, photos: Path, packaged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node that says it has a GPU: cores decode, one actor runs the network."""
    for module in (cluster_tag, cluster_index):
        monkeypatch.setattr(module, "runs_on_gpu", lambda: True)
    node = cluster.add("--num-gpus=1")
    reports: list[ShardReport] = []
    with connected(cluster.address) as spread:
        assert spread
        tag_photos(
            spread, list_photos([str(photos)]), packaged, Wanted(), str(tmp_path / "tags"), 1, SHARD, reports.append
        )
        index_photos(spread, str(photos), packaged, str(tmp_path / "ours"), shard=SHARD)
    cluster.kill(node)
    assert len({each.node for each in reports}) == 1
    assert_same_tags(rows_of(tmp_path / "tags"), local_tags(photos, packaged), failed=1)
    update(open_index(str(tmp_path / "local"), Tagger(packaged)), Tagger(packaged), photos, ["."])
    assert table_of(tmp_path / "ours", packaged).equals(table_of(tmp_path / "local", packaged))


@pytest.fixture(scope="module")
def bucket() -> Iterator[Callable[[str, bytes], None]]:
    """An S3 server with a bucket `photos`, to put files into; nodes that start from now on know it."""
    server = ThreadedMotoServer("127.0.0.1", 0)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "AWS_ENDPOINT_URL": f"http://{host}:{port}",
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_REGION": "us-east-1",
            "AWS_ALLOW_HTTP": "true",
        }.items():
            patch.setenv(name, value)
        client = boto3.Session().client("s3", region_name="us-east-1")
        client.create_bucket(Bucket="photos")
        yield lambda key, body: client.put_object(Bucket="photos", Key=key, Body=body)
    server.stop()


def test_photos_of_a_bucket(bucket: Callable[[str, bytes], None], photos: Path, packaged: Path, tmp_path: Path) -> None:
    """A Ray of one's own tags and indexes them, also into the bucket."""
    for number, file in enumerate(sorted(photos.glob("*.jpg"))):
        bucket(f"holiday/{number % 2}/a b#{file.name}", file.read_bytes())
    bucket("holiday/.hidden/x.jpg", encoded())
    bucket("holiday/notes.txt", b"no photo")
    place = "s3://photos/holiday/"
    expected = local_tags(photos, packaged, "--exclude", "sub")
    listing = list_photos([place])
    assert len(listing.photos) == 34 and listing.skipped == {"hidden": 1, "other": 1}
    database = "s3://photos/index"
    with connected("local") as spread:
        assert spread
        assert tag_photos(spread, listing, packaged, Wanted(), str(tmp_path / "tags"), shard=SHARD).failed == 0
        assert tag_photos(spread, listing, packaged, Wanted(), "s3://photos/tags", shard=SHARD).shards == 2
        assert index_photos(spread, place, packaged, database, shard=SHARD).added == 34
    rows = rows_of(tmp_path / "tags")
    assert rows[0]["photo"] == "s3://photos/holiday/0/a b#000.jpg"
    tags = {row["photo"].rpartition("#")[2]: row["tags"] for row in rows}
    assert len(rows) == len(tags) and sorted(tags) == sorted(Path(name).name for name in expected)
    for name, own in expected.items():
        assert [tag["tag"] for tag in tags[Path(name).name]] == [tag["tag"] for tag in own]
    files, path = file_system("s3://photos/tags")
    assert parquet.ParquetDataset(path, files).read().to_pylist() == rows
    found = CliRunner().invoke(app, ["search", "boat", "--paths", "--database", database, "--model", str(packaged)])
    assert found.stdout.startswith("s3://photos/holiday/") and len(found.stdout.splitlines()) == 10, found.output


def test_a_bucket_that_cannot_be_read(bucket: Callable[[str, bytes], None]) -> None:
    with pytest.raises(ZerotagError, match=r"s3://nobodys/photos: cannot be listed.*no such bucket: create it"):
        list_photos(["s3://nobodys/photos"])
    with pytest.raises(
        ZerotagError, match=r"s3://nobodys/urls.csv: the table of photos cannot be read.*Check the address"
    ):
        list_photos(["s3://nobodys/urls.csv"])
    with pytest.raises(ZerotagError, match=r"https://example.org/: a web server has no listing"):
        list_photos(["https://example.org/"])


# How often each path of the site was asked for.
ASKED: Counter[str] = Counter()


class Site(http.server.BaseHTTPRequestHandler):
    """A photo under each number; of some, not at once."""

    def do_GET(self) -> None:
        ASKED[self.path] += 1
        name = self.path.strip("/")
        busy = name.isdigit() and int(name) % 5 == 0 and ASKED[self.path] == 1
        status = 503 if busy else 200 if name.isdigit() else 404
        body = encoded(int(name)) if status == 200 else b"<html>no</html>"
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def site() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Site) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_photos_of_a_table_of_urls(spread: Spread, site: str, packaged: Path, tmp_path: Path) -> None:
    """Servers that are busy are asked again; what is no photo fails alone; a path is relative to the table."""
    (tmp_path / "own.jpg").write_bytes(encoded(7))
    urls = [f"{site}/{number}" for number in range(12)] + [f"{site}/missing", "own.jpg", f"{site}/3"]
    csv.write_csv(pa.table({"title": ["x"] * len(urls), "url": urls}), tmp_path / "urls.csv")
    listing = list_photos([str(tmp_path / "urls.csv")])
    assert [photo.name for photo in listing.photos] == [*urls[:13], str(tmp_path / "own.jpg")]
    done = tag_photos(spread, listing, packaged, Wanted(), str(tmp_path / "tags"), shard=SHARD)
    rows = rows_of(tmp_path / "tags")
    assert (done.photos, done.failed) == (14, 1)
    assert [row["error"] for row in rows if row["error"]] == [f"{site}/missing: the server answers 404 Not Found."]
    tagger = Tagger(packaged)
    for row, seed in zip([*rows[:12], rows[13]], [*range(12), 7], strict=True):
        assert [tag["tag"] for tag in row["tags"]] == [tag.tag for tag in tagger.tag(encoded(seed), "a.jpg")]

    parquet.write_table(pa.table({"url": urls}), tmp_path / "urls.parquet")
    done = index_photos(spread, str(tmp_path / "urls.parquet"), packaged, str(tmp_path / "ours"), shard=SHARD)
    assert (done.added, len(done.refused)) == (13, 1)
    index = open_index(str(tmp_path / "ours"), tagger)
    assert index.roots() == sorted([str(tmp_path), "http:/"]) and index.count("http:/") == 12
    words = tagger.words(["boat"]).vectors
    hits = index.search(words, where=Where(folder=site.removeprefix("http://")))
    assert {f"{hit.root}/{hit.photo}" for hit in hits} == set(urls[:12])
    # A folder of this machine is updated: photos elsewhere are not taken for lost.
    (tmp_path / "copies").mkdir()
    (tmp_path / "copies" / "3.jpg").write_bytes(encoded(3))
    assert update(index, tagger, tmp_path / "copies", ["."]).added == 1 and index.count("http:/") == 12
    asked = Counter(ASKED)
    done = index_photos(spread, str(tmp_path / "urls.parquet"), packaged, str(tmp_path / "ours"), shard=SHARD)
    assert (done.added, done.unchanged) == (0, 13)
    assert {path for path, count in ASKED.items() if count != asked[path]} == {"/missing"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("name\na.jpg\n", "urls.csv: no column `url`, only name. Rename one of them."),
        ("url,b\na.jpg,1\n,2\n", "urls.csv: row 2 has no url. Fill it in"),
        ("", "urls.csv: no table .*Give CSV or Parquet with a column `url`"),
    ],
)
def test_a_bad_table(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "urls.csv").write_text(content)
    with pytest.raises(ZerotagError, match=message):
        list_photos([str(tmp_path / "urls.csv")])


def test_a_disk_that_is_not_there_is_no_photo_s_fault(spread: Spread, packaged: Path, tmp_path: Path) -> None:
    """Of a shard in which nothing can be read, nothing is written: the next run does it."""
    nobody = f"http://127.0.0.1:{free_port()}"
    (tmp_path / "urls.csv").write_text(f"url\n{nobody}/1\n{nobody}/2\n")
    reports: list[ShardReport] = []
    with pytest.raises(ZerotagError, match=r"1 of 1 shards failed, the first: shard 1 of 1: none of its 2 photos can"):
        tag_photos(
            spread,
            list_photos([str(tmp_path / "urls.csv")]),
            packaged,
            Wanted(),
            str(tmp_path / "tags"),
            report=reports.append,
        )
    assert not rows_of(tmp_path / "tags") and "cannot be fetched" in reports[0].error


def test_the_stages_functions(
    spread: Spread,
    photo_folder: Path,
    trained: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Shards, features and principal vectors are to the bit those of one machine."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(features_module, "_BLOCK", 4)
    monkeypatch.setattr(features_module, "_EXPORTED", 1)
    files = sorted((photo_folder / "images").iterdir())
    files[5].write_bytes(encoded()[:500])
    labels = sp.csr_matrix(np.ones((12, 1)))
    source = Source(
        [file.name for file in files], [PhotoFile(path) for path in files], ["sea"], labels, np.arange(12) < 8
    )
    settings = PrepareSettings(workers=1, shard_photos=5)
    prepare(source, settings, Path("local"), Path("work/prepare"))
    prepare(source, settings, Path("prepared"), Path("work/prepare"), partial(make_shards, spread))
    made = [{file.name: file.read_bytes() for file in Path(name).rglob("*.*")} for name in ("local", "prepared")]
    assert made[0] == made[1] and len(made[0]) == 6
    told = capsys.readouterr().err
    assert sorted(re.findall(r"shard (.) of 3: (.) photos in .* s on", told)) == [("1", "5"), ("2", "5"), ("3", "2")]
    assert re.search(rf"shard 2 of 3: .*{files[5].name}: ", told)

    dataset = Dataset.read(Path("prepared"))
    torch.manual_seed(0)
    network = build_backbone("test_efficientnet").eval()
    common = (network, dataset, 32, 2, torch.device("cpu"))
    compute_features(*common, Path("one.npy"), Path("work/features"), "a")
    blocks: list[int] = []

    def elsewhere(job: Any, missing: list[slice]) -> None:
        compute_blocks(spread, False, job, missing)
        blocks.extend(len(np.load(file)) for file in sorted(job.folder.glob("*.npy")))

    compute_features(*common, Path("many.npy"), Path("work/features"), "a", elsewhere=elsewhere)
    assert Path("one.npy").read_bytes() == Path("many.npy").read_bytes() and blocks == [4, 4, 3]

    model, device = load_model(trained), torch.device("cpu")
    other = partial(principal_vectors_of, spread, trained, dataset.root, 2, False)
    ours = principal_vectors(model, dataset, dataset.test, device, 2, None, other)
    assert np.array_equal(ours, principal_vectors(model, dataset, dataset.test, device, 2, None))


def test_addresses(tmp_path: Path, packaged: Path, photos: Path) -> None:
    assert cluster_address({}) == "" and cluster_address({"cluster": {"address": "local"}}) == "local"
    with pytest.raises(ZerotagError, match=r"params.yaml: cluster.adress is unknown; use address"):
        cluster_address({"cluster": {"adress": "local"}})
    with connected("") as none:
        assert none is None
    port = free_port()
    for address, message in ((f"127.0.0.1:{port}", "no Ray cluster answers there"), ("nonsense", "use HOST:PORT")):
        command = ["tag", str(photos), "--cluster", address, "--output", str(tmp_path / "x"), "--model", str(packaged)]
        done = CliRunner().invoke(app, command)
        assert done.exit_code == 1 and message in done.stderr and "Traceback" not in done.output
    for options, message in (
        (["tag", "s3://photos/holiday"], "Give --cluster ADDRESS; `local` will do"),
        (["tag", str(photos), "--output", "x"], "--output is for --cluster"),
        (["tag", str(photos), "--cluster", "local"], "writes the tags to --output FOLDER"),
        (["index", str(photos), "--cluster", "local", "--watch"], "exclude each other"),
    ):
        done = CliRunner().invoke(app, [*options, "--model", str(packaged)])
        assert done.exit_code == 1 and message in done.stderr


# In a process of its own: Prefect's threads would break the processes that later tests fork.
FLOW = """
import json, sys
from flows.photos import photos
from prefect.artifacts import Artifact
from prefect.testing.utilities import prefect_test_harness

with prefect_test_harness(server_startup_timeout=120):
    state = photos("tag", *sys.argv[1:], return_state=True)
    table, progress = Artifact.get("shards"), Artifact.get("photos")
print(json.dumps([state.type.value, state.message, json.loads(table.data), progress.data]))
"""


# Collects what Ray Data left in reference cycles while Ray shuts down, as a thread beside it may do at any time.
COLLECTED = """
import gc, linecache, sys
from zerotag.cluster.connect import connected

def trace(frame, event, _):
    if frame.f_code.co_name != "shutdown":
        return None
    if "del global_worker.core_worker" in linecache.getline(frame.f_code.co_filename, frame.f_lineno):
        print("collect", flush=True)
        gc.collect()
    return trace

gc.disable()
with connected(sys.argv[1]) as spread:
    print(sum(done.result for done in spread(lambda: lambda item: item + 1, [1, 2, 3])))
    sys.settrace(trace)
print("disconnected")
"""


def test_garbage_does_not_end_the_process_that_disconnects(cluster: Nodes) -> None:
    done = subprocess.run([sys.executable, "-c", COLLECTED, cluster.address], capture_output=True, text=True)
    assert done.stdout.split() == ["9", "collect", "disconnected"], done.stderr


def test_the_flow(cluster: Nodes, photos: Path, packaged: Path, tmp_path: Path) -> None:
    """Shards are in the flow's artifacts."""
    (tmp_path / "params.yaml").write_text(f"cluster: {{address: '{cluster.address}'}}\nflows: {{}}\n")
    done = subprocess.run(
        [sys.executable, "-c", FLOW, str(photos), str(tmp_path / "tags"), str(packaged)],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    state, message, rows, progress = json.loads(done.stdout.splitlines()[-1])
    assert (state, message, progress) == ("COMPLETED", "99 photos tagged, 1 failed", 100.0)
    assert [(row["shard"], row["photos"], row["failed"]) for row in rows] == [(1, 100, 1)]
    assert "050.jpg" in rows[0]["why"] and "process" in rows[0]["node"]


STAGE = """
import json
from flows.pipeline import repro
from prefect import flow
from prefect.artifacts import Artifact
from prefect.testing.utilities import prefect_test_harness

@flow
def run():
    repro()

with prefect_test_harness(server_startup_timeout=120):
    run()
    print(Artifact.get("shards").data)
"""


def test_the_shards_of_a_stage_are_an_artifact(tmp_path: Path) -> None:
    """Of a flow that runs it; where no one watches, each shard has a line."""
    (tmp_path / "stage.py").write_text(
        "from zerotag.cluster.shards import ShardReport, progress\n"
        "with progress('features', 64) as report:\n"
        "    report(ShardReport(1, 3, 32, {'a.jpg': 'a.jpg: empty'}, '', 0.5, '10.0.0.1, process 7'))\n"
        "    report(ShardReport(0, 3, 0, {}, 'the disk is full', 0.1, '10.0.0.2, process 8'))\n"
        "    report(ShardReport(2, 3, 32, kept=True))\n"
    )
    (tmp_path / "dvc.yaml").write_text("stages: {features: {cmd: python stage.py, outs: []}}\n")
    path = {"PYTHONPATH": os.pathsep.join(sys.path), "DVC_NO_ANALYTICS": "1", "PREFECT_HOME": str(tmp_path / "prefect")}
    subprocess.run([sys.executable, "-m", "dvc", "init", "--no-scm", "--quiet"], cwd=tmp_path, check=True)
    done = subprocess.run(
        [sys.executable, "-c", STAGE], cwd=tmp_path, env={**os.environ, **path}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == [
        {"shard": "shard 2 of 3", "what": "a.jpg: empty"},
        {"shard": "shard 2 of 3", "what": "32 photos in 0.5 s on 10.0.0.1, process 7"},
        {"shard": "shard 1 of 3", "what": "failed on 10.0.0.2, process 8: the disk is full"},
        {"shard": "shard 3 of 3", "what": "32 photos by an earlier run"},
    ]
