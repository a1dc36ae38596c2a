"""Profiles: named sets of parameters, laid over params.yaml."""

from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from zerotag.errors import ZerotagError
from zerotag.files import write_aside


def apply_profile(name: str, folder: Path = Path("profiles"), params: Path = Path("params.yaml")) -> list[str]:
    """Lay a profile over params.yaml, whose comments and order stay.

    Args:
        name: of FOLDER/NAME.yaml.
        folder: of the profiles.
        params: the file that is changed.

    Returns:
        What changed, as NAME: OLD -> NEW.

    Raises:
        ZerotagError: there is no such profile, it is no YAML, or it names what params.yaml does not have.
    """
    file = folder / f"{name}.yaml"
    if not file.is_file():
        known = ", ".join(sorted(path.stem for path in folder.glob("*.yaml"))) or "none"
        raise ZerotagError(f"{file}: no such profile; there are: {known}.")
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 120
    try:
        profile, present = yaml.load(file.read_text(encoding="utf-8")), yaml.load(params.read_text(encoding="utf-8"))
    except YAMLError as error:
        raise ZerotagError(f"{file} or {params}: not YAML: {error}") from error
    changes: list[str] = []
    _lay_over(present, profile, "", file, changes)
    with write_aside(params) as draft, draft.open("w", encoding="utf-8") as out:
        yaml.dump(present, out)
    return changes


def _lay_over(present: Any, profile: Any, prefix: str, file: Path, changes: list[str]) -> None:
    for key, value in profile.items():
        if key not in present:
            raise ZerotagError(f"{file}: {prefix}{key} is not a parameter of params.yaml. Take it out.")
        if isinstance(value, dict) and isinstance(present[key], dict):
            _lay_over(present[key], value, f"{prefix}{key}.", file, changes)
        elif present[key] != value:
            changes.append(f"{prefix}{key}: {_plain(present[key])} -> {_plain(value)}")
            present[key] = value


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, list) else value
