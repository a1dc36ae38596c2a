"""Settings of the flows: section `flows` of params.yaml. No stage depends on them."""

from dataclasses import dataclass

from zerotag.settings import from_params, read_params


@dataclass(frozen=True)
class FlowSettings:
    """Attributes:
    runs_at_once: models trained concurrently; 0 for one per GPU, or one without a GPU.
    retries: retries of a model whose training or evaluation fails.
    retry_seconds: delay before the first retry; doubled for each further one.
    runner: where models train: empty for threads of the flow's process; `dask:ADDRESS` or `ray://HOST:PORT` for a
        cluster whose nodes share the checkout; `dask` or `ray` for one that is started for the flow on this machine.
    alert: notification target for failures: a URL that receives JSON, or a Prefect notification block TYPE/NAME;
        empty for none.
    """

    runs_at_once: int = 0
    retries: int = 2
    retry_seconds: float = 30.0
    runner: str = ""
    alert: str = ""


def read_flow_settings() -> FlowSettings:
    """Read the settings.

    Raises:
        ZerotagError: an unknown name, or a value of the wrong type.
    """
    return from_params(FlowSettings, read_params().get("flows"), "flows")
