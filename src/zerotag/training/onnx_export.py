"""Write a torch network as ONNX, for ONNX Runtime, which runs it faster than torch on CPUs.

The graph takes decoded photos as they lie in memory, uint8 (B, S, S, 3), and scales them to [0, 1] itself.
"""

import json
import logging
import warnings
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import nn

from zerotag.files import write_aside
from zerotag.runtime import INPUT

# The newest opset that torch's exporter and ONNX Runtime's graph optimisations both support well.
OPSET = 23


class FromPixels(nn.Module):
    """A network on photos, (B, 3, S, S) in [0, 1], that takes their pixels: (B, S, S, 3) uint8."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """(B, S, S, 3) uint8 -> (B, …)."""
        return self.network(pixels.permute(0, 3, 1, 2).float() / 255)


def export_onnx(network: nn.Module, size: int, file: Path, output: str, facts: dict[str, Any]) -> None:
    """Export a network to ONNX, with a dynamic batch size.

    Args:
        network: (B, 3, S, S) in [0, 1] -> (B, …), on the CPU.
        size: S.
        file: written atomically.
        output: name of the output.
        facts: the file's metadata; `size`, which `zerotag.runtime` needs, is added.

    Raises:
        Exception: torch cannot export this network; the types vary.
    """
    example = torch.zeros((2, size, size, 3), dtype=torch.uint8)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            FromPixels(network).eval(),
            (example,),
            dynamo=True,
            opset_version=OPSET,
            input_names=[INPUT],
            output_names=[output],
            dynamic_shapes={"pixels": {0: torch.export.Dim("batch")}},
            optimize=True,
            verbose=False,
        )
    assert program is not None
    proto = program.model_proto
    describe(proto, {"size": size, **facts})
    onnx.checker.check_model(proto)
    with write_aside(file) as draft:
        onnx.save(proto, draft)


def describe(proto: onnx.ModelProto, facts: dict[str, Any]) -> None:
    """Update a model's metadata."""
    known = {entry.key: entry.value for entry in proto.metadata_props}
    known.update({key: value if isinstance(value, str) else json.dumps(value) for key, value in facts.items()})
    onnx.helper.set_model_props(proto, known)
