"""What can be watched of a service: metrics, drift, and a challenger that answers beside the champion."""

import json
import math
import shutil
import threading
import time
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from conftest import Server, encoded, serving
from prometheus_client.parser import text_string_to_metric_families
from service.model import Asked, Photo
from service.record import RequestLog
from service.shadow import Shadow
from test_deploy import metric_names
from test_follow import kept
from test_service import send

from zerotag.registry.champion import Champion, challenge, drop_challenger, promote, read_challenger
from zerotag.registry.drift import Profile, distance, request_profile, training_profile
from zerotag.registry.shadow import Evidence, challenger_evidence, shadow_evidence, shadow_verdict
from zerotag.serving.tagger import Tagger


def metrics(url: str) -> dict[str, dict[tuple[str, ...], float]]:
    """The samples of /metrics, by name and the values of the labels, which are in the order of their names."""
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in text_string_to_metric_families(httpx.get(f"{url}/metrics", timeout=30).text):
        for sample in family.samples:
            found.setdefault(sample.name, {})[tuple(sample.labels[name] for name in sorted(sample.labels))] = (
                sample.value
            )
    return found


def until(what: Callable[[], Any], seconds: float = 60) -> Any:
    """Wait for something true."""
    end = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.1)
    return found


def lines(log: Path, event: str) -> list[dict[str, Any]]:
    read = [json.loads(line) for file in log.iterdir() for line in file.read_text().splitlines()]
    return [line for line in read if line["event"] == event]


def photos(seeds: range) -> list[tuple[str, tuple[str, bytes]]]:
    return [("photos", (f"{seed}.jpg", encoded(seed))) for seed in seeds]


def test_a_challenger_answers_beside_the_champion_and_drift_is_seen(packaged: Path, tmp_path: Path) -> None:
    champion = shutil.copytree(packaged, tmp_path / "champion")
    random = np.random.default_rng(0)
    # Brighter photos than those that come, of the same contrast.
    ours = [np.asarray(Tagger(packaged).pixels(encoded(seed), "a")) / 255 for seed in range(40)]
    Profile({}, random.uniform(0.9, 1, 300).tolist(), [float(each.std()) for each in ours] * 5).write(
        champion / "profile.json"
    )
    other = kept(tmp_path, "other", packaged).folder(tmp_path) / "served"
    settings = {"workers": "1", "shadow": str(other), "shadow_share": "1"}
    with serving(champion, tmp_path, **settings) as running, httpx.Client(base_url=running.url, timeout=60) as client:
        before = metrics(running.url)
        assert all(math.isnan(value) for value in before["zerotag_photo_drift"].values())
        for seed in range(3):  # one by one, so that the challenger keeps up
            assert send(client, encoded(seed), top=2).status_code == 200
            until(lambda seed=seed: len(lines(running.log, "shadow")) == seed + 1)
        assert send(client, encoded(3), vocabulary="boat, sky, zebra").status_code == 200
        until(lambda: len(lines(running.log, "shadow")) == 4)
        for _ in range(7):
            assert client.post("/tag/batch", files=photos(range(32))).status_code == 200

        def answered() -> bool:
            return sum(metrics(running.url)["zerotag_shadow_photos_total"].values()) == 4 + 7 * 32

        until(answered)
        after = metrics(running.url)
        assert send(client, b"no picture").status_code == send(client, encoded()[:700]).status_code == 422
        assert send(client, b"").status_code == send(client, encoded(), vocabulary="qzxv").status_code == 422
        assert send(client, bytes(25_000_000)).status_code == 413
        assert client.post("/tag", json={}).status_code == 415
        assert client.post("/search", json={"words": ["boat"]}).status_code == 200
        (running.root / "a.jpg").write_bytes(encoded())
        assert client.post("/index", json={"paths": [""]}).json()["added"] == 1
        last = metrics(running.url)

    # Everything that the dashboard and the alerts name is there.
    assert len(metric_names()) > 20 and not metric_names() - set(last)
    assert after["zerotag_photos_total"][()] == 4 + 7 * 32
    assert after["zerotag_photo_drift"][("brightness",)] > 0.9
    assert after["zerotag_photo_drift"][("contrast",)] < 0.2
    assert after["zerotag_photo_brightness_count"][()] == after["zerotag_photos_total"][()]
    assert after["zerotag_best_tag_probability_count"][()] == after["zerotag_photos_total"][()] - 1
    assert after["zerotag_tag_probability_count"] == after["zerotag_tags_total"]
    outcomes = after["zerotag_shadow_photos_total"]
    assert outcomes[("compared",)] >= 4 and outcomes[("dropped",)] > 0 and ("failed",) not in outcomes
    assert last["zerotag_searches_total"][()] == last["zerotag_indexed_photos_total"][()] == 1
    refused = {reason: count for (reason, _), count in last["zerotag_refused_total"].items()}
    assert refused == dict.fromkeys(["not_an_image", "corrupt", "empty", "words", "too_large", "content_type"], 1)
    assert not [line for line in lines(running.log, "refused") if "a.jpg" in json.dumps(line)]

    # What is counted is what the two models say.
    one, two = Tagger(packaged), Tagger(other)
    for seed, line in enumerate(lines(running.log, "shadow")[:4]):
        words = ["boat", "sky", "zebra"] if seed == 3 else []
        tags, others = (each.tag(encoded(seed), "a", words, top=5, everything=True) for each in (one, two))
        assert [tag for tag, *_ in line["tags"]] == [tag.tag for tag in tags]
        assert [tag for tag, *_ in line["challenger_tags"]] == [tag.tag for tag in others]
        assert line["agreement"] == len({tag.tag for tag in tags} & {tag.tag for tag in others}) / len(tags)
        same = {tag.tag: tag.probability for tag in two.tag(encoded(seed), "a", [tag.tag for tag in tags])}
        means = np.mean([abs(tag.probability - same[tag.tag]) for tag in tags])
        assert line["difference"] == pytest.approx(means, abs=1e-3)
        assert (line["model"], line["challenger"]) == ("zerotag:test", "zerotag:other")
    compared = [line for line in lines(running.log, "shadow") if line["model"] == "zerotag:test"]
    assert last["zerotag_shadow_agreement_count"][()] == len(compared)
    assert last["zerotag_shadow_agreement_sum"][()] == pytest.approx(sum(line["agreement"] for line in compared))


