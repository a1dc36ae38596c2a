"""Data validation before training: Great Expectations suites for two tables, photos and tags.

A failed critical expectation stops the pipeline; a failed warning is reported and the pipeline continues. Both
appear in the Data Docs, static pages that work offline.
"""

import html
import logging
import os
import re
import shutil
from collections import Counter
from dataclasses import dataclass, field
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
from zerotag.words.lexicon import unit
from zerotag.words.vocabulary import Vocabulary

CRITICAL, WARNING = FailureSeverity.CRITICAL, FailureSeverity.WARNING
NAMED_ROWS = 20
UNIT_TOLERANCE = 1e-3
# Vectors with a larger cosine are the same one, up to rounding.
SAME_VECTOR = 0.9999
_TAGS = 1024  # tags per block
# Columns that identify a row, preferred first.
NAMES = {"photos": ["id", "file"], "tags": ["tag"]}


@dataclass(frozen=True)
class ValidationSettings:
    """Attributes:
    min_side: minimum shorter side of a photo, in pixels.
    max_problem_share: share of photos that may fail to decode; 0.0: every photo must decode.
    max_duplicates_across_split: share of photos that may have a duplicate on the other side of the split; NUS-WIDE
        has some.
    tags_per_photo: minimum and maximum number of tags of a photo.
    min_tag_photos: seen tags with fewer training photos are a warning.
    max_tag_share: tags on a larger share of the training photos are a warning.
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
                raise ZerotagError(f"params.yaml: validate.{name} = {getattr(self, name)}: must be between 0 and 1.")
        for name in ("tags_per_photo", "mean_tags_per_photo"):
            low, high = getattr(self, name)
            if low > high:
                raise ZerotagError(f"params.yaml: validate.{name} = [{low}, {high}]: must be [minimum, maximum].")


@dataclass(frozen=True)
class Failure:
    """A failed expectation.

    Attributes:
        expectation: its description.
        table: photos or tags.
        rows: names of up to 20 failing rows; empty if it concerns the whole table.
        total: number of failing rows.
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
    failures: failed critical expectations.
    warnings: failed warnings.
    checked: number of expectations.
    notes: what was done to the data, for information.
    """

    passed: bool
    failures: list[Failure]
    warnings: list[Failure]
    checked: int
    notes: list[str] = field(default_factory=list)


def validate(
    dataset: Dataset,
    vocabulary: Vocabulary,
    training_tags: list[str],
    settings: ValidationSettings,
    docs: Path,
    unit_length: bool = True,
) -> ValidationResult:
    """Validate a dataset and a vocabulary, and write Data Docs whether they pass or not.

    Args:
        dataset: the prepared dataset.
        vocabulary: tags, vectors, seen or unseen.
        training_tags: the training targets.
        settings: bounds.
        docs: folder of the Data Docs, overwritten; the index is `docs/index.html`.
        unit_length: whether word vectors must have unit length; otherwise they must be non-zero.
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
    notes = [f"Tag {tag}: the source spells it {spellings}" for tag, spellings in dataset.spelled_otherwise.items()]
    result = ValidationResult(not failures, failures, warnings, len(checks), notes)
    _make_offline(docs, result)
    return result


def photo_table(dataset: Dataset, vocabulary: Vocabulary) -> pd.DataFrame:
    """One row per photo; unknown values of photos that do not decode are empty."""
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
    """One row per tag of the vocabulary, and per training tag outside of it."""
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
            "same_vector_as": pd.Series(_same_vector_as(vocabulary), dtype=object).reindex(tags.index),
        }
    )


def _same_vector_as(vocabulary: Vocabulary) -> list[str | None]:
    """The seen tag that has the vector of an unseen tag; None for other tags."""
    vectors = (vocabulary.vectors if vocabulary.words is None else vocabulary.words).astype(np.float64)
    directions = unit(np.where(np.isfinite(vectors), vectors, 0))
    with_vector = vocabulary.seen[: len(vectors)]  # a tag without one fails an expectation of its own
    seen, unseen = np.flatnonzero(with_vector), np.flatnonzero(~with_vector)
    found: list[str | None] = [None] * len(vocabulary.tags)
    for start in range(0, unseen.size if seen.size else 0, _TAGS):
        rows = unseen[start : start + _TAGS]
        cosines = directions[rows] @ directions[seen].T
        for row, place, cosine in zip(rows, cosines.argmax(axis=1), cosines.max(axis=1), strict=True):
            if cosine > SAME_VECTOR:
                found[row] = vocabulary.tags[seen[place]]
    return found


