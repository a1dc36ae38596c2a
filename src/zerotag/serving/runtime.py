"""Run an exported network: Pillow, numpy and ONNX Runtime; no torch."""

from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image

from zerotag.errors import ZerotagError

INPUT, OUTPUT = "pixels", "principal_vectors"


def to_pixels(picture: Image.Image, size: int) -> np.ndarray:
    """The network's input, (S, S, 3) uint8: the whole picture squeezed to S x S, as in training.

    torchvision's Resize hands a Pillow picture to this very call, so that the pixels are the same to the bit.
    """
    return np.asarray(picture.resize((size, size), Image.Resampling.BILINEAR))


class Runtime:
    """An exported network: (B, S, S, 3) uint8 -> (B, M, d) float32.

    Args:
        file: ONNX, as `zerotag.packaging.export` writes it.
        threads: of one call; 0 for all cores.
        spin: whether its threads keep their cores busy between calls, to answer the next one sooner. Not beside other
            processes that have work for these cores.

    Attributes:
        size: S.
        metadata: what the export stage wrote into the model.

    Raises:
        ZerotagError: no such model, or not one of zerotag's.
    """

    def __init__(self, file: Path, threads: int = 0, spin: bool = True):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        options.add_session_config_entry("session.intra_op.allow_spinning", str(int(spin)))
        providers = onnxruntime.get_available_providers()
        wanted = [name for name in ("CUDAExecutionProvider", "CPUExecutionProvider") if name in providers]
        try:
            self._session = onnxruntime.InferenceSession(str(file), options, providers=wanted)
        except Exception as error:  # ONNX Runtime's own errors share no base but this
            raise ZerotagError(
                f"{file}: not a network that ONNX Runtime can load ({error}). Run `dvc repro`."
            ) from error
        self.metadata: dict[str, str] = dict(self._session.get_modelmeta().custom_metadata_map)
        if "size" not in self.metadata:
            raise ZerotagError(f"{file}: not exported by zerotag (its metadata has no size). Run `dvc repro export`.")
        self.size = int(self.metadata["size"])

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        """(B, S, S, 3) uint8 -> (B, M, d) float32."""
        return self._session.run([OUTPUT], {INPUT: pixels})[0]
