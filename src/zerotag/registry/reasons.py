"""Reasons to train again although data, parameters and code are unchanged: the model's age, and drift."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from zerotag.data.dataset import Dataset
from zerotag.registry.drift import Profile, drift_reasons, profile, request_profile


@dataclass(frozen=True)
class RetrainSettings:
    """Attributes:
    margin: points of GZSL mAP by which a challenger must be better than the champion.
    zsl_tolerance: points of ZSL mAP that it may lose.
    bootstrap: resamples of the comparison.
    max_age_days: a last training longer ago than this is a reason.
    max_tag_drift: total variation of tag frequencies beyond this is a reason, 0 to 1.
    max_photo_drift: Kolmogorov-Smirnov distance of brightness or contrast beyond this is a reason, 0 to 1.
    drift_rest_days: drift is no reason for this long after a training, which will not have ended it.
    requests: the service's request log.
    """

    margin: float = 0.5
    zsl_tolerance: float = 0.0
    bootstrap: int = 200
    max_age_days: float = 30.0
    max_tag_drift: float = 0.2
    max_photo_drift: float = 0.2
    drift_rest_days: float = 7.0
    requests: str = "work/requests"


def age_or_drift(trained: datetime, champion: Path, dataset: Dataset, settings: RetrainSettings) -> list[str]:
    """The reasons, in words; none: the model is young and nothing has drifted.

    Args:
        trained: when a model was trained last, promoted or not.
        champion: its folder.
        dataset: today's.
        settings: the bounds.
    """
    age = datetime.now(UTC) - trained
    if age > timedelta(days=settings.max_age_days):
        return [f"age: the last training was {age.days} days ago"]
    if age < timedelta(days=settings.drift_rest_days):
        return []
    then, asked = Profile.read(champion / "profile.json"), request_profile(Path(settings.requests), trained.date())
    return drift_reasons(then, profile(dataset), asked, settings.max_tag_drift, settings.max_photo_drift)
