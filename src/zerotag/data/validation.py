"""What must hold before anything is trained: Great Expectations over two tables, one of photos, one of tags.

A critical expectation that fails stops the pipeline; a warning is told and the pipeline goes on. Both are
written up as Data Docs, static pages that open without a network.
"""

import html
import logging
import os
import re
import shutil
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import great_expectations as gx
import great_expectations.expectations as gxe
import numpy as np
import pandas as pd
from great_expectations.core.run_identifier import RunIdentifier
from great_expectations.data_context import FileDataContext
from great_expectations.expectations.metadata_types import FailureSeverity
from great_expectations.expectations.row_conditions import Column

from zerotag.data.dataset import Dataset
from zerotag.errors import ZerotagError
from zerotag.words.vocabulary import Vocabulary

CRITICAL, WARNING = FailureSeverity.CRITICAL, FailureSeverity.WARNING
NAMED_ROWS = 20
UNIT_TOLERANCE = 1e-3
# The columns that name a row of a table, the best name first.
NAMES = {"photos": ["id", "file"], "tags": ["tag"]}


@dataclass(frozen=True)
class ValidationSettings:
    """Attributes:
    min_side: pixels that a photo's shorter side must have.
    max_problem_share: share of photos that may fail to decode; 0.0 means that every photo must decode.
    max_duplicates_across_split: share of photos that may have a duplicate on the other side of the split; NUS-WIDE
        has some.
    tags_per_photo: least and most tags on one photo.
    min_tag_photos: a seen tag with fewer training photos is warned of.
    max_tag_share: a tag on a larger share of the training photos is warned of.
    mean_tags_per_photo: bounds of the mean.
    """

    min_side: int
    max_problem_share: float
    max_duplicates_across_split: float
    tags_per_photo: tuple[int, int]
    min_tag_photos: int
    max_tag_share: float
    mean_tags_per_photo: tuple[float, float]

    def __post_init__(self) -> None:
        for name in ("max_problem_share", "max_duplicates_across_split", "max_tag_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ZerotagError(f"params.yaml: validate.{name} = {getattr(self, name)}: must lie between 0 and 1.")
        for name in ("tags_per_photo", "mean_tags_per_photo"):
            low, high = getattr(self, name)
            if low > high:
                raise ZerotagError(f"params.yaml: validate.{name} = [{low}, {high}]: must be [least, most].")


@dataclass(frozen=True)
class Failure:
    """An expectation that does not hold.

    Attributes:
        expectation: the expectation in words.
        table: photos or tags.
        rows: the names of at most 20 of the rows that break it; none when it is about the whole table.
        total: how many rows break it.
        message: all of this in one line.
    """

    expectation: str
    table: str
    rows: list[str]
    total: int
    message: str


@dataclass(frozen=True)
class ValidationResult:
    """Attributes:
    passed: no critical expectation failed.
    failures: the critical expectations that failed.
    warnings: the others that failed.
    checked: how many expectations there were.
    """

    passed: bool
    failures: list[Failure]
    warnings: list[Failure]
    checked: int


def validate(
    dataset: Dataset,
    vocabulary: Vocabulary,
    training_tags: list[str],
    settings: ValidationSettings,
    docs: Path,
    unit_length: bool = True,
) -> ValidationResult:
    """Check a data set and a vocabulary, and write Data Docs whether they pass or not.

    Args:
        dataset: the prepared data set.
        vocabulary: tags, vectors, and which are seen.
        training_tags: the tags that the trainer takes as targets.
        settings: bounds.
        docs: the folder of the Data Docs, made anew; the first page is `docs/index.html`.
        unit_length: whether word vectors are normalised; otherwise they must only have a length.
    """
    tables = {
        "photos": photo_table(dataset, vocabulary),
        "tags": tag_table(dataset, vocabulary, training_tags),
    }
    expectations = {"photos": photo_expectations(settings), "tags": tag_expectations(settings, unit_length)}
    with TemporaryDirectory() as folder:
        context = _quiet_context(Path(folder), docs)
        checks = [
            (name, check)
            for name, table in tables.items()
            for check in _run_suite(context, name, table, expectations[name])
        ]
        context.build_data_docs()
    failures, warnings = (
        [
            _failure(name, check)
            for name, check in checks
            if not check.success and check.expectation_config.severity == severity
        ]
        for severity in (CRITICAL, WARNING)
    )
    result = ValidationResult(not failures, failures, warnings, len(checks))
    _make_offline(docs, result)
    return result


def photo_table(dataset: Dataset, vocabulary: Vocabulary) -> pd.DataFrame:
    """One row a photo; what cannot be known of a photo that does not decode is empty."""
    photos, usable = dataset.photos, pd.Series(dataset.usable)
    column = {tag: number for number, tag in enumerate(dataset.tags["tag"])}
    columns = [column[tag] for tag in dict.fromkeys(vocabulary.tags) if tag in column]
    split = pd.Series(np.where(photos["train"], "train", "test"), dtype=object)
    table = pd.DataFrame(
        {
            "id": photos["id"],
            "file": photos["file"],
            "split": split.where(usable),
            "problem": photos["problem"].where(~usable),
            "min_side": photos[["width", "height"]].min(axis=1).where(usable),
            "sha256": photos["sha256"].where(usable),
            "tags": pd.Series(np.asarray(dataset.labels[:, columns].sum(axis=1)).ravel(), dtype=float).where(usable),
        }
    )
    table["same_id_in_other_split"] = _file_in_other_split(table, "id")
    table["duplicate_in_other_split"] = _file_in_other_split(table, "sha256")
    repeated = table.duplicated(["split", "sha256"]) & usable
    table["duplicate_of"] = table.groupby(["split", "sha256"])["file"].transform("first").where(repeated)
    return table


def _file_in_other_split(table: pd.DataFrame, key: str) -> pd.Series:
    """The file of a photo with the same key on the other side of the train/test split; empty if there is none."""
    found = pd.Series(None, index=table.index, dtype=object)
    for split, other in (("train", "test"), ("test", "train")):
        here = table["split"] == split
        there = table[table["split"] == other].drop_duplicates(key).set_index(key)["file"]
        found[here] = table.loc[here, key].map(there)
    return found


def tag_table(dataset: Dataset, vocabulary: Vocabulary, training_tags: list[str]) -> pd.DataFrame:
    """One row a tag of the vocabulary, and one for each training tag that the vocabulary does not know."""
    known, targets = set(vocabulary.tags), set(training_tags)
    tags = pd.Series([*vocabulary.tags, *(tag for tag in dict.fromkeys(training_tags) if tag not in known)], dtype=str)
    vectors = vocabulary.vectors.astype(np.float64)
    finite = np.isfinite(vectors).all(axis=1)
    norm = np.where(finite, np.linalg.norm(np.where(np.isfinite(vectors), vectors, 0), axis=1), np.nan)
    part = pd.Series(np.where(vocabulary.seen, "seen", "unseen"), dtype=object).reindex(tags.index, fill_value="")
    train_photos = _photos_of_tags(dataset, dataset.train, tags)
    return pd.DataFrame(
        {
            "tag": tags,
            "part": part,
            "training_target": part.where(tags.isin(targets)),
            "has_vector": tags.index < len(vectors),
            "finite": pd.Series(finite, dtype=object).reindex(tags.index),
            "norm": pd.Series(norm).reindex(tags.index),
            "train_photos": train_photos,
            "test_photos": _photos_of_tags(dataset, dataset.test, tags),
            "share": train_photos / max(1, len(dataset.train)),
        }
    )


def _photos_of_tags(dataset: Dataset, rows: np.ndarray, tags: pd.Series) -> pd.Series:
    """How many photos among `rows` have each tag."""
    counts = np.asarray(dataset.labels[rows].sum(axis=0)).ravel()
    return tags.map(dict(zip(dataset.tags["tag"], counts, strict=True))).fillna(0)


def photo_expectations(settings: ValidationSettings) -> list[gxe.Expectation]:
    """What must hold for photos."""
    fewest, most = settings.tags_per_photo
    low, high = settings.mean_tags_per_photo
    share, across = settings.max_problem_share, settings.max_duplicates_across_split
    but = f", except {across:.1%}," if across else ""
    expectations: list[gxe.Expectation] = [
        gxe.ExpectColumnValuesToBeNull(
            column="problem",
            mostly=1 - share,
            severity=CRITICAL,
            description=f"All photos but {share:.1%} decode" if share else "Every photo decodes",
        ),
        gxe.ExpectColumnValuesToBeBetween(
            column="min_side",
            min_value=settings.min_side,
            severity=CRITICAL,
            description=f"Every photo has at least {settings.min_side} pixels on its shorter side",
        ),
        gxe.ExpectColumnValuesToBeUnique(
            column="id", severity=CRITICAL, description="Every photo has an id of its own"
        ),
        gxe.ExpectColumnValuesToBeNull(
            column="same_id_in_other_split",
            severity=CRITICAL,
            description="No photo id occurs in both train and test",
        ),
        gxe.ExpectColumnValuesToBeNull(
            column="duplicate_in_other_split",
            mostly=1 - across,
            severity=CRITICAL,
            description=f"No photo{but} has a duplicate across the train/test split",
        ),
        gxe.ExpectColumnDistinctValuesToContainSet(
            column="split",
            value_set=["train", "test"],
            severity=CRITICAL,
            description="There is a training photo and a test photo",
        ),
        gxe.ExpectColumnValuesToBeBetween(
            column="tags",
            min_value=fewest,
            max_value=most,
            severity=CRITICAL,
            description=f"Every photo has {fewest} to {most} tags",
        ),
        gxe.ExpectColumnMeanToBeBetween(
            column="tags",
            min_value=low,
            max_value=high,
            severity=CRITICAL,
            description=f"Photos have {low:g} to {high:g} tags on average",
        ),
        gxe.ExpectColumnValuesToBeBetween(
            column="tags", min_value=1, severity=WARNING, description="Every photo has a tag"
        ),
        gxe.ExpectColumnValuesToBeNull(
            column="duplicate_of", severity=WARNING, description="No photo has a duplicate within train or test"
        ),
    ]
    if share:  # tolerated, but never left out in silence
        expectations.append(
            gxe.ExpectColumnValuesToBeNull(column="problem", severity=WARNING, description="Every photo decodes")
        )
    if across:
        expectations.append(
            gxe.ExpectColumnValuesToBeNull(
                column="duplicate_in_other_split",
                severity=WARNING,
                description="No photo has a duplicate across the train/test split",
            )
        )
    return expectations


def tag_expectations(settings: ValidationSettings, unit_length: bool) -> list[gxe.Expectation]:
    """What must hold for tags."""
    least, most = (1 - UNIT_TOLERANCE, 1 + UNIT_TOLERANCE) if unit_length else (UNIT_TOLERANCE, None)
    return [
        gxe.ExpectColumnValuesToBeInSet(
            column="has_vector", value_set=[True], severity=CRITICAL, description="Every tag has a word vector"
        ),
        gxe.ExpectColumnValuesToBeInSet(
            column="finite", value_set=[True], severity=CRITICAL, description="Every word vector is finite"
        ),
        gxe.ExpectColumnValuesToBeBetween(
            column="norm",
            min_value=least,
            max_value=most,
            severity=CRITICAL,
            description=f"Every word vector has {'unit' if unit_length else 'a'} length",
        ),
        gxe.ExpectColumnValuesToBeUnique(
            column="tag", severity=CRITICAL, description="No tag comes twice, be it seen or unseen"
        ),
        gxe.ExpectColumnValuesToBeInSet(
            column="part",
            value_set=["seen", "unseen"],
            severity=CRITICAL,
            description="Every tag is either seen or unseen",
        ),
        gxe.ExpectColumnValuesToBeInSet(
            column="training_target",
            value_set=["seen"],
            severity=CRITICAL,
            description="No unseen tag is a training target",
        ),
        gxe.ExpectColumnDistinctValuesToContainSet(
            column="part",
            value_set=["seen", "unseen"],
            severity=CRITICAL,
            description="There is a seen tag and an unseen tag",
        ),
        gxe.ExpectColumnValuesToBeBetween(
            column="train_photos",
            min_value=settings.min_tag_photos,
            row_condition=Column("part") == "seen",
            severity=WARNING,
            description=f"Every seen tag has at least {settings.min_tag_photos} training photos",
        ),
        gxe.ExpectColumnValuesToBeBetween(
            column="test_photos",
            min_value=1,
            row_condition=Column("part") == "unseen",
            severity=WARNING,
            description="Every unseen tag has a test photo",
        ),
        gxe.ExpectColumnValuesToBeBetween(
            column="share",
            max_value=settings.max_tag_share,
            severity=WARNING,
            description=f"No tag is on more than {settings.max_tag_share:.0%} of the training photos",
        ),
    ]


def _quiet_context(folder: Path, docs: Path) -> FileDataContext:
    """A throw-away context that writes its Data Docs to `docs`, asks nothing of the network, and is silent."""
    os.environ["GX_ANALYTICS_ENABLED"] = "false"  # read as the context is made
    logging.getLogger("great_expectations").setLevel(logging.ERROR)
    context = gx.get_context(mode="file", project_root_dir=folder)
    context.enable_analytics(False)
    context.variables.progress_bars = {"globally": False}  # type: ignore[assignment]
    for site in context.get_site_names():
        context.delete_data_docs_site(site)
    if docs.exists():
        shutil.rmtree(docs)
    context.add_data_docs_site(
        site_name="docs",
        site_config={
            "class_name": "SiteBuilder",
            "site_index_builder": {"class_name": "DefaultSiteIndexBuilder"},
            "store_backend": {"class_name": "TupleFilesystemStoreBackend", "base_directory": str(docs.resolve())},
        },
    )
    return context


def _run_suite(
    context: FileDataContext, name: str, table: pd.DataFrame, expectations: list[gxe.Expectation]
) -> list[Any]:
    """Run a table's expectations and store the outcome in the context."""
    asset = context.data_sources.add_pandas(name).add_dataframe_asset(name)
    definition = context.validation_definitions.add(
        gx.ValidationDefinition(
            name=name,
            data=asset.add_batch_definition_whole_dataframe("all"),
            suite=context.suites.add(gx.ExpectationSuite(name, expectations=expectations)),
        )
    )
    outcome = definition.run(
        batch_parameters={"dataframe": table},
        run_id=RunIdentifier(run_name="validate", run_time=datetime.now(UTC)),
        result_format={
            "result_format": "SUMMARY",
            "partial_unexpected_count": NAMED_ROWS,
            "unexpected_index_column_names": NAMES[name],
        },
    )
    checks: list[Any] = outcome.results
    for check in checks:
        information = check.exception_info or {}
        if "exception_message" not in information or information["raised_exception"]:
            raise RuntimeError(f"{check.expectation_config.description}: could not be checked: {information}")
        # Data Docs name rows from `unexpected_index_list`, which only the format COMPLETE fills, and with every
        # row. Beside it they need the names' columns and counts of these rows, not of the most common values.
        if rows := check.result.get("partial_unexpected_index_list"):
            counts = Counter(row[check.expectation_config.kwargs["column"]] for row in rows)
            check.result["unexpected_index_list"] = rows
            check.result["unexpected_index_column_names"] = NAMES[name]
            check.result["partial_unexpected_counts"] = [{"value": key, "count": counts[key]} for key in counts]
    store = context.validation_results_store
    [key] = [key for key in store.list_keys() if key.to_tuple()[0] == name]
    store.set(key, outcome)
    return checks


def _failure(table: str, check: Any) -> Failure:
    """Put what Great Expectations found into words."""
    words, column = check.expectation_config.description, check.expectation_config.kwargs["column"]
    found = check.result
    if "partial_missing_list" in found:
        return Failure(words, table, [], 0, f"{words}; missing: {', '.join(found['partial_missing_list'])}")
    if "unexpected_count" not in found:
        return Failure(words, table, [], 0, f"{words}; found: {_text(found['observed_value'])}")
    total, name = found["unexpected_count"], NAMES[table][0]
    values = {str(row[name]): _text(row[column]) for row in found["partial_unexpected_index_list"]}
    named = [row if row == value else f"{row} ({value})" for row, value in list(values.items())[:5]]
    more = f" and {total - 5} more" if total > 5 else ""
    message = f"{words}; not so for {total} of {found['element_count']} {table}: {', '.join(named)}{more}"
    return Failure(words, table, list(values), total, message)


def _text(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem; }
table { border-collapse: collapse; margin: .5rem 0; }
th, td { border: 1px solid #ccc; padding: .3rem .6rem; text-align: left; vertical-align: top; }
.fa-check-circle::before { content: "✓"; } .fa-times::before { content: "✗"; }
.fa-exclamation-triangle::before { content: "!"; }
.text-success { color: #187a33; } .text-danger { color: #b3261e; }
h5, h6 { font-size: 1.1rem; }
.navbar-brand, [data-toggle=collapse], .collapse, .cooltip .top, .card:has(.btn-group) { display: none; }
"""


def _make_offline(docs: Path, result: ValidationResult) -> None:
    """Free the pages of what lies on the web, and write a first page that needs no script.

    Great Expectations takes styles, icons and scripts from content delivery networks, and draws its first
    page with one of those scripts: without a network that page would be blank.
    """
    shutil.rmtree(docs / "static", ignore_errors=True)  # fonts and animations that the pages do not show
    for page in docs.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        text = re.sub(r"<(link|img)\b[^>]*>|<(script|style|footer)\b.*?</\2>", "", text, flags=re.S)
        page.write_text(text.replace("</head>", f"<style>{STYLE}</style></head>"), encoding="utf-8")
    pages = {page.relative_to(docs).parts[1]: page.relative_to(docs) for page in docs.glob("validations/**/*.html")}
    rows = "".join(
        f"<tr><td>{kind}</td><td><a href='{pages[failure.table].as_posix()}'>{failure.table}</a></td>"
        f"<td>{html.escape(failure.message)}</td></tr>"
        for kind, failures in (("critical", result.failures), ("warning", result.warnings))
        for failure in failures
    )
    links = " · ".join(f"<a href='{page.as_posix()}'>{name}</a>" for name, page in sorted(pages.items()))
    (docs / "index.html").write_text(
        f"<!DOCTYPE html><html lang='en'><head><meta charset='UTF-8'><title>Data Docs</title><style>{STYLE}</style>"
        f"</head><body><h1>Data Docs: validation {'passed' if result.passed else 'failed'}</h1>"
        f"<p>{result.checked} expectations, {len(result.failures)} critical ones failed, "
        f"{len(result.warnings)} warnings. All expectations and what was found: {links}</p>"
        + (f"<table><tr><th>Severity</th><th>Table</th><th>Expectation</th></tr>{rows}</table>" if rows else "")
        + "</body></html>\n",
        encoding="utf-8",
    )
