"""Compare methods on Corel5K: python -m benchmarks.corel5k FOLDER [--table methods] [--out FILE.md].

FOLDER contains tags.csv (image,tags) and images/. The unmodified pipeline runs in workspaces under work/; only
params.yaml differs. There are 4,000 training and 500 test photos, selected by a hash of the name (or by the column
`part` of the table), 60 unseen tags, and one random split per seed. Differences have 95% confidence intervals from a
paired bootstrap over photos, averaged over splits and training seeds in each resample. Trained models are cached by
DVC, so the command can be interrupted and repeated.

--table       rows to run, see benchmarks/corel5k/tables.py.
--validation  hold out the test photos and split the rest again by the same hash, for hyper-parameter selection. Always
              on for the table `fine-tuning`.
--test        another folder like FOLDER whose photos are the test photos; all photos of FOLDER are training photos.
--vectors     folder with tags1006.csv and wordvectors_1006x300.npy, for the table `words`.
--out         write the table to this file, with a plot next to it.
"""

import argparse
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path
from queue import Queue

import numpy as np
import torch
from benchmarks.corel5k.figures import COLUMNS, Result, measured, plot, table, write_page
from benchmarks.corel5k.protocol import PROJECT, UNSEEN, divided, run, write_table
from benchmarks.corel5k.tables import TABLES, write_tag_vectors

from zerotag.evaluation.evaluate import score_matrix
from zerotag.training.model import Model


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
    # Run the first task of each training mode alone, so that the other tasks take shared stages from DVC's cache.
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
    words = "MiniLM and the backbone's classes" if options.table == "methods" else "GloVe 6B 50-d and no classes"
    text = f"""{measured(command)}
{data["train_photos"]:,} training and {data["test_photos"]:,} test photos, {UNSEEN} unseen tags;
linear probe on lite0 at 224 pixels, {words}, unless a row says otherwise; mean ± standard deviation over
splits and training seeds; training time per model on one core, without feature extraction.

{table(results, {name: row.against or tasks[0][0] for name, row in rows.items()})}"""
    if options.table == "methods":
        text += "\n\n" + inference(models)
    print(text)
    if options.out:
        plot(results, options.out.with_suffix(".svg"))
        write_page(options.out, options.table, f"{text}\n\n![mAP]({options.out.stem}.svg)")


def inference(models: dict[str, Model], rounds: int = 100) -> str:
    """Measure the latency from one photo to the scores of all tags, on all cores, interleaved over models."""
    seconds = np.empty((rounds, len(models)))
    with torch.inference_mode():
        for number, (turn, model) in product(range(rounds), enumerate(models.values())):
            photo = torch.rand(1, 3, model.info["size"], model.info["size"])
            started = time.perf_counter()
            score_matrix(model.network(photo).numpy(), model.vocabulary.vectors)
            seconds[number, turn] = time.perf_counter() - started
    middle = 1000 * np.median(seconds[3:], axis=0)
    shown = [f"{name} {each:.1f} ms" for name, each in zip(models, middle, strict=True)]
    return f"Latency from one photo to the scores of all tags, median of {rounds}: {', '.join(shown)}."


if __name__ == "__main__":
    main()
