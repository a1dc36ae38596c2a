"""Select the best trained model."""

import json
import math
from collections.abc import Sequence
from pathlib import Path

from zerotag.errors import ZerotagError


def best_model(evaluation: Path, backbones: Sequence[str], methods: Sequence[str], by: str) -> tuple[str, str]:
    """Backbone and method of the model with the highest metric; the first one if it is undefined for all of them.

    Args:
        evaluation: output folder of the evaluate stages.
        backbones: of the models to compare.
        methods: likewise.
        by: task and metric, such as gzsl.map.

    Raises:
        ZerotagError: a model was not evaluated, or there is no such metric.
    """
    task, _, name = by.partition(".")
    figures: dict[tuple[str, str], float | None] = {}
    for backbone in backbones:
        for method in methods:
            file = evaluation / backbone / method / "metrics.json"
            if not file.is_file():
                raise ZerotagError(f"{file} is missing: run `dvc repro evaluate` first.")
            metrics = json.loads(file.read_text(encoding="utf-8"))
            if name not in metrics.get(task, {}):
                raise ZerotagError(
                    f"params.yaml: best_by = {by!r}: {file} has no such metric; use for example gzsl.map or zsl.f1@3."
                )
            figures[backbone, method] = metrics[task][name]
    if not figures:
        raise ZerotagError("params.yaml: backbones or methods is empty; name at least one of each.")
    return max(figures, key=lambda model: -math.inf if (figure := figures[model]) is None else figure)
