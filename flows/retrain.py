"""Check whether to retrain, train challengers, and promote the best one if it beats the champion and behaves.

If it has to answer beside the champion first, it is promoted by a later run, which reads what the service has counted.
"""

import json
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefect import flow, task
from prefect.artifacts import create_markdown_artifact
from prefect.logging import get_run_logger
from prefect.states import Completed, Failed, State

from flows.alerts import alert
from flows.pipeline import LOCK, add, changes, pull, push, repro, stamped
from flows.train import train_models
from zerotag.data.dataset import Dataset
from zerotag.files import hold
from zerotag.registry.behaviour import failed_behaviour, table
from zerotag.registry.champion import (
    FOLDER,
    Champion,
    challenge,
    drop_challenger,
    follow,
    keep,
    promote,
    read_challenger,
    read_champion,
)
from zerotag.registry.choice import best_model
from zerotag.registry.drift import profile
from zerotag.registry.reasons import RetrainSettings, age_or_drift
from zerotag.registry.releases import push as push_tags
from zerotag.registry.shadow import challenger_evidence, shadow_verdict
from zerotag.serving.package import git_revision
from zerotag.settings import from_params, read_params

if TYPE_CHECKING:
    from zerotag.evaluation.comparison import Comparison


@task(task_run_name="reasons", tags=["zerotag"])
def find_reasons(champion: Champion | None, settings: RetrainSettings) -> tuple[list[str], bool]:
    """Find reasons to retrain, and whether to force training because DVC finds no change."""
    changed = [f"changed: {what}" for what in changes(_evaluations())]
    if champion is None:
        return ["there is no champion yet", *changed], False
    if changed:
        return changed, False
    dates = [json.loads(file.read_text())["date"] for file in Path("models").glob("*/*/model.json")]
    trained = max(map(datetime.fromisoformat, dates))
    return age_or_drift(trained, champion.folder(), Dataset.read(Path("prepared")), settings), True


def _evaluations() -> list[str]:
    params = read_params()
    return [f"evaluate@{backbone}-{method}" for backbone in params["backbones"] for method in params["methods"]]


@task(task_run_name="champion of {remote}", tags=["zerotag"])
def follow_champion(remote: str) -> None:
    """Take over the champion that another checkout promoted, with the outputs that it was made of."""
    if name := follow(remote):
        pull(_evaluations(), FOLDER / name)
        get_run_logger().info("champion %s was promoted in another checkout", name)


@task(task_run_name="champion to {remote}", tags=["zerotag"])
def share_champion(remote: str) -> None:
    """Push the champion: first the files, so that no other checkout sees a tag without them."""
    push()
    push_tags(remote)


@task(task_run_name="champion against {backbone} {method}", tags=["zerotag"])
def compare_with_champion(champion: Champion, backbone: str, method: str, settings: RetrainSettings) -> "Comparison":
    """Compare a challenger with the champion on the same test photos."""
    # Slow to import, and most nights there is nothing to compare.
    from zerotag.evaluation.comparison import compare
    from zerotag.training.model import load_model

    params = read_params()
    return compare(
        load_model(champion.folder() / "model"),
        load_model(Path(f"models/{backbone}/{method}")),
        Dataset.read(Path("prepared")),
        params["features"]["batch"],
        settings.bootstrap,
        params["seed"],
    )


@task(task_run_name="behaviour of {backbone} {method}", tags=["zerotag"])
def check_challenger(backbone: str, method: str) -> list[str]:
    """Package the model and test its behaviour; what it fails."""
    repro("behaviour")
    create_markdown_artifact(f"# {backbone} {method}\n\n{table(Path('behaviour'))}", key="behaviour")
    return failed_behaviour(Path("behaviour"), Path("served"))


@task(task_run_name="shadow of {challenger.id}", tags=["zerotag"])
def judge_challenger(champion: Champion, challenger: Champion, settings: RetrainSettings) -> tuple[bool | None, str]:
    """Whether a model that answers beside the champion passes, or None to wait; and why."""
    if challenger.previous != champion.id:
        return False, f"it was compared with {challenger.previous}, which is the champion no more"
    evidence = challenger_evidence(Path(settings.requests), champion, challenger)
    return shadow_verdict(evidence, settings.min_shadow_photos, settings.min_shadow_agreement)


