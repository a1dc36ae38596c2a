"""Cost of the classes at NUS-WIDE's size: python -m benchmarks.classes_cost SHARED [--photos 269648] [--jobs 2].

Trains and evaluates sdl_plus with the backbone's 1,000 classes as anchors beside the 925 seen tags, and without them,
on made-up features (F = 1,280) and labels of 161,789 training and 107,859 test photos; the 1,006 tags of
SHARED/tags1006.csv, the classifier and the word vectors are real. One epoch, as in benchmarks.rehearsal: with more of
them, the ratio falls.
"""

import argparse
import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.sparse as sp
import torch
from benchmarks.metrics import CONCEPTS, OTHERS, random_labels

from zerotag.evaluation.evaluate import evaluate
from zerotag.evaluation.held_out import train_head
from zerotag.packaging.starter import BACKBONE, WEIGHTS
from zerotag.training.backbones import build_backbone
from zerotag.training.classifier import Classifier, need_classifier
from zerotag.training.heads import ClassHead, lift_vocabulary
from zerotag.training.loop import TrainSettings
from zerotag.training.methods import METHODS
from zerotag.words.lexicon import unit
from zerotag.words.text_encoders import word_encoder
from zerotag.words.vectors import MINILM, WordSettings, class_vectors
from zerotag.words.vocabulary import Vocabulary

PHOTOS, TRAIN_SHARE, RESAMPLES, BLOCK = 269_648, 161_789 / 269_648, 200, 1024
TARGET = 1.5


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    arguments.add_argument("shared", type=Path)
    arguments.add_argument("--photos", type=int, default=PHOTOS)
    arguments.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    options = arguments.parse_args()
    torch.set_num_threads(options.jobs)
    table = pd.read_csv(options.shared / "tags1006.csv", keep_default_na=False)
    vectors = unit(word_encoder(MINILM)(table["tag"].tolist())).astype(np.float32)
    vocabulary = Vocabulary(table["tag"].tolist(), vectors, (table["split"] == "seen").to_numpy())
    classifier = need_classifier(build_backbone(BACKBONE, WEIGHTS).classifier, BACKBONE, "sdl_plus")
    random = np.random.default_rng(0)
    drawn = [random_labels(random, tags, mean, options.photos) for tags, mean in ((OTHERS, 7), (CONCEPTS, 2.4))]
    labels = sp.hstack(drawn).tocsr()[:, np.argsort(np.argsort(~vocabulary.seen, kind="stable"))]
    features = random.standard_exponential((options.photos, classifier.weight.shape[1]), dtype=np.float32)
    print(f"\n{options.photos:,} photos; {options.jobs} threads, {platform.machine()}; seconds and processor seconds\n")
    print("| | anchors | training | evaluation | both |\n|---|---|---|---|---|")
    both = {trust: _row(trust, features, labels, vocabulary, classifier) for trust in (0.0, 0.5)}
    ratio, of_processor = (with_classes / without for without, with_classes in zip(*both.values(), strict=True))
    met = "met" if of_processor <= TARGET else "NOT MET"
    print(f"\nRatio {ratio:.2f}, of processor time {of_processor:.2f}. Target: at most {TARGET}: {met}.")
    raise SystemExit(of_processor > TARGET)


def _row(
    trust: float, features: np.ndarray, labels: sp.csr_matrix, vocabulary: Vocabulary, classifier: Classifier
) -> tuple[float, float]:
    """Train and evaluate, print a row, and return seconds and processor seconds."""
    method, count = replace(METHODS["sdl_plus"], trust=trust), round(TRAIN_SHARE * len(features))
    settings = TrainSettings(epochs=1, batch=256, learning_rate=0.003)
    device = torch.device("cpu")
    with _timed() as training:
        classes = class_vectors(*classifier.describe(), WordSettings(MINILM))[0] if trust else None
        lifted = lift_vocabulary(vocabulary, method, classes)
        seen = labels[:, lifted.seen].tocsr()
        own = ClassHead.of(classifier) if trust else None
        head = train_head(method, features, np.arange(count), seen, lifted, own, settings, device)
    with _timed() as evaluation, torch.inference_mode():
        rest = torch.from_numpy(features[count:])
        principal = np.concatenate([head(block).numpy() for block in rest.split(BLOCK)])
        names = [str(row) for row in range(len(principal))]
        evaluate(principal, labels[count:], lifted, names, np.arange(len(principal)), 12, RESAMPLES)
    total = [sum(each) for each in zip(training, evaluation, strict=True)]
    cells = " | ".join(f"{wall:.0f} ({cpu:.0f})" for wall, cpu in (training, evaluation, total))
    print(f"| trust {trust} | {lifted.vectors.shape[1]:,} | {cells} |", flush=True)
    return total[0], total[1]


@contextmanager
def _timed() -> Iterator[list[float]]:
    """Fill a list with the seconds and processor seconds that the block took."""
    seconds: list[float] = []
    started = time.perf_counter(), time.process_time()
    yield seconds
    seconds += [time.perf_counter() - started[0], time.process_time() - started[1]]


if __name__ == "__main__":
    main()
