"""The flows against a real Prefect server: what they run, what they survive, and when the champion changes."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import torch
from conftest import free_port
from docs.chromium import CHROMIUM, DRIVER, chromium
from prefect_project import BACKBONES, Prefect, commit, copy_project, prefect_server, small, trainings, until
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from zerotag.errors import ZerotagError

# A failing machine, for the tests: each start of a training takes one from the file, before it imports anything slow.
# And one that waits until so many trainings have begun, as starts may be further apart than a short training takes.
BROKEN = """
import pathlib, sys, time
_together, _until = pathlib.Path("work/together"), time.monotonic() + 120
if _together.is_file():
    pathlib.Path("work/begun-" + "-".join(sys.argv[1:])).touch()
    while len(list(pathlib.Path("work").glob("begun-*"))) < int(_together.read_text()) and time.monotonic() < _until:
        time.sleep(0.05)
_left = pathlib.Path(f"work/broken-{sys.argv[1]}")
if _left.is_file() and int(_left.read_text()):
    _left.write_text(str(int(_left.read_text()) - 1))
    raise SystemExit("the machine broke")
"""

# What the service logs of a champion and the challenger beside it.
SERVICE = """
from pathlib import Path
from service.record import RequestLog
for agreement in (0.5, 1.0):
    RequestLog(Path("work/requests"), "{0}").shadowed("{1}", agreement, 0.1, [], [])
"""


@pytest.fixture(scope="module")
def prefect(packaged: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prefect]:
    """A server with a home of its own, and a copy of the project."""
    folder = tmp_path_factory.mktemp("flows")
    project = folder / "project"
    copy_project(project, packaged)
    train = project / "stages" / "train.py"
    train.write_text(BROKEN + train.read_text())
    commit(project)
    with prefect_server(folder, project) as running:
        running.change(small)
        yield running


@contextmanager
def listening() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A web hook; what it hears."""
    heard: list[dict[str, Any]] = []

    class Hook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            heard.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *arguments: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Hook)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/hook", heard
    finally:
        server.shutdown()


# The tests go through one project's life, in this order.


def test_a_validation_that_fails_trains_nothing(prefect: Prefect) -> None:
    with listening() as (url, heard):
        prefect.change(lambda params: params["validate"].update(min_side=5000) or params["flows"].update(alert=url))
        run, output = prefect.run("train")
    prefect.change(lambda params: params["validate"].update(min_side=32) or params["flows"].update(alert=""))
    assert run["state_type"] == "FAILED", output
    assert set(prefect.tasks(run)) == {"data, words, split, validation"}
    assert not (prefect.project / "features").exists() and not (prefect.project / "models").exists()
    (told,) = heard
    assert told["flow"] == "train" and told["state"] == "Failed" and "validate" in told["text"]


def test_a_backbone_that_breaks_twice_and_one_that_always_does(prefect: Prefect) -> None:
    (prefect.project / "work" / "broken-test_efficientnet").write_text("2")
    (prefect.project / "work" / "broken-test_resnet").write_text("99")
    run, output = prefect.run("train")
    assert run["state_type"] == "FAILED", output
    assert "1 of 2 models failed: test_resnet sdl" in run["state"]["message"]
    tasks = prefect.tasks(run)
    assert (
        tasks["test_efficientnet sdl"]["state_type"] == "COMPLETED" and tasks["test_efficientnet sdl"]["run_count"] == 3
    )
    assert tasks["test_resnet sdl"]["state_type"] == "FAILED"
    assert "the machine broke" in tasks["test_resnet sdl"]["state"]["message"]
    artifacts = prefect.artifacts(run)
    assert "test_efficientnet sdl: ZSL mAP" in artifacts["summary"]["data"]
    assert "test_resnet sdl **failed**" in artifacts["summary"]["data"]
    assert (prefect.project / "evaluation" / "test_efficientnet" / "sdl" / "metrics.json").is_file()
    (prefect.project / "work" / "broken-test_resnet").write_text("0")


