"""Update and validate the data, then train and evaluate every backbone with every method."""

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from prefect import flow, get_client, task
from prefect.artifacts import (
    create_link_artifact,
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.concurrency.sync import concurrency
from prefect.futures import as_completed
from prefect.states import Completed, Failed, State

from flows.alerts import alert
from flows.pipeline import LOCK, repro, stamped
from flows.runners import task_runner
from flows.settings import read_flow_settings
from zerotag.evaluation.metrics import figure_text
from zerotag.files import hold
from zerotag.registry.choice import best_model
from zerotag.settings import read_params
from zerotag.training.devices import count_gpus, one_gpu, runs_at_once

# One concurrency limit per machine, since all its checkouts share the GPUs.
LIMIT = f"zerotag-training-{socket.gethostname()}"
# Without the stages before, which are up to date: to look at them again, DVC would want their outputs for itself, which
# other trainings read.
ALONE = ("--single-item",)


@task(task_run_name="data, words, split, validation", tags=["zerotag", "validation"])
def validate() -> None:
    """Run the stages up to validation. A failed critical expectation fails the flow before training."""
    try:
        repro("validate")
    finally:
        page = Path("validation/docs/index.html")
        if page.is_file():
            create_link_artifact(
                page.resolve().as_uri(), "Data Docs", key="data-docs", description="Great Expectations"
            )


def _at_once() -> int:
    return read_flow_settings().runs_at_once or runs_at_once(read_params()["train"]["launcher"])


@dataclass(frozen=True)
class Place:
    """Where models train: the checkout, how many at once, and Prefect's concurrency limit that counts them."""

    checkout: Path
    at_once: int
    limit: str

    @contextmanager
    def turn(self, name: str) -> Iterator[dict[str, str]]:
        """Wait until it is our turn; yields environment variables for the stages.

        Args:
            name: of what runs. A node may still be at it for a flow that was killed.
        """
        work = self.checkout / "work"
        gpus = count_gpus() if self.at_once > 1 else 0
        with (
            hold(work / f"flow-{name}.lock", name, wait=True),
            # A short lease, so that a killed run's slot is released within about a minute.
            concurrency(self.limit, lease_duration=60, strict=True),
            # The machines of a cluster share the folder, but not the GPUs.
            one_gpu(work / socket.gethostname(), gpus) as environment,
        ):
            yield environment


@task(task_run_name="features {backbone}", tags=["zerotag", "training"])
def features(backbone: str, place: Place) -> None:
    """Run the features stage first, since all methods share it."""
    with place.turn(f"features-{backbone}") as environment:
        repro(f"features@{backbone}", options=ALONE, folder=place.checkout, environment=environment)


@task(task_run_name="{backbone} {method}", tags=["zerotag", "training"])
def train_and_evaluate(backbone: str, method: str, force: bool, place: Place) -> dict[str, Any]:
    """Run the train and evaluate stages of one model. A retry resumes from the last checkpoint."""
    with place.turn(f"{backbone}-{method}") as environment:
        run = partial(repro, folder=place.checkout, environment=environment)
        run(f"train@{backbone}-{method}", options=("--force", *ALONE) if force else ALONE)
        run(f"evaluate@{backbone}-{method}", options=ALONE)
    return json.loads((place.checkout / f"evaluation/{backbone}/{method}/metrics.json").read_text(encoding="utf-8"))


def train_models(force: bool) -> State:
    """Submit the training tasks in the calling flow. A model that fails does not affect the others.

    Args:
        force: train even if nothing changed.
    """
    params, settings = read_params(), read_flow_settings()
    place = Place(Path.cwd(), _at_once(), LIMIT)
    with get_client(sync_client=True) as client:
        client.upsert_global_concurrency_limit_by_name(place.limit, place.at_once)
    retrying: dict[str, Any] = {
        "retries": settings.retries,
        "retry_delay_seconds": [settings.retry_seconds * 2**number for number in range(settings.retries)],
    }
    validate()
    progress: Any = create_progress_artifact(0.0, key="models", description="models trained and evaluated")
    done: dict[tuple[str, str], dict[str, Any]] = {}
    with task_runner(settings.runner, place.at_once) as runner:
        first, model = features.with_options(**retrying), train_and_evaluate.with_options(**retrying)
        prepared = {each: runner.submit(first, {"backbone": each, "place": place}) for each in params["backbones"]}
        runs = {
            runner.submit(
                model,
                {"backbone": backbone, "method": method, "force": force, "place": place},
                wait_for=[prepared[backbone]],
            ): (backbone, method)
            for backbone in params["backbones"]
            for method in params["methods"]
        }
        for number, run in enumerate(as_completed(list(runs)), start=1):
            run.wait()
            if run.state.is_completed():
                done[runs[run]] = run.result()
            update_progress_artifact(progress, 100 * number / len(runs))
    failed = {model: run.state for run, model in runs.items() if model not in done}
    if not failed:
        repro("report")
        create_link_artifact(Path("report/index.html").resolve().as_uri(), "Report", key="report")
    _create_artifacts(done, failed, params)
    if failed:
        names = ", ".join(" ".join(model) for model in failed)
        return Failed(message=f"{len(failed)} of {len(runs)} models failed: {names}; the others completed")
    return Completed(message=f"{len(done)} models trained and evaluated")


def _create_artifacts(
    done: dict[tuple[str, str], dict[str, Any]], failed: dict[tuple[str, str], State], params: dict[str, Any]
) -> None:
    """Create artifacts: the table of metrics and the summary."""
    columns = [(task, name) for task in ("zsl", "gzsl") for name in ("f1@3", "f1@5", "map")]
    rows: list[dict[str, Any]] = [
        {
            "backbone": backbone,
            "method": method,
            **{f"{task.upper()} {name}": figure_text(metrics[task][name], ".2f") for task, name in columns},
        }
        for (backbone, method), metrics in sorted(done.items())
    ]
    create_table_artifact(rows, key="figures", description="Percent, on the test photos of this run")
    lines = [f"# {params['source']}: {len(done)} of {len(done) + len(failed)} models", ""]
    if done and not failed:
        best = best_model(Path("evaluation"), params["backbones"], params["methods"], params["best_by"])
        lines.append(f"Best by {params['best_by']}: **{' '.join(best)}**.")
    lines += [
        f"- {row['backbone']} {row['method']}: ZSL mAP {row['ZSL map']}, GZSL mAP {row['GZSL map']}" for row in rows
    ]
    lines += [f"- {' '.join(model)} **failed**: {(state.message or '')[:500]}" for model, state in failed.items()]
    create_markdown_artifact("\n".join(lines), key="summary")


@flow(name="train", flow_run_name=stamped("train"), on_failure=[alert], on_crashed=[alert])
def train(force: bool = False) -> State:
    """Train and evaluate every backbone with every method, on updated and validated data.

    Args:
        force: train even if nothing changed.
    """
    with hold(LOCK, "the flow train"):
        return train_models(force)


if __name__ == "__main__":
    train()