def test_a_challenger_of_the_registry_comes_and_takes_over(packaged: Path, tmp_path: Path) -> None:
    now = datetime.now(UTC).isoformat()
    one, three, broken = (
        Champion(**{**kept(tmp_path, name, packaged).__dict__, "time": now}) for name in ("one", "three", "broken")
    )
    (broken.folder(tmp_path) / "served" / "model.onnx").write_bytes(b"no network")
    promote(one, tmp_path)
    settings = {"workers": "1", "shadow": "challenger", "shadow_share": "1", "checkout": str(tmp_path)}
    with serving("registry", tmp_path, **settings) as running:

        def evidence(challenger: Champion) -> Evidence:
            answer = httpx.post(f"{running.url}/tag", files={"photo": ("a.jpg", encoded())}, timeout=60)
            assert (answer.status_code, answer.json()["model"]) == (200, "zerotag:one")
            return challenger_evidence(running.log, one, challenger, tmp_path)

        assert evidence(three) == Evidence(0, 0.0, 0.0, 0)  # there is no challenger yet
        challenge(broken, tmp_path)
        failed = until(lambda: found if (found := evidence(broken)).failed >= 2 else None)
        assert failed.photos == 0 and shadow_verdict(failed, 2, 0.0)[0] is False
        challenge(three, tmp_path)
        found = until(lambda: found if (found := evidence(three)).photos >= 2 else None)
        assert found.failed == 0 and 0 <= found.agreement <= 1 and found.difference > 0
        assert (running.log.parent / "output.txt").read_text().count("cannot answer") == 1
        promote(three, tmp_path)
        assert read_challenger(tmp_path) is None

        def model() -> str:
            answer = httpx.post(f"{running.url}/tag", files={"photo": ("a.jpg", encoded())}, timeout=60)
            return answer.json()["model"]

        until(lambda: model() == "zerotag:three")
        before = len(lines(running.log, "shadow"))
        time.sleep(1.1)  # the challenger is looked for once a second
        for _ in range(3):
            model()
        time.sleep(0.5)
        assert len(lines(running.log, "shadow")) <= before + 1
    challenge(one, tmp_path)
    drop_challenger(tmp_path)
    assert read_challenger(tmp_path) is None