def test_the_whole_train_flow(prefect: Prefect) -> None:
    prefect.change(lambda params: params["flows"].update(runs_at_once=0))
    run, output = prefect.run("train")
    prefect.change(lambda params: params["flows"].update(runs_at_once=1))  # counting GPUs takes torch
    assert run["state_type"] == "COMPLETED", output
    assert run["name"].startswith("train 20") and "Running stage 'train@test_resnet-sdl'" in output
    assert "Running stage 'train@test_efficientnet-sdl'" not in output  # DVC has it from the run before
    artifacts = prefect.artifacts(run)
    assert {"figures", "summary", "report", "data-docs", "models"} <= set(artifacts)
    rows = json.loads(artifacts["figures"]["data"])
    assert [row["backbone"] for row in rows] == BACKBONES and float(rows[0]["GZSL map"]) > 0
    assert artifacts["models"]["data"] == 100
    tasks = prefect.tasks(run)
    assert {f"{backbone} sdl" for backbone in BACKBONES} <= set(tasks)
    assert set(tasks["test_efficientnet sdl"]["tags"]) == {"zerotag", "training"}
    assert (prefect.project / "report" / "index.html").is_file()
    limits = prefect.ask("v2/concurrency_limits/filter", {})
    (limit,) = [each for each in limits if each["name"].startswith("zerotag-training-")]
    assert limit["limit"] == 1  # no GPU here


@pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="needs Debian's chromium and chromium-driver")
def test_the_deployments_in_the_prefect_ui(prefect: Prefect, tmp_path: Path) -> None:
    finished = prefect.last("train")[0]
    ui = prefect.api.removesuffix("/api")
    serving = subprocess.Popen([sys.executable, "-m", "flows.deploy"], cwd=prefect.project, env=prefect.environment)
    try:
        until(lambda: len(prefect.ask("deployments/filter", {})) == 4, 60)
        # The scheduler plans the nightly runs.
        until(lambda: prefect.ask("flow_runs/filter", {"flow_runs": {"state": {"name": {"any_": ["Scheduled"]}}}}), 60)
        with chromium(tmp_path) as browser:

            def shows(page: str, *texts: str) -> None:
                browser.get(f"{ui}/{page}")
                body = (By.TAG_NAME, "body")
                wait = WebDriverWait(browser, 60, ignored_exceptions=[Exception])
                wait.until(lambda one: all(text in one.find_element(*body).text for text in texts), str(texts))

            shows(
                "deployments",
                "4 Deployments",
                "on-demand",
                "nightly",
                "train",
                "evaluate",
                "photos",
                "retrain",
                "Ready",
            )
            nightly = httpx.get(f"{prefect.api}/deployments/name/retrain/nightly", timeout=30).json()
            shows(f"deployments/deployment/{nightly['id']}", "At 02:00 AM every day", "flows.retrain.retrain")
            evaluate = httpx.get(f"{prefect.api}/deployments/name/evaluate/on-demand", timeout=30).json()
            shows(f"deployments/deployment/{evaluate['id']}/run", "model", "source", "changes")
            shows("runs", finished["name"], "Completed")
            shows(f"runs/flow-run/{finished['id']}", finished["name"], "Artifacts")
            browser.find_element(By.ID, "artifacts").click()
            WebDriverWait(browser, 60).until(
                lambda one: all(name in one.find_element(By.TAG_NAME, "body").text for name in ("figures", "summary"))
            )
    finally:
        serving.terminate()
        serving.wait(60)


def test_a_challenger_that_fails_behaviour_tests_is_not_promoted(prefect: Prefect) -> None:
    prefect.change(lambda params: params["behaviour"].update(minimal=1.1))
    prefect.change(lambda params: params.update(backbones=["test_efficientnet"]))
    run, output = prefect.run("retrain")
    assert run["state_name"] == "Kept" and prefect.champion() is None, output
    assert "fails behaviour tests: minimal.photos is" in run["state"]["message"]
    assert "| minimal.photos |" in prefect.artifacts(run)["behaviour"]["data"]
    assert "FAILED" in (prefect.project / "behaviour" / "index.html").read_text()
    prefect.change(lambda params: params["behaviour"].update(minimal=0.0))


