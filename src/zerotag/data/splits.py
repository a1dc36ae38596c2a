"""Split the tags into seen and unseen."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from zerotag.data.tables import has_columns, read_table, read_text
from zerotag.errors import ZerotagError
from zerotag.words.tags import tag_key


@dataclass(frozen=True)
class SplitSettings:
    """Attributes:
    kind: `nus-wide` (the ground-truth concepts are unseen), `file`, or `random`.
    file: for `file`, a CSV `tag,split` with seen or unseen; or a list of the unseen tags, one per line.
    unseen: for `random`, a share below 1 or a number of tags.
    seed: for `random`.
    """

    kind: str = "nus-wide"
    file: str = ""
    unseen: float = 0.2
    seed: int = 0


def split_tags(settings: SplitSettings, tags: pd.DataFrame, vocabulary: list[str]) -> pd.DataFrame:
    """Split the vocabulary.

    Args:
        settings: the kind of split.
        tags: the dataset's tag table (tag, concept, train_photos, …).
        vocabulary: the tags that have a word vector.

    Returns:
        A table `tag,split` in vocabulary order.

    Raises:
        ZerotagError: an unknown kind, an unseen tag without a vector, or no seen or no unseen tag.
    """
    if settings.kind == "nus-wide":
        unseen = set(tags["tag"][tags["concept"] == 1])
        if not unseen:
            raise ZerotagError(
                "params.yaml: split.kind = nus-wide needs a source with ground-truth concepts (nus-wide, scenes); "
                "use random or file."
            )
    elif settings.kind == "file":
        unseen = _unseen_of_file(Path(settings.file), set(tags["tag"]), set(vocabulary))
    elif settings.kind == "random":
        unseen = _random_unseen(settings, tags, vocabulary)
    else:
        raise ZerotagError(f"params.yaml: split.kind = {settings.kind!r} is unknown; use nus-wide, file or random.")
    table = pd.DataFrame({"tag": vocabulary, "split": ["unseen" if tag in unseen else "seen" for tag in vocabulary]})
    for part in ("seen", "unseen"):
        if part not in set(table["split"]):
            raise ZerotagError(f"params.yaml: split.kind = {settings.kind} leaves no {part} tag. Use another split.")
    return table


def _unseen_of_file(path: Path, tags: set[str], vocabulary: set[str]) -> set[str]:
    if not path.is_file():
        raise ZerotagError(f"{path}: no such file; set params.yaml: split.file to an existing one.")
    # Any spelling of a tag will do, as in the photos' tables.
    by_key = {tag_key(tag): tag for tag in tags}
    parts: dict[str, str] = {}
    for number, given, part in _tags_of_file(path):
        if part not in ("seen", "unseen"):
            line = f"{given},{part}" if part else given
            raise ZerotagError(f"{path}, line {number}: {line!r} must be a tag, a comma, and seen or unseen.")
        tag = given if given in tags else by_key.get(tag_key(given))
        if tag is not None and parts.setdefault(tag, part) != part:
            raise ZerotagError(f"{path}, line {number}: tag {given!r} is {part} here and {parts[tag]} before.")
        if part == "seen":
            continue
        if tag is None:
            raise ZerotagError(f"{path}, line {number}: the dataset has no tag {given!r}. Remove the line.")
        if tag not in vocabulary:
            raise ZerotagError(
                f"{path}, line {number}: unseen tag {given!r} has no word vector, so it cannot be predicted. "
                "Remove it or use other word vectors (params.yaml: words.source)."
            )
    return {tag for tag, part in parts.items() if part == "unseen"}


def _tags_of_file(path: Path) -> Iterator[tuple[int, str, str]]:
    """The line, tag and part of each tag in a table `tag,split` or a list of unseen tags."""
    if has_columns(path, ("tag", "split")):
        for row in read_table(path, ("tag", "split")):
            cells = [row.cells.get("tag", ""), row.cells.get("split", ""), *row.more]
            # A tag with a comma may lack quotes.
            yield row.line, ",".join(cells[:-1]).strip(), cells[-1].strip().lower()
        return
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        if line.strip():
            yield number, line.strip(), "unseen"


def _random_unseen(settings: SplitSettings, tags: pd.DataFrame, vocabulary: list[str]) -> set[str]:
    """Sample tags stratified by frequency, so that seen and unseen tags are equally frequent."""
    share = settings.unseen
    count = round(share * len(vocabulary)) if share < 1 else int(share)
    if not 0 < count < len(vocabulary):
        raise ZerotagError(
            f"params.yaml: split.unseen = {share} makes {count} unseen tags of {len(vocabulary)}; "
            "give a share between 0 and 1 or a smaller number."
        )
    frequency = dict(zip(tags["tag"], tags["train_photos"] + tags["test_photos"], strict=True))
    ranked = sorted(vocabulary, key=lambda tag: (-frequency[tag], tag))
    random = np.random.default_rng(settings.seed)
    return {str(random.choice(stratum)) for stratum in np.array_split(np.array(ranked, dtype=object), count)}
