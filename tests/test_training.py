"""The training loop: what it learns, that it is repeatable and resumable, and the stages end to end."""

import importlib.util
import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import timm
import torch
import yaml
from gensim.models import KeyedVectors
from PIL import Image

from zerotag.data.dataset import Dataset
from zerotag.data.prepare import PrepareSettings, prepare
from zerotag.data.sources.base import PhotoFile, Source
from zerotag.errors import ZerotagError
from zerotag.evaluation.evaluate import principal_vectors
from zerotag.evaluation.held_out import train_head
from zerotag.evaluation.metrics import average_precision
from zerotag.serving.tagger import Tagger
from zerotag.training.augment import TrainingPhotos, cutout, training_batches
from zerotag.training.backbones import build_backbone, cut
from zerotag.training.classifier import Classifier
from zerotag.training.heads import ClassHead, Head, lift_vocabulary
from zerotag.training.loop import (
    Batches,
    Process,
    TrainSettings,
    _share,
    autocast_type,
    feature_batches,
    parameter_groups,
    train,
)
from zerotag.training.methods import METHODS, Method
from zerotag.training.model import load_model
from zerotag.words.vocabulary import Vocabulary

PROJECT = Path(__file__).resolve().parents[1]
CPU = torch.device("cpu")
TAGS, DIMENSIONS, FEATURES = 10, 12, 20
TRAINED = [name for name, chosen in METHODS.items() if chosen.trained]


def planted(photos: int = 240) -> tuple[np.ndarray, sp.csr_matrix, np.ndarray]:
    """Features that are a noisy linear image of the word vectors of each photo's one to three tags."""
    random = np.random.default_rng(0)
    vectors = random.standard_normal((TAGS, DIMENSIONS)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    labels = np.zeros((photos, TAGS), dtype=np.uint8)
    for photo in range(photos):
        labels[photo, random.choice(TAGS, random.integers(1, 4), replace=False)] = 1
    mixing = random.standard_normal((DIMENSIONS, FEATURES))
    features = labels @ vectors @ mixing + 0.1 * random.standard_normal((photos, FEATURES))
    return features.astype(np.float32), sp.csr_matrix(labels), vectors


def fit(
    folder: Path, settings: TrainSettings, batches: Batches | None = None, **changes: Any
) -> tuple[Head, pd.DataFrame]:
    """Train a head on the planted problem."""
    features, labels, vectors = planted()
    torch.manual_seed(settings.seed)
    head = Head(FEATURES, Method(3), DIMENSIONS)
    arguments: dict[str, Any] = {
        "rows": np.arange(200), "method": replace(METHODS["sdl"], principal_vectors=3), "key": "key", **changes
    }  # fmt: skip
    curve = train(
        head, batches or feature_batches(features, settings.batch, CPU), labels=labels, vectors=vectors,
        settings=settings, checkpoint=folder / "checkpoint.pt", device=CPU, **arguments,
    )  # fmt: skip
    return head, curve


def same_weights(first: torch.nn.Module, second: torch.nn.Module) -> bool:
    return all(
        torch.equal(a, b) for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    )


QUICK = TrainSettings(epochs=4, batch=16, learning_rate=0.02, weight_decay=0.0)


@pytest.mark.parametrize("name", TRAINED)
def test_a_planted_problem_is_learnt(tmp_path: Path, name: str) -> None:
    features, labels, vectors = planted()
    head = Head(FEATURES, METHODS[name], DIMENSIONS)
    curve = train(
        head, feature_batches(features, 16, CPU), np.arange(200), labels, vectors, METHODS[name],
        replace(QUICK, epochs=10), tmp_path / "checkpoint.pt", "key", CPU,
    )  # fmt: skip
    assert curve["epoch"].tolist() == list(range(1, 11))
    assert curve["loss"].iloc[-1] < 0.6 * curve["loss"].iloc[0]
    with torch.inference_mode():
        scores = (head(torch.from_numpy(features[200:])) @ torch.from_numpy(vectors).T).amax(dim=1).numpy()
    chance = labels[200:].toarray().mean()
    assert np.nanmean(average_precision(scores, labels[200:].tocsr())) > 3 * chance


@pytest.mark.parametrize("name", TRAINED)
def test_a_rejected_tag_is_ranked_lower(tmp_path: Path, name: str) -> None:
    """A person names half of the tags of each photo, and rejects what the first model gives wrongly."""
    features, labels, vectors = planted()
    truth, photos = labels.toarray(), np.arange(200)
    named = sp.csr_matrix(truth * (np.random.default_rng(1).random(truth.shape) < 0.5))

    def learn(rejected: sp.csr_matrix | None, folder: str) -> tuple[Head, np.ndarray]:
        torch.manual_seed(0)
        head = Head(FEATURES, METHODS[name], DIMENSIONS)
        train(
            head, feature_batches(features, 16, CPU), photos, named, vectors, METHODS[name], QUICK, tmp_path / folder,
            "key", CPU, rejected=rejected,
        )  # fmt: skip
        with torch.inference_mode():
            scores = (head(torch.from_numpy(features)) @ torch.from_numpy(vectors).T).amax(dim=1).numpy()
        return head, (-scores).argsort(axis=1).argsort(axis=1)

    first, before = learn(None, "without")
    wrong = (before < 4) & (truth == 0) & (np.arange(240) < 200)[:, None]
    _, after = learn(sp.csr_matrix(wrong.astype(np.uint8)), "with")
    assert after[wrong].mean() > before[wrong].mean() + 0.2
    assert same_weights(first, learn(sp.csr_matrix(truth.shape, dtype=np.uint8), "nothing")[0])  # to the bit


def test_a_seed_repeats_bit_by_bit(tmp_path: Path) -> None:
    first, first_curve = fit(tmp_path / "a", QUICK)
    second, second_curve = fit(tmp_path / "b", QUICK)
    other, _ = fit(tmp_path / "c", replace(QUICK, seed=1))
    assert same_weights(first, second)
    pd.testing.assert_frame_equal(first_curve, second_curve)
    assert not same_weights(first, other)


def stopping(batches: Batches, epoch_to_stop_in: int) -> Batches:
    def stop(rows: np.ndarray, epoch: int) -> Iterator[tuple[torch.Tensor, np.ndarray]]:
        for number, batch in enumerate(batches(rows, epoch)):
            if (epoch, number) == (epoch_to_stop_in, 3):
                raise KeyboardInterrupt
            yield batch

    return stop


@pytest.mark.parametrize("moving_average", [0.0, 0.9])
def test_an_interrupted_run_goes_on_to_the_same_weights(tmp_path: Path, moving_average: float) -> None:
    settings = replace(QUICK, moving_average=moving_average)
    undisturbed, curve = fit(tmp_path / "a", settings)
    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path / "b", settings, stopping(feature_batches(planted()[0], 16, CPU), 2))
    epochs: list[int] = []

    def noting(rows: np.ndarray, epoch: int) -> Iterator[tuple[torch.Tensor, np.ndarray]]:
        epochs.append(epoch)
        return feature_batches(planted()[0], 16, CPU)(rows, epoch)

    resumed, resumed_curve = fit(tmp_path / "b", settings, noting)
    assert epochs == [2, 3]
    assert same_weights(undisturbed, resumed)
    pd.testing.assert_frame_equal(curve, resumed_curve)
    # A finished run has nothing left to do.
    again, _ = fit(tmp_path / "b", settings, noting)
    assert epochs == [2, 3] and same_weights(again, undisturbed)


