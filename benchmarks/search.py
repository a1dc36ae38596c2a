"""Search over many photos, against numpy and FAISS: python -m benchmarks.search [--photos 100000] [--dimensions 2000].

Photos are made of real ones: each is a mixture of a photo of ../shared and one of the 50 that resemble it most, plus
noise of 0.3 times the standard deviation of each dimension, all as the starter sees them (work/starter). As for a
person's photos, an index of 10,000 or more stores vectors in 384 dimensions unless told otherwise. Words are 150 of the
starter's and 50 phrases; two words are tags of one photo of Corel5K, and the one left out is one of another's. The
rivals have the same vectors in memory as float32, and search in the same run.

Recall is the share of the 24 best of an exact search over what is stored that are found; "worst" is that of the worst
word. FAISS's IVF has as many probes as bring it to our recall. The rivals need two times 4 bytes for each number in
memory; --no-rivals measures ours alone.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from statistics import median

import numpy as np
from benchmarks.scale import entries_of

from zerotag.data.batches import pixel_batches
from zerotag.serving.index import Index
from zerotag.serving.tagger import Tagger
from zerotag.words.lexicon import unit

TOP, WORDS, BLOCK = 24, 150, 20_000
PHRASES = (
    "children playing football, a dog on the beach, lighthouse at night, old red car, snowy mountains, birthday cake, "
    "man with a hat, girl riding a horse, sailing boat, city skyline, waterfall in the forest, polar bear, coral reef, "
    "jet plane taking off, tiger in the grass, steam train, ruins of a temple, desert dunes, people dancing, "
    "market stall, sunset over the sea, wedding dress, climbing rocks, dog jumping, snowboarder, skateboard trick, "
    "bicycle race, baby laughing, cat on a sofa, flowers in a vase, fireworks, castle on a hill, swimming pool, "
    "wooden bridge, street at night, football team, soccer ball, motocross, kayak, surfing wave, butterfly, mushrooms, "
    "elephant herd, zebra, penguin, hot air balloon, windmill, tractor in a field, guitar player, lake reflection"
).split(", ")
Search = Callable[[np.ndarray], list[int]]


@dataclass(frozen=True)
class Contestant:
    """A way to search, its queries, the best photos for each of these, and what they are called."""

    name: str
    search: Search
    queries: list[np.ndarray]
    best: list[list[int]]
    labels: list[str]


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    arguments.add_argument("--photos", type=int, default=100_000)
    arguments.add_argument("--dimensions", type=int, help="In which vectors are stored, if not those of a new index.")
    arguments.add_argument("--package", type=Path, default=Path("work/starter"))
    arguments.add_argument("--shared", type=Path, default=Path("../shared"))
    arguments.add_argument("--folder", type=Path, help="Keeps the index here, and uses one that is there.")
    arguments.add_argument(
        "--real", type=Path, default=Path("work/search-photos.npy"), help="Keeps real photos' vectors."
    )
    arguments.add_argument("--no-rivals", action="store_true")
    arguments.add_argument("--no-ivf", action="store_true", help="FAISS's flat index only, as IVF takes long to make.")
    options = arguments.parse_args()
    tagger = Tagger(options.package)
    if not options.real.is_file():
        np.save(options.real, embedded(tagger, options.shared))
    real = np.load(options.real)
    names, words = chosen_words(tagger)
    with tempfile.TemporaryDirectory() as own:
        measure(options, tagger, real, names, words, options.folder or Path(own))


def measure(
    options: argparse.Namespace, tagger: Tagger, real: np.ndarray, names: list[str], words: np.ndarray, folder: Path
) -> None:
    index = Index(str(folder), "benchmark", (1, real.shape[1]), options.dimensions, tagger.frequent_words)
    if not len(index):
        started = time.perf_counter()
        if count := index.wants(options.photos):
            index.fit(real[np.random.default_rng(0).choice(len(real), count, replace=False), None])
        inside = index.basis.down(real) if index.basis else real
        for start, vectors in enlarged(inside, options.photos):
            names_there = [f"2024/album {start // 1000:04d}/IMG_{start + n:08d}.jpg" for n in range(len(vectors))]
            matrices = (index.basis.up(vectors) if index.basis else vectors)[:, None]
            index.fill("/photos", names_there, matrices, entries_of(start, len(vectors))[1])
        filled = time.perf_counter() - started
        started = time.perf_counter()
        index.tidy()
        # At once, as no other process reads it; otherwise an update deletes old versions that are ten minutes old.
        index.tidy()
        index._table.cleanup_old_versions(timedelta(0))
        print(f"written in {filled:.0f} s, compacted and indexed in {time.perf_counter() - started:.0f} s", flush=True)
    left_out = index.basis.left_out(words) if index.basis else np.zeros(len(words))
    inner = index.basis.down(words) if index.basis else words
    labels, three = tags_of_photos(tagger, options.shared)
    inner_three = [index.basis.down(some) if index.basis else some for some in three]
    best, best_of_three = best_photos(index, inner, inner_three)

    rows: list[tuple[str, float, float, float, str]] = []

    def add(*contestants: Contestant) -> None:
        """Measure contestants in turns, as the machine may be slower at one time than at another."""
        turns = sorted((place / len(each.queries), who, place) for who, each in enumerate(contestants)
                       for place in range(len(each.queries)))  # fmt: skip
        times, recalls = ([[0.0] * len(each.queries) for each in contestants] for _ in range(2))
        for each in contestants:
            each.search(each.queries[0])
        for _, who, place in turns:
            query, wanted = contestants[who].queries[place], contestants[who].best[place]
            started = time.perf_counter()
            found = contestants[who].search(query)
            times[who][place] = time.perf_counter() - started
            recalls[who][place] = len(set(found) & set(wanted)) / max(len(wanted), 1)
        for each, taken, shares in zip(contestants, times, recalls, strict=True):
            worst = int(np.argmin(shares))
            rows.append((each.name, median(taken), float(np.mean(shares)), shares[worst], each.labels[worst]))
            print(f"{each.name}: {1000 * rows[-1][1]:.1f} ms", file=sys.stderr, flush=True)

    def ours(words: np.ndarray, without: np.ndarray | None = None, **options) -> list[int]:
        return [number_of(hit.photo) for hit in index.search(words, without, TOP, **options)]

    each = list(words)
    several = "two words and one left out"
    add(
        Contestant("zerotag, one word", lambda word: ours(word[None]), each, best, names),
        Contestant(f"zerotag, {several}", lambda some: ours(some[:2], some[2:]), three, best_of_three, labels),
    )
    exact = {"exact": True}
    add(
        Contestant("zerotag, exact, one word", lambda word: ours(word[None], **exact), each[:20], best, names),
        Contestant(f"zerotag, exact, {several}", lambda some: ours(some[:2], some[2:], **exact), three[:10],
                   best_of_three, labels),
    )  # fmt: skip
    used = memory_of_a_search(folder, real.shape[1])
    if not options.no_rivals:
        queries = list(inner.astype(np.float32))
        stored = np.empty((len(index), index.dimensions), np.float32)
        for numbers, vectors in blocks(index):
            stored[numbers] = vectors

        def numpy_search(word: np.ndarray) -> list[int]:
            scores = stored @ word
            found = np.argpartition(-scores, TOP)[:TOP]
            return found[np.argsort(-scores[found])].tolist()

        add(Contestant("numpy, brute force in memory", numpy_search, queries[:50], best, names))
        for name, search in faiss_rivals(stored, queries, best, rows[0][2], ivf=not options.no_ivf):
            add(Contestant(name, search, queries[:50], best, names))
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 1e9
    print(f"\n{len(index):,} photos, {index.dimensions} of {real.shape[1]} dimensions, {size:.2f} GB on disk")
    print(f"a process that opens the index and searches 10 words: {used:.0f} MB at most")
    print(f"words' length left out by the basis: mean {left_out.mean():.3f}, most {left_out.max():.3f}")
    print(f"{'':42}{'median':>10}{'ratio':>7}{'recall':>8}{'worst':>7}")
    for name, seconds, recall, worst, word in rows:
        print(f"{name:42}{1000 * seconds:8.1f}ms{seconds / rows[0][1]:7.2f}{recall:8.4f}{worst:7.2f}  {word}")


def embedded(tagger: Tagger, shared: Path) -> np.ndarray:
    """(n, d): vectors of the photographs of ../shared."""
    files = sorted(file for name in ("corel5k", "flickr8k") for file in (shared / name / "images").iterdir())
    batches = pixel_batches(files, lambda file: tagger.pixels(file.read_bytes(), file.name), 16)
    return np.concatenate([tagger.principal_vectors(np.stack(batch.results))[:, 0] for batch in batches])


def chosen_words(tagger: Tagger) -> tuple[list[str], np.ndarray]:
    words = tagger.words(PHRASES)
    tags = np.random.default_rng(0).choice(len(tagger.vocabulary.tags), WORDS, replace=False)
    names = [*(tagger.vocabulary.tags[place] for place in tags), *words.words]
    return names, np.concatenate([tagger.vocabulary.vectors[tags], words.vectors])


def tags_of_photos(tagger: Tagger, shared: Path) -> tuple[list[str], list[np.ndarray]]:
    """Two words that one photo of Corel5K is tagged with, and one of another photo that it is not: 60 times (3, d)."""
    lines = (shared / "corel5k" / "tags.csv").read_text(encoding="utf-8").splitlines()[1:]
    photos = [tags for line in lines if len(tags := line.partition(",")[2].split()) > 1]
    random = np.random.default_rng(1)
    labels, vectors = [], []
    for place in random.choice(len(photos) - 1, 60, replace=False):
        left_out = next(tag for tags in photos[place + 1 :] for tag in tags if tag not in photos[place])
        chosen = [*photos[place][:2], left_out]
        found = tagger.words(chosen)
        if len(found.words) == 3:
            labels.append(", ".join(chosen))
            vectors.append(found.vectors)
    return labels, vectors


def enlarged(real: np.ndarray, count: int) -> Iterator[tuple[int, np.ndarray]]:
    """As many photos as wanted, in blocks; see above."""
    random = np.random.default_rng(0)
    directions = unit(real)
    near = np.argsort(-(directions @ directions.T), axis=1)[:, 1:51]
    spread = 0.3 * real.std(axis=0)
    for start in range(0, count, BLOCK):
        size = min(BLOCK, count - start)
        one = random.integers(0, len(real), size)
        other = near[one, random.integers(0, near.shape[1], size)]
        share = random.uniform(0.5, 1, (size, 1)).astype(np.float32)
        noise = spread * random.standard_normal((size, real.shape[1]), dtype=np.float32)
        yield start, share * real[one] + (1 - share) * real[other] + noise


def number_of(photo: str) -> int:
    """The number of a photo, by its name."""
    return int(photo[-12:-4])


def blocks(index: Index) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Numbers of photos, and their vectors as stored."""
    for keys, _, _, vectors in index.first_rows():
        yield np.array([number_of(photo) for _, photo in keys]), vectors[:, : index.dimensions]


