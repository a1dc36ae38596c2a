"""Rows of the Corel5K tables: a method and its changes to params.yaml."""

from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from gensim.models import KeyedVectors

from zerotag.words.text_encoders import word_encoder
from zerotag.words.vectors import GLOVE, MINILM, load_lexicon


@dataclass(frozen=True)
class Row:
    """Attributes:
    method: a method of zerotag.training.methods.
    changes: parameter values by dotted name.
    against: the baseline row; None for the first row.
    """

    method: str
    changes: dict[str, Any] = field(default_factory=dict)
    against: str | None = None


def changed(method: str, changes: dict[str, Any]) -> Row:
    """A method with changed parameters, compared with its defaults."""
    return Row(method, {f"method.{method}.{name}": value for name, value in changes.items()}, method)


def changed_params(params: dict[str, Any], row: Row) -> dict[str, Any]:
    """Return a copy of params.yaml's content with a row's changes applied."""
    params = deepcopy(params)
    for name, value in row.changes.items():
        *sections, last = name.split(".")
        section: Any = params
        for each in sections:
            section = section[each]
        section[last] = value
    return params


# What the defaults were before classes were anchors; most tables vary one thing of that.
_GLOVE_ALONE = {"words.source": GLOVE, "method.sdl_plus.trust": 0.0}


def with_glove_alone(rows: dict[str, Row]) -> dict[str, Row]:
    """Rows with GloVe 50-d as word vectors and without classes, where they do not say otherwise."""
    return {name: replace(row, changes=_GLOVE_ALONE | row.changes) for name, row in rows.items()}


METHODS = {
    "fast0tag": Row("fast0tag"),
    "sdl": Row("sdl"),
    "sdl_plus": Row("sdl_plus", against="sdl"),
    "sdl_plus, without classes": Row("sdl_plus", {"method.sdl_plus.trust": 0.0}, "sdl_plus"),
    "sdl_plus, GloVe": Row("sdl_plus", {"words.source": GLOVE}, "sdl_plus"),
    "sdl_plus, GloVe, without classes": Row("sdl_plus", _GLOVE_ALONE, "sdl_plus"),
    "classifier": Row("classifier", against="sdl_plus"),
    "conse": Row("conse", against="classifier"),
}

# Cross-validated by benchmarks.corel5k.folds, with one change at a time. Rejected ideas for sdl_plus are in
# benchmarks.corel5k.ideas; uses of the classes, in benchmarks.corel5k.trials.
SDL = {
    "sdl": Row("sdl"),
    **{f"sdl, M = {rows}": changed("sdl", {"principal_vectors": rows}) for rows in (1, 2, 3, 5, 7, 10)},
    **{f"sdl, lambda = {weight}": changed("sdl", {"regularisation": weight}) for weight in (0.0, 0.1, 0.3, 0.7)},
    "sdl, no diversity weight": changed("sdl", {"diversity_weight": False}),
    "sdl, loss averaged over negatives": changed("sdl", {"per_negative": True}),
    "sdl, unnormalised word vectors": Row("sdl", {"words.normalise": False}),
    "sdl, cross-entropy": changed("sdl", {"cross_entropy": True}),
    "fast0tag": Row("fast0tag"),
    "fast0tag, loss not averaged over negatives": changed("fast0tag", {"per_negative": False}),
}


def plus(settings: dict[str, Any]) -> Row:
    """sdl_plus with settings of `train.linear_probe`."""
    return Row("sdl_plus", {f"train.linear_probe.{name}": value for name, value in settings.items()}, "sdl_plus")


