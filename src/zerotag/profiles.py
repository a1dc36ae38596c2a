"""Profiles: named sets of overrides of params.yaml."""

from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from zerotag.errors import ZerotagError
from zerotag.files import write_aside


def apply_profile(name: str, folder: Path = Path("profiles"), params: Path = Path("params.yaml")) -> list[str]:
    """Apply a profile to params.yaml, keeping its comments and order.

    Args:
        name: NAME of FOLDER/NAME.yaml.
        folder: the profiles' folder.
        params: the file to change.

    Returns:
        The changes, as NAME: OLD -> NEW.

    Raises:
        ZerotagError: there is no such profile, it is not YAML, or it has a key that params.yaml has not.
    """
    file = folder / f"{name}.yaml"
    if not file.is_file():
        known = ", ".join(sorted(path.stem for path in folder.glob("*.yaml"))) or "none"
        raise ZerotagError(f"{file}: no such profile; use one of: {known}.")
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 120
    try:
        profile, present = yaml.load(file.read_text(encoding="utf-8")), yaml.load(params.read_text(encoding="utf-8"))
    except YAMLError as error:
        raise ZerotagError(f"{file} or {params}: not valid YAML: {error}") from error
    changes: list[str] = []
    _override(present, profile, "", file, changes)
    with write_aside(params) as draft, draft.open("w", encoding="utf-8") as out:
        yaml.dump(present, out)
    return changes


def _override(present: Any, profile: Any, prefix: str, file: Path, changes: list[str]) -> None:
    for key, value in profile.items():
        if key not in present:
            raise ZerotagError(f"{file}: {prefix}{key} is not a parameter of params.yaml. Remove it.")
        if isinstance(value, dict) and isinstance(present[key], dict):
            _override(present[key], value, f"{prefix}{key}.", file, changes)
        elif present[key] != value:
            changes.append(f"{prefix}{key}: {_plain(present[key])} -> {_plain(value)}")
            present[key] = value


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, list) else value
