"""Methods on Corel5K's photographs: python -m benchmarks.corel5k FOLDER [--table methods] [--out FILE.md].

FOLDER holds tags.csv (image,tags) and images/. The pipeline itself runs, in copies of this checkout under work/, with
nothing changed but params.yaml: 4,000 training and 500 test photos chosen by a hash of the name (or by the table's
column part), 60 unseen tags, and one random split a seed. Differences come with the 95% interval of a paired bootstrap
over photos, the mean over splits and training seeds in each resample. DVC keeps what is trained, so that the command
can be interrupted and repeated.

--table       which rows, see benchmarks/corel5k/tables.py.
--validation  the test photos are left out, and the others divided once more, by the same hash: to choose by. Always so
              with the table `fine-tuning`.
--test        another folder like FOLDER: its photos are the test photos, and all of FOLDER's are training photos.
--vectors     a folder with tags1006.csv and wordvectors_1006x300.npy, for the table `words`.
--out         writes the table, and a plot of it beside it.
"""

import argparse
import csv
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path
from queue import Queue

import numpy as np
import scipy.sparse as sp
import torch
from benchmarks.corel5k.figures import COLUMNS, Result, judge, measured, plot, table, write_page
from benchmarks.corel5k.tables import TABLES, Row, changed_params, write_tag_vectors
from flows.pipeline import workspace

from zerotag.data.dataset import Dataset
from zerotag.data.sources.base import hash_division
from zerotag.evaluation.evaluate import principal_vectors, score_matrix
from zerotag.files import write_aside
from zerotag.settings import read_params
from zerotag.training.model import Model, load_model
from zerotag.words.vocabulary import Vocabulary

PROJECT = Path(__file__).resolve().parents[2]
TEST, UNSEEN = 500, 60


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
    validation = options.validation or options.table == "fine-tuning"
    work = PROJECT / "work" / "corel5k"
    work.mkdir(parents=True, exist_ok=True)
    photos = work / f"{'validation' if validation else 'test'}.csv"
    write_table(photos, divided(options.folder.resolve(), options.test and options.test.resolve(), validation))
    if options.table == "words":
        if not options.vectors:
            arguments.error("--table words needs --vectors")
        write_tag_vectors(options.vectors, work)
    rows = TABLES[options.table]
    places: Queue[Path] = Queue()
    for job in range(options.jobs):
        places.put(work / str(job))

    def one(name: str, split: int, training_seed: int) -> tuple[Result, Model]:
        place = places.get()
        try:
            result, model = run(place, photos, rows[name], split, training_seed)
        finally:
            places.put(place)
        shown = [f"{column} {result.figures[COLUMNS.index(column)]:.1f}" for column in ("ZSL mAP", "GZSL mAP")]
        print(f"split {split}, training seed {training_seed}, {name}: {', '.join(shown)}", file=sys.stderr, flush=True)
        return result, model

    tasks = list(product(rows, range(options.splits), range(options.training_seeds)))
    # What does not depend on the row is computed once, then taken from DVC's cache: so the first task of each mode of
    # training, which has activations of its own, goes alone.
    modes = {rows[name].changes.get("train.mode"): (name, split, seed) for name, split, seed in reversed(tasks)}
    done = {task: one(*task) for task in tasks if task in modes.values()}
    with ThreadPoolExecutor(options.jobs) as pool:
        others = [task for task in tasks if task not in done]
        done |= zip(others, pool.map(lambda task: one(*task), others), strict=True)
    results: dict[str, list[Result]] = {name: [] for name in rows}
    models: dict[str, Model] = {}
    for task in tasks:
        result, models[task[0]] = done[task]
        results[task[0]].append(result)
    command = f"python -m benchmarks.corel5k FOLDER --table {options.table}"
    command += " --validation" * options.validation + " --test FOLDER" * bool(options.test)
    command += " --vectors FOLDER" * bool(options.vectors)
    command += f" --splits {options.splits} --training-seeds {options.training_seeds}"
    data = next(iter(models.values())).info["data"]
    text = f"""{measured(command)}
{data["train_photos"]:,} training and {data["test_photos"]:,} test photos, {UNSEEN} unseen tags;
lite0 at 224 pixels, frozen, and GloVe 6B 50-d where a row does not say otherwise; mean ± standard deviation over
splits and training seeds; training is a model's time on one core, without that of the features.

{table(results, {name: row.against or tasks[0][0] for name, row in rows.items()})}"""
    if options.table == "methods":
        text += "\n\n" + inference(models)
    print(text)
    if options.out:
        plot(results, options.out.with_suffix(".svg"))
        write_page(options.out, options.table, f"{text}\n\n![mAP]({options.out.stem}.svg)")


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


def reproduce(place: Path, table: Path, row: Row, split: int, training_seed: int, *stages: str) -> str:
    """Run the pipeline up to some stages of a row; returns the backbone's name."""
    params = changed_params(read_params(PROJECT / "params.yaml"), row)
    params["source"] = "csv"
    params["sources"]["csv"] = {"table": str(table), "photos": str(table.parent)}  # the table has whole paths
    params["split"] = {"kind": "random", "unseen": UNSEEN, "seed": split}
    params["seed"] = training_seed
    params["validate"] |= {"max_problem_share": 0.02, "max_shared_content": 0.02}  # public sets have a few of both
    params["methods"] = [row.method]
    [backbone] = params["backbones"]
    workspace(place, params)
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    targets = [stage.format(backbone=backbone, method=row.method) for stage in stages]
    command = [sys.executable, "-m", "dvc", "repro", *targets]
    done = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"the pipeline failed in {place}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return backbone


def frozen_data(
    place: Path, table: Path, row: Row, split: int
) -> tuple[Dataset, Vocabulary, sp.csr_matrix, np.ndarray]:
    """What a frozen backbone's heads are trained on: the photos, T tags, (N, T) labels and (N, F) features."""
    backbone = reproduce(place, table, row, split, 0, "features@{backbone}", "split")
    dataset, vocabulary = Dataset.read(place / "prepared"), Vocabulary.read(place / "words", place / "split.csv")
    labels = dataset.labels[:, dataset.columns(vocabulary.tags)].tocsr()
    return dataset, vocabulary, labels, np.load(place / "features" / f"{backbone}.npy")


def run(place: Path, table: Path, row: Row, split: int, training_seed: int) -> tuple[Result, Model]:
    """Train one model through the pipeline and judge it."""
    backbone = reproduce(place, table, row, split, training_seed, "train@{backbone}-{method}")
    model = load_model(place / "models" / backbone / row.method)
    dataset, vocabulary = Dataset.read(place / "prepared"), model.vocabulary
    features = np.load(place / "features" / f"{backbone}.npy") if model.info["mode"] == "frozen" else None
    principal = principal_vectors(model, dataset, dataset.test, torch.device("cpu"), 64, features)
    labels = dataset.labels[dataset.test][:, dataset.columns(vocabulary.tags)].tocsr()
    scores = score_matrix(principal, vocabulary.vectors)
    return judge(scores, labels, vocabulary.seen, model.info["seconds"]), model


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


if __name__ == "__main__":
    main()
