"""Cache features of all photos: features.py BACKBONE.

train.mode = linear_probe caches the backbone's features, partial_fine_tuning the input of the first trained layer.
full_fine_tuning caches nothing: the stage writes an empty array.
"""

import sys
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import nn

from zerotag.cluster.connect import cluster_address, connected
from zerotag.cluster.stages import compute_blocks
from zerotag.data.dataset import Dataset
from zerotag.errors import plain_exit
from zerotag.files import write_aside
from zerotag.settings import read_params
from zerotag.training.backbones import build_backbone, cut, weights_key
from zerotag.training.features import compute_features
from zerotag.training.modes import first_trained_layer

with plain_exit():
    name = sys.argv[1]
    params = read_params()
    file = Path(f"features/{name}.npy")
    mode = params["train"]["mode"]
    layer = first_trained_layer(mode, params["train"]["first_trained_layer"], name)
    if mode == "full_fine_tuning":
        with write_aside(file) as draft, draft.open("wb") as out:
            np.save(out, np.zeros((0, 0), dtype=np.float32))
        raise SystemExit
    weights = params["weights"].get(name, params["weights"]["other"])
    size = params["features"]["pixels"]
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dataset = Dataset.read(Path("prepared"))
    torch.manual_seed(params["seed"])  # for weights: none
    backbone = build_backbone(name, weights, size)
    network: nn.Module = cut(backbone, layer)[0] if layer else backbone
    with connected(cluster_address(params)) as spread:
        compute_features(
            network,
            dataset,
            size,
            params["features"]["batch"],
            device,
            file,
            Path("work/features"),
            key=f"{name} {weights_key(weights)} {size} {layer} {dataset.digest}",
            kind=np.float16 if layer else np.float32,
            elsewhere=partial(compute_blocks, spread, device.type == "cuda") if spread else None,
        )
