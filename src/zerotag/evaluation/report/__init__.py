"""The report: one static HTML page that works offline, with the supplement's Table 1 and Figures 1 and 2.

Photographs come first: Figure 2 where the test photos are photographs, then the sample photographs with the starter's
tags. It also writes `table1.csv` and the learning curves as CSV files for `dvc plots`.
"""

import base64
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd
from PIL import Image

from zerotag.data.dataset import Dataset
from zerotag.data.photos import open_photo
from zerotag.errors import ZerotagError
from zerotag.evaluation.calibration import Calibration
from zerotag.evaluation.diversity import semantic_diversity
from zerotag.evaluation.metrics import figure_text
from zerotag.evaluation.report import plots
from zerotag.evaluation.report.paper import COLUMNS, DIVERSITY, TABLE_1
from zerotag.files import write_aside
from zerotag.samples import Sample
from zerotag.words.vocabulary import Vocabulary


@dataclass(frozen=True)
class ReportSettings:
    """Attributes:
    title: page title.
    examples: number of photos in Figure 2.
    histogram_photos: maximum number of test photos in the histogram of Figure 1.
    """

    title: str = "zerotag report"
    examples: int = 8
    histogram_photos: int = 10000


@dataclass(frozen=True)
class Run:
    """A trained and evaluated model.

    Attributes:
        model: model folder.
        info: content of model.json.
        curve: epoch, loss, learning_rate; no row if the method needs no training.
        metrics: percentages by task and name; None if undefined.
        intervals: their 95% bootstrap confidence intervals, if computed.
        tags: tag, seen, positives, ap.
        examples: photos with their ten top predictions.
    """

    model: Path
    info: dict[str, Any]
    curve: pd.DataFrame
    metrics: dict[str, dict[str, float | None]]
    intervals: dict[str, dict[str, tuple[float, float]]]
    tags: pd.DataFrame
    examples: list[dict[str, Any]]

    @classmethod
    def read(cls, evaluation: Path, model: Path) -> "Run":
        """Read the outputs of the train and evaluate stages.

        Raises:
            ZerotagError: a file is missing.
        """
        needed = [evaluation / name for name in ("metrics.json", "tags.csv", "examples.json", "intervals.json")]
        for path in [*needed, model / "model.json", model / "curve.csv"]:
            if not path.is_file():
                raise ZerotagError(f"{path} is missing. Run `dvc repro evaluate` first.")
        return cls(
            model=model,
            info=json.loads((model / "model.json").read_text(encoding="utf-8")),
            curve=pd.read_csv(model / "curve.csv"),
            metrics=json.loads(needed[0].read_text(encoding="utf-8")),
            tags=pd.read_csv(needed[1], keep_default_na=False, na_values={"ap": [""]}),
            examples=json.loads(needed[2].read_text(encoding="utf-8")),
            intervals=json.loads(needed[3].read_text(encoding="utf-8")),
        )

    @property
    def name(self) -> str:
        """Backbone and method."""
        return f"{self.info['backbone']} · {self.info['method']}"

    @property
    def trained(self) -> bool:
        """Whether there was anything to train."""
        return not self.curve.empty


@dataclass(frozen=True)
class Starter:
    """The starter's answers.

    Attributes:
        answers: sample photographs with their tags, as `zerotag tag --json` prints them (`serving.tagger.Tag`).
        calibration: what its probabilities were fitted on: fitted_on, photos.
    """

    answers: list[tuple[Sample, list[dict[str, Any]]]]
    calibration: dict[str, Any]


