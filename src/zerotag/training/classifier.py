"""The linear classifier of a pretrained backbone, over named classes."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from zerotag.errors import ZerotagError


@dataclass(frozen=True, eq=False)
class Classifier:
    """A linear classifier: logits = features @ weight.T + bias.

    Attributes:
        weight: (C, F) float32.
        bias: (C,) float32.
    """

    weight: torch.Tensor
    bias: torch.Tensor

    @classmethod
    def of(cls, weight: torch.Tensor, bias: torch.Tensor | None) -> "Classifier | None":
        """From the tensors of a state dict; None if they are not those of a linear layer."""
        if weight.ndim != 2:
            return None
        return cls(weight.detach().float(), torch.zeros(len(weight)) if bias is None else bias.detach().float())

    @classmethod
    def of_network(cls, network: nn.Module) -> "Classifier | None":
        """From a timm network; None if it does not end in a linear layer."""
        layer = network.get_classifier()  # type: ignore[operator]
        return cls.of(layer.weight, layer.bias) if isinstance(layer, nn.Linear) else None

    def keep(self, classes: np.ndarray) -> "Classifier":
        """The classifier of some classes, by their places among the C."""
        places = torch.from_numpy(classes)
        return Classifier(self.weight[places], self.bias[places])

    def describe(self) -> tuple[list[str], list[str]]:
        """Names of the C classes, with synonyms ("tench, Tinca tinca"), and their definitions.

        Raises:
            ZerotagError: no label set of this size has names.
        """
        from timm.data import ImageNetInfo, infer_imagenet_subset  # slow to import

        label_set = infer_imagenet_subset({"num_classes": len(self.weight)})
        if label_set is None:
            raise ZerotagError(
                f"The backbone's classifier has {len(self.weight):,} classes, a label set without known names, so its "
                "classes have no word vectors. Use weights of ImageNet-1k, 12k, 21k or 22k."
            )
        labels = ImageNetInfo(label_set)
        names = [labels.index_to_description(place) for place in range(labels.num_classes())]
        detailed = [labels.index_to_description(place, detailed=True) for place in range(labels.num_classes())]
        return names, [text.removeprefix(f"{name}: ") for text, name in zip(detailed, names, strict=True)]


def need_classifier(classifier: Classifier | None, backbone: str, method: str) -> Classifier:
    """The classifier of a backbone for a method that needs it.

    Raises:
        ZerotagError: it has none.
    """
    if classifier is None:
        raise ZerotagError(
            f"params.yaml: method {method} needs weights with a classifier over named classes; "
            f"those of {backbone} have none (random weights, CLIP image towers). Use other weights "
            "or another backbone; sdl_plus and sdl work without it if method.NAME.trust = 0."
        )
    return classifier
