"""What the service answers: the types of its OpenAPI description."""

from typing import Any

from pydantic import BaseModel, Field


class TagAnswer(BaseModel):
    """A tag of a photo."""

    tag: str
    score: float = Field(description="The largest dot product of the word's vector and the photo's principal vectors.")
    seen: bool | None = Field(description="Seen in training; null for a word outside of the vocabulary.")
    probability: float = Field(description="The score, calibrated.", ge=0, le=1)
    principal_vector: int = Field(description="Which principal vector won, from 0.", ge=0)


class Spent(BaseModel):
    """Milliseconds."""

    decode: float
    network: float = Field(description="Waiting for a batch and the network itself.")
    score: float


class PhotoTags(BaseModel):
    """Tags of a photo."""

    tags: list[TagAnswer]
    missing: list[str] = Field(description="Words of the request that have no vector.")
    model: str = Field(description="Name and version of the model.")
    milliseconds: Spent


class BatchPhoto(BaseModel):
    """One photo of a batch: its tags, or why it has none."""

    photo: str = Field(description="The file's name in the request.")
    tags: list[TagAnswer] = []
    error: str | None = None


class BatchTags(BaseModel):
    """Tags of many photos."""

    photos: list[BatchPhoto]
    missing: list[str]
    model: str
    milliseconds: Spent


class SearchRequest(BaseModel):
    """Words to search for."""

    words: list[str] = Field(min_length=1, description="All of these; a photo's score is the least of theirs.")
    without: list[str] = Field([], description="None of these may fit a photo as well as the words do.")
    limit: int = Field(20, ge=1, le=200)
    offset: int = Field(0, ge=0, le=10_000)


class Found(BaseModel):
    """A photo of the index."""

    photo: str = Field(description="Its path below the photos' root.")
    score: float


class SearchAnswer(BaseModel):
    """Photos, the best first."""

    photos: list[Found]
    next: int | None = Field(description="The offset of the next page; null on the last one.")
    indexed: int = Field(description="How many photos the index holds.")
    milliseconds: float


class IndexRequest(BaseModel):
    """What to bring into the index."""

    paths: list[str] = Field([""], min_length=1, max_length=1000, description="Photos or folders below the root.")


class IndexAnswer(BaseModel):
    """What an indexing did. Ask again while `remaining` is more than 0."""

    added: int = Field(description="Photos that are new or have changed.")
    unchanged: int
    removed: int = Field(description="Photos that are gone from the folder.")
    refused: dict[str, str] = Field(description="Photos that cannot be used, and why.")
    remaining: int = Field(description="Photos that were not reached in time.")
    indexed: int = Field(description="How many photos the index holds now.")


class Removed(BaseModel):
    """What was taken out of the index."""

    removed: int
    indexed: int


class IndexState(BaseModel):
    """The index."""

    indexed: int
    root: bool = Field(description="Whether a folder of photos is configured.")


class ModelAnswer(BaseModel):
    """What is served."""

    name: str
    version: str
    tags: int = Field(description="Size of the vocabulary.")
    seen: int
    unseen: int
    words: int = Field(description="How many words have a vector.")
    info: dict[str, Any] = Field(description="How it was made: figures, data, versions, licences.")
    calibration: dict[str, Any] = Field(description="How well probabilities fit, on the test photos.")


class Problem(BaseModel):
    """Why a request was refused."""

    error: str
