"""Methods on Corel5K's photographs: python -m benchmarks.corel5k FOLDER [--table methods] [--out FILE.md].

FOLDER holds tags.csv (image,tags) and images/. The pipeline itself runs, in copies of this checkout under work/, with
nothing changed but params.yaml: 4,000 training and 500 test photos chosen by a hash of the name (or by the table's
column part), 60 unseen tags, and one random split a seed. Differences come with the 95% interval of a paired bootstrap
over photos, the mean over splits and training seeds in each resample. DVC keeps what is trained, so that the command
can be interrupted and repeated.

--table    which rows, see benchmarks/corel5k_tables.py. `ablations` is what choices are made by, so that it never sees
           the test photos: it divides the others once more, by the same hash; so does --validation with any table.
--test     another folder like FOLDER: its photos are the test photos, and all of FOLDER's are training photos.
--vectors  a folder with tags1006.csv and wordvectors_1006x300.npy, for the table `words`.
--out      writes the table, and a plot of it beside it.
"""

import argparse
import csv
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date
from itertools import product
from pathlib import Path
from queue import Queue
from typing import Any

import numpy as np
import torch
import yaml
from benchmarks.corel5k_tables import TABLES, Row, write_tag_vectors
from flows.pipeline import workspace
from matplotlib.figure import Figure

from zerotag.bootstrap import draw_weights, interval, resampled_figures
from zerotag.dataset import Dataset
from zerotag.evaluation import evaluate, principal_vectors, score_matrix
from zerotag.files import write_aside
from zerotag.model import Model, load_model
from zerotag.sources.base import hash_division

FIGURES = [("zsl", "f1@3"), ("zsl", "f1@5"), ("zsl", "map"), ("gzsl", "f1@3"), ("gzsl", "f1@5"), ("gzsl", "map")]
PROJECT = Path(__file__).resolve().parents[1]
TEST, UNSEEN, RESAMPLES = 500, 60, 500


@dataclass(frozen=True)
class Result:
    """One model on one split.

    Attributes:
        figures: in percent, by column.
        resampled: in percent, by column, of each resample of the test photos.
        size: of the data.
        model: what was trained.
    """

    figures: dict[tuple[str, str], float]
    resampled: dict[tuple[str, str], np.ndarray]
    size: str
    model: Model


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    arguments.add_argument("folder", type=Path)
    arguments.add_argument("--table", choices=TABLES, default="methods")
    arguments.add_argument("--validation", action="store_true")
    arguments.add_argument("--test", type=Path)
    arguments.add_argument("--vectors", type=Path)
    arguments.add_argument("--splits", type=int, default=5)
    arguments.add_argument("--training-seeds", type=int, default=3)
    arguments.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    arguments.add_argument("--out", type=Path)
    options = arguments.parse_args()
    validation = options.validation or options.table == "ablations"
    work = PROJECT / "work" / "corel5k"
    work.mkdir(parents=True, exist_ok=True)
    table = work / f"{'validation' if validation else 'test'}.csv"
    write_table(table, divided(options.folder.resolve(), options.test and options.test.resolve(), validation))
    if options.table == "words":
        if not options.vectors:
            arguments.error("--table words needs --vectors")
        write_tag_vectors(options.vectors, work)
    rows = TABLES[options.table]
    places: Queue[Path] = Queue()
    for job in range(options.jobs):
        places.put(work / str(job))

    def one(name: str, split: int, training_seed: int) -> Result:
        place = places.get()
        try:
            result = run(place, table, rows[name], split, training_seed)
        finally:
            places.put(place)
        figures = f"ZSL mAP {result.figures['zsl', 'map']:.1f}, GZSL mAP {result.figures['gzsl', 'map']:.1f}"
        print(f"split {split}, training seed {training_seed}, {name}: {figures}", file=sys.stderr, flush=True)
        return result

    tasks = list(product(rows, range(options.splits), range(options.training_seeds)))
    # The first alone: what does not depend on the row is computed once and then taken from DVC's cache.
    first = one(*tasks[0])
    with ThreadPoolExecutor(options.jobs) as pool:
        others = list(pool.map(lambda task: one(*task), tasks[1:]))
    results: dict[str, list[Result]] = {name: [] for name in rows}
    for (name, _, _), result in zip(tasks, [first, *others], strict=True):
        results[name].append(result)
    command = f"python -m benchmarks.corel5k FOLDER --table {options.table}"
    command += " --validation" * options.validation + " --test FOLDER" * bool(options.test)
    command += " --vectors FOLDER" * bool(options.vectors)
    command += f" --splits {options.splits} --training-seeds {options.training_seeds}"
    text = report(rows, results, command)
    if options.table == "methods":
        text += "\n\n" + inference({name: models[0].model for name, models in results.items()})
    print(text)
    if options.out:
        plot(results, options.out.with_suffix(".svg"))
        with write_aside(options.out) as draft:
            title = f"# Corel5K: {options.table}"
            draft.write_text(f"{title}\n\n{text}\n\n![mAP]({options.out.stem}.svg)\n", encoding="utf-8")


