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
    margin: points of GZSL mAP by which a challenger must be better than the champion.
    zsl_tolerance: points of ZSL mAP that it may lose.
    bootstrap: resamples of the comparison.
    max_age_days: a last training longer ago than this is a reason.
    max_tag_drift: total variation of tag frequencies beyond this is a reason, 0 to 1.
    max_photo_drift: Kolmogorov-Smirnov distance of brightness or contrast beyond this is a reason, 0 to 1.
    drift_rest_days: drift is no reason for this long after a training, which will not have ended it.
    requests: the service's request log.
    """

    runs_at_once: int = 0
    retries: int = 2
    retry_seconds: float = 30.0
    alert: str = ""
    cron: str = "0 2 * * *"
    margin: float = 0.5
    zsl_tolerance: float = 0.0
    bootstrap: int = 200
    max_age_days: float = 30.0
    max_tag_drift: float = 0.2
    max_photo_drift: float = 0.2
    drift_rest_days: float = 7.0
    requests: str = "work/requests"


def read_flow_settings() -> FlowSettings:
    """Read them.

    Raises:
        ZerotagError: an unknown name, or a value of the wrong type.
    """
    return from_params(FlowSettings, read_params().get("flows"), "flows")
