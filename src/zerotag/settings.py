"""Fill settings dataclasses from params.yaml, with errors that name invalid keys and values."""

from copy import deepcopy
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import yaml
from pydantic import TypeAdapter, ValidationError

from zerotag.errors import ZerotagError

T = TypeVar("T")


def read_params(path: Path = Path("params.yaml")) -> dict[str, Any]:
    """Read params.yaml.

    Raises:
        ZerotagError: it is missing or not valid YAML.
    """
    try:
        params = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise ZerotagError(f"{path}: cannot be read: {error}") from error
    if not isinstance(params, dict):
        raise ZerotagError(f"{path}: must be a mapping of parameters; restore it with Git.")
    return params


def change_params(params: dict[str, Any], changes: list[str]) -> dict[str, Any]:
    """A copy of the parameters with some of them changed.

    Args:
        params: the content of params.yaml.
        changes: NAME=VALUE, with a dotted NAME and a YAML VALUE, as in `dvc exp run -S`.

    Raises:
        ZerotagError: a change is not NAME=VALUE, or there is no such parameter.
    """
    changed = deepcopy(params)
    for change in changes:
        path, equals, value = change.partition("=")
        *sections, name = path.split(".")
        place: Any = changed
        for section in sections:
            place = place.get(section) if isinstance(place, dict) else None
        if not equals or not isinstance(place, dict) or name not in place:
            raise ZerotagError(f"{change!r}: use NAME=VALUE with a NAME in params.yaml, such as split.kind=random.")
        place[name] = yaml.safe_load(value)
    return changed


def from_params(settings: type[T], params: dict[str, Any] | None, section: str) -> T:
    """Fill a settings dataclass from a section of params.yaml; missing keys keep their defaults.

    Raises:
        ZerotagError: an unknown or missing key, or an invalid value; the message names the parameter.
    """
    given = params or {}
    known = {field.name: field for field in fields(settings)}  # type: ignore[arg-type]
    for key in given:
        if key not in known:
            raise ZerotagError(f"params.yaml: {section}.{key} is unknown; use {', '.join(known)}.")
    for name, field in known.items():
        if name not in given and field.default is MISSING and field.default_factory is MISSING:
            raise ZerotagError(f"params.yaml: {section}.{name} is missing; set it.")
    hints = get_type_hints(settings)
    values = {}
    for key, value in given.items():
        if is_dataclass(hints[key]):
            values[key] = from_params(hints[key], value, f"{section}.{key}")
            continue
        try:
            values[key] = TypeAdapter(hints[key]).validate_python(value)
        except ValidationError as error:
            reason = error.errors()[0]["msg"]
            raise ZerotagError(f"params.yaml: {section}.{key} = {value!r}: {reason}.") from error
    return settings(**values)