def test_retrain_the_first_champion_then_no_reason(prefect: Prefect) -> None:
    last, output = prefect.run("retrain", "retrain(); retrain()")
    run = prefect.last("retrain")[1]
    assert run["state_name"] == "Promoted", output
    champion = prefect.champion()
    assert champion and champion["git"] and "no champion yet" in champion["reason"]
    folder = prefect.project / "champions" / champion["id"]
    assert (folder / "model" / "model.pt").is_file() and (folder / "served" / "model.onnx").is_file()
    assert Path(f"{folder}.dvc").is_file()
    tags = subprocess.run(["git", "tag"], cwd=prefect.project, check=True, capture_output=True, text=True).stdout
    assert tags.split() == ["zerotag#prod#1", "zerotag@v1.0.0"]
    assert last["state_name"] == "Skipped" and "no reason to retrain" in last["state"]["message"], output
    assert set(prefect.tasks(last)) == {"reasons"}


def test_retrain_promotes_a_better_challenger_and_rolls_back(prefect: Prefect) -> None:
    before = prefect.champion()
    prefect.change(lambda params: params["train"]["linear_probe"].update(epochs=8, learning_rate=1e-3))
    # It has to answer beside the champion first.
    prefect.change(lambda params: params["retrain"].update(min_shadow_photos=2, min_shadow_agreement=0.5))
    run, output = prefect.run("retrain")
    assert run["state_name"] == "Shadowing" and prefect.champion() == before, output
    challenger = json.loads((prefect.project / "challenger.json").read_text())
    versions = [f"zerotag:{each['id'].rpartition('-')[2]}" for each in (before or {}, challenger)]
    (prefect.project / "work" / "service.py").write_text(SERVICE.format(*versions))
    _, output = prefect.run("retrain", "retrain(); exec(open('work/service.py').read()); retrain()")
    run, waiting = prefect.last("retrain")[:2]
    assert waiting["state_name"] == "Skipped" and "0 of 2 photos answered beside the champion" in output
    assert run["state_name"] == "Promoted" and "75% of the five best tags agree" in run["state"]["message"], output
    assert set(prefect.tasks(run)) == {f"shadow of {(prefect.champion() or {})['id']}"}
    prefect.change(lambda params: params["retrain"].update(min_shadow_photos=0))
    after = prefect.champion()
    assert before and after and after["previous"] == before["id"]
    assert after["metrics"]["gzsl"]["map"] > before["metrics"]["gzsl"]["map"]
    assert "changed: " in after["reason"] and "params" in after["reason"]
    zerotag = [sys.executable, "-c", "from zerotag.cli import app; app()"]
    environment = prefect.environment
    subprocess.run([*zerotag, "champion", "rollback"], cwd=prefect.project, env=environment, check=True)
    assert (prefect.champion() or {})["id"] == before["id"]
    # Back to the better one.
    record = prefect.project / "champions" / after["id"] / "record.json"
    (prefect.project / "champion.json").write_text(record.read_text())


def test_changed_data_are_a_reason_but_a_worse_challenger_does_not_take_over(prefect: Prefect) -> None:
    before = prefect.champion()
    served = prefect.project / "served" / "tagger.json"
    packaged = served.read_bytes()
    prefect.change(lambda params: params["sources"]["scenes"].update(seed=5))
    prefect.change(lambda params: params["train"]["linear_probe"].update(learning_rate=1e-8))
    prefect.change(lambda params: params["retrain"].update(version_data=True))
    (prefect.project / "data").mkdir(exist_ok=True)
    (prefect.project / "data" / "a.jpg.xmp").write_text("a new keyword")
    run, output = prefect.run("retrain")
    prefect.change(lambda params: params["retrain"].update(version_data=False))
    [reason] = [line for line in output.splitlines() if "reason: changed: download: changed deps: " in line]
    assert "sources.scenes modified" in reason and "data.version modified" in reason
    assert run["state_name"] == "Kept" and "the champion stays" in run["state"]["message"], output
    assert prefect.champion() == before and served.read_bytes() == packaged
    assert "the champion stays" in prefect.artifacts(run)["retrain"]["data"]


