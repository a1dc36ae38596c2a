"""Run an exported network with numpy and ONNX Runtime, without torch."""

from pathlib import Path

import numpy as np
import onnxruntime

from zerotag.errors import ZerotagError

INPUT, OUTPUT = "pixels", "principal_vectors"


class Runtime:
    """An exported network: (B, S, S, 3) uint8 -> (B, M, d) float32.

    Args:
        file: ONNX file written by `zerotag.packaging.export`.
        threads: threads per call; 0 for all cores.
        spin: whether threads busy-wait between calls, which lowers latency. Disable it if other processes need the
            cores.
        views: 2 to average the principal vectors of a photo and of its mirror image, at twice the cost.

    Attributes:
        size: S.
        metadata: metadata written by the export stage.

    Raises:
        ZerotagError: the file is missing, or was not exported by zerotag; or another number of views.
    """

    def __init__(self, file: Path, threads: int = 0, spin: bool = True, views: int = 1):
        if views not in (1, 2):
            raise ZerotagError(f"views = {views}: use 1, or 2 for a photo and its mirror image.")
        self._views = views
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        options.add_session_config_entry("session.intra_op.allow_spinning", str(int(spin)))
        providers = onnxruntime.get_available_providers()
        wanted = [name for name in ("CUDAExecutionProvider", "CPUExecutionProvider") if name in providers]
        try:
            self._session = onnxruntime.InferenceSession(str(file), options, providers=wanted)
        except Exception as error:  # ONNX Runtime's errors have no narrower base class
            raise ZerotagError(f"{file}: ONNX Runtime cannot load this network ({error}). Run `dvc repro`.") from error
        self.metadata: dict[str, str] = dict(self._session.get_modelmeta().custom_metadata_map)
        if "size" not in self.metadata:
            raise ZerotagError(f"{file}: not exported by zerotag (its metadata has no size). Run `dvc repro export`.")
        self.size = int(self.metadata["size"])

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        """(B, S, S, 3) uint8 -> (B, M, d) float32."""
        principal = self._session.run([OUTPUT], {INPUT: pixels})[0]
        if self._views == 1:
            return principal
        mirrored = np.ascontiguousarray(pixels[:, :, ::-1])
        return (principal + self._session.run([OUTPUT], {INPUT: mirrored})[0]) / 2
