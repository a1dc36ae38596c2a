"""Calibrate the best model's scores, and evaluate the probabilities on the test photos."""

import json
from pathlib import Path

import numpy as np
import torch

from zerotag.data.dataset import Dataset
from zerotag.errors import plain_exit
from zerotag.evaluation.calibration import Calibration
from zerotag.evaluation.evaluate import principal_vectors, score_matrix
from zerotag.evaluation.held_out import (
    SCORED_PHOTOS,
    calibrate_fine_tuned,
    calibrate_linear_probe,
    evaluate_calibration,
)
from zerotag.evaluation.metrics import figure_text
from zerotag.files import write_aside
from zerotag.registry.choice import best_model
from zerotag.settings import from_params, read_params
from zerotag.training.loop import TrainSettings
from zerotag.training.model import load_model


def main() -> None:
    params = read_params()
    backbone, method = best_model(Path("evaluation"), params["backbones"], params["methods"], params["best_by"])
    frozen = params["train"]["mode"] == "linear_probe"
    model = load_model(Path(f"models/{backbone}/{method}"), from_features=frozen)
    dataset = Dataset.read(Path("prepared"))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    batch, seed = params["features"]["batch"], params["seed"]
    features = np.load(f"features/{backbone}.npy") if frozen else None
    if features is not None:
        settings = from_params(TrainSettings, {**params["train"]["linear_probe"], "seed": seed}, "train.linear_probe")
        fitted, how = calibrate_linear_probe(model, dataset, features, settings, device)
    else:
        fitted, how = calibrate_fine_tuned(model, dataset, batch, seed, device)

    rows = dataset.test[:: max(1, dataset.test.size // SCORED_PHOTOS)]
    principal = principal_vectors(model, dataset, rows, device, batch, features)
    scores = score_matrix(principal, model.vocabulary.vectors)
    labels = dataset.labels[rows][:, dataset.columns(model.vocabulary.tags)].tocsr()
    evaluated = evaluate_calibration(fitted, model, scores, labels)
    for name, figures in evaluated.items():
        error = figures["expected_calibration_error"]
        print(f"{name}: expected calibration error {figure_text(None if error is None else 100 * error, '.2f')} points")
    with write_aside(Path("calibration")) as draft:
        draft.mkdir()
        figures = {"method": "Platt", **how, "own_line": len(fitted.tags), **evaluated}
        content = Calibration(fitted.unseen, fitted.seen, fitted.tags, figures).content()
        (draft / "calibration.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    with plain_exit():
        main()