SDL_PLUS = {
    "sdl_plus": Row("sdl_plus"),
    "sdl_plus, no lift": changed("sdl_plus", {"sharpness": []}),
    **{
        f"sdl_plus, sharpness {', '.join(map(str, mean))}": changed("sdl_plus", {"sharpness": list(mean)})
        for mean in ((1,), (2,), (4,), (8,), (2, 4), (1, 8), (2, 16), (1, 2, 4), (1, 2, 4, 8), (1, 2, 4, 8, 16))
    },
    "sdl_plus, ranking loss": changed("sdl_plus", {"cross_entropy": False}),
    "sdl_plus, diversity weight": changed("sdl_plus", {"diversity_weight": True}),
    "sdl_plus, raw features": changed("sdl_plus", {"standardise": False}),
    "sdl_plus, no bias": changed("sdl_plus", {"prior": False}),
    **{
        f"sdl_plus, head decay {value}": changed("sdl_plus", {"head_decay": value})
        for value in (0.0, 0.03, 0.05, 0.2, 0.3, 0.5)
    },
    "sdl_plus, M = 3": changed("sdl_plus", {"principal_vectors": 3}),
    "sdl_plus, learning rate 0.0003": plus({"learning_rate": 0.0003}),
    "sdl_plus, learning rate 0.001": plus({"learning_rate": 0.001}),
    "sdl_plus, 5 epochs": plus({"epochs": 5}),
    "sdl_plus, 20 epochs": plus({"epochs": 20}),
    "sdl_plus, 30 epochs": plus({"epochs": 30}),
    "sdl_plus, batch 64": plus({"batch": 64}),
    "sdl_plus, batch 128": plus({"batch": 128}),
}


def attempt(rows: int, weight: float, settings: dict[str, Any], **head: Any) -> dict[str, Row]:
    """SDL of M rows and a lambda, and Fast0Tag under the same settings of `train.linear_probe` and of the head."""
    name = "".join(f", {key.replace('_', ' ')} {value}" for key, value in {**settings, **head}.items())
    train = {f"train.linear_probe.{key}": value for key, value in settings.items()}
    sdl = {"principal_vectors": rows, "regularisation": weight, **head}
    return {
        f"fast0tag{name}": Row(
            "fast0tag", train | {f"method.fast0tag.{key}": value for key, value in head.items()}, f"fast0tag{name}"
        ),
        f"sdl ({rows}, {weight}){name}": Row(
            "sdl", train | {f"method.sdl.{key}": value for key, value in sdl.items()}, f"fast0tag{name}"
        ),
    }


# Hyper-parameter search for SDL.
SEARCH = {
    name: row
    for rows in (
        *(attempt(rows, 0.3, {}) for rows in (3, 7, 10, 15, 20)),
        *(attempt(10, weight, {}) for weight in (0.1, 0.5, 0.7)),
        attempt(15, 0.5, {}),
        *(attempt(10, 0.3, {"learning_rate": rate}) for rate in (0.0003, 0.001, 0.01)),
        *(attempt(10, 0.3, {"epochs": epochs}) for epochs in (5, 20)),
        attempt(10, 0.3, {"learning_rate": 0.001, "epochs": 30}),
        *(attempt(10, 0.3, {"batch": photos}) for photos in (64, 128)),
        *(attempt(10, 0.3, {"weight_decay": decay}) for decay in (0.0001, 0.001, 0.01)),
        attempt(10, 0.3, {"moving_average": 0.999}),
        attempt(10, 0.3, {}, standardise=True),
        attempt(10, 0.3, {"weight_decay": 0.01}, standardise=True),
        attempt(15, 0.3, {"learning_rate": 0.001}),
        *(attempt(15, 0.3, {"batch": photos}) for photos in (64, 128)),
        attempt(15, 0.3, {"weight_decay": 0.001}),
    )
    for name, row in rows.items()
}
SECTIONS = {
    "SDL": with_glove_alone(SDL),
    "sdl_plus": with_glove_alone(SDL_PLUS),
    "Hyper-parameter search: SDL (M, lambda) against Fast0Tag": with_glove_alone(SEARCH),
}


def partial_fine_tuning(**settings: Any) -> dict[str, Any]:
    """Partial fine-tuning: the last layers of the backbone are trained too."""
    mode = "partial_fine_tuning"
    return {"train.mode": mode} | {f"train.{mode}.{name}": value for name, value in settings.items()}


