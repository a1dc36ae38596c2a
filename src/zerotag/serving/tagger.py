"""Tag photographs with a packaged model and an open vocabulary.

The library, the command line and the service all use this module. It needs only numpy, Pillow and ONNX Runtime.
"""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache, cached_property, lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np

from zerotag.data.photos import MAX_PIXELS, open_photo, to_pixels
from zerotag.errors import ZerotagError
from zerotag.evaluation.calibration import Calibration, probability
from zerotag.runtime import Runtime
from zerotag.serving.fold import fold
from zerotag.serving.package import ENCODER, read_info, read_lexicon
from zerotag.serving.scoring import score
from zerotag.serving.text_encoder import TextEncoder
from zerotag.words.lexicon import Lexicon, look_up, look_up_word
from zerotag.words.tags import normalise_tag, tag_key
from zerotag.words.vocabulary import Vocabulary

Task = Literal["all", "unseen"]
# How a word was resolved: as a known word (in any form), as the mean of its parts, or by the text encoder.
Understood = Literal["itself", "parts", "encoded"]

# Maximum characters of a word and of a phrase.
_LONGEST_WORD, _LONGEST_PHRASE = 100, 200
_ALL_SEEN = "All of these words were seen in training. Use the task `all`."
# Cached phrases; a MiniLM vector takes 1.5 kB.
_PHRASES_KEPT = 4096
# Tags that are less probable are not worth writing down.
PROBABLE = 0.2
# Tags worth showing: at least that probable, and at least that share of the best one's probability. Probabilities are
# low where what they are fitted on names a part of what is there only, as captions do.
SHOWN, OF_BEST = 0.05, 0.2
# Words that are looked at to fold near-synonyms.
_FOLDED_FROM = 100


@dataclass(frozen=True)
class Tag:
    """A tag of a photo.

    Attributes:
        tag: the word.
        score: the maximum dot product of the word vector with the photo's principal vectors.
        seen: whether it was a training target; None for a word outside the vocabulary.
        probability: the calibrated score.
        principal_vector: index of the principal vector with the maximum, from 0.
        understood: how the word was resolved.
        made_of: what the vector was composed of: the word, another form of it, or its parts.
        also: words that say nearly the same and are probable too, folded into this one.
    """

    tag: str
    score: float
    seen: bool | None
    probability: float
    principal_vector: int
    understood: Understood
    made_of: str
    also: tuple[str, ...] = ()


@dataclass(frozen=True)
class Words:
    """Candidate words with their vectors.

    Attributes:
        words: W words with a vector.
        vectors: (W, d) float32 unit vectors.
        seen: W flags; None for a word outside the vocabulary.
        missing: words without a vector.
        reason: why they have none; empty if none is missing.
        understood: how each of the W words was resolved.
        made_of: what each of the W vectors was composed of: the word, another form of it, or its parts.
        lines: (W, 2) their calibration, see `Calibration.lines`.
        plain: (W, d) word vectors before they are lifted, which tell near-synonyms; None if they do not.
        asked: whether these words were asked for, rather than the model's vocabulary.
    """

    words: list[str]
    vectors: np.ndarray
    seen: list[bool | None]
    missing: list[str]
    reason: str
    understood: list[Understood]
    made_of: list[str]
    lines: np.ndarray
    plain: np.ndarray | None
    asked: bool

    def unseen(self) -> "Words":
        """Those that were not seen in training.

        Raises:
            ZerotagError: all of them were.
        """
        chosen = [place for place, seen in enumerate(self.seen) if not seen]
        if not chosen:
            raise ZerotagError(_ALL_SEEN)
        return replace(
            self,
            words=[self.words[place] for place in chosen],
            vectors=self.vectors[chosen],
            seen=[self.seen[place] for place in chosen],
            understood=[self.understood[place] for place in chosen],
            made_of=[self.made_of[place] for place in chosen],
            lines=self.lines[chosen],
            plain=None if self.plain is None else self.plain[chosen],
        )

    @property
    def notes(self) -> list[str]:
        """One line per word that was not understood as itself."""
        return [
            f"{word!r} encoded as a whole" if how == "encoded" else f"{word!r} understood as {made_of}"
            for word, how, made_of in zip(self.words, self.understood, self.made_of, strict=True)
            if how != "itself"
        ]


