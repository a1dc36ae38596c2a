"""Tag and search photographs with a packaged model, using numpy, Pillow and ONNX Runtime, without torch.

`tagger.Tagger` is the entry point, `index` searches photos by words, and `package` is the folder that both read.
"""