def test_evaluate_the_champion_and_other_models(prefect: Prefect) -> None:
    """In one process, since each start of Python and Prefect takes seconds."""
    other = "evaluate_model('models/test_efficientnet/sdl', changes=['split.kind=random', 'split.unseen=5'])"
    _, output = prefect.run("evaluate", f"evaluate_model(); {other}; evaluate_model('models/nothing/sdl')")
    nothing, changed, run = prefect.last("evaluate")
    assert (run["state_type"], changed["state_type"]) == ("COMPLETED", "COMPLETED"), output
    record, second = (
        json.loads(file.read_text()) for file in sorted((prefect.project / "work" / "evaluations").glob("*.json"))
    )
    assert record["model"] == "champion" and record["metrics"]["gzsl"]["map"] > 0
    assert "evaluation" in prefect.artifacts(run)
    assert second["model"] == "models/test_efficientnet/sdl" and second["source"] == "scenes"
    assert nothing["state_type"] == "FAILED" and "not a trained model" in nothing["state"]["message"]


def on_a_cluster(prefect: Prefect, runner: str, methods: list[str], epochs: int) -> None:
    """Models that train at once on the workers of a cluster."""

    def change(params: dict[str, Any]) -> None:
        params["flows"].update(runner=runner, runs_at_once=2)
        params["methods"] = methods
        params["train"]["linear_probe"].update(epochs=epochs, learning_rate=1e-4)

    prefect.change(change)


def lose(flow: subprocess.Popen[str], project: Path, model: str, node: str) -> tuple[int, int]:
    """Kill the worker that trains a model, by a part of its command line, in the middle; the epochs done till then."""
    checkpoint = project / "work" / "checkpoints" / f"{model.replace(' ', '-')}.pt"
    until(lambda: checkpoint.is_file() or flow.poll() is not None, 400)
    assert flow.poll() is None, flow.communicate()[0]
    stage = next(pid for pid, trained in trainings(project).items() if trained == model)
    worker = next(each for each in psutil.Process(stage).parents() if node in " ".join(each.cmdline()))
    reached = len(torch.load(checkpoint, weights_only=True)["curve"])
    worker.kill()
    until(lambda: stage not in trainings(project), 20)
    return worker.pid, reached


def epoch_after_the_loss(output: str, model: str) -> int:
    """The first epoch that was shown when a training began again."""
    _, _, again = output.rpartition(f"Running stage 'train@{model.replace(' ', '-')}'")
    return int(again.split(f"'{model}' - epoch ")[1].split("/")[0])


