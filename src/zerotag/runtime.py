"""Run an exported network with numpy and ONNX Runtime, without torch."""

from pathlib import Path

import numpy as np
import onnxruntime

from zerotag.errors import ZerotagError

INPUT = "pixels"

# Photos at a time. On 2 cores, EfficientNet-Lite0 takes 4.6 to 5.2 ms of a core per photo for 1 to 4 photos, and 6.1 ms
# for 16, whose activations do not fit in a core's cache. Wide layers, as VGG's, are read from memory once per call.
_ON_CPU, _ON_GPU = 4, 32
_CPU, _GPU = "CPUExecutionProvider", "CUDAExecutionProvider"


def on_gpu() -> bool:
    """Whether networks run on a GPU: with the package onnxruntime-gpu."""
    return _GPU in onnxruntime.get_available_providers()


class Runtime:
    """An exported network: (B, S, S, 3) uint8 -> (B, …) float32, such as principal vectors (B, M, d).

    Several threads may call it at once.

    Args:
        file: ONNX file written by `zerotag.training.onnx_export`.
        threads: threads per call; 0 for all cores.
        views: 2 to average the results of a photo and of its mirror image, at twice the cost.

    Attributes:
        size: S.
        metadata: metadata written by the export stage.
        at_once: B that is fastest per photo: small on CPUs, if threads share out the photos.

    Raises:
        ZerotagError: the file is missing, or was not exported by zerotag; or another number of views.
    """

    def __init__(self, file: Path, threads: int = 0, views: int = 1):
        if views not in (1, 2):
            raise ZerotagError(f"views = {views}: use 1, or 2 for a photo and its mirror image.")
        self._views = views
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        wanted = [_GPU, _CPU] if on_gpu() else [_CPU]
        try:
            self._session = onnxruntime.InferenceSession(str(file), options, providers=wanted)
        except Exception as error:  # ONNX Runtime's errors have no narrower base class
            raise ZerotagError(f"{file}: ONNX Runtime cannot load this network ({error}). Run `dvc repro`.") from error
        self.metadata: dict[str, str] = dict(self._session.get_modelmeta().custom_metadata_map)
        if "size" not in self.metadata:
            raise ZerotagError(f"{file}: not exported by zerotag (its metadata has no size). Run `dvc repro export`.")
        self.size = int(self.metadata["size"])
        self.at_once = _ON_GPU if self._session.get_providers()[0] == _GPU else _ON_CPU

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        """(B, S, S, 3) uint8 -> (B, …) float32."""
        found = self._session.run(None, {INPUT: pixels})[0]
        if self._views == 1:
            return found
        mirrored = np.ascontiguousarray(pixels[:, :, ::-1])
        return (found + self._session.run(None, {INPUT: mirrored})[0]) / 2
