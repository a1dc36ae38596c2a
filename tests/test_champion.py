"""The champion's record, the comparison that defends it, and drift."""

import json
import math
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from conftest import encoded
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_matrix
from typer.testing import CliRunner

from zerotag.cli import app
from zerotag.data.dataset import Dataset
from zerotag.errors import ZerotagError
from zerotag.evaluation.comparison import Comparison, Difference, compare
from zerotag.registry.behaviour import failed_behaviour, table
from zerotag.registry.champion import champion_package, keep, promote, read_champion, roll_back
from zerotag.registry.drift import ENOUGH, Profile, drift_reasons, photo_drift, profile, request_profile, tag_drift
from zerotag.registry.reasons import RetrainSettings, age_or_drift
from zerotag.training.heads import Head
from zerotag.training.methods import Method
from zerotag.training.model import Model, Network
from zerotag.words.vocabulary import Vocabulary

EMPTY = Profile({}, [], [])


def candidate(folder: Path, version: str, **shares: float) -> tuple[Path, Path, Path]:
    """A training folder, its package and its behaviour, as far as a record needs them."""
    model, served, behaviour = (folder / version / name for name in ("model", "served", "behaviour"))
    for each in (model, served, behaviour):
        each.mkdir(parents=True)
    (model / "model.json").write_text(
        json.dumps({"backbone": "vgg19", "method": "sdl", "data": {"digest": f"data-{version}"}})
    )
    (served / "tagger.json").write_text(json.dumps({"backbone": "vgg19", "method": "sdl", "version": version}))
    checks = {
        name: {"figure": share, "least": 0.7, "cases": 9, "passed": share >= 0.7} for name, share in shares.items()
    }
    (behaviour / "behaviour.json").write_text(json.dumps({"model": version, "checks": checks}))
    return model, served, behaviour


def test_a_record_changes_whole_and_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert read_champion() is None and champion_package() == Path("served")
    first = keep(*candidate(tmp_path, "one"), EMPTY, {"gzsl": {"map": 1.0}}, "abc", "first")
    assert read_champion() is None  # kept is not promoted
    promote(first)
    assert read_champion() == first and first.data == "data-one" and first.previous == ""
    second = keep(*candidate(tmp_path, "two"), EMPTY, {}, "abc", "better")
    promote(second)
    assert read_champion() == second and second.previous == first.id
    assert json.loads((champion_package() / "tagger.json").read_text())["version"] == "two"

    done = CliRunner().invoke(app, ["champion", "rollback"])
    assert done.exit_code == 0 and first.id in done.output
    shown = CliRunner().invoke(app, ["champion", "show"])
    assert json.loads(shown.output)["id"] == first.id
    assert champion_package() == Path("champions") / first.id / "served"
    assert CliRunner().invoke(app, ["champion", "rollback"]).exit_code == 1
    with pytest.raises(ZerotagError, match="no previous champion"):
        roll_back()


def test_a_damaged_record_is_named(tmp_path: Path) -> None:
    (tmp_path / "champion.json").write_text('{"id": ')
    with pytest.raises(ZerotagError, match=r"champion\.json: not a champion's record"):
        read_champion(tmp_path)
    record = keep(*candidate(tmp_path, "one"), EMPTY, {}, "", "", tmp_path / "elsewhere")
    promote(record, tmp_path)
    with pytest.raises(ZerotagError, match=r"are missing.*dvc pull champions/"):
        read_champion(tmp_path)


def test_another_models_package_is_refused(tmp_path: Path) -> None:
    model, served, behaviour = candidate(tmp_path, "one")
    (served / "tagger.json").write_text(json.dumps({"backbone": "resnet50", "method": "sdl", "version": "1"}))
    with pytest.raises(ZerotagError, match="packages resnet50 sdl"):
        keep(model, served, behaviour, EMPTY, {}, "", "", tmp_path)
    assert not (tmp_path / "champions").exists()


def test_a_model_that_fails_behaviour_tests_is_refused(tmp_path: Path) -> None:
    made = candidate(tmp_path, "one", flip=0.9, jpeg=0.512, direction=0.1)
    with pytest.raises(ZerotagError, match=r"behaviour tests: jpeg is 0\.51, not 0\.70 or more; direction is 0\.10"):
        keep(*made, EMPTY, {}, "", "", tmp_path)
    with pytest.raises(ZerotagError, match=r"the tests are of model one, not of .*two"):
        failed_behaviour(made[2], candidate(tmp_path, "two")[1])
    with pytest.raises(ZerotagError, match=r"behaviour\.json is missing"):
        failed_behaviour(tmp_path, made[1])
    assert "| jpeg | 0.51 | 0.70 | 9 | FAILED |" in table(made[2])
    assert not (tmp_path / "champions").exists()
    record = keep(*candidate(tmp_path, "three", flip=0.7), EMPTY, {}, "", "", tmp_path)
    assert (record.folder(tmp_path) / "behaviour.json").is_file()


@pytest.mark.parametrize(
    ("gzsl", "zsl", "better"),
    [
        (Difference(20, 21, 0.2, 1.8), Difference(10, 10.5, -1, 2), True),
        (Difference(20, 20.4, 0.1, 0.7), Difference(10, 11, 0.5, 1.5), False),  # less than the margin
        (Difference(20, 21, -0.1, 2.1), Difference(10, 11, 0.5, 1.5), False),  # may be chance
        (Difference(20, 21, 0.2, 1.8), Difference(10, 9.9, -1, 1), False),  # loses unseen tags
    ],
)
def test_verdict(gzsl: Difference, zsl: Difference, better: bool) -> None:
    assert Comparison(100, 10, 4, zsl, gzsl).verdict(0.5, 0.0)[0] is better


