"""Test the packaged model's behaviour; what fails keeps it from promotion, and not the pipeline from going on."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from zerotag.data.dataset import Dataset
from zerotag.data.photos import open_photo, to_pixels
from zerotag.errors import plain_exit
from zerotag.evaluation.behaviour import BehaviourSettings, SamplePhoto, check_behaviour
from zerotag.evaluation.report import ReportSettings, write_behaviour
from zerotag.files import write_aside
from zerotag.registry.behaviour import table
from zerotag.samples import samples
from zerotag.serving.tagger import Tagger
from zerotag.settings import from_params, read_params


def main() -> None:
    params = read_params()
    settings = from_params(BehaviourSettings, params.get("behaviour"), "behaviour")
    tagger = Tagger("served")

    def principal(pictures: Sequence[Image.Image]) -> np.ndarray:
        crop, size = tagger.info.get("crop", 0.0), params["features"]["batch"]
        pixels = [to_pixels(picture, tagger.size, crop) for picture in pictures]
        starts = range(0, len(pixels), size)
        return np.concatenate([tagger.principal_vectors(np.stack(pixels[start : start + size])) for start in starts])

    photographs = {each.file.stem: each.file for each in samples()}
    words = tagger.words(photographs)
    shown = [
        SamplePhoto(open_photo(photographs[word].read_bytes(), word), word, vector)
        for word, vector in zip(words.words, words.vectors, strict=True)
    ]
    checks = check_behaviour(
        principal,
        tagger.vocabulary.tags,
        tagger.vocabulary.vectors,
        tagger.vocabulary.seen,
        Dataset.read(Path("prepared")),
        shown,
        tagger.info["training"]["data"]["source"] == "scenes",
        settings,
    )
    with write_aside(Path("behaviour")) as draft:
        draft.mkdir()
        result: dict[str, Any] = {
            "model": tagger.info["version"],
            "checks": {name: each.content() for name, each in checks.items()},
        }
        (draft / "behaviour.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
        title = from_params(ReportSettings, params.get("report"), "report").title
        write_behaviour(draft / "index.html", result["model"], result["checks"], title)
    print(table(Path("behaviour")))


if __name__ == "__main__":
    with plain_exit():
        main()
