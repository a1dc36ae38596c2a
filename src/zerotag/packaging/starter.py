"""The starter: a tagger for any word that needs no training photo, from what the pip packages bring.

The default backbone's own classifier (`zerotag.training.heads.KindHead`), everyday words
(`zerotag/words/everyday.txt`), and MiniLM for any other word or phrase. `python -m zerotag.packaging.starter FOLDER`
builds it; the command line and the service do so at first use.
"""

import hashlib
import json
import sys
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from tqdm import tqdm

from zerotag.errors import ZerotagError, plain_exit
from zerotag.evaluation.calibration import Calibration
from zerotag.packaging.export import export_network
from zerotag.packaging.text_encoder import export_text_encoder
from zerotag.registry.served import starter_digest
from zerotag.serving.package import write_package
from zerotag.training.backbones import build_backbone
from zerotag.training.classifier import need_classifier
from zerotag.training.heads import KindHead, lift_vocabulary
from zerotag.training.methods import METHODS
from zerotag.training.model import Model, Network
from zerotag.words.everyday import read_words
from zerotag.words.lexicon import Lexicon, unit
from zerotag.words.text_encoders import word_encoder
from zerotag.words.vectors import MINILM, WordSettings, class_vectors
from zerotag.words.vocabulary import Vocabulary

BACKBONE, WEIGHTS, METHOD, PIXELS = "tf_efficientnet_lite0", "package", "classifier", 224
# Cutting half of the excess of the longer side gives better figures than squeezing it or cutting all (docs/starter.md).
CROP = 0.5
# Weight of the probability of a word's kinds beside the cosine: 0.5 to 1.5 hardly differ (docs/starter.md).
KINDS = 1.5
WORDS = WordSettings(MINILM)
# Slope and offset from a score to a probability, fitted by `python -m benchmarks.starter --calibrate`.
CALIBRATION = Path(__file__).with_name("starter.json")


def starter_model(words: list[str]) -> Model:
    """The starter's network, and words as it scores them.

    Args:
        words: T words; none of them was a training target.

    Raises:
        ZerotagError: there is no word, or a pip package is missing.
    """
    if not words:
        raise ZerotagError("The vocabulary holds no word. Give one word or phrase a line.")
    backbone = build_backbone(BACKBONE, WEIGHTS).eval()
    classifier = need_classifier(backbone.classifier, BACKBONE, METHOD)
    classes, _ = class_vectors(*classifier.describe(), WORDS)
    vectors = unit(word_encoder(WORDS.source)(words)).astype(np.float32)
    plain = Vocabulary(words, vectors, np.zeros(len(words), dtype=bool))
    vocabulary = lift_vocabulary(plain, METHODS[METHOD], classes, KINDS)
    network = Network(backbone, KindHead.of(classifier)).eval()
    return Model(network, vocabulary, {"backbone": BACKBONE, "size": PIXELS, "crop": CROP})


def build_starter(folder: Path) -> None:
    """Build the starter's package.

    Args:
        folder: written atomically.

    Raises:
        ZerotagError: a pip package is missing, or the network cannot be exported.
    """
    steps = tqdm(total=4, desc="starter: words", unit="step")
    model = starter_model(read_words())
    with TemporaryDirectory() as work:
        network, encoder = Path(work) / "model.onnx", Path(work) / "encoder"
        _next(steps, "starter: network")
        export_network(model, network)
        _next(steps, "starter: text encoder")
        export_text_encoder(WORDS.source, encoder)
        _next(steps, "starter: package")
        vocabulary = model.vocabulary
        assert vocabulary.words is not None
        content = hashlib.sha256(network.read_bytes() + vocabulary.digest.encode()).hexdigest()
        fitted = json.loads(CALIBRATION.read_text(encoding="utf-8"))
        line = (fitted["slope"], fitted["offset"])
        figures = {"method": "Platt", "fitted_on": fitted["fitted_on"], "photos": fitted["photos"]}
        lexicon = Lexicon({word: row for row, word in enumerate(vocabulary.tags)}, vocabulary.words)
        write_package(
            folder, network, vocabulary, lexicon, Calibration(line, line, {}, figures), _info(model, content),
            len(vocabulary.tags), encoder,
        )  # fmt: skip
    _next(steps, "starter: ready")
    steps.close()


def _next(steps: tqdm, name: str) -> None:
    steps.update()
    steps.set_description(name)


def _info(model: Model, content: str) -> dict[str, Any]:
    return {
        "name": "zerotag-starter",
        "version": content[:12],
        "starter": starter_digest(),
        "backbone": BACKBONE,
        "method": METHOD,
        "size": PIXELS,
        "crop": CROP,
        "principal_vectors": 1,
        "dimensions": model.vocabulary.vectors.shape[1],
        "metrics": {},
        "training": {"data": {"source": "none: what the backbone learnt from ImageNet", "words": WORDS.source}},
        "packages": {name: version(name) for name in ("zerotag", "timm", "onnxruntime")},
        "licences": {
            "code": "zerotag: Apache-2.0. Network definitions: timm, Apache-2.0.",
            "weights": "EfficientNet-Lite0's pip package is Apache-2.0. It was trained on ImageNet, whose photographs "
            "are for non-commercial research: judge for yourself what that means.",
            "words": "MiniLM is under Apache-2.0; class names, definitions and kinds are WordNet's.",
        },
    }


if __name__ == "__main__":
    with plain_exit():
        build_starter(Path(sys.argv[1]))
