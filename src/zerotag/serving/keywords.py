"""Tag with a person's own vocabulary: its keywords are found by themselves and by their synonyms."""

from dataclasses import replace

import numpy as np

from zerotag.metadata.vocabulary_file import VocabularyFile
from zerotag.serving.tagger import PROBABLE, Tag, Tagger, Words


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
