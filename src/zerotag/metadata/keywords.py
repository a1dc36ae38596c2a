"""The keywords of photos, and which of them a person gave.

Keywords are in up to four fields: `dc:subject` and IPTC's Keywords (plain words), `lr:hierarchicalSubject` and
`digiKam:TagsList` (paths such as Animals|Dog and Animals/Dog). They are in the photo, in its sidecar, or in both.

zerotag's record is in an XMP namespace of its own, `http://ns.zerotag.dev/1.0/`::

    zerotag:Tags                  a structure for each tag given: Tag, Probability, Model, Date
    zerotag:Subject               what zerotag added to dc:subject
    zerotag:HierarchicalSubject   … to lr:hierarchicalSubject
    zerotag:TagsList              … to digiKam:TagsList
    zerotag:Accepted              tags that a person accepted, which are keywords of theirs
    zerotag:Rejected              tags that a person rejected, which zerotag never gives again

A keyword that zerotag did not add is a person's, or another program's, which is the same to zerotag.
"""

import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zerotag.metadata.exiftool import read_values

if TYPE_CHECKING:
    from exiftool import ExifTool

# A keyword with its parents: ("Animals", "Dog").
Path_ = tuple[str, ...]


@dataclass(frozen=True)
class Field:
    """A field that zerotag writes.

    Attributes:
        name: exiftool's name of the field.
        record: exiftool's name of the record of what zerotag added to it.
        separator: between the parts of a path; empty if the field holds plain words.
    """

    name: str
    record: str
    separator: str

    def value(self, path: Path_) -> str:
        """A keyword as the field has it."""
        # Neither program can have its own separator in a name.
        other = {"/": "|", "|": "/"}.get(self.separator, "")
        return self.separator.join(part.replace(self.separator, other) for part in path) if other else path[-1]

    def key(self, value: str) -> str:
        """The `key` of the keyword of a value, without its parents."""
        return key(value.rpartition(self.separator)[2] if self.separator else value)

    def keys(self, words: Iterable[str]) -> set[str]:
        """The `key` of the values that keywords without parents have."""
        return {self.key(self.value((word,))) for word in words}


SUBJECT = Field("XMP-dc:Subject", "XMP-zerotag:Subject", "")
HIERARCHY = Field("XMP-lr:HierarchicalSubject", "XMP-zerotag:HierarchicalSubject", "|")
TAGS_LIST = Field("XMP-digiKam:TagsList", "XMP-zerotag:TagsList", "/")
FIELDS = (SUBJECT, HIERARCHY, TAGS_LIST)

TAGS = "XMP-zerotag:Tags"
ACCEPTED = "XMP-zerotag:Accepted"
REJECTED = "XMP-zerotag:Rejected"
TOOLKIT = "XMP-x:XMPToolkit"
_IPTC = "IPTC:Keywords"
# Roots of the tags that programs give for themselves, such as the format of a photo, or that it was exported.
_INTERNAL = ("darktable", "_Digikam_Internal_Tags_", "_Digikam_root_tag_")


@dataclass(frozen=True)
class GivenTag:
    """A tag of zerotag's.

    Attributes:
        tag: the word.
        probability: of the tag.
        path: the word with its parents in the vocabulary; empty if the vocabulary has no hierarchy.
        model: that gave it.
        date: when, ISO 8601.
    """

    tag: str
    probability: float
    path: Path_ = ()
    model: str = ""
    date: str = ""


@dataclass(frozen=True)
class Keywords:
    """The keywords in one file.

    Attributes:
        fields: the values of each field, zerotag's included.
        own: those of them that zerotag added.
        iptc: IPTC's keywords, where zerotag adds none.
        tags: zerotag's record of the tags it gave.
        accepted: the record of the tags that a person accepted.
        rejected: the record of those that a person rejected.
        toolkit: name of the program that wrote the file's XMP.
    """

    fields: dict[Field, list[str]] = field(default_factory=lambda: {each: [] for each in FIELDS})
    own: dict[Field, list[str]] = field(default_factory=lambda: {each: [] for each in FIELDS})
    iptc: list[str] = field(default_factory=list)
    tags: list[GivenTag] = field(default_factory=list)
    accepted: list[str] = field(default_factory=list)
    rejected: list[str] = field(default_factory=list)
    toolkit: str = ""

    @property
    def has_record(self) -> bool:
        """Whether zerotag has given tags in the file."""
        return bool(self.tags) or any(self.own.values())

    @property
    def has_decision(self) -> bool:
        """Whether a person has accepted or rejected tags, and the file says so."""
        return bool(self.accepted or self.rejected)

    def persons(self, where: Field) -> list[str]:
        """The values of a field that zerotag did not add."""
        own = set(self.own[where])
        return [value for value in self.fields[where] if value not in own]

    @property
    def paths(self) -> list[Path_]:
        """A person's keywords with their parents, one part for those without."""
        found = [
            tuple(part for part in value.split(where.separator) if part)
            for where in (HIERARCHY, TAGS_LIST)
            for value in self.persons(where)
        ]
        internal = {part for path in found if path and path[0] in _INTERNAL for part in path}
        found = [path for path in found if path and path[0] not in _INTERNAL]
        # The plain words repeat the paths, each as its last part or as each part.
        known = {part for path in found for part in path} | internal
        found += [(word,) for word in (*self.persons(SUBJECT), *self.iptc) if word not in known]
        return list(dict.fromkeys(found))

    @property
    def words(self) -> list[str]:
        """A person's keywords without their parents."""
        return list(dict.fromkeys(path[-1] for path in self.paths))


