"""The engine's index of many photos, and vectors stored in fewer dimensions."""

import subprocess
import sys
from datetime import date, datetime
from pathlib import Path

import lance
import numpy as np
import pytest

import zerotag.serving.index
from zerotag.errors import ZerotagError
from zerotag.serving.basis import Basis
from zerotag.serving.index import Entry, Index, Where

PHOTOS, DIMENSIONS, TOP = 6000, 60, 24


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> tuple[Index, np.ndarray, np.ndarray]:
    """An index beyond the number of rows that are all compared, its vectors (n, d), and words."""
    random = np.random.default_rng(0)
    axes = random.standard_normal((12, DIMENSIONS)).astype(np.float32)
    vectors = (random.standard_normal((PHOTOS, 12)) @ axes + 0.5 * random.standard_normal((PHOTOS, DIMENSIONS))) / 8
    words = random.standard_normal((40, 12)) @ axes
    words = (words / np.linalg.norm(words, axis=1, keepdims=True)).astype(np.float32)
    vectors = vectors.astype(np.float16).astype(np.float32)
    index = Index(str(tmp_path_factory.mktemp("large")), "random", (1, DIMENSIONS))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(zerotag.serving.index, "_EXACT", 2000)
        patch.setattr(zerotag.serving.index, "_PARTITION", 512)
        for start in range(0, PHOTOS - 500, 500):
            index.fill("/photos", names(start, 500), vectors[start : start + 500, None])
        index.tidy()
        # New photos are found before the engine's index has them.
        entries = [Entry("", "", datetime(2024, 1, 1 + number // 100)) for number in range(500)]
        index.put("/photos", names(PHOTOS - 500, 500), entries, vectors[PHOTOS - 500 :, None])
    assert index._has_index()
    return index, vectors, words


def names(start: int, count: int) -> list[str]:
    return [f"{number // 1000}/{number:05d}.jpg" for number in range(start, start + count)]


def found(index: Index, *arguments: object, **options: object) -> list[int]:
    return [int(hit.photo[-9:-4]) for hit in index.search(*arguments, limit=TOP, **options)]  # type: ignore[arg-type]


def recall(found: list[list[int]], best: list[np.ndarray]) -> float:
    return float(np.mean([len(set(one) & set(two.tolist())) / TOP for one, two in zip(found, best, strict=True)]))


def test_one_word(large) -> None:
    index, vectors, words = large
    best = list(np.argsort(-(words @ vectors.T), axis=1)[:, :TOP])
    assert recall([found(index, word[None]) for word in words], best) > 0.99
    assert recall([found(index, word[None], exact=True) for word in words], best) == 1
    hit = index.search(words[:1])[0]
    assert hit.score == pytest.approx(float((vectors @ words[0]).max()), abs=1e-5)


def test_several_words_and_an_example(large) -> None:
    index, vectors, words = large
    pairs = [(words[number : number + 2], words[number + 2 : number + 3]) for number in range(30)]
    best = []
    for wanted, unwanted in pairs:
        least = (vectors @ wanted.T).min(axis=1)
        least[(vectors @ unwanted.T)[:, 0] >= least] = -np.inf
        best.append(np.argsort(-least)[:TOP])
    assert recall([found(index, *pair) for pair in pairs], best) > 0.98
    assert recall([found(index, *pair, exact=True) for pair in pairs], best) == 1
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    best = [np.argsort(-(unit @ example))[:TOP] for example in unit[:20]]
    assert recall([found(index, None, like=vector[None]) for vector in vectors[:20]], best) > 0.95
    with_words = [found(index, words[:1], like=vector[None]) for vector in vectors[:5]]
    exactly = [found(index, words[:1], like=vector[None], exact=True) for vector in vectors[:5]]
    assert recall(with_words, [np.array(one) for one in exactly]) > 0.9


def test_filters_and_pages(large) -> None:
    index, vectors, words = large
    scores = vectors @ words[0]
    inside = np.arange(2000, 3000)
    best = inside[np.argsort(-scores[inside])]
    assert recall([found(index, words[:1], where=Where(folder="2"))], [best[:TOP]]) > 0.95
    day = np.arange(PHOTOS - 500, PHOTOS - 400)
    hits = index.search(words[:1], limit=200, where=Where(since=date(2024, 1, 1), until=date(2024, 1, 1)))
    assert sorted(int(hit.photo[-9:-4]) for hit in hits) == day.tolist()
    pages = [hit.photo for offset in range(0, 1000, 100) for hit in index.search(words[:1], None, 100, offset)]
    assert len(set(pages)) > 990


def test_other_processes_see_it_all(large) -> None:
    index, vectors, words = large
    code = (
        "import sys, numpy as np\n"
        "from zerotag.serving.index import Index\n"
        f"index = Index(sys.argv[1], 'random', (1, {DIMENSIONS}))\n"
        f"word = np.array(eval(sys.argv[2]), np.float32)\n"
        "print(len(index), index.search(word[None])[0].photo)\n"
    )
    command = [sys.executable, "-c", code, str(index._lock.parent), str(words[0].tolist())]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert output.split() == [str(PHOTOS), names(int((vectors @ words[0]).argmax()), 1)[0]]


def test_many_dimensions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine's index has half the bits for each; all else is the same."""
    random = np.random.default_rng(0)
    axes = random.standard_normal((30, 800)).astype(np.float32) / 30
    vectors = random.standard_normal((3000, 30)) @ axes + random.standard_normal((3000, 800)) / 60
    words = random.standard_normal((20, 30)) @ axes
    vectors, words = (each.astype(np.float16).astype(np.float32) for each in (vectors, words))
    monkeypatch.setattr(zerotag.serving.index, "_EXACT", 2000)
    monkeypatch.setattr(zerotag.serving.index, "_PARTITION", 1000)
    index = Index(str(tmp_path), "random", (1, 800))
    index.fill("/photos", names(0, 3000), vectors[:, None])
    index.tidy()
    assert index._has_index() and index.photo_bytes == 800 * (2 + 2 / 8)
    best = list(np.argsort(-(words @ vectors.T), axis=1)[:, :TOP])
    assert recall([found(index, word[None]) for word in words], best) > 0.99


def test_partitions_are_not_as_many_as_one_likes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each row is compared with all of them when the index is made; they stay as few when rows are added."""
    monkeypatch.setattr(zerotag.serving.index, "_PARTITIONS", 2)
    vectors = np.random.default_rng(0).standard_normal((60_000, 1, 16)).astype(np.float32)
    index = Index(str(tmp_path), "random", (1, 16))
    index.fill("/photos", names(0, 50_500), vectors[:50_500])
    index.tidy()
    index.fill("/photos", names(50_500, 9500), vectors[50_500:])
    index.tidy()
    segments = lance.dataset(index._files).stats.index_stats("vector_idx")["indices"]
    assert {segment["num_partitions"] for segment in segments} == {2}
    assert sum(part["size"] for segment in segments for part in segment["partitions"]) == 60_000
    best = np.argsort(-(vectors[:, 0] @ vectors[7, 0]))[:TOP]
    assert recall([found(index, vectors[7] / np.linalg.norm(vectors[7]))], [best]) == 1


def test_made_anew_when_four_times_as_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zerotag.serving.index, "_EXACT", 1000)
    monkeypatch.setattr(zerotag.serving.index, "_PARTITION", 1000)
    vectors = np.random.default_rng(0).standard_normal((18_000, 1, 16)).astype(np.float32)
    index, there = Index(str(tmp_path), "random", (1, 16)), 0
    for rows, partitions in ((2000, 2), (4000, 2), (18_000, 18)):
        index.fill("/photos", names(there, rows - there), vectors[there:rows])
        index.tidy()
        segments = lance.dataset(index._files).stats.index_stats("vector_idx")["indices"]
        assert {segment["num_partitions"] for segment in segments} == {partitions}
        there = rows


def test_compacted_during_a_search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zerotag.serving.index, "_EXACT", 1000)
    monkeypatch.setattr(zerotag.serving.index, "_PARTITION", 1000)
    vectors = np.random.default_rng(0).standard_normal((2000, 1, 16)).astype(np.float32)
    index, other = (Index(str(tmp_path), "random", (1, 16)) for _ in range(2))
    for start in range(0, 2000, 100):
        index.fill("/photos", names(start, 100), vectors[start : start + 100])
    index.tidy()
    index.fill("/photos", names(2000, 50), vectors[:50])
    codes, times = index._codes, []

    def and_compact(vector: np.ndarray, count: int, condition: str) -> tuple[np.ndarray, np.ndarray]:
        answer = codes(vector, count, condition)
        if not times:
            other.remove("/photos", names(0, 1000))
            other.tidy()
        times.append(count)
        return answer

    monkeypatch.setattr(index, "_codes", and_compact)
    word = vectors[0] / np.linalg.norm(vectors[0])
    best = np.argsort(-(vectors[1000:, 0] @ word[0])) + 1000
    copies = [2000 + place for place in np.argsort(-(vectors[:50, 0] @ word[0]))]
    hits = [int(hit.photo[-9:-4]) for hit in index.search(word, limit=10)]
    assert len(times) > 1 and hits[0] == copies[0] and set(hits) <= {*best[:10], *copies}


def test_fewer_dimensions(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    words = random.standard_normal((200, 20)) * 0.8 ** np.arange(20)
    words = (words / np.linalg.norm(words, axis=1, keepdims=True)).astype(np.float32)
    vectors = random.standard_normal((300, 2, 20)).astype(np.float32)
    index = Index(str(tmp_path), "random", (2, 20), 10, lambda: words)
    photos = [f"{number}.jpg" for number in range(300)]
    index.put("/photos", photos, [Entry("", "")] * 300, vectors)
    again = Index(str(tmp_path), "random", (2, 20))
    assert index.basis and again.basis and again.dimensions == 10 and np.array_equal(index.basis.axes, again.basis.axes)
    left_out = index.basis.left_out(words)
    assert left_out.mean() < 0.3
    rest = np.linalg.norm(vectors - index.basis.up(index.basis.down(vectors)), axis=2).max(axis=1)
    for word, bound in zip(words[:20], left_out[:20], strict=True):
        scores = dict(zip(photos, (vectors @ word).max(axis=1), strict=True))
        for hit in again.search(word[None], limit=300):
            assert abs(hit.score - scores[hit.photo]) <= bound * rest[int(hit.photo[:-4])] + 0.01
    assert again.search(None, like=vectors[5])[0].photo == "5.jpg"
    for dimensions in (12, 20):
        with pytest.raises(ZerotagError, match=f"this index has 10 dimensions, not {dimensions}"):
            Index(str(tmp_path), "random", (2, 20), dimensions, lambda: words)
    with pytest.raises(ZerotagError, match="--dimensions 21: the model's vectors have 20"):
        Index(str(tmp_path / "other"), "random", (2, 20), 21, lambda: words)
    assert Basis.of(words, 20).left_out(words) == pytest.approx(0, abs=1e-5)


def test_a_large_new_index_is_fitted_to_its_photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Words alone do not tell what photos differ by: here, by what few words are about."""
    monkeypatch.setattr(zerotag.serving.index, "_MANY", 300)
    monkeypatch.setattr(zerotag.serving.index, "_FITTED", 200)
    monkeypatch.setattr(zerotag.serving.index, "FEWER", 8)
    random = np.random.default_rng(0)
    strong = np.concatenate([np.full(10, 0.05), np.full(6, 1.0), np.full(4, 0.05)])
    words = random.standard_normal((200, 20)) * np.concatenate([np.full(10, 1.0), np.full(10, 0.5)])
    words = (words / np.linalg.norm(words, axis=1, keepdims=True)).astype(np.float32)
    vectors = (random.standard_normal((600, 1, 20)) * strong).astype(np.float32)
    index, early, other = (Index(str(tmp_path), "random", (1, 20), None, lambda: words) for _ in range(3))
    assert (index.wants(299), index.wants(300)) == (0, 200)
    assert Index(str(tmp_path), "narrow", (1, 8), None, lambda: words[:, :8]).wants(1000) == 0
    assert Index(str(tmp_path), "asked", (1, 20), 20, lambda: words).wants(1000) == 0
    assert early.search(words[:1]) == [] and early.find("/photos", "0/00000.jpg") is None
    index.fit(vectors[:200])
    other.fit(vectors[:200, :, ::-1])  # too late
    index.put("/photos", names(0, 300), [Entry("", "")] * 300, vectors[:300])
    early.put("/photos", names(300, 300), [Entry("", "")] * 300, vectors[300:])
    assert index.wants(1000) == 0 and index.basis and early.basis and index.dimensions == early.dimensions == 8
    best = list(np.argsort(-(words[:40] @ vectors[:, 0].T), axis=1)[:, :TOP])
    fitted = recall([found(early, word[None]) for word in words[:40]], best)
    by_words = Basis.of(words, 8)
    coarse = by_words.down(words[:40]) @ by_words.down(vectors[:, 0]).T
    without = recall([one.tolist() for one in np.argsort(-coarse, axis=1)[:, :TOP]], best)
    assert fitted > 0.8 and fitted > without + 0.2
    again = early.find("/photos", "0/00599.jpg")
    assert again and np.allclose(again[1], index.basis.up(index.basis.down(vectors[599])), atol=0.01)


def test_killed_while_it_was_fitted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is a basis, and a table of the time before."""
    words = np.random.default_rng(0).standard_normal((30, 20)).astype(np.float32)
    index = Index(str(tmp_path), "random", (1, 20), None, lambda: words)
    monkeypatch.setattr(zerotag.serving.index, "FEWER", 8)
    with monkeypatch.context() as patch:
        patch.setattr(index, "_open", lambda: None)
        index.fit(words[:, None])
    again = Index(str(tmp_path), "random", (1, 20), None, lambda: words)
    again.put("/photos", names(0, 30), [Entry("", "")] * 30, words[:, None])
    assert again.dimensions == 8 and len(again.search(words[:1])) == 20
    assert len(index.search(words[:1])) == 20


def test_writers_do_not_wait_for_compaction_and_lose_nothing_to_it(tmp_path: Path) -> None:
    index, other = (Index(str(tmp_path), "m", (1, 8)) for _ in range(2))
    vectors = np.random.default_rng(0).standard_normal((16, 1, 8)).astype(np.float32)
    wanted: set[str] = set()
    for step in range(60):
        added = names(16 * step, 16)
        index.put("/photos", added, [Entry("", "")] * 16, vectors)
        wanted |= set(added)
        if step % 3 == 0:
            other.tidy_soon()
        if step % 5 == 4:
            index.remove("/photos", gone := sorted(wanted)[: step // 4])
            index.put("/photos", again := sorted(wanted)[-9:], [Entry("new", "")] * 9, vectors[:9])
            wanted = wanted - set(gone) | set(again)
    other.tidy_soon().result(60)
    rows = index._table.search().select(["photo"]).limit(None).to_arrow()["photo"].to_pylist()
    assert sorted(rows) == sorted(wanted)


def test_only_one_process_tidies(tmp_path: Path) -> None:
    index, other = (Index(str(tmp_path), "m", (1, 8)) for _ in range(2))
    index.put("/photos", ["a"], [Entry("", "")], np.ones((1, 1, 8), np.float32))
    with other._locked("tidy", wait=False):
        index.tidy()
        assert not index._table.list_indices()
    index.tidy()
    assert index._table.list_indices()