def full_fine_tuning(**settings: Any) -> dict[str, Any]:
    """Full fine-tuning: all layers are trained, within the budget of two cores."""
    settings = {
        "epochs": 2,
        "learning_rate": 3e-4,
        "head_learning_rate": 1e-3,
        "head_first": True,
        "batch_statistics": False,
        "weight_decay": 0.0,
        "cutout": 0.0,
        "pixels": 160,
        **settings,
    }
    mode = "full_fine_tuning"
    return {"train.mode": mode} | {f"train.{mode}.{name}": value for name, value in settings.items()}


END_TO_END = {
    "sdl, linear probe": Row("sdl"),
    "sdl, partial fine-tuning": Row("sdl", partial_fine_tuning()),
    "sdl, full fine-tuning": Row("sdl", full_fine_tuning(pixels=224)),
    "fast0tag, linear probe": Row("fast0tag"),
    "fast0tag, partial fine-tuning": Row("fast0tag", partial_fine_tuning(), "fast0tag, linear probe"),
    "sdl_plus, linear probe": Row("sdl_plus"),
    "sdl_plus, partial fine-tuning": Row("sdl_plus", partial_fine_tuning(), "sdl_plus, linear probe"),
}

# Hyper-parameter selection for the above, on validation photos.
FINE_TUNING = {
    "sdl, linear probe": Row("sdl"),
    "sdl, partial fine-tuning": Row("sdl", partial_fine_tuning()),
    **{
        f"sdl, partial fine-tuning, {name}": Row("sdl", partial_fine_tuning(**settings), "sdl, partial fine-tuning")
        for name, settings in {
            "learning rate 0.0001": {"learning_rate": 1e-4},
            "learning rate 0.001": {"learning_rate": 1e-3},
            "6 epochs": {"epochs": 6},
            "batch statistics": {"batch_statistics": True},
            "head not trained first": {"head_first": False},
        }.items()
    },
    "sdl, full fine-tuning at 160 pixels": Row("sdl", full_fine_tuning()),
    "sdl, full fine-tuning at 160 pixels, learning rate 0.0001": Row("sdl", full_fine_tuning(learning_rate=1e-4)),
}

# The 300-d GloVe vectors cover 1,006 tags; comparisons with them are restricted to these tags.
_FEW = {"glove-50": "GloVe 50-d", "glove-300": "GloVe 300-d", "minilm": "MiniLM 384-d"}
WORDS = {
    **{
        f"{method}, {name}": Row(method, {"words.source": source}, f"{method}, GloVe 50-d")
        for method in ("fast0tag", "sdl", "sdl_plus")
        for name, source in (("GloVe 50-d", GLOVE), ("MiniLM 384-d", MINILM))
    },
    **{
        f"{method}, {name}, common tags": Row(
            method,
            # Written by write_tag_vectors to the parent folder of the workspace.
            {"words.source": f"file:../{file}.kv", "words.max_missing_share": 0.5},
            f"{method}, GloVe 50-d, common tags",
        )
        for method in ("sdl", "sdl_plus")
        for file, name in _FEW.items()
    },
}

TABLES = {
    "methods": METHODS,
    "end-to-end": with_glove_alone(END_TO_END),
    "fine-tuning": with_glove_alone(FINE_TUNING),
    "words": with_glove_alone(WORDS),
}


def write_tag_vectors(folder: Path, work: Path) -> None:
    """Write vectors of the same tags from three sources as gensim .kv files."""
    tags = pd.read_csv(folder / "tags1006.csv", dtype=str, keep_default_na=False)["tag"].tolist()
    published = dict(zip(tags, np.load(folder / "wordvectors_1006x300.npy"), strict=True))
    lexicon = load_lexicon(GLOVE)
    kept = [tag for tag in tags if tag in lexicon.index]
    sources = {
        "glove-50": np.stack([lexicon.vector(tag) for tag in kept]),
        "glove-300": np.stack([published[tag] for tag in kept]),
        "minilm": word_encoder(MINILM)(kept),
    }
    for name, table in sources.items():
        vectors = KeyedVectors(table.shape[1])
        vectors.add_vectors(kept, table)
        vectors.save(str(work / f"{name}.kv"))