@dataclass(frozen=True)
class PhotoKeywords:
    """The keywords of a photo, in the photo and its sidecars. What a person says counts: none is in two lists but the
    accepted ones.

    Attributes:
        keywords: a person's.
        given: tags that zerotag gave, and on which nobody decided.
        accepted: those of the keywords that were tags of zerotag's, and that a person accepted.
        rejected: tags that a person rejected.
    """

    keywords: list[str]
    given: list[str]
    accepted: list[str]
    rejected: list[str]


def photo_keywords(files: Iterable[Keywords]) -> PhotoKeywords:
    """Join the keywords of a photo and of its sidecars."""
    files = list(files)
    keywords = list(dict.fromkeys(word for file in files for word in file.words))
    # A keyword counts even where it contradicts the record, as a person may use other programs, too.
    theirs = {key(word) for word in keywords}
    rejected = _once(word for file in files for word in file.rejected if key(word) not in theirs)
    decided = theirs | {key(word) for word in rejected}
    return PhotoKeywords(
        keywords,
        _once(tag.tag for file in files for tag in file.tags if key(tag.tag) not in decided),
        _once(word for file in files for word in file.accepted if key(word) in theirs),
        rejected,
    )


def key(word: str) -> str:
    """What two spellings of one keyword have in common, in upper or lower case, composed or not."""
    return unicodedata.normalize("NFC", word.casefold())


def _once(words: Iterable[str]) -> list[str]:
    found: dict[str, str] = {}
    for word in words:
        found.setdefault(key(word), word)
    return list(found.values())


def sidecars(photo: Path) -> tuple[Path, Path]:
    """The two names of a photo's sidecar: photo.jpg.xmp and photo.xmp."""
    return photo.with_name(f"{photo.name}.xmp"), photo.with_suffix(".xmp")


def read_keywords(tool: "ExifTool", files: Sequence[Path]) -> dict[Path, Keywords]:
    """Read the keywords of photos or sidecars; files without any metadata that can be read are left out."""
    names = [each.name for each in FIELDS], [each.record for each in FIELDS], [_IPTC, TAGS, ACCEPTED, REJECTED, TOOLKIT]
    found = read_values(tool, files, [name for group in names for name in group])
    return {file: _keywords(values) for file, values in found.items()}


def read_photo_keywords(tool: "ExifTool", photos: Sequence[Path]) -> dict[Path, PhotoKeywords]:
    """Read the keywords of photos, each from the photo and its sidecars."""
    places = {photo: [photo, *(file for file in sidecars(photo) if file.is_file())] for photo in photos}
    found = read_keywords(tool, list(dict.fromkeys(file for files in places.values() for file in files)))
    return {photo: photo_keywords(found[file] for file in files if file in found) for photo, files in places.items()}


def _keywords(values: dict[str, Any]) -> Keywords:
    tags = [
        GivenTag(str(each.get("Tag", "")), float(each.get("Probability", 0)), (), each.get("Model", ""),
                 each.get("Date", ""))
        for each in values.get(TAGS, [])
    ]  # fmt: skip
    return Keywords(
        {each: _list(values.get(each.name)) for each in FIELDS},
        {each: _list(values.get(each.record)) for each in FIELDS},
        _list(values.get(_IPTC)),
        tags,
        _list(values.get(ACCEPTED)),
        _list(values.get(REJECTED)),
        str(values.get(TOOLKIT, "")),
    )


def _list(value: Any) -> list[str]:
    items: Iterable[Any] = value if isinstance(value, list) else [] if value is None else [value]
    # exiftool's JSON has the keyword "true" as a truth value.
    texts = (str(item).lower() if isinstance(item, bool) else str(item) for item in items)
    return [text for text in texts if text.strip()]