def test_two_dask_workers_one_of_which_is_killed(prefect: Prefect, tmp_path: Path) -> None:
    scheduler, models = f"tcp://127.0.0.1:{free_port()}", ["test_efficientnet sdl", "test_efficientnet fast0tag"]
    on_a_cluster(prefect, f"dask:{scheduler}", ["sdl", "fast0tag"], 200)
    # A node has the shared checkout on its path; what its current folder is does not matter.
    path = os.pathsep.join([str(prefect.project), str(prefect.project / "src")])
    logs = {}
    together = prefect.project / "work" / "together"
    together.write_text(str(len(models)))
    with ExitStack() as stack:
        stack.callback(together.unlink)

        def dask(role: str, *arguments: str) -> None:
            log = tmp_path / f"{role}{len(logs)}.txt"
            process = subprocess.Popen(
                [sys.executable, "-m", "dask", role, *arguments, "--no-dashboard"], cwd=tmp_path,
                env={**prefect.environment, "PYTHONPATH": path}, stdout=stack.enter_context(log.open("w")),
                stderr=subprocess.STDOUT,
            )  # fmt: skip
            stack.callback(process.wait)
            stack.callback(process.kill)
            logs[process.pid] = log

        dask("scheduler", "--host", "127.0.0.1", "--port", scheduler.rpartition(":")[2])
        for _ in range(2):
            dask("worker", scheduler, "--nthreads", "1", "--no-nanny")
        flow = prefect.start("train")
        stack.callback(flow.kill)
        until(lambda: set(trainings(prefect.project).values()) == set(models) or flow.poll() is not None, 400)
        lost, reached = lose(flow, prefect.project, models[0], "worker")
        output, _ = flow.communicate(timeout=500)
        (other,) = (log.read_text() for pid, log in logs.items() if pid != lost and "worker" in log.name)
    run = prefect.last("train")[0]
    assert run["state_type"] == "COMPLETED", output + other
    tasks = prefect.tasks(run)
    assert {tasks[model]["state_type"] for model in models} == {"COMPLETED"}
    assert epoch_after_the_loss(other, models[0]) > reached


def test_a_ray_worker_is_killed(prefect: Prefect) -> None:
    model = "test_efficientnet sdl"
    on_a_cluster(prefect, "ray", ["sdl"], 201)
    flow = prefect.start("train")
    try:
        _, reached = lose(flow, prefect.project, model, "ray::")
        output, _ = flow.communicate(timeout=500)
    finally:
        flow.kill()
    run = prefect.last("train")[0]
    assert run["state_type"] == "COMPLETED", output
    assert prefect.tasks(run)[model]["state_type"] == "COMPLETED"
    assert output.count("Running stage 'train@") == 2 and epoch_after_the_loss(output, model) > reached, output


def test_killed_in_the_middle_the_next_one_goes_on(prefect: Prefect) -> None:
    before = prefect.champion()
    # Places for two: that of a killed flow is free only when its lease ends, after a minute.
    prefect.change(lambda params: params["flows"].update(runner="", runs_at_once=2))
    prefect.change(lambda params: params["train"]["linear_probe"].update(epochs=3000, learning_rate=1e-4))
    first = prefect.start("retrain")
    checkpoint = prefect.project / "work" / "checkpoints" / "test_efficientnet-sdl.pt"
    assert not checkpoint.exists()  # finished trainings left none
    until(checkpoint.is_file, 120)
    # Meanwhile a second one ends with a clear message.
    second, _ = prefect.start("retrain").communicate(timeout=120)
    assert "the flow retrain (process" in second and "retry when it has finished" in second
    os.kill(first.pid, signal.SIGKILL)
    first.communicate(timeout=30)
    until(lambda: not trainings(prefect.project), 20)
    reached = len(torch.load(checkpoint, weights_only=False)["curve"])
    assert prefect.champion() == before and reached >= 1
    again = prefect.start("retrain")
    assert again.stdout
    lines: list[str] = []
    for line in again.stdout:
        lines.append(line)
        if "epoch " in line and "%|" in line:
            break
    os.kill(again.pid, signal.SIGKILL)
    again.wait(30)
    epoch = int(lines[-1].split("epoch ")[1].split("/")[0])
    assert epoch > reached, "".join(lines)


@pytest.mark.parametrize(
    ("runner", "part"),
    [
        ("spark", "flows.runner = 'spark' is unknown; use dask"),
        ("dask:tcp://127.0.0.1:9", "no cluster answers at tcp://127.0.0.1:9"),
        ("ray://127.0.0.1:9", "no cluster answers at ray://127.0.0.1:9"),
    ],
)
def test_a_runner_that_is_not_there_is_named(
    runner: str, part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path))
    from flows.runners import task_runner

    with pytest.raises(ZerotagError) as caught, task_runner(runner, 1):
        pass
    assert part in str(caught.value)
