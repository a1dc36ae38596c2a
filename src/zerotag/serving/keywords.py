"""What tags photos get: words that are asked for or the model's own, or a person's own vocabulary.

Keywords of a vocabulary are found by themselves and by their synonyms.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from zerotag.metadata.vocabulary_file import VocabularyFile
from zerotag.serving.tagger import PROBABLE, Tag, Tagger, Words


@dataclass(frozen=True)
class Wanted:
    """What tags photos get.

    Attributes:
        words: candidate words; the model's vocabulary if there are none.
        vocabulary: a person's own vocabulary in their place.
        unseen: only words that were not seen in training.
        top: as for `Tagger.rank`, like `threshold` and `everything`.
    """

    words: tuple[str, ...] = ()
    vocabulary: VocabularyFile | None = None
    unseen: bool = False
    top: int = 10
    threshold: float | None = None
    everything: bool = False


def ranker(tagger: Tagger, wanted: Wanted) -> tuple[Words, Callable[[np.ndarray], list[list[Tag]]]]:
    """The candidate words, and a function that ranks them for photos by their principal vectors (B, M, d).

    Raises:
        ZerotagError: as `Tagger.words`.
    """
    own = wanted.vocabulary
    words = tagger.words(own.words if own else wanted.words, "unseen" if wanted.unseen else "all")
    limits = wanted.top, wanted.threshold, wanted.everything

    def rank(matrices: np.ndarray) -> list[list[Tag]]:
        if own:
            return [rank_keywords(tagger, matrix, words, own, *limits) for matrix in matrices]
        return tagger.rank_all(matrices, words, *limits)

    return words, rank


def rank_keywords(
    tagger: Tagger,
    principal: np.ndarray,
    words: Words,
    vocabulary: VocabularyFile,
    top: int = 10,
    threshold: float | None = None,
    everything: bool = False,
) -> list[Tag]:
    """Rank the keywords of a vocabulary for a photo; a keyword counts as the best of its words.

    Args:
        tagger: the model.
        principal: (M, d) principal vectors of the photo.
        words: those of `vocabulary.words` that have a vector, from `tagger.words`.
        vocabulary: the keywords.
        top: maximum number of tags.
        threshold: minimum probability of keywords without a threshold of their own; `PROBABLE` by default.
        everything: leave nothing out that is not below `threshold`.
    """
    if threshold is None and not everything:
        threshold = PROBABLE
    found = {each.tag: each for each in tagger.rank(principal, words, len(words.words))}
    best: dict[str, Tag] = {}
    for keyword in vocabulary.keywords:
        tags = [found[word] for word in (keyword.name, *keyword.synonyms) if word in found]
        if tags:
            tag = max(tags, key=lambda each: each.score)
            least = threshold if everything or keyword.threshold is None else keyword.threshold
            if least is None or tag.probability >= least:
                best[keyword.name] = replace(tag, tag=keyword.name)
    return sorted(best.values(), key=lambda each: -each.score)[:top]