def test_nothing_waits_for_a_challenger(packaged: Path, tmp_path: Path) -> None:
    """One that hangs: photos are handed over at once, and no more than a few are kept."""
    tagger, hang = Tagger(packaged), threading.Event()

    def find() -> Path:
        hang.wait(30)
        return packaged

    shadow = Shadow(tagger, find, 1.0, RequestLog(tmp_path, "zerotag:1"), 10_000)
    principal = tagger.embed(encoded(), "a.jpg")
    photo = Photo(encoded(), "a.jpg", Asked(None, "all", 10, None, False))
    shadow.offer(photo, principal, tagger.words())
    until(shadow._photos.empty)
    started = time.monotonic()
    for _ in range(100):
        shadow.offer(photo, principal, tagger.words())
    assert time.monotonic() - started < 2 and shadow._photos.qsize() <= 8
    hang.set()
    shadow.close()
    # It went on with the photo that it had, 160 x 120 pixels of at most 10,000, and left the others.
    (line,) = lines(tmp_path, "shadow")
    assert line["error"] == "PhotoError" and line["challenger"] == "zerotag:test"
    none = Shadow(tagger, lambda: packaged, 0.0, RequestLog(tmp_path, "zerotag:2"), 10_000)
    none.offer(photo, principal, tagger.words())
    assert none._photos.empty()
    none.close()


def test_a_challenger_is_judged_by_what_was_counted(tmp_path: Path) -> None:
    today = datetime.now(UTC).date()
    log = RequestLog(tmp_path, "zerotag:1")
    for agreement in (0.6, 0.8):
        log.shadowed("zerotag:2", agreement, 0.1, [], [])
    RequestLog(tmp_path / "another-pod", "zerotag:1").shadowed("zerotag:2", 1.0, 0.1, [], [])
    log.shadowed("zerotag:3", 0.0, 0.9, [], [])
    RequestLog(tmp_path, "zerotag:0").shadowed("zerotag:2", 0.0, 0.9, [], [])
    found = shadow_evidence(tmp_path, "zerotag:1", "zerotag:2", today)
    assert found == Evidence(3, pytest.approx(0.8), pytest.approx(0.1), 0)
    assert shadow_evidence(tmp_path, "zerotag:1", "zerotag:2", date(2999, 1, 1)).photos == 0
    assert shadow_verdict(found, 4, 0.5) == (None, "3 of 4 photos answered beside the champion")
    assert shadow_verdict(found, 3, 0.5)[0] is True
    passed, why = shadow_verdict(found, 3, 0.9)
    assert passed is False and "less than 90%" in why and "80% of the five best tags agree" in why
    log.shadow_failed("zerotag:2", MemoryError())
    passed, why = shadow_verdict(shadow_evidence(tmp_path, "zerotag:1", "zerotag:2", today), 3, 0.5)
    assert passed is False and "failed on more than 1%" in why


def test_drift_as_scipy_has_it(packaged: Path, tmp_path: Path) -> None:
    from scipy.stats import ks_2samp

    random = np.random.default_rng(0)
    for first, second in (
        (random.normal(size=50), random.normal(0.3, 1, 80)),
        (random.integers(0, 5, 60), random.integers(1, 6, 70)),
        (np.zeros(3), np.ones(2)),
    ):
        expected = ks_2samp(first, second).statistic
        assert distance(first.tolist(), second.tolist()) == pytest.approx(expected)
    assert training_profile(packaged) is None
    folder = tmp_path / "champions" / "one" / "served"
    folder.mkdir(parents=True)
    Profile({"a": 1.0}, [0.5], [0.1]).write(folder.parent / "profile.json")
    assert training_profile(folder) == Profile({"a": 1.0}, [0.5], [0.1])
    Profile({}, [], []).write(folder / "profile.json")
    assert training_profile(folder) == Profile({}, [], [])
    assert request_profile(tmp_path / "none", date(2020, 1, 1)) == Profile({}, [], [])


def test_what_is_refused_early_is_counted(server: Server) -> None:
    before = metrics(server.url).get("zerotag_refused_total", {})
    assert httpx.post(f"{server.url}/tag", content=bytes(50_000_000), timeout=60).status_code == 413
    after = metrics(server.url)["zerotag_refused_total"]
    key = ("too_large", "413")
    assert after[key] == before.get(key, 0) + 1