def test_the_checkpoint_of_another_key_is_ignored(tmp_path: Path) -> None:
    expected, _ = fit(tmp_path / "a", QUICK)
    fit(tmp_path / "b", replace(QUICK, seed=7), key="another")
    head, curve = fit(tmp_path / "b", QUICK)
    assert len(curve) == QUICK.epochs and same_weights(head, expected)


def test_a_loss_that_is_not_finite_stops_with_advice_and_leaves_the_good_checkpoint(tmp_path: Path) -> None:
    good = feature_batches(planted()[0], 16, CPU)

    def spoilt(rows: np.ndarray, epoch: int) -> Iterator[tuple[torch.Tensor, np.ndarray]]:
        for inputs, chosen in good(rows, epoch):
            yield inputs * (math.nan if epoch == 1 else 1), chosen

    with pytest.raises(ZerotagError, match=r"loss is nan in epoch 2.*Lower the learning rate \(now 0.02\).*float32"):
        fit(tmp_path, QUICK, spoilt)
    saved = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert len(saved["curve"]) == 1
    assert all(weight.isfinite().all() for weight in saved["network"].values())


def test_weights_spoilt_by_the_last_step_are_not_kept(tmp_path: Path) -> None:
    # One step: its loss is finite, and only its gradient is not.
    features, labels, vectors = planted()
    head = Head(FEATURES, Method(7), DIMENSIONS)
    head.linear.weight.register_hook(lambda gradient: gradient * math.inf)
    settings = replace(QUICK, epochs=1, batch=200)
    with pytest.raises(ZerotagError, match="Lower the learning rate"):
        train(
            head, feature_batches(features, 200, CPU), np.arange(200), labels, vectors, METHODS["sdl"], settings,
            tmp_path / "checkpoint.pt", "key", CPU,
        )  # fmt: skip
    assert not (tmp_path / "checkpoint.pt").exists()


