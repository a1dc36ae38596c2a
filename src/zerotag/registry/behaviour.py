"""What behaviour tests say of a packaged model; a model that fails them is not promoted."""

import json
from pathlib import Path
from typing import Any

from zerotag.errors import ZerotagError
from zerotag.serving.package import read_info


def failed_behaviour(behaviour: Path, served: Path) -> list[str]:
    """What a packaged model fails, with figures and bounds; empty if it passes.

    Args:
        behaviour: output folder of the behaviour stage.
        served: the package.

    Raises:
        ZerotagError: there are no results, or they are another package's.
    """
    result, version = _read(behaviour), read_info(served)["version"]
    if result["model"] != version:
        raise ZerotagError(
            f"{behaviour}: the tests are of model {result['model']}, not of {served}, {version}. "
            "Run `dvc repro behaviour`."
        )
    return [
        f"{name} is {check['figure']:.2f}, not {check['least']:.2f} or more"
        for name, check in result["checks"].items()
        if not check["passed"]
    ]


def table(behaviour: Path) -> str:
    """The results as a Markdown table."""
    lines = ["| test | share | at least | cases | |", "|---|---|---|---|---|"]
    for name, check in _read(behaviour)["checks"].items():
        figure, least = ("" if check[key] is None else f"{check[key]:.2f}" for key in ("figure", "least"))
        lines.append(f"| {name} | {figure} | {least} | {check['cases']} | {'' if check['passed'] else 'FAILED'} |")
    return "\n".join(lines)


def _read(behaviour: Path) -> dict[str, Any]:
    file = behaviour / "behaviour.json"
    if not file.is_file():
        raise ZerotagError(f"{file} is missing: run `dvc repro behaviour` first.")
    return json.loads(file.read_text(encoding="utf-8"))
