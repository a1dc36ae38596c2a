"""The champion, the model in production, recorded in champion.json, which is replaced atomically.

::

    champion.json            the champion's record
    challenger.json          the record of a model that answers beside it before it is promoted, if there is one
    champions/ID/            model/ (as trained), served/ (packaged), behaviour.json (its tests),
                             profile.json (its training data), record.json
"""

import json
import shutil
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zerotag.errors import ZerotagError
from zerotag.files import write_aside
from zerotag.registry.behaviour import failed_behaviour
from zerotag.registry.releases import PRODUCTION, SHADOW, fetch, release

if TYPE_CHECKING:  # the service reads records without a profile's dependencies
    from zerotag.registry.drift import Profile

RECORD = Path("champion.json")
CHALLENGER = Path("challenger.json")
FOLDER = Path("champions")
# Results that DVC leaves to Git.
_METRICS = ("evaluation/*/*/metrics.json", "behaviour/behaviour.json")


@dataclass(frozen=True)
class Champion:
    """A champion's record.

    Attributes:
        id: name of the folder in champions/.
        backbone: of the model.
        method: of the model.
        metrics: percentages by task and name, at promotion.
        data: digest of the training dataset.
        git: code revision, -dirty with uncommitted changes.
        time: of the promotion, ISO 8601 in UTC.
        reason: why it was promoted.
        previous: id of the previous champion, or empty.
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
        """The folder of its files."""
        return project / FOLDER / self.id


def read_champion(project: Path = Path()) -> Champion | None:
    """The champion's record, or None if there is none yet.

    Raises:
        ZerotagError: the record is corrupt, or its files are missing.
    """
    return _read_kept(project / RECORD, project)


def read_challenger(project: Path = Path()) -> Champion | None:
    """The record of the model that answers beside the champion, or None if there is none.

    Raises:
        ZerotagError: the record is corrupt, or its files are missing.
    """
    return _read_kept(project / CHALLENGER, project)


def _read_kept(file: Path, project: Path) -> Champion | None:
    if not file.is_file():
        return None
    champion = _read_record(file)
    if not (champion.folder(project) / "model" / "model.json").is_file():
        raise ZerotagError(
            f"{file}: the files of {champion.id} are missing. Restore them with "
            f"`dvc pull {FOLDER / champion.id}.dvc` or `dvc checkout`, or delete {file}."
        )
    return champion


def champion_package(project: Path = Path()) -> Path:
    """The package to serve: the champion's, or served/ without a champion."""
    champion = read_champion(project)
    return champion.folder(project) / "served" if champion else project / "served"


def keep(
    model: Path,
    served: Path,
    behaviour: Path,
    profile: "Profile",
    metrics: dict[str, Any],
    git: str,
    reason: str,
    project: Path = Path(),
) -> Champion:
    """Copy a challenger's files to champions/; `promote` makes it the champion.

    Args:
        model: the trained model's folder.
        served: its package.
        behaviour: output folder of the behaviour stage, of this package.
        profile: of its training data.
        metrics: its metrics.
        git: code revision.
        reason: why it is promoted.
        project: the project folder.

    Raises:
        ZerotagError: the package is another model's, or fails a behaviour test.
    """
    info = json.loads((model / "model.json").read_text(encoding="utf-8"))
    package = json.loads((served / "tagger.json").read_text(encoding="utf-8"))
    if (package["backbone"], package["method"]) != (info["backbone"], info["method"]):
        raise ZerotagError(
            f"{served}: packages {package['backbone']} {package['method']}, not {model}. Run `dvc repro package`."
        )
    if failed := failed_behaviour(behaviour, served):
        raise ZerotagError(f"{served}: not promoted, as it fails behaviour tests: {'; '.join(failed)}.")
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
        shutil.copy(behaviour / "behaviour.json", draft)
        profile.write(draft / "profile.json")
        (draft / "record.json").write_text(json.dumps(asdict(record), indent=2) + "\n", encoding="utf-8")
    return record


def promote(record: Champion, project: Path = Path(), new: bool = True) -> None:
    """Make a kept model the champion, atomically, and tag it where the project is a Git repository.

    Args:
        record: of the model.
        project: the project folder.
        new: whether the project's files are as they made it.

    Raises:
        ZerotagError: it is the champion, but Git could not tag it.
    """
    _write_record(record, project / RECORD)
    challenger = project / CHALLENGER
    if challenger.is_file() and _read_record(challenger).id == record.id:
        challenger.unlink()
    release(record.id, [str(RECORD), *_tracking(record, project)], project, new, PRODUCTION)


def challenge(record: Champion, project: Path = Path()) -> None:
    """Have a kept model answer beside the champion, in place of the challenger before; it is tagged as a champion is.

    Raises:
        ZerotagError: it is the challenger, but Git could not tag it.
    """
    _write_record(record, project / CHALLENGER)
    release(record.id, _tracking(record, project), project, True, SHADOW, {str(RECORD): str(CHALLENGER)})


def drop_challenger(project: Path = Path()) -> None:
    """Let no model answer beside the champion any more; its files stay."""
    (project / CHALLENGER).unlink(missing_ok=True)


def follow(remote: str, project: Path = Path()) -> str:
    """Make the champion in production, of a Git remote's tags, the one of this checkout.

    Its record, its .dvc file, the metrics and dvc.lock are restored; DVC fetches what they refer to.

    Args:
        remote: name of the Git remote.
        project: the project folder.

    Returns:
        The champion's id; empty if it was the one of this checkout.

    Raises:
        ZerotagError: Git failed.
    """
    file = project / RECORD
    ours = _read_record(file).id if file.is_file() else ""
    return fetch(remote, [str(RECORD), str(FOLDER), "evaluation", "behaviour", "dvc.lock"], ours, project)


def roll_back(project: Path = Path()) -> Champion:
    """Restore the previous champion.

    Raises:
        ZerotagError: there is no previous champion, or its files are missing.
    """
    champion = read_champion(project)
    if champion is None or not champion.previous:
        raise ZerotagError(f"{project / RECORD}: there is no previous champion.")
    file = project / FOLDER / champion.previous / "record.json"
    if not file.is_file():
        raise ZerotagError(f"{file} is missing: restore it with `dvc checkout {FOLDER / champion.previous}.dvc`.")
    before = _read_record(file)
    promote(before, project, new=False)
    return before


def _tracking(record: Champion, project: Path) -> list[str]:
    metrics = [str(file.relative_to(project)) for pattern in _METRICS for file in project.glob(pattern)]
    return [f"{FOLDER / record.id}.dvc", str(FOLDER / ".gitignore"), "dvc.lock", *metrics]


def _write_record(record: Champion, file: Path) -> None:
    with write_aside(file) as draft:
        draft.write_text(json.dumps(asdict(record), indent=2) + "\n", encoding="utf-8")


def _read_record(file: Path) -> Champion:
    try:
        return Champion(**json.loads(file.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise ZerotagError(f"{file}: not a champion's record: {error}. Restore it with Git.") from error