def test_photos_without_a_seen_tag_are_left_out(tmp_path: Path) -> None:
    features, labels, _ = planted()
    few = labels.toarray()
    few[:190] = 0
    seen: list[int] = []

    def noting(rows: np.ndarray, epoch: int) -> Iterator[tuple[torch.Tensor, np.ndarray]]:
        seen.extend(rows.tolist())
        return feature_batches(features, 16, CPU)(rows, epoch)

    head = Head(FEATURES, Method(3), DIMENSIONS)
    given = (np.arange(200), sp.csr_matrix(few), planted()[2], METHODS["sdl"], replace(QUICK, epochs=2))
    train(head, noting, *given, tmp_path / "checkpoint.pt", "key", CPU)
    assert sorted(seen) == sorted([*range(190, 200)] * 2)
    with pytest.raises(ZerotagError, match="No training photo has a seen tag"):
        train(head, noting, np.arange(190), *given[1:], tmp_path / "checkpoint.pt", "key", CPU)


def test_one_cycle_warms_up_in_a_tenth_of_the_steps(tmp_path: Path) -> None:
    # One step an epoch, so that the curve has the rate after every step.
    _, curve = fit(tmp_path, replace(QUICK, epochs=40, batch=200))
    rates = curve["learning_rate"].to_numpy()
    top = int(rates.argmax())
    assert top + 1 in (3, 4, 5)  # of 40 steps
    assert rates[top] == pytest.approx(0.02, rel=0.05)
    assert (np.diff(rates[: top + 1]) > 0).all() and (np.diff(rates[top:]) < 0).all()
    assert rates[-1] < 1e-4 * 0.02


@pytest.mark.parametrize("epochs", [1, 2, 3, 9, 10, 11])
@pytest.mark.parametrize("warm_up", [0.0, 0.1, 0.5, 1.0])
def test_runs_of_few_steps_have_a_schedule_too(tmp_path: Path, epochs: int, warm_up: float) -> None:
    _, curve = fit(tmp_path, replace(QUICK, epochs=epochs, batch=200, warm_up=warm_up))
    assert curve["learning_rate"].between(0, 0.0201).all()


def test_a_constant_rate_stays_and_an_unknown_schedule_is_named(tmp_path: Path) -> None:
    _, curve = fit(tmp_path, replace(QUICK, epochs=3, schedule="constant"))
    assert curve["learning_rate"].to_numpy() == pytest.approx(QUICK.learning_rate)
    with pytest.raises(ZerotagError, match="schedule 'cosine' is unknown; use one-cycle or constant"):
        fit(tmp_path, replace(QUICK, schedule="cosine"), key="other")


def test_weight_decay_spares_biases_and_normalisation() -> None:
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Linear(4, 2))
    network[0].weight.requires_grad_(True)
    settings = TrainSettings(weight_decay=0.3, learning_rate=0.01)
    decayed, head, plain = parameter_groups(network, settings)
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.3, 0.0)
    assert head["params"] == []
    own = Head(FEATURES, METHODS["sdl_plus"], DIMENSIONS)
    assert {group["lr"] for group in (decayed, head, plain)} == {0.01}
    body, head, rest = parameter_groups(own, replace(settings, head_learning_rate=0.1), 0.7)
    assert [group["lr"] for group in (body, head, rest)] == [0.01, 0.1, 0.01]
    assert body["params"] == [] and [id(weight) for weight in head["params"]] == [id(own.linear.weight)]  # type: ignore[attr-defined]
    assert [id(weight) for weight in rest["params"]] == [id(own.linear.bias)]  # type: ignore[attr-defined]
    assert (head["weight_decay"], rest["weight_decay"]) == (0.7, 0.0)
    assert [id(weight) for weight in decayed["params"]] == [id(network[0].weight), id(network[2].weight)]  # type: ignore[attr-defined]
    expected = {id(network[0].bias), id(network[1].weight), id(network[1].bias), id(network[2].bias)}
    assert {id(weight) for weight in plain["params"]} == expected  # type: ignore[attr-defined]


def test_weight_decay_shrinks_the_weights(tmp_path: Path) -> None:
    free, _ = fit(tmp_path / "a", QUICK)
    decayed, _ = fit(tmp_path / "b", replace(QUICK, weight_decay=0.5))
    assert decayed.linear.weight.norm() < 0.8 * free.linear.weight.norm()


def test_the_moving_average_is_what_comes_out(tmp_path: Path) -> None:
    plain, _ = fit(tmp_path / "a", QUICK)
    averaged, _ = fit(tmp_path / "b", replace(QUICK, moving_average=0.9))
    assert not same_weights(plain, averaged)
    saved = torch.load(tmp_path / "b" / "checkpoint.pt", weights_only=True)
    torch.testing.assert_close(averaged.linear.weight.detach(), saved["average"]["module.linear.weight"])
    torch.testing.assert_close(plain.linear.weight.detach(), saved["network"]["linear.weight"])


