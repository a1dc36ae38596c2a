"""Request and response models of the HTTP API."""

import unicodedata
from datetime import date
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from zerotag.serving.tagger import SHOWN, Understood

# Descriptions of the options of tagging, which are form fields or query parameters.
TOP = "Maximum number of tags."
THRESHOLD = f"Minimum probability; {SHOWN} by default, without a vocabulary."
EVERYTHING = "Also improbable tags and near-synonyms."
VOCABULARY = (
    "Candidate words, repeated, comma-separated, or a JSON list. Default: serve.vocabulary, or the model's tags."
)
TASK = "`unseen`: only words not seen in training."


class TagAnswer(BaseModel):
    """A tag of a photo."""

    tag: str
    score: float = Field(description="Maximum dot product of the word vector with the photo's principal vectors.")
    seen: bool | None = Field(description="Seen in training; null for a word outside the vocabulary.")
    probability: float = Field(description="Calibrated score.", ge=0, le=1)
    principal_vector: int = Field(description="Index of the principal vector with the maximum, from 0.", ge=0)
    understood: Understood = Field(
        description="How the word was resolved: as `itself` (in any form), as the mean of its `parts`, or `encoded` as "
        "a whole by the text encoder."
    )
    made_of: str = Field(description="What the vector was composed of: the word, another form of it, or its parts.")
    also: list[str] = Field([], description="Probable words that say nearly the same, folded into this one.")


class EmbedSpent(BaseModel):
    """Time per step in milliseconds."""

    decode: float
    network: float = Field(description="Queueing and inference.")


class Spent(EmbedSpent):
    """Time per step in milliseconds."""

    score: float


class PhotoTags(BaseModel):
    """Tags of a photo."""

    tags: list[TagAnswer]
    missing: list[str] = Field(description="Requested words without a word vector.")
    reason: str = Field(description="Why they have none; empty if none is missing.")
    model: str = Field(description="Name and version of the model.")
    milliseconds: Spent


class TagOptions(BaseModel):
    """Options of tagging a photo of the root: those of a photo that is sent, as query parameters."""

    top: int = Field(10, ge=1, le=1000, description=TOP)
    threshold: float | None = Field(None, ge=0, le=1, description=THRESHOLD)
    everything: bool = Field(False, alias="all", description=EVERYTHING)
    vocabulary: list[str] = Field([], description=VOCABULARY)
    task: Literal["all", "unseen"] = Field("all", description=TASK)


class LibraryTags(PhotoTags):
    """Tags of a photo of the root, and the keywords that it has."""

    keywords: list[str] = Field(description="Keywords that a person gave, in the photo or its sidecars.")
    given: list[str] = Field(description="Tags that zerotag wrote, and on which nobody has decided.")
    accepted: list[str] = Field(description="Those of the keywords that were accepted here.")
    rejected: list[str] = Field(description="Tags that were rejected, which zerotag does not write.")
    problem: str = Field("", description="Why keywords cannot be read; empty if they can.")


def _keyword(text: str) -> str:
    text = unicodedata.normalize("NFC", text.strip())
    if not text.isprintable():
        raise ValueError("a tag has no line breaks or other control characters")
    return text


Keyword = Annotated[str, Field(min_length=1, max_length=200, pattern=r"\S"), AfterValidator(_keyword)]


class Decision(BaseModel):
    """What a person says of a photo's tags, in any words."""

    model_config = ConfigDict(extra="forbid")

    accept: list[Keyword] = Field([], max_length=1000, description="Tags to make keywords, in the sidecar.")
    reject: list[Keyword] = Field([], max_length=1000, description="Tags that zerotag must not give to the photo.")
    forget: list[Keyword] = Field(
        [], max_length=1000, description="Tags that were accepted or rejected, and are to be undecided again."
    )

    @model_validator(mode="after")
    def _say_one_thing(self) -> Self:
        said: dict[str, str] = {}
        for what in ("accept", "reject", "forget"):
            for word in getattr(self, what):
                if said.setdefault(word.casefold(), what) != what:
                    raise ValueError(f"{word}: both in {said[word.casefold()]} and in {what}")
        return self


