"""The methods on Corel5K's photographs: python -m benchmarks.corel5k FOLDER [--seeds 5] [--ablations] [--out FILE.md].

FOLDER holds tags.csv (image,tags) and images/. The pipeline itself runs, in a copy of this checkout under
work/corel5k, with nothing changed but params.yaml: 4,000 training and 500 test photos chosen by a hash of the
name, 60 unseen tags, and one random split a seed. Differences come with the 95% interval of a paired bootstrap over
photos, the mean over the splits in each resample. --training-seeds trains each model so many times on each split.
--out writes the table, and a plot of it beside it.

--ablations changes one thing at a time. Choices are made by this table, so that it never sees the 500: it divides
the 4,000 once more, by the same hash.

DVC keeps what is done, so that the command can be interrupted and repeated.
"""

import argparse
import csv
import json
import os
import platform
import subprocess
import sys
from dataclasses import dataclass
from datetime import date
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from flows.pipeline import workspace
from matplotlib.figure import Figure

from zerotag.bootstrap import draw_weights, interval, resampled_figures
from zerotag.dataset import Dataset
from zerotag.evaluation import principal_vectors, score_matrix
from zerotag.files import write_aside
from zerotag.model import load_model
from zerotag.sources.base import hash_division

FIGURES = [("zsl", "f1@3"), ("zsl", "f1@5"), ("zsl", "map"), ("gzsl", "f1@3"), ("gzsl", "f1@5"), ("gzsl", "map")]
PROJECT = Path(__file__).resolve().parents[1]
TEST, UNSEEN, RESAMPLES = 500, 60, 500
# Name: method and what is changed of it. The first of a table is what the others are compared with.
METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "sdl": ("sdl", {}),
    "fast0tag": ("fast0tag", {}),
    "sdl_plus": ("sdl_plus", {}),
}
ABLATIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "sdl, M = 10, lambda = 0.3": ("sdl", {}),
    **{f"sdl, M = {rows}": ("sdl", {"principal_vectors": rows}) for rows in (1, 2, 3, 5, 7)},
    **{f"sdl, lambda = {weight}": ("sdl", {"regularisation": weight}) for weight in (0.0, 0.1, 0.6)},
    "sdl, no diversity weight": ("sdl", {"diversity_weight": False}),
    "sdl, divided by the negatives too": ("sdl", {"per_negative": True}),
    "sdl, lifted words": ("sdl", {"sharpness": 4.0}),
    "sdl, cross-entropy": ("sdl", {"cross_entropy": True}),
    "sdl_plus": ("sdl_plus", {}),
    "sdl_plus, words not lifted": ("sdl_plus", {"sharpness": 0.0}),
    **{f"sdl_plus, sharpness {value}": ("sdl_plus", {"sharpness": value}) for value in (2.0, 8.0, 16.0)},
    "sdl_plus, ranking loss": ("sdl_plus", {"cross_entropy": False}),
    "sdl_plus, features as they are": ("sdl_plus", {"standardise": False}),
    "sdl_plus, no bias": ("sdl_plus", {"prior": False}),
    **{f"sdl_plus, head decay {value}": ("sdl_plus", {"head_decay": value}) for value in (0.0, 0.02, 0.5)},
    "sdl_plus, M = 3": ("sdl_plus", {"principal_vectors": 3}),
}


@dataclass(frozen=True)
class Result:
    """Figures of one model on one split, in percent: by column, and by column and resample."""

    figures: dict[tuple[str, str], float]
    resampled: dict[tuple[str, str], np.ndarray]


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    arguments.add_argument("folder", type=Path)
    arguments.add_argument("--seeds", type=int, default=5)
    arguments.add_argument("--training-seeds", type=int, default=1)
    arguments.add_argument("--ablations", action="store_true")
    arguments.add_argument("--out", type=Path)
    options = arguments.parse_args()
    work = PROJECT / "work" / ("corel5k-validation" if options.ablations else "corel5k")
    work.mkdir(parents=True, exist_ok=True)
    table = options.folder.resolve() / "tags.csv"
    if options.ablations:
        table = without_test_photos(table, work / "tags.csv")
    rows = ABLATIONS if options.ablations else METHODS
    results: dict[str, list[Result]] = {name: [] for name in rows}
    for seed, training_seed in product(range(options.seeds), range(options.training_seeds)):
        for name, (method, changes) in rows.items():
            seeds = {"split": seed, "training": training_seed}
            results[name].append(run(work, options.folder.resolve(), table, method, changes, seeds))
    text = report(results, options.ablations, options.seeds, options.training_seeds)
    print(text)
    if options.out:
        plot(results, options.out.with_suffix(".svg"))
        with write_aside(options.out) as draft:
            draft.write_text(f"# Corel5K\n\n![mAP by method]({options.out.stem}.svg)\n\n{text}\n", encoding="utf-8")