def best_photos(index: Index, words: np.ndarray, three: list[np.ndarray]) -> tuple[list[list[int]], list[list[int]]]:
    """The best photos of an exact search: for each word, and for two words without a third (3, d) each time."""
    found = np.empty((len(words) + len(three), 0), int)
    scores = np.empty((len(found), 0), np.float32)
    for numbers, vectors in blocks(index):
        least = (np.concatenate(three) @ vectors.T).reshape(len(three), 3, -1)
        of_two = least[:, :2].min(axis=1)
        of_two[least[:, 2] >= of_two] = -np.inf
        scores = np.concatenate([scores, np.concatenate([words @ vectors.T, of_two])], axis=1)
        found = np.concatenate([found, np.broadcast_to(numbers, (len(found), len(numbers)))], axis=1)
        best = np.argpartition(-scores, TOP - 1, axis=1)[:, :TOP]
        scores, found = np.take_along_axis(scores, best, 1), np.take_along_axis(found, best, 1)
    kept = [numbers[those > -np.inf].tolist() for numbers, those in zip(found, scores, strict=True)]
    return kept[: len(words)], kept[len(words) :]


def faiss_rivals(
    stored: np.ndarray, queries: list[np.ndarray], best: list[list[int]], recall: float, ivf: bool
) -> Iterator[tuple[str, Search]]:
    import faiss

    faiss.omp_set_num_threads(2)
    dimensions = stored.shape[1]
    flat = faiss.IndexFlatIP(dimensions)
    flat.add(stored)
    yield "FAISS, flat", lambda word: flat.search(word[None], TOP)[1][0].tolist()
    flat.reset()
    if not ivf:
        return
    cells = max(16, int(2 * len(stored) ** 0.5))
    cellular = faiss.IndexIVFFlat(faiss.IndexFlatIP(dimensions), dimensions, cells, faiss.METRIC_INNER_PRODUCT)
    cellular.cp.niter = 8
    started = time.perf_counter()
    cellular.train(stored[:: max(1, len(stored) // (40 * cells))])
    cellular.add(stored)
    print(f"FAISS IVF built in {time.perf_counter() - started:.0f} s", file=sys.stderr, flush=True)
    for probes in (cells // 32, cells // 16, cells // 8, cells // 4, cells // 2, cells):
        cellular.nprobe = probes
        found = cellular.search(np.stack(queries), TOP)[1]
        share = np.mean([len(set(one) & set(two)) / TOP for one, two in zip(found.tolist(), best, strict=True)])
        if share >= recall or probes == cells:
            break
    yield f"FAISS, IVF, {probes} of {cells} probes", lambda word: cellular.search(word[None], TOP)[1][0].tolist()


def memory_of_a_search(folder: Path, dimensions: int) -> float:
    """Peak memory, in MB, of a process that opens the index and searches."""
    code = (
        "import sys, numpy as np\n"
        "from zerotag.serving.index import Index\n"
        f"index = Index(sys.argv[1], 'benchmark', (1, {dimensions}))\n"
        f"words = np.random.default_rng(0).standard_normal((10, {dimensions})).astype(np.float32)\n"
        "for word in words: index.search(word[None], limit=24)\n"
        "index.search(words[:2], words[2:3], limit=24)\n"
        "status = open('/proc/self/status').read()\n"  # not the parent's peak, as ru_maxrss is
        "print(int(status.split('VmHWM:')[1].split()[0]) / 1000)\n"
    )
    return float(subprocess.run([sys.executable, "-c", code, folder], stdout=subprocess.PIPE, check=True).stdout)


if __name__ == "__main__":
    main()
