"""What the Corel5K benchmarks measure of a model, and the tables they print of it."""

import os
import platform
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
import scipy.sparse as sp
from matplotlib.figure import Figure

from zerotag.evaluation.bootstrap import draw_weights, interval, resampled_figures
from zerotag.files import write_aside

FIGURES = [("zsl", "f1@3"), ("zsl", "f1@5"), ("zsl", "map"), ("gzsl", "f1@3"), ("gzsl", "f1@5"), ("gzsl", "map")]
COLUMNS = [f"{task.upper()} {'mAP' if name == 'map' else name.upper()}" for task, name in FIGURES]
RESAMPLES = 500


@dataclass(frozen=True)
class Result:
    """One model on one split.

    Attributes:
        figures: (6,) of FIGURES, in percent.
        resampled: (6, R) the same on each resample of the test photos.
        seconds: that training took.
    """

    figures: np.ndarray
    resampled: np.ndarray
    seconds: float


def judge(scores: np.ndarray, labels: sp.csr_matrix, seen: np.ndarray, seconds: float, seed: int = 0) -> Result:
    """The figures of a model.

    Args:
        scores: (N, T) of the test photos.
        labels: (N, T) CSR 0/1.
        seen: (T,) bool.
        seconds: that training took.
        seed: of the resamples; models that are to be compared need the same.
    """
    once = np.ones((len(scores), 1), dtype=np.float32)
    weights = np.concatenate([once, draw_weights(len(scores), RESAMPLES, seed)], axis=1)
    parts = {"zsl": np.flatnonzero(~seen), "gzsl": np.arange(seen.size)}
    values = {
        task: resampled_figures(np.ascontiguousarray(scores[:, part]), labels[:, part].tocsr(), weights)
        for task, part in parts.items()
    }
    table = 100 * np.stack([values[task][name] for task, name in FIGURES])
    return Result(table[:, 0], table[:, 1:], seconds)


def measured(command: str) -> str:
    """Where and when a table was made."""
    return f"`{command}`, {date.today()}, {os.cpu_count()} CPU cores ({platform.machine()}):"


def table(results: dict[str, list[Result]], bases: dict[str, str]) -> str:
    """Mean and standard deviation of each row's models, then the differences with their intervals.

    Args:
        results: by row.
        bases: what each row is compared with.
    """
    header = ["| | " + " | ".join(COLUMNS) + " |", "|---" * (len(COLUMNS) + 1) + "|"]
    lines = [header[0] + " training |", header[1] + "---|"]
    for name, models in results.items():
        values = np.array([each.figures for each in models])
        spread = values.std(axis=0, ddof=len(values) > 1)
        cells = [f"{m:.1f} ± {d:.1f}" for m, d in zip(values.mean(axis=0), spread, strict=True)]
        lines.append(
            f"| {name} | " + " | ".join([*cells, f"{np.mean([each.seconds for each in models]):.0f} s"]) + " |"
        )
    lines += ["", "Differences, with the 95% interval of a paired bootstrap over photos:", "", *header]
    for name, base in bases.items():
        if base != name:
            cells = " | ".join(differences(results[name], results[base]))
            lines.append(f"| {name} − {base} | {cells} |")
    return "\n".join(lines)


def differences(models: list[Result], others: list[Result]) -> list[str]:
    """Of each figure, the mean over pairs of models; in every resample it is the mean that is resampled."""
    pairs = list(zip(models, others, strict=True))
    means = np.mean([one.figures - other.figures for one, other in pairs], axis=0)
    resampled = np.mean([one.resampled - other.resampled for one, other in pairs], axis=0)
    cells = []
    for mean, values in zip(means, resampled, strict=True):
        low, high = interval(values, mean)
        cells.append(f"{mean:+.1f} [{low:+.1f}, {high:+.1f}]")
    return cells


def plot(results: dict[str, list[Result]], file: Path) -> None:
    """ZSL and GZSL mAP, mean and standard deviation."""
    figure = Figure(figsize=(8, 0.6 + 0.3 * len(results)), layout="constrained")
    both = figure.subplots(1, 2, sharey=True)
    both[0].invert_yaxis()  # and the other, which shares it
    for axes, column in zip(both, ("ZSL mAP", "GZSL mAP"), strict=True):
        values = [[each.figures[COLUMNS.index(column)] for each in models] for models in results.values()]
        means, spreads = [np.mean(each) for each in values], [np.std(each, ddof=len(each) > 1) for each in values]
        axes.barh(list(results), means, xerr=spreads, color="#4a5bd4", ecolor="#c96a1b")
        axes.set_xlabel(f"{column}, %")
    with write_aside(file) as draft:
        figure.savefig(draft, format="svg", metadata={"Date": None})


def write_page(file: Path, title: str, text: str) -> None:
    with write_aside(file) as draft:
        draft.write_text(f"# Corel5K: {title}\n\n{text}\n", encoding="utf-8")
