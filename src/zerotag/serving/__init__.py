"""Tag and search photographs with a packaged model: numpy, Pillow and ONNX Runtime, never torch.

`tagger.Tagger` is the door; `index` searches photographs by words; `package` is the folder that both read.
"""
