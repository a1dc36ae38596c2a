"""Find photos that are in the index more than once: the same content, or nearly the same picture.

How alike two photos are is `_LOOK` times the correlation of their looks (8 x 8 grey values), plus the rest times the
cosine of their first principal vectors. Looks find what was resized or compressed, and vectors tell apart what only
looks alike: docs/search.md has figures.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from zerotag.serving.index import Index
from zerotag.words.lexicon import unit

# Of copies of Corel5K's photos, 99% at JPEG quality 30, 92% at half the size and 80% of those with 5% cut off are more
# alike than this, and 20 pairs of its 4,500 photos.
ALIKE = 0.93
_LOOK = 0.8
_SIDE = 8
# Dimensions that vectors are compared in first.
_KEPT = 32
_BLOCK = 2048


@dataclass(frozen=True)
class Group:
    """Photos that are nearly the same.

    Attributes:
        same: whether their content is the same, to the byte.
        similarity: of the least alike two that were compared; 1 for the same content.
        photos: root and path of each, in order.
    """

    same: bool
    similarity: float
    photos: list[tuple[str, str]]


def look_of(pixels: np.ndarray) -> bytes:
    """What a photo looks like in small: (S, S, 3) uint8 -> 64 grey values without their mean, as int8."""
    size = len(pixels)
    edges = np.linspace(0, size, _SIDE + 1).astype(int)
    grey = pixels @ np.array([0.299, 0.587, 0.114], dtype=np.float32)
    sums = np.add.reduceat(np.add.reduceat(grey, edges[:-1], axis=0), edges[:-1], axis=1)
    small = sums / np.outer(np.diff(edges), np.diff(edges))
    small -= small.mean()
    return np.rint(small * (127 / max(float(np.abs(small).max()), 1e-6))).astype(np.int8).tobytes()


def find_duplicates(index: Index, alike: float = ALIKE) -> Iterator[Group]:
    """Find photos of the same content, then photos that are alike; of the same content, only the first is compared.

    Memory is bounded by some hundred bytes a photo; time grows with the square of the photos.

    Args:
        index: an index whose photos have looks.
        alike: the least similarity, to 1.

    Yields:
        Groups of the same content, then groups in which each photo is as alike as that to another one.
    """
    photos, features = _read(index)
    by_content: dict[str, list[int]] = defaultdict(list)
    for place, (_, digest) in enumerate(photos):
        by_content[digest or str(place)].append(place)
    keys = [key for key, _ in photos]
    copies = sorted(sorted(keys[place] for place in places) for places in by_content.values() if len(places) > 1)
    for group in copies:
        yield Group(True, 1.0, group)
    first = np.array([min(places, key=lambda place: keys[place]) for places in by_content.values()], dtype=int)
    yield from _alike(index, [keys[place] for place in first], features[first], alike)


def _read(index: Index) -> tuple[list[tuple[tuple[str, str], str]], np.ndarray]:
    """Photos with their content, and their features (n, D): looks, and vectors projected on their main axes.

    The dot product of two photos' features is no less than their similarity: it is exact for looks and for the
    projected vectors, and what a projection leaves of two vectors is at most the product of its lengths.
    """
    photos: list[tuple[tuple[str, str], str]] = []
    features, projection = [], np.empty((0, 0), np.float32)
    for keys, digests, looks, vectors in index.first_rows():
        if not photos:
            _, axes = np.linalg.eigh(vectors.T.astype(np.float64) @ vectors)
            projection = axes[:, ::-1][:, :_KEPT].astype(np.float32)
        photos += zip(keys, digests, strict=True)
        vectors = unit(vectors)
        near = vectors @ projection
        rest = np.sqrt(np.maximum(1 - (near**2).sum(axis=1, keepdims=True), 0))
        # Photos without a look are alike to none.
        values = [np.frombuffer(look or bytes(_SIDE**2), np.int8) for look in looks]
        look = unit(np.stack(values).astype(np.float32))
        features.append(
            np.concatenate([_LOOK**0.5 * look, (1 - _LOOK) ** 0.5 * near, (1 - _LOOK) ** 0.5 * rest], axis=1)
        )
    return photos, np.concatenate(features) if features else np.empty((0, 1), np.float32)


def _alike(index: Index, keys: list[tuple[str, str]], features: np.ndarray, alike: float) -> Iterator[Group]:
    """Groups of alike photos among those of different content."""
    if len(keys) < 2:
        return
    # Along one axis two alike photos are no further apart than this. The most spread one leaves most photos out.
    reach = np.sqrt(2 * (1 - alike)) + 1e-3
    _, axes = np.linalg.eigh(np.cov(features[:: max(1, len(features) // 20_000)].T))
    order = np.argsort(features @ axes[:, -1], kind="stable")
    features = features[order].astype(np.float32)
    along = features @ axes[:, -1].astype(np.float32)
    group_of = np.arange(len(keys))
    least: dict[int, float] = {}

    def group(place: int) -> int:
        while group_of[place] != place:
            group_of[place] = group_of[group_of[place]]
            place = group_of[place]
        return place

    for start in tqdm(range(0, len(keys), _BLOCK), desc="compare", unit="block", disable=None):
        stop = np.searchsorted(along, along[min(start + _BLOCK, len(keys)) - 1] + reach, side="right")
        pairs: list[tuple[int, int]] = []
        for other in range(start, stop, _BLOCK):
            bound = features[start : start + _BLOCK] @ features[other : min(other + _BLOCK, stop)].T
            rows, columns = np.nonzero(bound >= alike - 1e-4)
            rows, columns = rows + start, columns + other
            pairs += zip(rows[rows < columns].tolist(), columns[rows < columns].tolist(), strict=True)
        pairs = [(one, two) for one, two in pairs if group(one) != group(two)]
        vectors = _vectors(index, [keys[order[place]] for place in {place for pair in pairs for place in pair}])
        for one, two in pairs:
            vector, other_vector = vectors[keys[order[one]]], vectors[keys[order[two]]]
            sides = _SIDE**2
            similarity = float(features[one, :sides] @ features[two, :sides] + (1 - _LOOK) * vector @ other_vector)
            if similarity >= alike and (into := group(one)) != (gone := group(two)):
                group_of[gone] = into
                least[into] = min(similarity, least.get(into, 1.0), least.get(gone, 1.0))
    groups: dict[int, list[tuple[str, str]]] = defaultdict(list)
    for place in range(len(keys)):
        groups[group(place)].append(keys[order[place]])
    found = [Group(False, least[root], sorted(photos)) for root, photos in groups.items() if len(photos) > 1]
    yield from sorted(found, key=lambda each: each.photos)


def _vectors(index: Index, keys: list[tuple[str, str]]) -> dict[tuple[str, str], np.ndarray]:
    """First principal vectors, of unit length."""
    return {
        (root, name): unit(matrix[0])
        for root, names, matrices in index.matrices(keys)
        for name, matrix in zip(names, matrices, strict=True)
    }
