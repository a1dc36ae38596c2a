"""The starter on photographs with tags: python -m benchmarks.starter FOLDER … [--calibrate FOLDER] [--out FILE].

Each FOLDER holds tags.csv (image,tags) and images/. All its words are ranked for each photo by the packaged starter,
as `zerotag tag --tags` does, without any training, and compared with ConSE on the same classifier and word vectors.

--calibrate  fits the line from scores to probabilities on FOLDER and writes src/zerotag/packaging/starter.json;
             reliability is then that of the other folders.
--out        writes the table as Markdown.
"""

import argparse
import json
import math
import time
from pathlib import Path

import numpy as np
import scipy.sparse as sp
import torch
from benchmarks.corel5k.figures import measured
from torch import nn
from tqdm import tqdm

from zerotag.data.batches import pixel_batches
from zerotag.data.sources import csv_table
from zerotag.data.sources.base import PhotoFile, Source
from zerotag.errors import ZerotagError
from zerotag.evaluation.bootstrap import draw_weights, interval, resampled_figures
from zerotag.evaluation.calibration import Calibration, expected_calibration_error, fit_line, reliability
from zerotag.evaluation.evaluate import score_matrix
from zerotag.evaluation.metrics import average_precision, count_hits, expected_average_precision, top_k_hits
from zerotag.files import write_aside
from zerotag.packaging.starter import BACKBONE, CALIBRATION, WEIGHTS, WORDS
from zerotag.registry.served import starter_package
from zerotag.serving.tagger import Tagger
from zerotag.training.backbones import build_backbone
from zerotag.training.classifier import need_classifier
from zerotag.training.features import as_input
from zerotag.training.heads import untrained_head
from zerotag.training.methods import METHODS
from zerotag.training.model import Network
from zerotag.words.vectors import class_vectors

BATCH, RESAMPLES = 32, 200


def read(folder: Path) -> Source:
    """Read a folder with tags.csv and images/; its words are the tags, in alphabetical order."""
    return csv_table.read(csv_table.CsvSettings(str(folder / "tags.csv"), str(folder / "images")))


def embed(tagger: Tagger, conse: nn.Module, files: list[PhotoFile]) -> tuple[np.ndarray, np.ndarray]:
    """Principal vectors of the starter, (N, 1, C), and of ConSE, (N, 1, d)."""
    starter, baseline = [], []
    batches = pixel_batches(files, lambda file: tagger.pixels(file.read(), str(file)), BATCH)
    for batch in tqdm(batches, total=math.ceil(len(files) / BATCH), desc="photographs", unit="batch"):
        if batch.failed:
            raise ZerotagError(batch.failed[0][1])
        pixels = np.stack(batch.results)
        starter.append(tagger.principal_vectors(pixels))
        with torch.inference_mode():
            baseline.append(conse(as_input(pixels, torch.device("cpu"))).numpy())
    return np.concatenate(starter), np.concatenate(baseline)


def conse_network() -> nn.Module:
    """Photos to ConSE's mean word vectors, with the starter's own classifier and class vectors."""
    backbone = build_backbone(BACKBONE, WEIGHTS)
    classifier = need_classifier(backbone.classifier, BACKBONE, "conse")
    classes, _ = class_vectors(*classifier.describe(), WORDS)
    return Network(backbone, untrained_head(METHODS["conse"], classifier, classes)).eval()


def row(name: str, method: str, scores: np.ndarray, labels: sp.csr_matrix) -> str:
    """Metrics of a method on a folder, with 95% intervals over photographs."""
    kept = np.flatnonzero(np.diff(labels.indptr))
    hits = {k: top_k_hits(scores, labels, k) for k in (3, 5)}
    figures = {
        "map": float(np.nanmean(average_precision(scores, labels, kept))),
        **{f"f1@{k}": count_hits(of_photo, labels, k).f1 for k, of_photo in hits.items()},
    }
    resampled = resampled_figures(scores, labels, draw_weights(len(scores), RESAMPLES, 0), hits)
    cells = [f"{100 * value:.1f} [{100 * low:.1f}, {100 * high:.1f}]"
             for key, value in figures.items() for low, high in [interval(resampled[key], value)]]  # fmt: skip
    return f"| {name} | {method} | {' | '.join(cells)} |"