def test_undefined_figures_are_no_gain() -> None:
    none, better = Difference(*[math.nan] * 4), Difference(10, 20, 5, 15)
    assert not Comparison(10, 5, 2, better, none).verdict(0.5, 1)[0]
    promoted, why = Comparison(10, 5, 2, none, better).verdict(0.5, 1)
    assert promoted and "ZSL mAP none" in why


def test_compare_over_common_tags(tmp_path: Path) -> None:
    import torch

    from zerotag.data.prepare import PrepareSettings, prepare
    from zerotag.data.sources.base import PhotoFile, Source
    from zerotag.training.backbones import build_backbone

    tags = ["sky", "sea", "dog", "cat"]
    files = []
    for number in range(24):
        files.append(tmp_path / f"{number}.jpg")
        files[-1].write_bytes(encoded(number))
    labels = np.zeros((24, 4), dtype=np.uint8)
    labels[np.arange(24), np.arange(24) % 4] = 1
    source = Source(
        [path.name for path in files], [PhotoFile(path) for path in files], tags, csr_matrix(labels), np.arange(24) < 12
    )
    prepare(source, PrepareSettings(workers=1), tmp_path / "prepared", tmp_path / "work")
    dataset = Dataset.read(tmp_path / "prepared")

    def model(seed: int, order: list[str], seen: set[str]) -> Model:
        torch.manual_seed(seed)
        backbone = build_backbone("test_efficientnet")
        network = Network(backbone, Head(backbone.features, Method(2), 8)).eval()
        vectors = np.random.default_rng(0).standard_normal((len(order), 8)).astype(np.float32)
        vocabulary = Vocabulary(order, vectors, np.array([tag in seen for tag in order]))
        return Model(network, vocabulary, {"size": 32, "mode": "linear_probe"})

    same = model(0, tags, {"sky", "sea"})
    equal = compare(same, same, dataset, repeats=20)
    assert (equal.photos, equal.tags, equal.unseen) == (12, 4, 2)
    assert equal.gzsl.gain == 0 and (equal.gzsl.low, equal.gzsl.high) == (0, 0)
    # A tag that one of them was trained on is not unseen, and a tag that only one knows is left out.
    other = compare(same, model(1, ["cat", "dog", "sea", "bird"], {"cat", "bird"}), dataset, repeats=20)
    assert (other.tags, other.unseen) == (3, 1)
    assert other.gzsl.low <= other.gzsl.gain <= other.gzsl.high
    with pytest.raises(ZerotagError, match="no unseen tag in common"):
        compare(same, model(1, ["dog"], {"dog"}), dataset)

    then = profile(dataset, photos=5)
    assert then.tags == dict.fromkeys(tags, 0.25) and len(then.brightness) == len(then.contrast) == 5

    settings, now = RetrainSettings(requests=str(tmp_path / "none")), datetime.now(UTC)
    young, old, fresh = (now - timedelta(days=days) for days in (10, 40, 1))
    then.write(tmp_path / "profile.json")
    assert age_or_drift(young, tmp_path, dataset, settings) == []
    assert age_or_drift(old, tmp_path, dataset, settings) == ["age: the last training was 40 days ago"]
    Profile({"cat": 1.0}, [], []).write(tmp_path / "profile.json")
    (drift,) = age_or_drift(young, tmp_path, dataset, settings)
    assert drift.startswith("drift: tag frequencies by 0.75")
    assert age_or_drift(fresh, tmp_path, dataset, settings) == []  # a training has just not ended it


shares = st.dictionaries(st.sampled_from(["a", "b", "c", "d"]), st.floats(0.01, 1), min_size=1)


@given(shares, shares)
def test_tag_drift_is_a_distance(one: dict[str, float], two: dict[str, float]) -> None:
    first, second = Profile(one, [], []), Profile(two, [], [])
    assert tag_drift(first, first) == pytest.approx(0)
    assert tag_drift(first, second) == pytest.approx(tag_drift(second, first))
    assert 0 <= tag_drift(first, second) <= 1 + 1e-9


def test_drift_in_words() -> None:
    assert tag_drift(Profile({"a": 0.5, "b": 0.5}, [], []), Profile({"a": 1.0}, [], [])) == pytest.approx(0.5)
    random = np.random.default_rng(0)
    light, dark = (random.normal(mean, 0.05, 200).tolist() for mean in (0.7, 0.3))
    then, now = Profile({"a": 1.0}, light, light), Profile({"b": 1.0}, dark, light)
    assert photo_drift(then, now) > 0.9 and photo_drift(then, then) == 0
    assert photo_drift(then, Profile({}, dark[: ENOUGH - 1], dark[: ENOUGH - 1])) == 0
    (first, second) = drift_reasons(then, now, EMPTY, 0.2, 0.2)
    assert first.startswith("drift: tag frequencies by 1.00") and second.startswith("drift: training photos")
    assert drift_reasons(then, then, EMPTY, 0.2, 0.2) == []


def test_drift_reads_what_the_service_logs(tmp_path: Path) -> None:
    from service.model import Asked, Photo, Seen
    from service.record import RequestLog

    photo = Photo(bytes(100), "a.jpg", Asked(None, "all", 10, None, False))
    for brightness in (0.2, 0.4, 0.6):
        RequestLog(tmp_path, "zerotag:1").tagged([(photo, Seen(brightness, 0.1, {}))])
    RequestLog(tmp_path, "zerotag:1").searched(["sea"], [], 3, example=False)
    assert request_profile(tmp_path, date(2020, 1, 1)).brightness == pytest.approx([0.2, 0.4, 0.6])
    assert request_profile(tmp_path, date(2999, 1, 1)) == EMPTY
    assert request_profile(tmp_path / "nothing", date(2020, 1, 1)) == EMPTY
