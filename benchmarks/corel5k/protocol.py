"""Evaluation protocol of the Corel5K tables: the data split, and how a row is run.

The unmodified pipeline runs in workspaces under work/; only params.yaml differs. There are 4,000 training and 500 test
photos, selected by a hash of the name (or by the column `part` of the table), 60 unseen tags, and one random split per
seed.
"""

import csv
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import scipy.sparse as sp
import torch
from benchmarks.corel5k.figures import Result, evaluate_scores
from benchmarks.corel5k.tables import Row, changed_params
from flows.pipeline import workspace

from zerotag.data.dataset import Dataset
from zerotag.data.sources.base import hash_split
from zerotag.evaluation.evaluate import principal_vectors, score_matrix
from zerotag.files import write_aside
from zerotag.settings import read_params
from zerotag.training.model import Model, load_model
from zerotag.words.vocabulary import Vocabulary

PROJECT = Path(__file__).resolve().parents[2]
TEST, UNSEEN = 500, 60


def divided(folder: Path, test: Path | None, validation: bool) -> Iterator[tuple[str, str, str]]:
    """Yield the photos of the protocol: file, tags, and train or test."""
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
    train = hash_split(images, TEST, "test")
    return {image: "train" if kept else "test" for image, kept in zip(images, train, strict=True)}


def _file(folder: Path, line: dict[str, str]) -> str:
    return str(folder / "images" / line["image"])


def write_table(target: Path, photos: Iterator[tuple[str, str, str]]) -> None:
    with write_aside(target) as draft, draft.open("w", newline="", encoding="utf-8") as out:
        writer = csv.writer(out)
        writer.writerow(["image", "tags", "part"])
        writer.writerows(photos)


def reproduce(place: Path, table: Path, row: Row, split: int, training_seed: int, *stages: str) -> str:
    """Run the pipeline up to the given stages of a row, and return the name of the backbone."""
    params = changed_params(read_params(PROJECT / "params.yaml"), row)
    params["source"] = "csv"
    params["sources"]["csv"] = {"table": str(table), "photos": str(table.parent)}  # the table has absolute paths
    params["split"] = {"kind": "random", "unseen": UNSEEN, "seed": split}
    params["seed"] = training_seed
    # Public data sets have a few broken photos and a few duplicates.
    params["validate"] |= {"max_problem_share": 0.02, "max_duplicates_across_split": 0.02}
    params["methods"] = [row.method]
    [backbone] = params["backbones"]
    workspace(place, params)
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    targets = [stage.format(backbone=backbone, method=row.method) for stage in stages]
    command = [sys.executable, "-m", "dvc", "repro", *targets]
    done = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"The pipeline failed in {place}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return backbone


def frozen_data(
    place: Path, table: Path, row: Row, split: int
) -> tuple[Dataset, Vocabulary, sp.csr_matrix, np.ndarray]:
    """Training data of linear probes: the photos, T tags, (N, T) labels and (N, F) features."""
    backbone = reproduce(place, table, row, split, 0, "features@{backbone}", "split")
    dataset, vocabulary = Dataset.read(place / "prepared"), Vocabulary.read(place / "words", place / "split.csv")
    labels = dataset.labels[:, dataset.columns(vocabulary.tags)].tocsr()
    return dataset, vocabulary, labels, np.load(place / "features" / f"{backbone}.npy")


def run(place: Path, table: Path, row: Row, split: int, training_seed: int) -> tuple[Result, Model]:
    """Train one model with the pipeline and evaluate it."""
    backbone = reproduce(place, table, row, split, training_seed, "train@{backbone}-{method}")
    model = load_model(place / "models" / backbone / row.method)
    dataset, vocabulary = Dataset.read(place / "prepared"), model.vocabulary
    features = np.load(place / "features" / f"{backbone}.npy") if model.info["mode"] == "linear_probe" else None
    principal = principal_vectors(model, dataset, dataset.test, torch.device("cpu"), 64, features)
    labels = dataset.labels[dataset.test][:, dataset.columns(vocabulary.tags)].tocsr()
    scores = score_matrix(principal, vocabulary.vectors)
    return evaluate_scores(scores, labels, vocabulary.seen, model.info["seconds"]), model
