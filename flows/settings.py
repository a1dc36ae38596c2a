"""Settings of the flows: section `flows` of params.yaml. No stage depends on them."""

from dataclasses import dataclass

from zerotag.settings import from_params, read_params


@dataclass(frozen=True)
class FlowSettings:
    """Attributes:
    runs_at_once: models trained at once; 0 for one a GPU, and one on a machine without.
    retries: of a model whose training or evaluation fails.
    retry_seconds: before the first retry; doubled before each further one.
    alert: who hears of a failure: a URL (JSON is posted), or a Prefect notification block TYPE/NAME; empty for nobody.
    cron: when the retraining looks for a reason.
    """

    runs_at_once: int = 0
    retries: int = 2
    retry_seconds: float = 30.0
    alert: str = ""
    cron: str = "0 2 * * *"


def read_flow_settings() -> FlowSettings:
    """Read them.

    Raises:
        ZerotagError: an unknown name, or a value of the wrong type.
    """
    return from_params(FlowSettings, read_params().get("flows"), "flows")
