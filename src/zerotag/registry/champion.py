"""The champion: the model in service. One record, champion.json, changed in one step and never half.

::

    champion.json            the record of the champion
    champions/ID/            model/ (as trained), served/ (packaged), profile.json (its training data), record.json
"""

import json
import shutil
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zerotag.errors import ZerotagError
from zerotag.files import write_aside

if TYPE_CHECKING:  # the service reads records without what a profile needs
    from zerotag.registry.drift import Profile

RECORD = Path("champion.json")
FOLDER = Path("champions")


@dataclass(frozen=True)
class Champion:
    """A record.

    Attributes:
        id: names the folder in champions/.
        backbone: of the model.
        method: of the model.
        metrics: percentages by task and name, when it was promoted.
        data: digest of the prepared data that it was trained on.
        git: revision of the code, -dirty with changes.
        time: of the promotion, ISO 8601 in UTC.
        reason: why it was promoted.
        previous: id of the champion before it, or empty.
    """

    id: str
    backbone: str
    method: str
    metrics: dict[str, Any]
    data: str
    git: str
    time: str
    reason: str
    previous: str

    def folder(self, project: Path = Path()) -> Path:
        """Where its files are."""
        return project / FOLDER / self.id


def read_champion(project: Path = Path()) -> Champion | None:
    """The champion's record, or None when there is none yet.

    Raises:
        ZerotagError: the record is damaged, or its files are missing.
    """
    file = project / RECORD
    if not file.is_file():
        return None
    champion = _read_record(file)
    if not (champion.folder(project) / "model" / "model.json").is_file():
        raise ZerotagError(
            f"{file}: the files of champion {champion.id} are missing. Bring them with "
            f"`dvc pull {FOLDER / champion.id}.dvc` or `dvc checkout`, or remove {file}."
        )
    return champion


def champion_package(project: Path = Path()) -> Path:
    """The folder that is served: the champion's package, or served/ while there is no champion."""
    champion = read_champion(project)
    return champion.folder(project) / "served" if champion else project / "served"


def keep(
    model: Path,
    served: Path,
    profile: "Profile",
    metrics: dict[str, Any],
    git: str,
    reason: str,
    project: Path = Path(),
) -> Champion:
    """Copy a challenger's files to champions/; the champion stays as it is until `promote`.

    Args:
        model: the training folder.
        served: its package.
        profile: of its training data.
        metrics: its figures.
        git: revision of the code.
        reason: why it is promoted.
        project: the checkout.
    """
    info = json.loads((model / "model.json").read_text(encoding="utf-8"))
    package = json.loads((served / "tagger.json").read_text(encoding="utf-8"))
    if (package["backbone"], package["method"]) != (info["backbone"], info["method"]):
        raise ZerotagError(f"{served}: packages {package['backbone']} {package['method']}, not {model}.")
    before = read_champion(project)
    now = datetime.now(UTC)
    record = Champion(
        id=f"{now:%Y%m%dT%H%M%S}-{package['version']}",
        backbone=info["backbone"],
        method=info["method"],
        metrics=metrics,
        data=info["data"]["digest"],
        git=git,
        time=now.isoformat(timespec="seconds"),
        reason=reason,
        previous=before.id if before else "",
    )
    with write_aside(record.folder(project)) as draft:
        shutil.copytree(model, draft / "model")
        shutil.copytree(served, draft / "served")
        profile.write(draft / "profile.json")
        (draft / "record.json").write_text(json.dumps(asdict(record), indent=2) + "\n", encoding="utf-8")
    return record


def promote(record: Champion, project: Path = Path()) -> None:
    """Make a kept model the champion: one rename."""
    with write_aside(project / RECORD) as draft:
        draft.write_text(json.dumps(asdict(record), indent=2) + "\n", encoding="utf-8")


def roll_back(project: Path = Path()) -> Champion:
    """Make the champion before this one the champion again.

    Raises:
        ZerotagError: there is none, or its files are missing.
    """
    champion = read_champion(project)
    if champion is None or not champion.previous:
        raise ZerotagError(f"{project / RECORD}: there is no champion before this one.")
    file = project / FOLDER / champion.previous / "record.json"
    if not file.is_file():
        raise ZerotagError(f"{file} is missing: bring it with `dvc checkout {FOLDER / champion.previous}.dvc`.")
    before = _read_record(file)
    promote(before, project)
    return before


def _read_record(file: Path) -> Champion:
    try:
        return Champion(**json.loads(file.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise ZerotagError(f"{file}: is no champion's record: {error}. Put it back with Git.") from error
