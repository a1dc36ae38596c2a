"""Cross-validated ablations for hyper-parameter selection: python -m benchmarks.corel5k.folds FOLDER [--out FILE.md].

Runs four-fold cross-validation over five splits on the training photos of benchmarks.corel5k; the test photos are held
out. Folds are assigned by a hash of the name. This evaluates eight times as many photos as a single validation split.
Heads are trained by zerotag.training.loop on features that the pipeline computes once. Results are cached in work/, so
the command can be interrupted and repeated. The rows are benchmarks.corel5k.tables.SECTIONS.

--sections  run only these sections.
--out       write the tables to this file, with a plot of each next to it.
"""

import argparse
import hashlib
import os
import time
from contextlib import redirect_stderr
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from benchmarks.corel5k.figures import Result, evaluate_scores, measured, plot, table, write_page
from benchmarks.corel5k.protocol import PROJECT, UNSEEN, divided, frozen_data, write_table
from benchmarks.corel5k.tables import SECTIONS, Row, changed_params
from joblib import Memory, Parallel, delayed
from tqdm import tqdm

from zerotag.evaluation.evaluate import score_matrix
from zerotag.evaluation.held_out import train_head
from zerotag.settings import from_params, read_params
from zerotag.training.heads import lift_vocabulary
from zerotag.training.loop import TrainSettings
from zerotag.training.methods import Method, method
from zerotag.words.vocabulary import Vocabulary

WORK = PROJECT / "work" / "corel5k"
PARTS, SPLITS = 4, 5


@dataclass(frozen=True)
class Data:
    """One split.

    Attributes:
        features: (N, F) features of the training photos.
        labels: (N, T) labels.
        fold: (N,) fold of each photo.
        vocabulary: T tags, not lifted.
    """

    features: np.ndarray
    labels: sp.csr_matrix
    fold: np.ndarray
    vocabulary: Vocabulary


def fold_of(name: str) -> int:
    """Fold of a photo, which depends only on its name."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()) % PARTS


def load(photos: Path, row: Row, split: int) -> Data:
    """Run the pipeline up to the features for a row and split."""
    dataset, vocabulary, labels, features = frozen_data(WORK / "folds", photos, row, split)
    rows = np.flatnonzero(dataset.usable)
    fold = np.array([fold_of(Path(name).name) for name in dataset.photos["id"].iloc[rows]])
    return Data(features[rows], labels[rows].tocsr(), fold, vocabulary)


def fit(data: Data, key: str, chosen: Method, settings: TrainSettings, fold: int) -> Result:
    """Train a head on the other folds and evaluate it on this one.

    Args:
        data: data of the split.
        key: digest of data and code, part of the cache key.
        chosen: the method.
        settings: training settings.
        fold: the fold to evaluate.
    """
    started = time.monotonic()
    vocabulary = lift_vocabulary(data.vocabulary, chosen)
    seen, held_out = vocabulary.seen, np.flatnonzero(data.fold == fold)
    labels = data.labels[:, np.flatnonzero(seen)].tocsr()
    others = np.flatnonzero(data.fold != fold)
    head = train_head(chosen, data.features, others, labels, vocabulary, None, settings, torch.device("cpu"))
    seconds = time.monotonic() - started
    with torch.inference_mode():
        principal = head(torch.from_numpy(data.features[held_out])).numpy()
    return evaluate_scores(score_matrix(principal, vocabulary.vectors), data.labels[held_out], seen, seconds, seed=fold)


def cached_fit(data: Data, key: str, params: dict[str, Any], row: Row, fold: int) -> Result:
    """Run `fit` for a row, with results cached in work/."""
    torch.set_num_threads(1)
    changed = changed_params(params, row)
    chosen = method(row.method, changed["method"].get(row.method))
    settings = from_params(TrainSettings, {**changed["train"]["linear_probe"], "seed": 0}, "train.linear_probe")
    cached = Memory(WORK / "heads", verbose=0).cache(fit, ignore=["data"])
    with Path(os.devnull).open("w") as nowhere, redirect_stderr(nowhere):  # hide progress bars of single heads
        return cached(data, key, chosen, settings, fold)


def code() -> str:
    """Digest of the code that the metrics depend on."""
    files = [*sorted((PROJECT / "src" / "zerotag").rglob("*.py")), PROJECT / "benchmarks" / "corel5k" / "figures.py"]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16]


def words_of(row: Row) -> tuple[tuple[str, Any], ...]:
    """Changes of a row that need other word vectors, and with them another run of the pipeline."""
    return tuple((name, value) for name, value in row.changes.items() if name.startswith("words."))


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    arguments.add_argument("folder", type=Path)
    arguments.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    arguments.add_argument("--sections", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    arguments.add_argument("--out", type=Path)
    options = arguments.parse_args()
    sections = {title: SECTIONS[title] for title in options.sections}
    WORK.mkdir(parents=True, exist_ok=True)
    photos = WORK / "validation.csv"
    write_table(photos, divided(options.folder.resolve(), None, validation=True))
    rows = {name: row for section in sections.values() for name, row in section.items()}
    results: dict[str, list[Result]] = {name: [] for name in rows}
    params, version = read_params(PROJECT / "params.yaml"), code()
    for split, words in product(range(SPLITS), dict.fromkeys(map(words_of, rows.values()))):
        data = load(photos, Row("sdl", dict(words)), split)
        key = f"{version} {data.vocabulary.digest} {hashlib.sha256(data.features).hexdigest()[:16]}"
        theirs = [name for name, row in rows.items() if words_of(row) == words]
        tasks = list(product(theirs, range(PARTS)))
        jobs = (delayed(cached_fit)(data, key, params, rows[name], fold) for name, fold in tasks)
        done = Parallel(n_jobs=options.jobs, return_as="generator")(jobs)
        for (name, _), result in zip(tasks, tqdm(done, desc=f"split {split}", total=len(tasks)), strict=True):
            results[name].append(result)
    pages = [
        f"""{measured("python -m benchmarks.corel5k.folds FOLDER")}
linear probe on lite0 at 224 pixels, GloVe 6B 50-d, no classes; {len(data.fold):,} photos in {PARTS} folds,
{SPLITS} splits with {UNSEEN} unseen tags; mean ± standard deviation over folds and splits; training time per head on
one core."""
    ]
    for number, (title, section) in enumerate(sections.items()):
        first = next(iter(section))
        its = {name: results[name] for name in section}
        pages.append(f"## {title}\n\n{table(its, {name: row.against or first for name, row in section.items()})}")
        if options.out:
            file = options.out.with_name(f"{options.out.stem}-{number}.svg")
            plot(its, file)
            pages.append(f"![mAP]({file.name})")
    text = "\n\n".join(pages)
    print(text)
    if options.out:
        write_page(options.out, "ablations", text)


if __name__ == "__main__":
    main()
