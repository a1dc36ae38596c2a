"""A trained model: network, vocabulary and training metadata, in one folder.

::

    model.pt         state dict of backbone and head
    model.json       backbone, method and its parameters, input size, data, hardware, time
    vocabulary.csv   tag, split (seen or unseen)
    vectors.npy      (T, d) float32 unit vectors of the vocabulary, used for scoring
    lift.npz         the word vectors they were lifted from, if any
    curve.csv        epoch, loss, learning_rate
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import nn

from zerotag.errors import ZerotagError
from zerotag.files import write_aside
from zerotag.training.heads import empty_head
from zerotag.training.methods import Method
from zerotag.words.vocabulary import Vocabulary


class Network(nn.Module):
    """Photos to principal vectors: (B, 3, S, S) in [0, 1] -> (B, M, d).

    The backbone may be the last part of one; then the inputs are activations.
    """

    def __init__(self, backbone: nn.Module, head: nn.Module):
        super().__init__()
        self.backbone = backbone
        self.head = head

    def forward(self, photos: torch.Tensor) -> torch.Tensor:
        """(B, 3, S, S) in [0, 1] -> (B, M, d)."""
        return self.head(self.backbone(photos))


@dataclass(frozen=True)
class Model:
    """A trained network with its vocabulary and metadata.

    Attributes:
        network: in evaluation mode, on the CPU.
        vocabulary: tags, vectors, seen or unseen.
        info: the content of model.json.
    """

    network: Network
    vocabulary: Vocabulary
    info: dict[str, Any]


def save_model(
    folder: Path,
    network: Network,
    vocabulary: Vocabulary,
    method: Method,
    info: dict[str, Any],
    curve: pd.DataFrame,
) -> None:
    """Write a model's folder atomically."""
    with write_aside(folder) as draft:
        draft.mkdir()
        torch.save(network.state_dict(), draft / "model.pt")
        content = {**info, "parameters": asdict(method), "features": network.backbone.features}
        (draft / "model.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        vocabulary.write(draft)
        curve.to_csv(draft / "curve.csv", index=False)


def load_model(folder: Path, from_features: bool = False) -> Model:
    """Read a model's folder.

    Args:
        folder: as `save_model` writes it.
        from_features: leave out the backbone, which takes seconds to import and to build; the network's inputs are the
            backbone's features then.

    Raises:
        ZerotagError: the folder is not a model, or its files do not match.
    """
    if not (folder / "model.json").is_file():
        raise ZerotagError(f"{folder}: not a trained model: model.json is missing. Run `dvc repro` first.")
    info = json.loads((folder / "model.json").read_text(encoding="utf-8"))
    vocabulary = Vocabulary.read(folder, folder / "vocabulary.csv")
    method = Method(**info["parameters"])
    head = empty_head(method, info["features"], vocabulary, info.get("classes", 0))
    network = Network(nn.Identity() if from_features else _backbone(info), head).eval()
    try:
        state = torch.load(folder / "model.pt", map_location="cpu", weights_only=True)
        if from_features:
            state = {name: value for name, value in state.items() if name.startswith("head.")}
        network.load_state_dict(state)
    except (RuntimeError, OSError, EOFError) as error:
        raise ZerotagError(
            f"{folder / 'model.pt'}: does not match {folder / 'model.json'}: {error}. Train the model again."
        ) from error
    return Model(network, vocabulary, info)


def _backbone(info: dict[str, Any]) -> nn.Module:
    from zerotag.training.backbones import build_backbone

    backbone = build_backbone(info["backbone"], "none", info["size"])
    # Input normalisation belongs to the weights, and so to the model.
    backbone.mean.copy_(torch.tensor(info["mean"]).view(-1, 1, 1))
    backbone.std.copy_(torch.tensor(info["std"]).view(-1, 1, 1))
    return backbone