@task(task_run_name="promote {backbone} {method}", tags=["zerotag"])
def promote_challenger(backbone: str, method: str, reason: str, shadow: bool) -> Champion:
    """Version the packaged model with DVC, and make it the champion. The last step is an atomic rename.

    Args:
        backbone: of the model.
        method: likewise.
        reason: why it is promoted.
        shadow: have it answer beside the champion instead.
    """
    metrics = json.loads(Path(f"evaluation/{backbone}/{method}/metrics.json").read_text(encoding="utf-8"))
    trained_on = profile(Dataset.read(Path("prepared")))
    model, served, behaviour = Path(f"models/{backbone}/{method}"), Path("served"), Path("behaviour")
    record = keep(model, served, behaviour, trained_on, metrics, git_revision(), reason)
    add(record.folder())
    (challenge if shadow else promote)(record)
    return record


@flow(name="retrain", flow_run_name=stamped("retrain"), on_failure=[alert], on_crashed=[alert])
def retrain(force: bool = False) -> State:
    """Retrain if there is a reason; promote the best challenger if it beats the champion and passes behaviour tests.

    Args:
        force: retrain even without a reason.
    """
    with hold(LOCK, "the flow retrain"):
        return _retrain(force)


def _retrain(force: bool) -> State:
    settings = from_params(RetrainSettings, read_params().get("retrain"), "retrain")
    if settings.version_data:
        add(Path("data"))
    if settings.git_remote:
        follow_champion(settings.git_remote)
    champion, challenger = read_champion(), read_challenger()
    if champion and challenger and (state := _settle(champion, challenger, settings)):
        return state
    reasons, again = find_reasons(champion, settings)
    if force:
        reasons, again = ["forced", *reasons], True
    if not reasons:
        why = "no reason to retrain: data, parameters and code are unchanged, the model is recent, no drift detected"
        get_run_logger().info(why)
        return Completed(name="Skipped", message=why)
    for reason in reasons:
        get_run_logger().info("reason: %s", reason)
    trained = train_models(force=again)
    if not trained.is_completed():
        return Failed(message=f"the champion stays: {trained.message}")
    params = read_params()
    backbone, method = best_model(Path("evaluation"), params["backbones"], params["methods"], params["best_by"])
    better, why = True, "the first champion"
    if champion is not None:
        comparison = compare_with_champion(champion, backbone, method, settings)
        better, why = comparison.verdict(settings.margin, settings.zsl_tolerance)
    if better and (failed := check_challenger(backbone, method)):
        better, why = False, f"{why}, but it fails behaviour tests: {'; '.join(failed)}"
    shadow = bool(champion and settings.min_shadow_photos)
    promoted = f"{backbone} {method} answers beside the champion" if shadow else f"{backbone} {method} is promoted"
    outcome = promoted if better else "the champion stays"
    if better:
        promote_challenger(backbone, method, f"{'; '.join(reasons)}. {why}", shadow)
        if settings.git_remote:
            share_champion(settings.git_remote)
    lines: list[Any] = [f"# {outcome}", "", f"{backbone} {method}: {why}.", "", *(f"- {reason}" for reason in reasons)]
    create_markdown_artifact("\n".join(lines), key="retrain")
    name = ("Shadowing" if shadow else "Promoted") if better else "Kept"
    return Completed(name=name, message=f"{outcome}: {why}")


def _settle(champion: Champion, challenger: Champion, settings: RetrainSettings) -> State | None:
    """Promote or drop the model that answers beside the champion; None while it goes on."""
    passed, why = judge_challenger(champion, challenger, settings)
    if passed is None:
        get_run_logger().info("%s waits for promotion: %s", challenger.id, why)
        return None
    if passed:
        promote(challenger)
        if settings.git_remote:
            share_champion(settings.git_remote)
    else:
        drop_challenger()
    outcome = f"{challenger.id} is promoted" if passed else f"{challenger.id} is dropped, and the champion stays"
    create_markdown_artifact(f"# {outcome}\n\n{challenger.reason}\n\n{why}.", key="retrain")
    return Completed(name="Promoted" if passed else "Kept", message=f"{outcome}: {why}")


if __name__ == "__main__":
    retrain()