def without_test_photos(table: Path, target: Path) -> Path:
    with table.open(newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    train = hash_division([line["image"] for line in lines], TEST, "test")
    with write_aside(target) as draft, draft.open("w", newline="", encoding="utf-8") as out:
        writer = csv.DictWriter(out, ["image", "tags"], extrasaction="ignore")
        writer.writeheader()
        writer.writerows(line for line, kept in zip(lines, train, strict=True) if kept)
    return target


def run(work: Path, folder: Path, table: Path, method: str, changes: dict[str, Any], seeds: dict[str, int]) -> Result:
    """Train and evaluate one model through the pipeline, and resample its figures."""
    params = yaml.safe_load((PROJECT / "params.yaml").read_text())
    params["source"] = "csv"
    params["sources"]["csv"] = {"table": str(table), "photos": str(folder / "images"), "test": TEST}
    params["split"] = {"kind": "random", "unseen": UNSEEN, "seed": seeds["split"]}
    params["seed"] = seeds["training"]
    params["methods"] = [method]
    params["method"][method] = {**params["method"][method], **changes}
    params["evaluate"]["resamples"] = 0
    [backbone] = params["backbones"]
    place = workspace(work, params)
    said = subprocess.run(
        [sys.executable, "-m", "dvc", "repro", f"evaluate@{backbone}-{method}"], cwd=place, stdout=subprocess.DEVNULL
    )
    if said.returncode:
        raise SystemExit("the pipeline failed; see above")
    metrics = json.loads((place / "evaluation" / backbone / method / "metrics.json").read_text())
    model = load_model(place / "models" / backbone / method)
    dataset = Dataset.read(place / "prepared")
    features = np.load(place / "features" / f"{backbone}.npy")
    principal = principal_vectors(model, dataset, dataset.test, torch.device("cpu"), 64, features)
    scores = score_matrix(principal, model.vocabulary.vectors)
    labels = dataset.labels[dataset.test][:, dataset.columns(model.vocabulary.tags)].tocsr()
    weights = draw_weights(len(scores), RESAMPLES, seed=0)
    parts = {"zsl": ~model.vocabulary.seen, "gzsl": np.ones(len(model.vocabulary.tags), dtype=bool)}
    resampled = {
        (task, name): 100 * values
        for task, part in parts.items()
        for name, values in resampled_figures(
            np.ascontiguousarray(scores[:, part]), labels[:, np.flatnonzero(part)].tocsr(), weights
        ).items()
    }
    figures = f"ZSL mAP {metrics['zsl']['map']:.1f}, GZSL mAP {metrics['gzsl']['map']:.1f}"
    print(f"{seeds} {method} {changes or ''}: {figures}", flush=True)
    return Result({column: metrics[column[0]][column[1]] for column in FIGURES}, resampled)


def plot(results: dict[str, list[Result]], file: Path) -> None:
    """ZSL and GZSL mAP, mean and standard deviation."""
    figure = Figure(figsize=(8, 0.6 + 0.3 * len(results)), layout="constrained")
    both = figure.subplots(1, 2, sharey=True)
    both[0].invert_yaxis()  # and the other, which shares it
    for axes, task in zip(both, ("zsl", "gzsl"), strict=True):
        values = [[result.figures[task, "map"] for result in of_split] for of_split in results.values()]
        means, spreads = [np.mean(each) for each in values], [np.std(each, ddof=len(each) > 1) for each in values]
        axes.barh(list(results), means, xerr=spreads, color="#4a5bd4", ecolor="#c96a1b")
        axes.set_xlabel(f"{task.upper()} mAP, %")
    with write_aside(file) as draft:
        figure.savefig(draft, format="svg", metadata={"Date": None})


def report(results: dict[str, list[Result]], ablations: bool, splits: int, training_seeds: int) -> str:
    [first, *others] = results
    command = "python -m benchmarks.corel5k FOLDER" + " --ablations" * ablations
    photos = "3,500 training and 500 validation photos" if ablations else "4,000 training and 500 test photos"
    columns = [f"{task.upper()} {'mAP' if name == 'map' else name.upper()}" for task, name in FIGURES]
    header = ["| | " + " | ".join(columns) + " |", "|---" * (len(FIGURES) + 1) + "|"]
    lines = [
        f"`{command}`, {date.today()}, {os.cpu_count()} CPU cores ({platform.machine()}):",
        f"{photos}, {UNSEEN} unseen tags, lite0 frozen at 224 pixels, GloVe 6B 50-d;",
        f"mean ± standard deviation; splits: {splits}, training seeds: {training_seeds}.",
        "",
        *header,
    ]
    for name, of_split in results.items():
        values = np.array([[result.figures[column] for column in FIGURES] for result in of_split])
        spread = values.std(axis=0, ddof=len(values) > 1)
        cells = [f"{m:.1f} ± {d:.1f}" for m, d in zip(values.mean(axis=0), spread, strict=True)]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    lines += ["", f"Against {first}, with the 95% interval of a paired bootstrap over photos:", "", *header]
    for name in others:
        cells = []
        for column in FIGURES:
            pairs = list(zip(results[name], results[first], strict=True))
            figure = float(np.mean([one.figures[column] - base.figures[column] for one, base in pairs]))
            resampled = np.mean([one.resampled[column] - base.resampled[column] for one, base in pairs], axis=0)
            low, high = interval(resampled, figure)
            cells.append(f"{figure:+.1f} [{low:+.1f}, {high:+.1f}]")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