def test_precision(tmp_path: Path) -> None:
    _, full = fit(tmp_path / "a", QUICK)
    _, half = fit(tmp_path / "b", replace(QUICK, precision="bf16"))
    assert half["loss"].iloc[-1] == pytest.approx(full["loss"].iloc[-1], rel=0.1)
    _, scaled = fit(tmp_path / "d", replace(QUICK, precision="fp16"))  # with GradScaler
    assert scaled["loss"].iloc[-1] == pytest.approx(full["loss"].iloc[-1], rel=0.1)
    saved = torch.load(tmp_path / "d" / "checkpoint.pt", weights_only=True)
    assert saved["scaler"]["scale"] >= 1
    assert autocast_type("auto", CPU) is torch.float32
    with pytest.raises(ZerotagError, match="'half' is unknown; use auto, float32, bf16, fp16"):
        fit(tmp_path / "c", replace(QUICK, precision="half"))


def test_a_compiled_network_learns_the_same(tmp_path: Path) -> None:
    plain, _ = fit(tmp_path / "a", QUICK)
    compiled, _ = fit(tmp_path / "b", replace(QUICK, compile=True))
    torch.testing.assert_close(compiled.linear.weight, plain.linear.weight, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("photos", "batch", "world"), [(33, 8, 2), (30, 8, 2), (34, 7, 3), (33, 8, 4)])
def test_processes_share_an_epoch(photos: int, batch: int, world: int) -> None:
    order = np.random.default_rng(0).permutation(photos)
    shares = [_share(order, batch, Process(rank, world)) for rank in range(world)]
    steps = math.ceil(photos / batch)
    for rank, share in enumerate(shares):
        size = len(range(rank, batch, world))
        assert math.ceil(len(share) / size) == steps  # all take as many steps
    counts = np.bincount(np.concatenate(shares), minlength=photos)
    tail = photos % batch
    # Each photo once, but for a last batch of fewer photos than processes, which has to go round.
    assert (counts >= 1).all()
    assert counts.sum() == photos + (max(0, world - tail) if tail else 0)


# Two processes.

DISTRIBUTED = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import numpy as np
import torch
from test_training import CPU, QUICK, fit, planted
from zerotag.training.loop import feature_batches, join_processes
torch.set_num_threads(1)
process, device = join_processes()
rows = []
share = len(range(process.rank, QUICK.batch, process.world))
def noting(order, epoch):
    rows.extend((epoch, int(row)) for row in order)
    return feature_batches(planted()[0], share, CPU)(order, epoch)
