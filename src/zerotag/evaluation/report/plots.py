"""The report's plots, as inline SVG."""

import io
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure

_COLOURS = ("#4a5bd4", "#e0863a", "#3a9d78", "#c04a7b", "#7a6ad8", "#8a8f3a")
_GREY = "#7d849c"
_STYLE: Any = {
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": _GREY,
    "axes.edgecolor": _GREY,
    "axes.labelcolor": _GREY,
    "xtick.color": _GREY,
    "ytick.color": _GREY,
    # One grey and no background, readable in light and dark mode.
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "svg.fonttype": "none",
    # Makes the ids inside the SVG deterministic.
    "svg.hashsalt": "zerotag",
}


def _axes(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots()


def _svg(figure: Figure) -> Markup:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    return Markup(text[text.index("<svg") :])


def histogram(values: np.ndarray) -> Markup:
    """Histogram of semantic diversity, with the mean marked."""
    with mpl.rc_context(_STYLE):
        figure, axes = _axes(6, 2.6)
        if values.size:
            axes.hist(values, bins=40, color=_COLOURS[0], alpha=0.85)
            axes.axvline(float(values.mean()), color=_COLOURS[1], linewidth=2)
        axes.set_xlabel("semantic diversity")
        axes.set_ylabel("photos")
        return _svg(figure)


def curves(runs: dict[str, pd.DataFrame]) -> Markup:
    """Training loss per epoch, one line per run, relative to its first epoch."""
    with mpl.rc_context(_STYLE):
        figure, axes = _axes(6, 2.8)
        for (name, curve), colour in zip(runs.items(), _COLOURS * len(runs), strict=False):
            axes.plot(curve["epoch"], curve["loss"] / curve["loss"].iloc[0], marker="o", label=name, color=colour)
        axes.set_xlabel("epoch")
        axes.set_ylabel("loss / first epoch")
        axes.legend()
        return _svg(figure)


def reliability(figures: dict[str, Any]) -> Markup:
    """Reliability diagram: predicted probability against the share of true tags."""
    with mpl.rc_context(_STYLE):
        figure, axes = _axes(4.5, 4.2)
        axes.plot([0, 1], [0, 1], color=_GREY, linewidth=1, linestyle="--")
        parts = (("seen", "seen tags"), ("unseen", "unseen tags"), ("ten_best", "top ten of each photo"))
        for (task, name), colour in zip(parts, _COLOURS, strict=False):
            table = pd.DataFrame(figures[task]["reliability"], columns=["count", "probability", "share"], dtype=float)
            axes.plot(table["probability"], table["share"], color=colour, label=name)
            # Dot size grows with the number of tags.
            sizes = 8 + 6 * np.log10(table["count"].clip(lower=1)) ** 2
            axes.scatter(table["probability"], table["share"], sizes, color=colour)
        axes.set(xlabel="predicted probability", ylabel="share of true tags", xlim=(0, 1), ylim=(0, 1))
        axes.legend()
        return _svg(figure)


def unseen_tags(runs: dict[str, pd.DataFrame], best: str, most: int = 40) -> Markup:
    """Average precision of the unseen tags: the best run as bars, the others as points."""
    with mpl.rc_context(_STYLE):
        table = runs[best]
        table = table[table["seen"] == 0].dropna(subset="ap").sort_values("ap", ascending=False).head(most)
        places = range(len(table))
        figure, axes = _axes(11, 3.4)
        axes.bar(places, table["ap"], color=_COLOURS[0], alpha=0.85, label=best)
        for (name, other), colour in zip(
            ((name, other) for name, other in runs.items() if name != best), _COLOURS[1:] * len(runs), strict=False
        ):
            by_tag = other.set_index("tag")["ap"]
            axes.plot(places, by_tag.reindex(table["tag"]), "o", markersize=5, color=colour, label=name)
        axes.set_xticks(list(places), table["tag"].tolist(), rotation=60, ha="right")
        axes.set_ylabel("average precision, %")
        axes.legend()
        return _svg(figure)