def divided(folder: Path, test: Path | None, validation: bool) -> Iterator[tuple[str, str, str]]:
    """Each photo that takes part: its file, its tags, train or test."""
    lines = _lines(folder)
    if test:
        part = {line["image"]: "train" for line in lines}
    elif all(line.get("part") for line in lines):
        part = {line["image"]: line["part"] for line in lines}
    else:
        part = _by_hash([line["image"] for line in lines])
    if validation:
        part = _by_hash([image for image, its in part.items() if its == "train"])
    yield from ((_file(folder, line), line["tags"], part[line["image"]]) for line in lines if line["image"] in part)
    if test and not validation:
        yield from ((_file(test, line), line["tags"], "test") for line in _lines(test))


def _lines(folder: Path) -> list[dict[str, str]]:
    with (folder / "tags.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _by_hash(images: list[str]) -> dict[str, str]:
    train = hash_division(images, TEST, "test")
    return {image: "train" if kept else "test" for image, kept in zip(images, train, strict=True)}


def _file(folder: Path, line: dict[str, str]) -> str:
    return str(folder / "images" / line["image"])


def write_table(target: Path, photos: Iterator[tuple[str, str, str]]) -> None:
    with write_aside(target) as draft, draft.open("w", newline="", encoding="utf-8") as out:
        writer = csv.writer(out)
        writer.writerow(["image", "tags", "part"])
        writer.writerows(photos)


def reproduce(place: Path, table: Path, row: Row, split: int, training_seed: int, stage: str) -> str:
    """Run the pipeline up to a stage of a row; returns the backbone's name."""
    params = yaml.safe_load((PROJECT / "params.yaml").read_text())
    params["source"] = "csv"
    params["sources"]["csv"] = {"table": str(table), "photos": str(table.parent)}  # the table has whole paths
    params["split"] = {"kind": "random", "unseen": UNSEEN, "seed": split}
    params["seed"] = training_seed
    params["validate"] |= {"max_problem_share": 0.02, "max_shared_content": 0.02}  # public sets have a few of both
    params["methods"] = [row.method]
    for name, value in row.changes.items():
        *sections, last = name.split(".")
        section: Any = params
        for each in sections:
            section = section[each]
        section[last] = value
    [backbone] = params["backbones"]
    workspace(place, params)
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "dvc", "repro", stage.format(backbone=backbone, method=row.method)]
    done = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"the pipeline failed in {place}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return backbone


def run(place: Path, table: Path, row: Row, split: int, training_seed: int) -> Result:
    """Train one model through the pipeline, judge it and resample its figures."""
    backbone = reproduce(place, table, row, split, training_seed, "train@{backbone}-{method}")
    model = load_model(place / "models" / backbone / row.method)
    dataset = Dataset.read(place / "prepared")
    features = np.load(place / "features" / f"{backbone}.npy") if model.info["mode"] == "frozen" else None
    principal = principal_vectors(model, dataset, dataset.test, torch.device("cpu"), 64, features)
    labels = dataset.labels[dataset.test][:, dataset.columns(model.vocabulary.tags)].tocsr()
    ids = dataset.photos["id"].iloc[dataset.test].tolist()
    metrics = evaluate(principal, labels, model.vocabulary, ids, dataset.test, 0).metrics
    scores = score_matrix(principal, model.vocabulary.vectors)
    weights = draw_weights(len(scores), RESAMPLES, seed=0)
    parts = {"zsl": ~model.vocabulary.seen, "gzsl": np.ones(len(model.vocabulary.tags), dtype=bool)}
    resampled = {
        (task, name): 100 * values
        for task, part in parts.items()
        for name, values in resampled_figures(
            np.ascontiguousarray(scores[:, part]), labels[:, np.flatnonzero(part)].tocsr(), weights
        ).items()
    }
    size = f"{dataset.train.size:,} training and {dataset.test.size:,} test photos"
    return Result({column: metrics[column[0]][column[1]] for column in FIGURES}, resampled, size, model)