@dataclass(frozen=True)
class _Meaning:
    vector: np.ndarray
    plain: np.ndarray
    understood: Understood
    made_of: str


class Tagger:
    """A packaged model.

    Args:
        folder: package folder written by the package stage.
        threads: threads of the network; 0 for all cores.
        views: 1, or 2 to look at the mirror image of each photo as well, see `zerotag.runtime.Runtime`.

    Attributes:
        info: content of tagger.json.
        vocabulary: the tags used in training and evaluation.

    Raises:
        ZerotagError: the folder is not a package.
    """

    def __init__(self, folder: Path | str = "served", threads: int = 0, views: int = 1):
        self.folder = Path(folder)
        self.info = read_info(self.folder)
        self.vocabulary = Vocabulary.read(self.folder, self.folder / "vocabulary.csv", mapped=True)
        self._row = {tag: row for row, tag in enumerate(self.vocabulary.tags)}
        self._tag_of_key = {tag_key(tag): tag for tag in reversed(self.vocabulary.tags)}
        self._calibration = Calibration.read(self.folder / "calibration.json")
        self._threads, self._views = threads, views
        self._encoded = lru_cache(_PHRASES_KEPT)(self._encode)
        self._own_words = cache(self._vocabulary_words)

    # Loaded lazily: a process that only scores does not need the network.
    @cached_property
    def _runtime(self) -> Runtime:
        return Runtime(self.folder / "model.onnx", self._threads, views=self._views)

    @cached_property
    def _lexicon(self) -> Lexicon:
        return read_lexicon(self.folder)

    @property
    def encodes(self) -> bool:
        """Whether the package has a text encoder; else phrases are averaged from their parts."""
        return (self.folder / ENCODER).is_dir()

    @cached_property
    def text_encoder(self) -> TextEncoder | None:
        """Encodes phrases; None if the package has no encoder."""
        return TextEncoder(self.folder / ENCODER) if self.encodes else None

    @cached_property
    def network(self) -> str:
        """Digest of the network; vectors of different networks are not comparable."""
        return hashlib.sha256((self.folder / "model.onnx").read_bytes()).hexdigest()[:16]

    @property
    def lexicon_words(self) -> int:
        """Number of words with a vector beyond the vocabulary."""
        return len(self._lexicon.index)

    def frequent_words(self, count: int = 2000) -> np.ndarray:
        """(W, d): vectors of the vocabulary, and of the lexicon's most frequent words."""
        words = list(self._lexicon.index)[:count]
        plain = np.array([self._lexicon.vectors[self._lexicon.index[word]] for word in words], dtype=np.float32)
        return np.concatenate([self.vocabulary.vectors, self.vocabulary.lift(plain, words)])

    @property
    def calibration_figures(self) -> dict[str, Any]:
        """How the calibration was fitted and how well it fits."""
        return self._calibration.figures

    @property
    def size(self) -> int:
        """Side length of the network's input, in pixels."""
        return int(self.info["size"])

    def pixels(self, photo: bytes, name: str, max_pixels: int = MAX_PIXELS) -> np.ndarray:
        """Decode a photo to the network's input, (S, S, 3) uint8; a JPEG at a fraction of its size.

        Raises:
            PhotoError: the photo cannot be decoded.
        """
        picture = open_photo(photo, name, max_pixels, least_side=2 * self.size)
        return to_pixels(picture, self.size, self.info.get("crop", 0.0))

    @property
    def at_once(self) -> int:
        """Photos that the network should be given at a time."""
        return self._runtime.at_once

    def principal_vectors(self, pixels: np.ndarray) -> np.ndarray:
        """(B, S, S, 3) uint8 -> (B, M, d) float32."""
        return self._runtime(pixels)

    def embed(self, photo: bytes, name: str) -> np.ndarray:
        """Compute principal vectors (M, d) of an encoded photo.

        Raises:
            PhotoError: the photo cannot be decoded.
        """
        return self.principal_vectors(self.pixels(photo, name)[None])[0]

    def words(self, words: Iterable[str] = (), task: Task = "all") -> Words:
        """Look up word vectors.

        Args:
            words: any words; the model's vocabulary if empty.
            task: `unseen` excludes training targets.

        Raises:
            ZerotagError: no word has a vector, no word remains, or a word is too long.
        """
        # Two spellings of one word are one word, named as it was given first.
        given: dict[str, str] = {}
        for word in (each.strip() for each in words):
            if word:
                if word not in self._row:
                    _check_length(word)
                given.setdefault(self._tag(word) or tag_key(word) or word, word)
        asked = list(given.values())
        if not asked:
            return self._own_words(task)
        found = {word: meaning for word in asked if (meaning := self._meaning(word))}
        missing = [word for word in asked if word not in found]
        if not found:
            raise ZerotagError(f"{self._reason(missing)}. Try other words.")
        meanings, seen = list(found.values()), [self._is_seen(word) for word in found]
        # A tag of the vocabulary is calibrated under its own name, however it is spelled here.
        names = [
            word if known is None else each.made_of for word, known, each in zip(found, seen, meanings, strict=True)
        ]
        words_found = Words(
            list(found),
            np.stack([each.vector for each in meanings]),
            seen,
            missing,
            self._reason(missing),
            [each.understood for each in meanings],
            [each.made_of for each in meanings],
            self._calibration.lines(names, seen),
            np.stack([each.plain for each in meanings]) if self.text_encoder else None,
            asked=True,
        )
        return words_found.unseen() if task == "unseen" else words_found

    def _vocabulary_words(self, task: Task) -> Words:
        """The model's vocabulary as candidate words, or its unseen tags."""
        own = self.vocabulary
        plain = own.vectors if own.words is None else own.words
        words = Words(
            own.tags,
            own.vectors,
            own.seen.tolist(),
            [],
            "",
            ["itself"] * len(own.tags),
            own.tags,
            self._calibration.lines(own.tags, own.seen),
            plain if self.encodes else None,
            asked=False,
        )
        return words.unseen() if task == "unseen" else words

    def _of_vocabulary(self, tag: str) -> _Meaning:
        row, words = self._row[tag], self.vocabulary.words
        vector = self.vocabulary.vectors[row]
        return _Meaning(vector, vector if words is None else words[row], "itself", tag)

    def _is_seen(self, word: str) -> bool | None:
        tag = self._tag(word)
        return None if tag is None else bool(self.vocabulary.seen[self._row[tag]])

    def _meaning(self, word: str) -> _Meaning | None:
        """Resolve a word: vocabulary, then single words of the lexicon, then the encoder or else the mean of parts."""
        if (tag := self._tag(word)) is not None:
            return self._of_vocabulary(tag)
        word = normalise_tag(word) or word
        encoder = self.text_encoder
        # The encoder takes "sail boat" as it is; without one, the lexicon's "sailboat" beats the mean of two words.
        if (encoder is None or len(word.split()) == 1) and (hit := look_up_word(word, self._lexicon)):
            return self._lifted(hit[0], "itself", hit[1])
        if encoder:
            return self._encoded(word) if encoder.knows(word) else None
        return self._lifted(hit[0], "parts", hit[1]) if (hit := look_up(word, self._lexicon)) else None

    def _tag(self, word: str) -> str | None:
        """The vocabulary's tag that a word is, in any spelling; None if it is none."""
        return word if word in self._row else self._tag_of_key.get(tag_key(word))

    def _encode(self, phrase: str) -> _Meaning:
        assert self.text_encoder
        return self._lifted(self.text_encoder([phrase])[0], "encoded", phrase)

    def _lifted(self, vector: np.ndarray, understood: Understood, made_of: str) -> _Meaning:
        return _Meaning(self.vocabulary.lift(vector[None], [made_of])[0], vector, understood, made_of)

    def _reason(self, missing: list[str]) -> str:
        """Why words have no vector; empty if none is missing."""
        if not missing:
            return ""
        some = ", ".join(missing[:10])
        if self.text_encoder:
            return f"The text encoder knows {self.text_encoder.letters} letters only, not {some}"
        return f"No word vector for {some}"

    def rank(
        self,
        principal: np.ndarray,
        words: Words,
        top: int = 10,
        threshold: float | None = None,
        everything: bool = False,
    ) -> list[Tag]:
        """Rank words for a photo.

        Of the model's own vocabulary, the answer is what a person would keep: the most probable tags, near-synonyms
        folded into one (`zerotag.serving.fold`). Words that were asked for are all answered.

        Args:
            principal: (M, d) principal vectors of the photo.
            words: candidate words.
            top: maximum number of tags.
            threshold: minimum probability. Where words were not asked for, the default is `SHOWN`, and `OF_BEST` times
                the best one's.
            everything: fold nothing, and leave nothing out.
        """
        return self.rank_all(principal[None], words, top, threshold, everything)[0]

    def rank_all(
        self,
        matrices: np.ndarray,
        words: Words,
        top: int = 10,
        threshold: float | None = None,
        everything: bool = False,
    ) -> list[list[Tag]]:
        """Rank words for several photos, (B, M, d); as `rank` does, in less time for each."""
        return [
            self._answer(scores, winner, words, top, threshold, everything)
            for scores, winner in zip(*score(matrices, words.vectors), strict=True)
        ]

    def _answer(
        self,
        scores: np.ndarray,
        winner: np.ndarray,
        words: Words,
        top: int,
        threshold: float | None,
        everything: bool,
    ) -> list[Tag]:
        """The tags of a photo, given the words' scores (W,) and the places of their principal vectors (W,)."""
        folded = not (everything or words.asked)
        best = _highest(scores, _FOLDED_FROM if folded else top)
        probabilities = probability(scores[best], words.lines[best])
        if folded and threshold is None:
            threshold = max(SHOWN, OF_BEST * float(probabilities.max(initial=0)))
        if threshold is not None:
            kept = probabilities >= threshold
            best, probabilities = best[kept], probabilities[kept]
        chosen = [words.words[place] for place in best]
        if folded:
            plain = None if words.plain is None else words.plain[best]
            # Seen and unseen words have probabilities of their own, so that these need not fall as the scores do.
            groups = sorted(fold(chosen, plain, scores[best]), key=lambda group: -probabilities[group[0]])[:top]
        else:
            groups = [[place] for place in range(len(best))]
        return [
            Tag(
                chosen[first],
                float(scores[best[first]]),
                words.seen[best[first]],
                float(probabilities[first]),
                int(winner[best[first]]),
                words.understood[best[first]],
                words.made_of[best[first]],
                tuple(chosen[other] for other in others),
            )
            for first, *others in groups
        ]

    def tag(
        self,
        photo: bytes,
        name: str,
        words: Iterable[str] = (),
        top: int = 10,
        threshold: float | None = None,
        task: Task = "all",
        everything: bool = False,
    ) -> list[Tag]:
        """Tag a photo.

        Args:
            photo: the encoded photo.
            name: name of the photo in error messages.
            words: any words; the model's vocabulary if empty.
            top: maximum number of tags.
            threshold: minimum probability.
            task: `unseen` excludes words seen in training.
            everything: as for `rank`.

        Raises:
            ZerotagError: the photo cannot be decoded, or no word has a vector.
        """
        return self.rank(self.embed(photo, name), self.words(words, task), top, threshold, everything)


