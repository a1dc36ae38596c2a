"""Training: from a backbone and a method to a trained model.

`methods` has the scores and losses (SDL, Fast0Tag, sdl_plus), one row of `METHODS` each; `loop.train` is the training
loop, and `modes` selects what is trained: the head, the last layers, or all. `backbones.build_backbone` builds a timm
network, `features` caches the features of a frozen one, and `model` saves and loads trained models, for evaluation and
packaging, and `onnx_export` writes a network as ONNX.
"""

from zerotag.errors import require

require("torch")
