"""Evaluate any trained model on any configured source, after data validation."""

import json
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from prefect import flow, task
from prefect.artifacts import create_link_artifact, create_table_artifact
from prefect.states import Completed, State

from flows.alerts import alert
from flows.pipeline import LOCK, fetch_model, repro, stamped, workspace
from zerotag.data.dataset import Dataset
from zerotag.errors import ZerotagError
from zerotag.evaluation.metrics import figure_text
from zerotag.files import hold, write_aside
from zerotag.registry.champion import read_champion
from zerotag.settings import change_params, read_params
from zerotag.words.vocabulary import Vocabulary

if TYPE_CHECKING:
    from zerotag.training.model import Model

RECORDS = Path("work/evaluations")


@task(task_run_name="model {model}", tags=["zerotag"])
def find_model(model: str) -> "Model":
    """Load a model.

    Args:
        model: `champion`, the path of a model folder, or REVISION:PATH.

    Raises:
        ZerotagError: the model does not exist.
    """
    from zerotag.training.model import load_model  # slow to import, and the server that schedules runs needs none of it

    if model == "champion":
        champion = read_champion()
        if champion is None:
            raise ZerotagError("There is no champion yet. Run the retrain flow, or give models/BACKBONE/METHOD.")
        return load_model(champion.folder() / "model")
    revision, colon, path = model.partition(":")
    if not colon:
        return load_model(Path(model))
    with tempfile.TemporaryDirectory() as folder:
        fetch_model(path, revision, Path(folder) / "model")
        return load_model(Path(folder) / "model")


@task(task_run_name="validate {source}", tags=["zerotag", "validation"])
def prepare(source: str, changes: list[str]) -> Path:
    """Update and validate a source, in this checkout or, with other parameters, in a separate workspace."""
    params = read_params()
    wanted = change_params(params, [f"source={source}", *changes] if source else changes)
    folder = Path() if wanted == params else workspace(Path("work/evaluate") / wanted["source"], wanted)
    try:
        repro("validate", folder=folder)
    finally:
        page = folder / "validation/docs/index.html"
        if page.is_file():
            create_link_artifact(page.resolve().as_uri(), "Data Docs", key="data-docs-evaluate")
    return folder


@task(task_run_name="figures", tags=["zerotag"])
def compute_metrics(model: "Model", folder: Path) -> dict[str, Any]:
    """Compute all metrics on the source's test photos; seen tags are those the model was trained on."""
    import torch

    from zerotag.evaluation.evaluate import evaluate, principal_vectors

    params = read_params(folder / "params.yaml")
    dataset = Dataset.read(folder / "prepared")
    tags = Vocabulary.read(folder / "words", folder / "split.csv")
    vocabulary = tags.seen_by(model.vocabulary)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    # No worker processes: Prefect runs threads in this process, so it must not be forked.
    principal = principal_vectors(model, dataset, dataset.test, device, params["features"]["batch"], None)
    labels = dataset.labels[dataset.test][:, dataset.columns(vocabulary.tags)].tocsr()
    return evaluate(principal, labels, vocabulary, [], dataset.test, 0).metrics


@flow(name="evaluate", flow_run_name=stamped("evaluate"), on_failure=[alert], on_crashed=[alert])
def evaluate_model(
    model: str = "champion",
    source: Literal["", "scenes", "csv", "folder", "coco", "nus-wide"] = "",
    changes: list[str] | None = None,
) -> State:
    """Evaluate a trained model. The metrics are saved to work/evaluations/ and shown as an artifact.

    Args:
        model: `champion`, a model folder (models/BACKBONE/METHOD), or REVISION:PATH of a model tracked by DVC.
        source: source of the test photos; empty for the one in params.yaml.
        changes: parameter overrides as NAME=VALUE, for example split.kind=random.
    """
    with hold(LOCK, "the flow evaluate"):
        folder = prepare(source, changes or [])
        chosen = find_model(model)
        metrics = compute_metrics(chosen, folder)
    now = datetime.now(UTC)
    record = {
        "time": now.isoformat(timespec="seconds"),
        "model": model,
        "trained": {key: chosen.info[key] for key in ("backbone", "method", "date")},
        "source": read_params(folder / "params.yaml")["source"],
        "data": Dataset.read(folder / "prepared").digest,
        "metrics": metrics,
    }
    with write_aside(RECORDS / f"{now:%Y%m%dT%H%M%S}.json") as draft:
        draft.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    rows: list[dict[str, Any]] = [{"task": task, **metrics[task]} for task in ("zsl", "gzsl", "seen")]
    create_table_artifact(rows, key="evaluation", description=f"{model} on {record['source']}, percent")
    gzsl, zsl = (figure_text(metrics[task]["map"], ".2f") for task in ("gzsl", "zsl"))
    return Completed(message=f"GZSL mAP {gzsl}, ZSL mAP {zsl}")


if __name__ == "__main__":
    evaluate_model()