def inference(models: dict[str, Model], rounds: int = 100) -> str:
    """The time from a photo to the scores of all tags, on all cores, one photo at a time; the models take turns."""
    seconds = np.empty((rounds, len(models)))
    with torch.inference_mode():
        for number, (turn, model) in product(range(rounds), enumerate(models.values())):
            photo = torch.rand(1, 3, model.info["size"], model.info["size"])
            started = time.perf_counter()
            score_matrix(model.network(photo).numpy(), model.vocabulary.vectors)
            seconds[number, turn] = time.perf_counter() - started
    middle = 1000 * np.median(seconds[3:], axis=0)
    shown = [f"{name} {each:.1f} ms" for name, each in zip(models, middle, strict=True)]
    return f"From one photo to the scores of all tags, median of {rounds}: {', '.join(shown)}."


def report(rows: dict[str, Row], results: dict[str, list[Result]], command: str) -> str:
    first = next(iter(results))
    columns = [f"{task.upper()} {'mAP' if name == 'map' else name.upper()}" for task, name in FIGURES]
    header = ["| | " + " | ".join(columns) + " |", "|---" * (len(FIGURES) + 1) + "|"]
    lines = [
        f"`{command}`, {date.today()}, {os.cpu_count()} CPU cores ({platform.machine()}):",
        f"{results[first][0].size}, {UNSEEN} unseen tags; lite0, 224 pixels, frozen, and GloVe 6B 50-d where a row "
        "does not say otherwise;",
        "mean ± standard deviation over splits and training seeds; training is a model's time on one core, without",
        "that of the features.",
        "",
        header[0] + " training |",
        header[1] + "---|",
    ]
    for name, models in results.items():
        values = np.array([[result.figures[column] for column in FIGURES] for result in models])
        spread = values.std(axis=0, ddof=len(values) > 1)
        cells = [f"{m:.1f} ± {d:.1f}" for m, d in zip(values.mean(axis=0), spread, strict=True)]
        training = np.mean([each.model.info["seconds"] for each in models])
        lines.append(f"| {name} | " + " | ".join([*cells, f"{training:.0f} s"]) + " |")
    lines += ["", "Differences, with the 95% interval of a paired bootstrap over photos:", "", *header]
    for name in list(results)[1:]:
        base = rows[name].against or first
        if base == name:
            continue
        cells = []
        for column in FIGURES:
            pairs = list(zip(results[name], results[base], strict=True))
            figure = float(np.mean([one.figures[column] - other.figures[column] for one, other in pairs]))
            resampled = np.mean([one.resampled[column] - other.resampled[column] for one, other in pairs], axis=0)
            low, high = interval(resampled, figure)
            cells.append(f"{figure:+.1f} [{low:+.1f}, {high:+.1f}]")
        lines.append(f"| {name} − {base} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def plot(results: dict[str, list[Result]], file: Path) -> None:
    """ZSL and GZSL mAP, mean and standard deviation."""
    figure = Figure(figsize=(8, 0.6 + 0.3 * len(results)), layout="constrained")
    both = figure.subplots(1, 2, sharey=True)
    both[0].invert_yaxis()  # and the other, which shares it
    for axes, task in zip(both, ("zsl", "gzsl"), strict=True):
        values = [[result.figures[task, "map"] for result in models] for models in results.values()]
        means, spreads = [np.mean(each) for each in values], [np.std(each, ddof=len(each) > 1) for each in values]
        axes.barh(list(results), means, xerr=spreads, color="#4a5bd4", ecolor="#c96a1b")
        axes.set_xlabel(f"{task.upper()} mAP, %")
    with write_aside(file) as draft:
        figure.savefig(draft, format="svg", metadata={"Date": None})


if __name__ == "__main__":
    main()
