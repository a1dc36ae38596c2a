"""From a trained model to what is served: the one room that knows both torch and ONNX Runtime."""
