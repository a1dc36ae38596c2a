"""Metrics, tables and plots of the Corel5K benchmarks."""

import os
import platform
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
import scipy.sparse as sp
from matplotlib.figure import Figure

from zerotag.evaluation.bootstrap import draw_weights, interval, resampled_figures
from zerotag.evaluation.metrics import top_k_hits
from zerotag.files import write_aside

FIGURES = [("zsl", "f1@3"), ("zsl", "f1@5"), ("zsl", "map"), ("gzsl", "f1@3"), ("gzsl", "f1@5"), ("gzsl", "map")]
COLUMNS = [f"{task.upper()} {'mAP' if name == 'map' else name.upper()}" for task, name in FIGURES]
RESAMPLES = 500


@dataclass(frozen=True)
class Result:
    """Metrics of one model on one split.

    Attributes:
        figures: (6,) metrics in the order of FIGURES, in percent.
        resampled: (6, R) the same on each bootstrap resample of the test photos.
        seconds: training time.
    """

    figures: np.ndarray
    resampled: np.ndarray
    seconds: float


def evaluate_scores(
    scores: np.ndarray, labels: sp.csr_matrix, seen: np.ndarray, seconds: float, seed: int = 0
) -> Result:
    """Evaluate a model's scores.

    Args:
        scores: (N, T) scores of the test photos.
        labels: (N, T) CSR 0/1.
        seen: (T,) bool.
        seconds: training time.
        seed: seed of the bootstrap; must be equal for models that are compared.
    """
    once = np.ones((len(scores), 1), dtype=np.float32)
    weights = np.concatenate([once, draw_weights(len(scores), RESAMPLES, seed)], axis=1)
    parts = {"zsl": np.flatnonzero(~seen), "gzsl": np.arange(seen.size)}
    values = {}
    for task, part in parts.items():
        its_scores, its_labels = np.ascontiguousarray(scores[:, part]), labels[:, part].tocsr()
        hits = {k: top_k_hits(its_scores, its_labels, k) for k in (3, 5)}
        values[task] = resampled_figures(its_scores, its_labels, weights, hits)
    table = 100 * np.stack([values[task][name] for task, name in FIGURES])
    return Result(table[:, 0], table[:, 1:], seconds)


def measured(command: str) -> str:
    """Provenance of a table: command, date and hardware."""
    return f"`{command}`, {date.today()}, {os.cpu_count()} CPU cores ({platform.machine()}):"


def table(results: dict[str, list[Result]], bases: dict[str, str]) -> str:
    """Format a Markdown table of mean ± standard deviation per row, and one of differences with confidence intervals.

    Args:
        results: results by row.
        bases: baseline of each row.
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
    lines += ["", "Differences, with 95% confidence intervals from a paired bootstrap over photos:", "", *header]
    for name, base in bases.items():
        if base != name:
            cells = " | ".join(differences(results[name], results[base]))
            lines.append(f"| {name} − {base} | {cells} |")
    return "\n".join(lines)


def differences(models: list[Result], others: list[Result]) -> list[str]:
    """Mean difference of each metric over pairs of models, with the bootstrap interval of that mean."""
    pairs = list(zip(models, others, strict=True))
    means = np.mean([one.figures - other.figures for one, other in pairs], axis=0)
    resampled = np.mean([one.resampled - other.resampled for one, other in pairs], axis=0)
    cells = []
    for mean, values in zip(means, resampled, strict=True):
        low, high = interval(values, mean)
        cells.append(f"{mean:+.1f} [{low:+.1f}, {high:+.1f}]")
    return cells


def plot(results: dict[str, list[Result]], file: Path) -> None:
    """Plot the mean and standard deviation of ZSL and GZSL mAP."""
    figure = Figure(figsize=(8, 0.6 + 0.3 * len(results)), layout="constrained")
    both = figure.subplots(1, 2, sharey=True)
    both[0].invert_yaxis()  # shared with the other axes
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