class BatchPhoto(BaseModel):
    """Result for one photo of a batch: its tags, or an error."""

    photo: str = Field(description="File name in the request.")
    tags: list[TagAnswer] = []
    error: str | None = None


class BatchTags(BaseModel):
    """Tags of a batch of photos."""

    photos: list[BatchPhoto]
    missing: list[str]
    reason: str
    model: str
    milliseconds: Spent


class Embedding(BaseModel):
    """Principal vectors of a photo."""

    vectors: list[list[float]] = Field(description="(M, d): a word's score is its maximum dot product with them.")
    model: str = Field(description="Name and version of the model.")
    network: str = Field(description="Digest of the network: vectors of different networks are not comparable.")
    milliseconds: EmbedSpent


class SearchForm(BaseModel):
    """A search query."""

    words: list[str] = Field(
        [], description="Words that must all match; a photo's score is the minimum over them. Needed without a photo."
    )
    without: list[str] = Field(
        [], description="Excluded words: a photo that matches one of them as well as `words` is dropped."
    )
    folder: str = Field("", description="Only photos of this folder below the photo root.")
    since: date | None = Field(None, description="Only photos taken on this day or later, such as 2024-05-31.")
    until: date | None = Field(None, description="Only photos taken on this day or earlier.")
    limit: int = Field(20, ge=1, le=200)
    offset: int = Field(0, ge=0, le=10_000)


class SearchRequest(SearchForm):
    """A search query in JSON."""

    like: str | None = Field(
        None,
        description="Path of an indexed photo below the photo root: photos like it, which also match `words` if there "
        "are any.",
    )


class Found(BaseModel):
    """A search result."""

    photo: str = Field(description="Path below the photo root.")
    score: float = Field(
        description="Minimum score over the words; similarity to the photo, which itself has 1; or, with both, the "
        "minimum of the two as standard scores over the index."
    )


class SearchAnswer(BaseModel):
    """Search results, best first."""

    photos: list[Found]
    next: int | None = Field(description="Offset of the next page; null on the last page.")
    indexed: int = Field(description="Number of photos in the index.")
    understood: dict[str, Understood] = Field(description="How each word was resolved.")
    milliseconds: float


class IndexRequest(BaseModel):
    """Photos and folders to index."""

    paths: list[str] = Field([""], min_length=1, max_length=1000, description="Photos or folders below the root.")
    prune: bool = Field(False, description="Remove deleted photos even if they are more than a fifth of the photos.")


class IndexAnswer(BaseModel):
    """Result of an index update. Repeat the request while `remaining` is greater than 0."""

    added: int = Field(description="New or changed photos.")
    unchanged: int
    moved: int = Field(description="Photos found under another name, which keep their vectors.")
    removed: int = Field(description="Photos deleted from the folder.")
    refused: dict[str, str] = Field(description="Photos that could not be read, with the reason.")
    remaining: int = Field(description="Photos not reached within the time limit.")
    skipped: dict[str, int] = Field(
        description="Numbers of files and folders passed over, by kind: hidden, junk, raw (beside a JPEG), linked (to "
        "what is already listed), outside (links that lead out of the root), video, other."
    )
    problems: list[str] = Field(description="Files and folders that cannot be read, with the mend.")
    indexed: int = Field(description="Number of photos in the index after the update.")


class Removed(BaseModel):
    """Result of a removal from the index."""

    removed: int
    indexed: int


class IndexState(BaseModel):
    """State of the index."""

    indexed: int
    root: bool = Field(description="Whether a photo root is configured.")


class ModelAnswer(BaseModel):
    """The deployed model."""

    name: str
    version: str
    tags: int = Field(description="Size of the vocabulary.")
    seen: int
    unseen: int
    words: int = Field(description="Number of words with a word vector.")
    info: dict[str, Any] = Field(description="Metrics, data, dependency versions and licences.")
    calibration: dict[str, Any] = Field(description="Reliability of the probabilities on the test photos.")


class Problem(BaseModel):
    """Error response."""

    error: str
