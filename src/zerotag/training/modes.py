"""The fine-tuning modes: which part of a network is trained, and on which inputs.

=================== ======================================= ========================================
linear_probe        the head                                cached features
partial_fine_tuning the backbone's last layers and the head cached activations of the layers below
full_fine_tuning    the whole network                       augmented photos
=================== ======================================= ========================================
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from zerotag.data.dataset import Dataset
from zerotag.errors import ZerotagError
from zerotag.training.augment import TrainingPhotos, default_workers, training_batches
from zerotag.training.backbones import Backbone, architecture_of, cut
from zerotag.training.features import features_of
from zerotag.training.heads import Head
from zerotag.training.loop import Batches, TrainSettings, feature_batches
from zerotag.training.model import Network

MODES = ("linear_probe", "partial_fine_tuning", "full_fine_tuning")


@dataclass(frozen=True)
class Mode:
    """Attributes:
    trained: the trained module, which shares the network's weights.
    batches: its inputs.
    features: rows -> (n, F), the head's inputs before training.
    """

    trained: nn.Module
    batches: Batches
    features: Callable[[np.ndarray], np.ndarray]


def first_trained_layer(mode: str, layers: dict[str, str], backbone: str) -> str:
    """The layer at which `partial_fine_tuning` cuts a backbone; empty in the other modes.

    Args:
        mode: one of MODES.
        layers: `train.first_trained_layer`, by backbone.
        backbone: name of the backbone.

    Raises:
        ZerotagError: an unknown mode, or no layer for the backbone.
    """
    if mode not in MODES:
        raise ZerotagError(f"params.yaml: train.mode = {mode!r} is unknown; use {', '.join(MODES)}.")
    if mode != "partial_fine_tuning":
        return ""
    layer = layers.get(backbone, layers.get(architecture_of(backbone)))
    if layer is None:
        raise ZerotagError(
            f"params.yaml: train.first_trained_layer names no layer of {backbone}; name the one at which "
            "partial_fine_tuning starts, or use another train.mode."
        )
    return layer


def linear_probe(head: Head, features: np.ndarray, batch: int, device: torch.device) -> Mode:
    """Train the head on (N, F) cached features."""
    return Mode(head, feature_batches(features, batch, device), lambda rows: features[rows])


def partial_fine_tuning(
    backbone: Backbone, head: Head, layer: str, activations: np.ndarray, batch: int, device: torch.device
) -> Mode:
    """Train from a layer on, on its (N, …) cached input activations."""
    _, last = cut(backbone, layer)
    last.to(device)
    batches = feature_batches(activations, batch, device)

    def features(rows: np.ndarray) -> np.ndarray:
        last.eval()
        with torch.inference_mode():
            return np.concatenate([last(inputs).float().cpu().numpy() for inputs, _ in batches(rows, 0)])

    return Mode(Network(last, head), batches, features)


def full_fine_tuning(
    network: Network, dataset: Dataset, settings: TrainSettings, batch: int, device: torch.device
) -> Mode:
    """Train the whole network on augmented photos."""

    def batches(rows: np.ndarray, epoch: int) -> Iterator[tuple[torch.Tensor, np.ndarray]]:
        photos = TrainingPhotos(dataset, rows, settings.pixels, settings.cutout, settings.seed, epoch)
        return training_batches(photos, batch, device, default_workers(device))

    def features(rows: np.ndarray) -> np.ndarray:
        backbone = network.backbone.to(device).eval()
        return np.concatenate(list(features_of(backbone, dataset, rows, settings.pixels, batch, device)))

    return Mode(network.to(memory_format=torch.channels_last), batches, features)