def cost(files: list[PhotoFile]) -> str:
    """Processor time per photograph, with one view and two."""
    taggers = {views: Tagger(starter_package(), threads=1, views=views) for views in (1, 2)}
    started = time.process_time()
    pixels = np.stack([taggers[1].pixels(file.read(), str(file)) for file in files])
    cells = [f"decoding {1000 * (time.process_time() - started) / len(files):.0f} ms"]
    for views, tagger in taggers.items():
        tagger.principal_vectors(pixels[:1])
        started = time.process_time()
        for batch in np.array_split(pixels, math.ceil(len(files) / 16)):
            tagger.principal_vectors(batch)
        cells.append(f"{views} view{'s' * (views > 1)} {1000 * (time.process_time() - started) / len(files):.0f} ms")
    return f"Processor time per photograph of {len(files)}: {', '.join(cells)}."


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    arguments.add_argument("folders", type=Path, nargs="+")
    arguments.add_argument("--calibrate", type=Path)
    arguments.add_argument("--out", type=Path)
    options = arguments.parse_args()
    tagger, conse = Tagger(starter_package()), conse_network()
    encoder = tagger.text_encoder
    assert encoder
    lines, scored = [], {}
    for folder in options.folders:
        photographs = read(folder)
        starter, baseline = embed(tagger, conse, photographs.files)
        scores = score_matrix(starter, tagger.words(photographs.tags).vectors)
        scored[folder] = scores, photographs.labels.toarray()
        name = f"{folder.name}: {len(photographs.files):,} photographs, {len(photographs.tags)} words"
        kept = np.diff(photographs.labels.indptr) > 0
        positives = np.asarray(photographs.labels.sum(axis=0)).ravel()
        random = 100 * float(np.nanmean(expected_average_precision(positives, int(kept.sum()))))
        lines.append(f"| {name} | random scores | {random:.1f} | | |")
        lines.append(row(name, "ConSE", score_matrix(baseline, encoder(photographs.tags)), photographs.labels))
        lines.append(row(name, "starter", scores, photographs.labels))
    if options.calibrate:
        scores, labels = scored[options.calibrate]
        slope, offset = fit_line(scores.ravel(), labels.ravel())
        fitted = {
            "slope": round(slope, 3),
            "offset": round(offset, 3),
            "fitted_on": f"{options.calibrate.name}, by benchmarks.starter",
            "photos": len(labels),
        }
        with write_aside(CALIBRATION) as draft:
            draft.write_text(json.dumps(fitted, indent=1) + "\n", encoding="utf-8")
    fitted = json.loads(CALIBRATION.read_text(encoding="utf-8"))
    text = [
        measured("python -m benchmarks.starter FOLDER …"),
        "No training photograph; all words of the folder are ranked; 95% bootstrap intervals over photographs.",
        "",
        "| | | mAP | F1@3 | F1@5 |\n|---|---|---|---|---|",
        *lines,
        "",
        f"Probabilities, fitted on {fitted['fitted_on']}: slope {fitted['slope']}, offset {fitted['offset']}.",
        "",
        "| probability | " + " | ".join(folder.name for folder in options.folders) + " |",
        "|---|" + "---|" * len(options.folders),
    ]
    line = Calibration((fitted["slope"], fitted["offset"]), (0, 0), {})
    bins = {}
    for folder, (scores, labels) in scored.items():
        words = [""] * scores.shape[1]
        bins[folder] = reliability(line.probabilities(words, [None] * len(words), scores).ravel(), labels.ravel(), 10)
    for place in range(10):
        cells = []
        for its in bins.values():
            [found] = [one for one in its if place <= 10 * one["probability"] < place + 1] or [None]
            cells.append(f"{100 * found['share']:.0f}% of {found['count']:,}" if found else "")
        text.append(f"| {10 * place}-{10 * place + 10}% | {' | '.join(cells)} |")
    errors = [f"{folder.name} {100 * expected_calibration_error(its):.2f} points" for folder, its in bins.items()]
    text += ["", f"Expected calibration error: {', '.join(errors)}.", "", cost(photographs.files[:64])]
    print("\n".join(text))
    if options.out:
        with write_aside(options.out) as draft:
            draft.write_text("# The starter\n\n" + "\n".join(text) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