def _photos_of_tags(dataset: Dataset, rows: np.ndarray, tags: pd.Series) -> pd.Series:
    """Number of photos in `rows` with each tag."""
    counts = np.asarray(dataset.labels[rows].sum(axis=0)).ravel()
    return tags.map(dict(zip(dataset.tags["tag"], counts, strict=True))).fillna(0)


def photo_expectations(settings: ValidationSettings) -> list[gxe.Expectation]:
    """Expectations for the photo table."""
    fewest, most = settings.tags_per_photo
    low, high = settings.mean_tags_per_photo
    share, across = settings.max_problem_share, settings.max_duplicates_across_split
    but = f", except {across:.1%}," if across else ""
    expectations: list[gxe.Expectation] = [
        gxe.ExpectColumnValuesToBeNull(
            column="problem",
            mostly=1 - share,
            severity=CRITICAL,
            description=f"All photos except {share:.1%} decode" if share else "Every photo decodes",
        ),
        gxe.ExpectColumnValuesToBeBetween(
            column="min_side",
            min_value=settings.min_side,
            severity=CRITICAL,
            description=f"Every photo has at least {settings.min_side} pixels on its shorter side",
        ),
        gxe.ExpectColumnValuesToBeUnique(column="id", severity=CRITICAL, description="Photo ids are unique"),
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
            description="There are training photos and test photos",
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
            column="tags", min_value=1, severity=WARNING, description="Every photo has at least one tag"
        ),
        gxe.ExpectColumnValuesToBeNull(
            column="duplicate_of", severity=WARNING, description="No photo has a duplicate within train or test"
        ),
    ]
    if share:  # tolerated, but always reported
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
    """Expectations for the tag table."""
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
            description=f"Every word vector has {'unit' if unit_length else 'non-zero'} length",
        ),
        gxe.ExpectColumnValuesToBeUnique(
            column="tag", severity=CRITICAL, description="Tags are unique across seen and unseen"
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
        gxe.ExpectColumnValuesToBeNull(
            column="same_vector_as",
            severity=CRITICAL,
            description="No unseen tag has the word vector of a seen tag",
        ),
        gxe.ExpectColumnDistinctValuesToContainSet(
            column="part",
            value_set=["seen", "unseen"],
            severity=CRITICAL,
            description="There are seen tags and unseen tags",
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
            description="Every unseen tag has at least one test photo",
        ),
        gxe.ExpectColumnValuesToBeBetween(
            column="share",
            max_value=settings.max_tag_share,
            severity=WARNING,
            description=f"No tag is on more than {settings.max_tag_share:.0%} of the training photos",
        ),
    ]


def _quiet_context(folder: Path, docs: Path) -> FileDataContext:
    """An ephemeral context that writes Data Docs to `docs`, without network access or output."""
    os.environ["GX_ANALYTICS_ENABLED"] = "false"  # read when the context is created
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
    """Describe a failed check of Great Expectations."""
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
    message = f"{words}; fails for {total} of {found['element_count']} {table}: {', '.join(named)}{more}"
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
    """Remove external resources from the pages, and write an index page without scripts.

    Great Expectations loads styles, icons and scripts from CDNs and renders its index page with a script:
    offline that page would be blank.
    """
    shutil.rmtree(docs / "static", ignore_errors=True)  # fonts and animations, unused
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
        f"<p>{result.checked} expectations, {len(result.failures)} critical failures, "
        f"{len(result.warnings)} warnings. All expectations and results: {links}</p>"
        + "".join(f"<p>{html.escape(note)}</p>" for note in result.notes)
        + (f"<table><tr><th>Severity</th><th>Table</th><th>Expectation</th></tr>{rows}</table>" if rows else "")
        + "</body></html>\n",
        encoding="utf-8",
    )