head, curve = fit(Path(sys.argv[2]), QUICK, noting, process=process, rows=np.arange(int(sys.argv[3])))
part = Path(sys.argv[2]) / f"part{process.rank}"
np.save(part.with_suffix(".npy"), np.array(rows))
torch.save(head.state_dict(), part.with_suffix(".pt"))
"""


def test_two_processes_learn_what_one_does(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(DISTRIBUTED)
    photos = 193  # the last batch has one photo, fewer than there are processes
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    arguments = [str(script), str(Path(__file__).parent), str(tmp_path), str(photos)]
    subprocess.run([*launch, *arguments], check=True, timeout=120, env={**os.environ, "OMP_NUM_THREADS": "1"})
    first, second = (torch.load(tmp_path / f"part{rank}.pt", weights_only=True) for rank in range(2))
    assert torch.equal(first["linear.weight"], second["linear.weight"])
    seen = [np.load(tmp_path / f"part{rank}.npy") for rank in range(2)]
    for epoch in range(QUICK.epochs):
        rows = np.concatenate([part[part[:, 0] == epoch, 1] for part in seen])
        assert rows.size == photos + 1 and set(rows.tolist()) == set(range(photos))
    alone, _ = fit(tmp_path / "alone", QUICK, rows=np.arange(photos))
    torch.testing.assert_close(first["linear.weight"], alone.linear.weight.detach(), rtol=1e-3, atol=1e-3)


# Photos.


def prepared_project(folder: Path, photos: int, side: int = 72) -> dict[str, Any]:
    """What the stages before `train` leave: prepared/, words/, split.csv. Returns the parameters of params.yaml."""
    random = np.random.default_rng(0)
    (folder / "raw").mkdir(parents=True)
    tags = ["red", "green", "blue", "bright", "dark", "striped"]
    labels = np.zeros((photos, len(tags)), dtype=np.uint8)
    files = []
    for photo in range(photos):
        labels[photo, [photo % 3, 3 + photo % 2]] = 1
        labels[photo, 5] = photo % 4 == 0
        picture = random.integers(0, 60, (side, side, 3)) + 60 * (photo % 2 == 0)
        picture[:, :, photo % 3] += 120
        picture[:: 4 if labels[photo, 5] else side] = 0
        files.append(folder / "raw" / f"{photo}.jpg")
        Image.fromarray(picture.astype(np.uint8)).save(files[-1], quality=95)
    train_photos = np.arange(photos) < photos * 3 // 4
    source = Source(
        [file.stem for file in files], [PhotoFile(path) for path in files], tags, sp.csr_matrix(labels), train_photos
    )
    prepare(source, PrepareSettings(workers=1), folder / "prepared", folder / "work" / "prepare")
    vectors = random.standard_normal((len(tags), 10)).astype(np.float32)
    (folder / "words").mkdir()
    np.save(folder / "words" / "vectors.npy", vectors / np.linalg.norm(vectors, axis=1, keepdims=True))
    pd.DataFrame({"tag": tags}).to_csv(folder / "words" / "vocabulary.csv", index=False)
    split = ["seen"] * 4 + ["unseen"] * 2
    pd.DataFrame({"tag": tags, "split": split}).to_csv(folder / "split.csv", index=False)
    params = yaml.safe_load((PROJECT / "params.yaml").read_text())
    params["weights"]["other"] = "none"
    params["features"] = {"pixels": 64, "batch": 4}
    params["method"]["sdl"] = {"principal_vectors": 2}
    params["method"]["sdl_plus"] = {"trust": 0.0}  # random weights come without a classifier
    params["train"]["mode"] = "full_fine_tuning"
    params["train"]["full_fine_tuning"].update(epochs=1, batch=4, pixels=64, learning_rate=0.001)
    return params


def stage(name: str) -> ModuleType:
    """Import stages/NAME.py, to call its main in the current folder."""
    spec = importlib.util.spec_from_file_location(f"stage_{name}", PROJECT / "stages" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def write_params(folder: Path, params: dict[str, Any]) -> None:
    (folder / "params.yaml").write_text(yaml.safe_dump(params))


def test_a_killed_run_goes_on_to_the_same_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    params = prepared_project(tmp_path, 24)
    params["train"]["full_fine_tuning"].update(epochs=5, moving_average=0.9)
    write_params(tmp_path, params)
    monkeypatch.chdir(tmp_path)
    model = Path("models/test_resnet/sdl/model.pt")
    checkpoint = Path("work/checkpoints/test_resnet-sdl.pt")

    command = [sys.executable, str(PROJECT / "stages" / "train.py"), "test_resnet", "sdl"]
    with subprocess.Popen(command, start_new_session=True) as run:
        deadline = time.monotonic() + 120
        while not checkpoint.exists() or len(torch.load(checkpoint, weights_only=True)["curve"]) < 2:
            assert run.poll() is None and time.monotonic() < deadline, "the run ended before it could be killed"
            time.sleep(0.005)
        os.killpg(run.pid, signal.SIGKILL)  # with its decoding processes
    assert run.returncode == -signal.SIGKILL and not model.exists()
    assert 2 <= len(torch.load(checkpoint, weights_only=True)["curve"]) < 5

    stage("train").main("test_resnet", "sdl")
    resumed, resumed_curve = torch.load(model, weights_only=True), Path("models/test_resnet/sdl/curve.csv").read_text()
    assert not checkpoint.exists()
    stage("train").main("test_resnet", "sdl")
    undisturbed = torch.load(model, weights_only=True)
    assert resumed.keys() == undisturbed.keys()
    assert [name for name in resumed if not torch.equal(resumed[name], undisturbed[name])] == []
    assert Path("models/test_resnet/sdl/curve.csv").read_text() == resumed_curve


def test_augmentation_depends_on_seed_epoch_and_row_alone(tmp_path: Path) -> None:
    prepared_project(tmp_path, 8)
    dataset = Dataset.read(tmp_path / "prepared")

    def load(rows: list[int], seed: int = 0, epoch: int = 0, workers: int = 0) -> dict[int, torch.Tensor]:
        photos = TrainingPhotos(dataset, np.array(rows), 32, 0.5, seed, epoch)
        return {
            int(row): picture
            for pictures, loaded in training_batches(photos, 3, CPU, workers)
            for picture, row in zip(pictures, loaded, strict=True)
        }

    before = torch.random.get_rng_state()
    expected = load([0, 1, 2, 3, 4])
    assert torch.equal(TrainingPhotos(dataset, np.array([3]), 32, 0.5, 0, 0)[0][0], expected[3])
    for again in (load([4, 2, 0, 3, 1]), load([0, 1, 2, 3, 4], workers=2)):
        assert all(torch.equal(again[row], picture) for row, picture in expected.items())
    for other in (load([0, 1, 2, 3, 4], seed=1), load([0, 1, 2, 3, 4], epoch=1)):
        assert not any(torch.equal(other[row], picture) for row, picture in expected.items())
    torch.random.set_rng_state(before)
    TrainingPhotos(dataset, np.array([3]), 32, 0.5, 0, 0)[0]
    assert torch.equal(torch.random.get_rng_state(), before)  # the caller's random numbers are untouched
    assert all(
        picture.shape == (3, 32, 32) and 0 <= picture.min() <= picture.max() <= 1 for picture in expected.values()
    )


def test_cutout_is_a_square_of_half_the_side() -> None:
    torch.manual_seed(0)
    areas = []
    for _ in range(200):
        picture = cutout(torch.zeros(3, 40, 40), 0.5)
        grey = picture == 0.5
        assert torch.equal(grey[0], grey[1]) and torch.equal(grey[0], grey[2])
        rows, columns = grey[0].any(dim=1).nonzero().ravel(), grey[0].any(dim=0).nonzero().ravel()
        height, width = (int(part[-1] - part[0]) + 1 for part in (rows, columns))
        assert int(grey[0].sum()) == height * width  # a rectangle: a square, or what of it lies inside
        assert 10 <= height <= 20 and 10 <= width <= 20
        areas.append((height, width))
    assert (20, 20) in areas and len(set(areas)) > 10


@pytest.mark.parametrize(
    ("backbone", "method"),
    [("vgg19", "sdl"), ("resnet50", "sdl"), ("tresnet_m", "sdl"), ("test_resnet", "sdl_plus")],
)
def test_full_fine_tuning(backbone: str, method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_params(tmp_path, prepared_project(tmp_path, 8))
    monkeypatch.chdir(tmp_path)
    stage("train").main(backbone, method)
    stage("evaluate").main(backbone, method)
    folder = Path(f"models/{backbone}/{method}")
    info = json.loads((folder / "model.json").read_text())
    assert (info["backbone"], info["mode"], info["size"], info["weights"]) == (backbone, "full_fine_tuning", 64, "none")
    assert np.isfinite(pd.read_csv(folder / "curve.csv")["loss"]).all()
    assert all(bool(tensor.isfinite().all()) for tensor in torch.load(folder / "model.pt", weights_only=True).values())
    metrics = json.loads(Path(f"evaluation/{backbone}/{method}/metrics.json").read_text())
    assert set(metrics) == {"zsl", "gzsl", "seen", "retrieval"}
    assert all(0 <= metrics["gzsl"][name] <= 100 for name in ("f1@3", "f1@5", "map"))
    assert metrics["gzsl"]["images"] == 2
    (folder / "model.pt").unlink()


def test_linear_probe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    params = prepared_project(tmp_path, 16)
    params["train"]["mode"] = "linear_probe"
    params["train"]["linear_probe"].update(epochs=2, batch=4)
    write_params(tmp_path, params)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["features.py", "test_resnet"])
    stage("features")
    assert np.load("features/test_resnet.npy").shape[0] == 16
    for name in TRAINED:
        stage("train").main("test_resnet", name)
        stage("evaluate").main("test_resnet", name)
        metrics = json.loads(Path(f"evaluation/test_resnet/{name}/metrics.json").read_text())
        assert metrics["gzsl"]["images"] == 4
    network = torch.load("models/test_resnet/sdl/model.pt", weights_only=True)
    assert network["head.linear.weight"].shape[0] == 2 * 10


# Of ImageNet's 1,000 classes, these have a word vector in the tests.
CLASSES = ["tench", "goldfish", "hen", "ostrich", "brambling", "goldfinch", "junco", "bulbul", "magpie", "chickadee"]


def project_with_classifier(folder: Path, method: str) -> dict[str, Any]:
    """A prepared project, with random weights that have a classifier, and a table with words for tags and classes."""
    params = prepared_project(folder, 24)
    torch.manual_seed(5)
    network = timm.create_model("test_resnet", num_classes=1000)
    torch.nn.init.normal_(network.get_classifier().weight)
    torch.save(network.state_dict(), folder / "weights.pth")
    tags = pd.read_csv(folder / "words" / "vocabulary.csv")["tag"].tolist()
    table = KeyedVectors(10)
    others = np.random.default_rng(6).standard_normal((len(CLASSES), 10)).astype(np.float32)
    table.add_vectors([*tags, *CLASSES], np.concatenate([np.load(folder / "words" / "vectors.npy"), others]))
    table.save_word2vec_format(str(folder / "words.txt"))
    params["words"]["source"] = f"file:{folder / 'words.txt'}"
    params["weights"]["other"] = str(folder / "weights.pth")
    params["methods"], params["backbones"] = [method], ["test_resnet"]
    params["method"]["sdl_plus"] = {"trust": 0.5}
    params["train"]["mode"] = "linear_probe"
    params["train"]["linear_probe"].update(epochs=2, batch=4)
    params["export"].update(compare=[], check_photos=2, eval_photos=4)
    write_params(folder, params)
    return params


@pytest.mark.parametrize(("method", "length"), [("classifier", 10), ("conse", 10), ("sdl_plus", 4 + 10)])
def test_methods_that_use_the_backbones_classifier(
    method: str, length: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """From training to a package, which answers as the trained network does."""
    project_with_classifier(tmp_path, method)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["features.py", "test_resnet"])
    stage("features")
    stage("train").main("test_resnet", method)
    assert "10 of 1,000 classes of the backbone's classifier have a word vector" in capsys.readouterr().out
    model = load_model(Path(f"models/test_resnet/{method}"))
    assert model.info["classes"] == 10 and model.vocabulary.vectors.shape == (6, length)
    curve = pd.read_csv(f"models/test_resnet/{method}/curve.csv")
    assert len(curve) == (2 if method == "sdl_plus" else 0)
    state = model.network.state_dict()
    weights = torch.load("weights.pth", weights_only=True)
    names, _ = Classifier(weights["fc.weight"], weights["fc.bias"]).describe()
    places = [place for place, name in enumerate(names) if set(name.split(", ")) & set(CLASSES)]
    kept = state["head.classes.weight" if method == "sdl_plus" else "head.weight"]
    torch.testing.assert_close(kept, weights["fc.weight"][places])

    stage("evaluate").main("test_resnet", method)
    metrics = json.loads(Path(f"evaluation/test_resnet/{method}/metrics.json").read_text())
    assert metrics["gzsl"]["images"] == 6 and 0 <= metrics["gzsl"]["map"] <= 100
    if method != "sdl_plus":  # there is nothing to train for the calibration either
        monkeypatch.setattr("zerotag.evaluation.held_out.train_head", None)
    stage("calibrate").main()
    stage("export").main()
    package = stage("package")
    monkeypatch.setattr(package, "build_bento", lambda *_: None)
    package.main()

    tagger = Tagger("served")
    photo = Path("raw/1.jpg").read_bytes()
    found = tagger.tag(photo, "1.jpg", [*model.vocabulary.tags, "goldfish"], top=100)
    assert len(found) == 7 and all(0 <= each.probability <= 1 for each in found)
    with torch.inference_mode():
        pixels = torch.from_numpy(tagger.pixels(photo, "1.jpg")).permute(2, 0, 1)[None].float() / 255
        principal = model.network(pixels)[0].numpy()
    lexicon = KeyedVectors.load_word2vec_format("words.txt")
    goldfish = model.vocabulary.lift(length_one(lexicon["goldfish"])[None], ["goldfish"])
    vectors = np.concatenate([model.vocabulary.vectors, goldfish])
    expected = dict(zip([*model.vocabulary.tags, "goldfish"], (principal @ vectors.T).max(axis=0), strict=True))
    assert {each.tag: each.score for each in found} == pytest.approx(expected, rel=0.01, abs=0.01)


def length_one(vector: np.ndarray) -> np.ndarray:
    return vector / np.linalg.norm(vector)


@pytest.mark.parametrize("mode", ["partial_fine_tuning", "full_fine_tuning"])
def test_fine_tuning_with_the_backbones_classifier(mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    params = project_with_classifier(tmp_path, "sdl_plus")
    params["train"]["mode"] = mode
    params["train"]["first_trained_layer"]["test_resnet"] = "layer3"
    params["train"]["partial_fine_tuning"].update(epochs=1, batch=8)
    params["train"]["full_fine_tuning"].update(batch=8)
    write_params(tmp_path, params)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["features.py", "test_resnet"])
    if mode == "partial_fine_tuning":
        stage("features")
    stage("train").main("test_resnet", "sdl_plus")
    stage("evaluate").main("test_resnet", "sdl_plus")
    model = load_model(Path("models/test_resnet/sdl_plus"))
    assert model.vocabulary.vectors.shape == (6, 4 + 10)
    scale = model.network.state_dict()["head.classes.scale"]
    assert scale.isfinite() and scale > 0


def test_weights_without_a_classifier(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    params = project_with_classifier(tmp_path, "sdl_plus")
    params["weights"]["other"] = "none"
    write_params(tmp_path, params)
    monkeypatch.chdir(tmp_path)
    for method in ("sdl_plus", "classifier", "conse"):
        with pytest.raises(ZerotagError, match=f"method {method} needs weights with a classifier"):
            stage("train").main("test_resnet", method)
    assert not Path("models").exists()


def test_a_held_out_head_with_classes_scores_seen_tags_without_them() -> None:
    features, labels, vectors = planted()
    plain = Vocabulary([str(tag) for tag in range(TAGS)], vectors, np.ones(TAGS, dtype=bool))
    classifier = Classifier(torch.randn(6, FEATURES), torch.zeros(6))
    classes = np.random.default_rng(3).standard_normal((6, DIMENSIONS)).astype(np.float32)
    chosen, rows = METHODS["sdl_plus"], np.arange(200)
    lifted = [lift_vocabulary(plain, chosen, each) for each in (None, classes)]
    own = ClassHead.of(classifier)
    before = float(own.scale)
    alone, joint = (
        train_head(chosen, features, rows, labels, vocabulary, each, QUICK, CPU)
        for vocabulary, each in zip(lifted, (None, own), strict=True)
    )
    assert float(own.scale) == before  # the model's own head is not changed
    given = torch.from_numpy(features[200:])
    joint.requires_grad_(False)
    scores = [
        head(given) @ torch.from_numpy(vocabulary.vectors).T
        for head, vocabulary in zip((alone, joint), lifted, strict=True)
    ]
    torch.testing.assert_close(*scores)
    assert joint(given).shape == (40, 1, TAGS + 6)
    assert float(joint(given)[..., TAGS:].std()) > 0


@pytest.mark.parametrize("method", TRAINED)
def test_partial_fine_tuning(method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Layers before the cut stay bit-identical, later ones are trained, and the whole network is evaluated."""
    params = prepared_project(tmp_path, 16)
    params["train"]["mode"] = "partial_fine_tuning"
    params["train"]["first_trained_layer"]["test_resnet"] = "layer3"
    params["train"]["linear_probe"].update(epochs=1, batch=8)
    params["train"]["partial_fine_tuning"].update(epochs=2, batch=4, learning_rate=0.01)
    write_params(tmp_path, params)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["features.py", "test_resnet"])
    stage("features")
    activations = np.load("features/test_resnet.npy")
    assert activations.dtype == np.float16 and activations.ndim == 4 and len(activations) == 16
    stage("train").main("test_resnet", method)
    folder = Path(f"models/test_resnet/{method}")
    info = json.loads((folder / "model.json").read_text())
    assert (info["mode"], info["first_trained_layer"], info["size"]) == ("partial_fine_tuning", "layer3", 64)
    assert len(pd.read_csv(folder / "curve.csv")) == 2
    torch.manual_seed(params["seed"])
    before = {f"backbone.{name}": each for name, each in build_backbone("test_resnet").state_dict().items()}
    after = torch.load(folder / "model.pt", weights_only=True)
    changed = {name for name, tensor in before.items() if not torch.equal(tensor, after[name])}
    assert changed and all(
        name.startswith(("backbone.network.layer3.", "backbone.network.layer4.")) for name in changed
    )
    assert not any("running" in name or "num_batches" in name for name in changed)  # batch_statistics: false
    assert list(Path("work/checkpoints").iterdir()) == []
    stage("evaluate").main("test_resnet", method)
    dataset, model = Dataset.read(Path("prepared")), load_model(folder)
    from_photos = principal_vectors(model, dataset, dataset.test, CPU, 4, None)
    _, last = cut(model.network.backbone, "layer3")
    with torch.inference_mode():
        from_activations = model.network.head(last(torch.from_numpy(activations[dataset.test]).float())).numpy()
    np.testing.assert_allclose(from_activations, from_photos, atol=0.02 * float(np.abs(from_photos).max()))


