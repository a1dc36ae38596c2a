"""Export of trained models for serving.

`export.export_network` writes a network as ONNX, `export.compare_with_torch` checks the graph against torch, and
`export.try_precision` measures fp16 and int8. `text_encoder` exports MiniLM for phrases, and `starter` builds the model
that answers before any training. `zerotag.serving.package` defines the folder that is served.
"""

from zerotag.errors import require

require("torch")