def write_report(
    folder: Path,
    runs: list[Run],
    best: Run,
    calibration: Calibration,
    dataset: Dataset,
    vocabulary: Vocabulary,
    starter: Starter,
    settings: ReportSettings,
) -> None:
    """Write the report folder atomically.

    Args:
        folder: output folder: index.html, table1.csv and, for `dvc plots`, curves/RUN.csv.
        runs: at least one run.
        best: the run whose tags are shown.
        calibration: calibration of the best run, with its reliability.
        dataset: the photos.
        vocabulary: word vectors for semantic diversity.
        starter: tagged sample photographs.
        settings: title and sizes.
    """
    page = _template("page.html.j2")
    diversity = _diversity(dataset, vocabulary, settings)
    trained = [run for run in runs if run.trained]
    figures = {column: [run.metrics[column[0]][column[1]] for run in runs] for column in COLUMNS}
    highest = {column: max((each for each in its if each is not None), default=None) for column, its in figures.items()}
    html = page.render(
        title=settings.title,
        runs=runs,
        trained=trained,
        best=best,
        columns=COLUMNS,
        highest=highest,
        paper=TABLE_1,
        data=best.info["data"],
        samples=[
            {"sample": sample, "tags": tags, "image": _thumbnail(sample.file.read_bytes(), sample.file.name)}
            for sample, tags in starter.answers
        ],
        starter=starter.calibration,
        rendered=best.info["data"]["source"] == "scenes",
        diversity=diversity,
        paper_diversity=DIVERSITY,
        examples=[
            {**example, "image": _thumbnail(dataset.photo_bytes(example["row"]), example["id"])}
            for example in best.examples[: settings.examples]
        ],
        calibration=calibration.figures,
        reliability=plots.reliability(calibration.figures),
        curves=plots.curves({run.name: run.curve for run in trained}) if trained else "",
        unseen=plots.unseen_tags({run.name: run.tags for run in runs}, best.name),
        seen=best.tags[best.tags["seen"] == 1].dropna(subset="ap").sort_values("ap", ascending=False),
        all_tags=best.tags.sort_values(["seen", "ap"], ascending=[True, False]),
    )
    with write_aside(folder) as draft:
        draft.mkdir()
        (draft / "index.html").write_text(html, encoding="utf-8")
        _table(runs).to_csv(draft / "table1.csv", index=False)
        (draft / "curves").mkdir()
        for run in trained:  # `dvc plots` cannot draw an empty table
            run.curve.to_csv(draft / "curves" / f"{run.info['backbone']}-{run.info['method']}.csv", index=False)


_BEHAVIOUR = {
    "invariance": ("Invariance", "Of the five best tags, the share that stays when photos are altered."),
    "direction": ("Direction", "Photos of a word on which nothing more specific that is not there is far ahead of it."),
    "minimal": ("Minimal function", "Tags that are among the ten best of a clear photo of them."),
    "slices": ("Slices", "Tags that are among the ten best, of all photos and of parts of them."),
}


def write_behaviour(file: Path, model: str, checks: Mapping[str, Mapping[str, Any]], title: str) -> None:
    """Write the page of behaviour tests, which the report links.

    Args:
        file: output file, beside the report's folder.
        model: version of the packaged model.
        checks: figure, least, cases and passed of each test by name, GROUP or GROUP.TEST, as in behaviour.json.
        title: of the report.
    """
    groups = []
    for group, (heading, text) in _BEHAVIOUR.items():
        rows = [
            {"name": (name.partition(".")[2] or name).replace("_", " "), **check}
            for name, check in checks.items()
            if name.partition(".")[0] == group
        ]
        if rows:
            groups.append({"title": heading, "text": text, "rows": rows})
    html = _template("behaviour.html.j2").render(
        title=title,
        model=model,
        groups=groups,
        failed=sum(not check["passed"] for check in checks.values()),
        bounded=sum(check["least"] is not None for check in checks.values()),
    )
    file.write_text(html, encoding="utf-8")


def _template(name: str) -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("zerotag.evaluation.report", ""), autoescape=True, undefined=jinja2.StrictUndefined
    )
    environment.filters["figure"] = figure_text
    return environment.get_template(name)


def _table(runs: list[Run]) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "backbone": run.info["backbone"],
                "method": run.info["method"],
                **{f"{task} {name}": run.metrics[task][name] for task, name in COLUMNS},
            }
            for run in runs
        ]
    )


def _diversity(dataset: Dataset, vocabulary: Vocabulary, settings: ReportSettings) -> dict[str, Any]:
    """Figure 1: the histogram over test photos, and the most and least diverse photos."""
    rows = dataset.test[: settings.histogram_photos]
    labels = dataset.labels[rows][:, dataset.columns(vocabulary.tags)].tocsr()
    values = semantic_diversity(labels, vocabulary.vectors)
    known = values[~np.isnan(values)]
    # A single pair of tags is often extreme by chance, so prefer photos with three tags or more.
    rich = np.flatnonzero(~np.isnan(values) & (np.diff(labels.indptr) >= 3))
    order = rich[np.argsort(values[rich], kind="stable")] if rich.size else np.argsort(values)[: known.size]

    def shown(places: np.ndarray) -> list[dict[str, Any]]:
        return [
            {
                "image": _thumbnail(dataset.photo_bytes(int(rows[place])), str(rows[place])),
                "value": float(values[place]),
                "tags": [vocabulary.tags[column] for column in labels[place].indices],
            }
            for place in places
        ]

    return {
        "photos": int(known.size),
        "mean": float(known.mean()) if known.size else None,
        "deviation": float(known.std()) if known.size else None,
        "plot": plots.histogram(known),
        "most": shown(order[::-1][:3]),
        "least": shown(order[:3]),
    }


def _thumbnail(photo: bytes, name: str, side: int = 320) -> str:
    """Encode a small copy of an encoded photo as a data URI, so that the page is self-contained."""
    picture: Image.Image = open_photo(photo, name)
    picture.thumbnail((side, side))
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
