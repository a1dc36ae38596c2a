"""Evaluate one trained model on the test photos: evaluate.py BACKBONE METHOD."""

import json
import sys
from functools import partial
from pathlib import Path

import numpy as np
import torch

from zerotag.cluster.connect import cluster_address, connected
from zerotag.cluster.stages import principal_vectors_of
from zerotag.data.dataset import Dataset
from zerotag.errors import plain_exit
from zerotag.evaluation.evaluate import evaluate, principal_vectors
from zerotag.evaluation.metrics import figure_text
from zerotag.files import write_aside
from zerotag.settings import read_params
from zerotag.training.model import load_model


def main(backbone: str, method: str) -> None:
    params = read_params()
    dataset = Dataset.read(Path("prepared"))
    folder, batch = Path(f"models/{backbone}/{method}"), params["features"]["batch"]
    frozen = params["train"]["mode"] == "linear_probe"
    model = load_model(folder, from_features=frozen)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    features = np.load(f"features/{backbone}.npy") if frozen else None
    # With features, the head is all that is left to run: not worth a cluster.
    with connected(cluster_address(params) if features is None else "") as spread:
        gpu = device.type == "cuda"
        elsewhere = partial(principal_vectors_of, spread, folder, dataset.root, batch, gpu) if spread else None
        principal = principal_vectors(model, dataset, dataset.test, device, batch, features, elsewhere)
    evaluation = evaluate(
        principal,
        dataset.labels[dataset.test][:, dataset.columns(model.vocabulary.tags)].tocsr(),
        model.vocabulary,
        dataset.photos["id"].iloc[dataset.test].tolist(),
        dataset.test,
        params["evaluate"]["examples"],
        params["evaluate"]["resamples"],
        params["seed"],
        rejected[dataset.test] if (rejected := dataset.rejected_of(model.vocabulary.tags)) is not None else None,
    )
    with write_aside(Path(f"evaluation/{backbone}/{method}")) as draft:
        draft.mkdir()
        (draft / "metrics.json").write_text(json.dumps(evaluation.metrics, indent=2) + "\n", encoding="utf-8")
        (draft / "intervals.json").write_text(json.dumps(evaluation.intervals, indent=1) + "\n", encoding="utf-8")
        evaluation.tags.to_csv(draft / "tags.csv", index=False)
        (draft / "examples.json").write_text(json.dumps(evaluation.examples, indent=1), encoding="utf-8")
    for task in ("zsl", "gzsl"):
        figures = evaluation.metrics[task]
        interval = evaluation.intervals[task].get("map")
        within = " [{:.1f}, {:.1f}]".format(*interval) if interval else ""
        f1_3, f1_5, mean, chance = (figure_text(figures[name]) for name in ("f1@3", "f1@5", "map", "random_map"))
        print(
            f"{backbone} {method} {task.upper()}: F1@3 {f1_3}  F1@5 {f1_5}  mAP {mean}{within} (random scores {chance})"
        )


if __name__ == "__main__":
    with plain_exit():
        main(*sys.argv[1:])
