"""Validate the data with Great Expectations before training."""

import json
from dataclasses import asdict
from pathlib import Path

from zerotag.data.dataset import Dataset
from zerotag.data.validation import ValidationSettings, validate
from zerotag.errors import ZerotagError, plain_exit
from zerotag.files import write_aside
from zerotag.settings import from_params, read_params
from zerotag.words.vectors import WordSettings
from zerotag.words.vocabulary import Vocabulary


def main() -> None:
    params = read_params()
    settings = from_params(ValidationSettings, params.get("validate"), "validate")
    unit_length = from_params(WordSettings, params.get("words"), "words").normalise
    dataset = Dataset.read(Path("prepared"))
    vocabulary = Vocabulary.read(Path("words"), Path("split.csv"))
    # The training targets, as in stages/train.py.
    seen = [tag for tag, is_seen in zip(vocabulary.tags, vocabulary.seen, strict=True) if is_seen]
    with write_aside(Path("validation")) as draft:
        draft.mkdir()
        result = validate(dataset, vocabulary, seen, settings, draft / "docs", unit_length)
        (draft / "result.json").write_text(json.dumps(asdict(result), indent=1) + "\n", encoding="utf-8")
    print(f"{'checked':>9} {result.checked:4d} expectations")
    print(f"{'critical':>9} {len(result.failures):4d} failed")
    print(f"{'warning':>9} {len(result.warnings):4d} failed")
    for note in result.notes:
        print(f"note: {note}")
    for warning in result.warnings:
        print(f"warning: {warning.message}")
    if not result.passed:
        failed = "".join(f"\n  {failure.message}" for failure in result.failures)
        raise ZerotagError(
            f"Data validation failed:{failed}\n"
            "Fix the data or the thresholds (params.yaml: validate). Details: validation/docs/index.html"
        )


if __name__ == "__main__":
    with plain_exit():
        main()
