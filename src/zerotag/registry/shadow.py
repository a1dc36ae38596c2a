"""How a challenger that answers beside the champion differed from it, as the service's request log says."""

from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path

import numpy as np

from zerotag.registry.champion import Champion
from zerotag.registry.requests import logged
from zerotag.serving.package import read_info

# A model that cannot answer more than this share of the champion's photos is none.
MOST_FAILED = 0.01


@dataclass(frozen=True)
class Evidence:
    """Attributes:
    photos: number of photos that both models tagged.
    agreement: mean share of the champion's five best tags that are the challenger's, 0 to 1.
    difference: mean absolute difference of the probabilities of the champion's five best tags, 0 to 1.
    failed: number of photos that only the champion could tag.
    """

    photos: int
    agreement: float
    difference: float
    failed: int

    def __str__(self) -> str:
        return (
            f"{self.photos:,} photos, on which {self.agreement:.0%} of the five best tags agree and probabilities "
            f"differ by {self.difference:.3f}; {self.failed:,} failed"
        )


def challenger_evidence(log: Path, champion: Champion, challenger: Champion, project: Path = Path()) -> Evidence:
    """Count what the service has logged of a challenger since it was kept."""
    infos = [read_info(each.folder(project) / "served") for each in (champion, challenger)]
    versions = [f"{info['name']}:{info['version']}" for info in infos]
    return shadow_evidence(log, versions[0], versions[1], datetime.fromisoformat(challenger.time).date())


def shadow_evidence(log: Path, champion: str, challenger: str, since: date) -> Evidence:
    """Count what the service has logged of a challenger.

    Args:
        log: the service's request log.
        champion: name and version of the model that answered, such as zerotag:0f3a….
        challenger: likewise, of the one beside it.
        since: the first day to include.
    """
    lines = [
        line for line in logged(log, "shadow", since) if (line["model"], line["challenger"]) == (champion, challenger)
    ]
    both = [line for line in lines if "agreement" in line]
    means = np.array([[line["agreement"], line["difference"]] for line in both]).reshape(-1, 2)
    agreement, difference = map(float, means.mean(axis=0)) if both else (0.0, 0.0)
    return Evidence(len(both), agreement, difference, len(lines) - len(both))


def shadow_verdict(evidence: Evidence, least_photos: int, least_agreement: float) -> tuple[bool | None, str]:
    """Whether a challenger passes, or None while it has answered too few photos; and why.

    Args:
        evidence: of the challenger.
        least_photos: number of photos to wait for.
        least_agreement: share of the five best tags that have to agree, 0 to 1.
    """
    tried = evidence.photos + evidence.failed
    if tried < least_photos:
        return None, f"{tried:,} of {least_photos:,} photos answered beside the champion"
    if evidence.failed > MOST_FAILED * tried:
        return False, f"it failed on more than {MOST_FAILED:.0%} of the photos beside the champion ({evidence})"
    if evidence.agreement < least_agreement:
        return False, f"it agrees with the champion on less than {least_agreement:.0%} of the best tags ({evidence})"
    return True, f"beside the champion: {evidence}"
