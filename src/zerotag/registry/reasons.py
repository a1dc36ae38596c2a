"""Reasons to retrain on unchanged data, parameters and code: the model's age, and drift."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from zerotag.data.dataset import Dataset
from zerotag.registry.drift import Profile, drift_reasons, profile, request_profile


@dataclass(frozen=True)
class RetrainSettings:
    """Attributes:
    margin: points of GZSL mAP by which a challenger must beat the champion.
    zsl_tolerance: points of ZSL mAP that it may lose.
    bootstrap: bootstrap resamples of the comparison.
    max_age_days: maximum age of the last training.
    max_tag_drift: threshold of the total variation distance of tag frequencies, 0 to 1.
    max_photo_drift: threshold of the Kolmogorov-Smirnov statistic of brightness or contrast, 0 to 1.
    drift_rest_days: ignore drift for this long after a training, which does not remove it.
    requests: the service's request log.
    version_data: run `dvc add data` first, so that photos and keywords that changed since are a reason; Git then shows
        data.dvc as modified.
    min_shadow_photos: number of photos that a challenger answers beside the champion before it is promoted (the
        service's setting `shadow: challenger`); 0 to promote it at once.
    min_shadow_agreement: share of the champion's five best tags that have to be the challenger's as well, 0 to 1.
    git_remote: a Git remote by which checkouts share champions. The newest one is fetched from it first; a promoted one
        is pushed, its files with `dvc push`. Empty: neither.
    """

    margin: float = 0.5
    zsl_tolerance: float = 0.0
    bootstrap: int = 200
    max_age_days: float = 30.0
    max_tag_drift: float = 0.2
    max_photo_drift: float = 0.2
    drift_rest_days: float = 7.0
    requests: str = "work/requests"
    version_data: bool = False
    min_shadow_photos: int = 0
    min_shadow_agreement: float = 0.0
    git_remote: str = ""


def age_or_drift(trained: datetime, champion: Path, dataset: Dataset, settings: RetrainSettings) -> list[str]:
    """Reasons to retrain; empty if the model is recent and nothing has drifted.

    Args:
        trained: time of the last training, promoted or not.
        champion: the champion's folder.
        dataset: the current dataset.
        settings: the thresholds.
    """
    age = datetime.now(UTC) - trained
    if age > timedelta(days=settings.max_age_days):
        return [f"age: the last training was {age.days} days ago"]
    if age < timedelta(days=settings.drift_rest_days):
        return []
    then, asked = Profile.read(champion / "profile.json"), request_profile(Path(settings.requests), trained.date())
    return drift_reasons(then, profile(dataset), asked, settings.max_tag_drift, settings.max_photo_drift)