def test_the_head_goes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At a learning rate near zero the result is the linear probe's."""
    params = prepared_project(tmp_path, 16)
    params["train"]["linear_probe"].update(epochs=2, batch=4, learning_rate=0.01)
    nothing = {"learning_rate": 1e-12, "head_learning_rate": 1e-12, "head_first": True, "batch_statistics": False}
    params["train"]["full_fine_tuning"].update(nothing, epochs=1, weight_decay=0.0)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["features.py", "test_resnet"])
    heads = {}
    for mode in ("linear_probe", "full_fine_tuning"):
        params["train"]["mode"] = mode
        write_params(tmp_path, params)
        if mode == "linear_probe":
            stage("features")
        stage("train").main("test_resnet", "sdl")
        heads[mode] = torch.load("models/test_resnet/sdl/model.pt", weights_only=True)["head.linear.weight"]
    torch.testing.assert_close(heads["full_fine_tuning"], heads["linear_probe"], atol=1e-5, rtol=1e-4)


def test_a_mode_that_there_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    params = prepared_project(tmp_path, 8)
    monkeypatch.chdir(tmp_path)
    unknown, no_layer = "train.mode = 'half' is unknown", "first_trained_layer names no layer of"
    for mode, message in (("half", unknown), ("partial_fine_tuning", no_layer)):
        params["train"]["mode"] = mode
        write_params(tmp_path, params)
        with pytest.raises(ZerotagError, match=message):
            stage("train").main("test_resnet", "sdl")
