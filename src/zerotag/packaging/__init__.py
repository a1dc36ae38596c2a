"""Export of trained models for serving: the only package that imports both torch and ONNX Runtime."""
