"""Compute the features of all photos under one frozen backbone: features.py BACKBONE.

With train.mode = end_to_end there is nothing to cache, and the stage leaves an empty table.
"""

import sys
from pathlib import Path

import numpy as np
import torch

from zerotag.backbones import build_backbone
from zerotag.dataset import Dataset
from zerotag.errors import plain_exit
from zerotag.features import compute_features
from zerotag.files import write_aside
from zerotag.settings import read_params

with plain_exit():
    name = sys.argv[1]
    params = read_params()
    file = Path(f"features/{name}.npy")
    if params["train"]["mode"] == "end_to_end":
        with write_aside(file) as draft, draft.open("wb") as out:
            np.save(out, np.zeros((0, 0), dtype=np.float32))
        raise SystemExit
    weights = params["weights"].get(name, params["weights"]["other"])
    size = params["features"]["size"]
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dataset = Dataset.read(Path("prepared"))
    key = f"{name} {weights} {size} {dataset.digest}"
    torch.manual_seed(params["seed"])  # for weights: none
    backbone = build_backbone(name, weights)
    compute_features(backbone, dataset, size, params["features"]["batch"], device, file, Path("work/features"), key)
