"""Which trained model is the best one."""

import json
from collections.abc import Sequence
from pathlib import Path

from zerotag.errors import ZerotagError


def best_model(evaluation: Path, backbones: Sequence[str], methods: Sequence[str], by: str) -> tuple[str, str]:
    """Backbone and method of the model with the highest figure.

    Args:
        evaluation: the evaluate stages' folder.
        backbones: of the models that are compared.
        methods: likewise.
        by: task and figure, such as gzsl.map.

    Raises:
        ZerotagError: a model was not evaluated, or there is no such figure.
    """
    task, _, name = by.partition(".")
    figures = {}
    for backbone in backbones:
        for method in methods:
            file = evaluation / backbone / method / "metrics.json"
            if not file.is_file():
                raise ZerotagError(f"{file} is missing: run `dvc repro evaluate` first.")
            metrics = json.loads(file.read_text(encoding="utf-8"))
            if name not in metrics.get(task, {}):
                raise ZerotagError(
                    f"params.yaml: best_by = {by!r}: {file} has no such figure; gzsl.map and zsl.f1@3 are such."
                )
            figures[backbone, method] = metrics[task][name]
    if not figures:
        raise ZerotagError("params.yaml: backbones and methods name no model.")
    return max(figures, key=lambda model: figures[model])