def _check_length(word: str) -> None:
    """Check the length of a word or phrase.

    Raises:
        ZerotagError: it is too long.
    """
    if any(len(part) > _LONGEST_WORD for part in word.split()):
        raise ZerotagError(f"A word is longer than {_LONGEST_WORD} characters.")
    if len(word) > _LONGEST_PHRASE:
        raise ZerotagError(f"A phrase is longer than {_LONGEST_PHRASE} characters.")


def split_words(given: Iterable[str]) -> list[str]:
    """The words of texts as people type or send them: separated by commas, or JSON lists.

    Raises:
        ZerotagError: a text begins as a JSON list and is none of words.
    """
    words = []
    for text in given:
        text = text.strip().removeprefix("\ufeff")
        if not text.startswith("["):
            words += text.split(",")
            continue
        try:
            listed = json.loads(text)
        except ValueError:
            listed = None
        if not isinstance(listed, list) or not all(isinstance(word, str) for word in listed):
            raise ZerotagError(f'{text[:100]}: not a JSON list of words; send ["lake", "boat"], or lake,boat.')
        words += listed
    return [word.strip() for word in words if word.strip()]


def _highest(scores: np.ndarray, count: int) -> np.ndarray:
    """Places of the highest of (W,) scores, in order; of equal ones, the first is first."""
    if count < scores.size:
        least = np.partition(scores, -count)[-count]
        places = np.flatnonzero(scores >= least)  # sorting these few takes a fraction of the time
    else:
        places = np.arange(scores.size)
    return places[np.argsort(-scores[places], kind="stable")][:count]
