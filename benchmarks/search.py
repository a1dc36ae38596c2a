"""Search latency over random principal vectors: python -m benchmarks.search [--photos 100000] [--qdrant].

LanceDB's exact scan (used by `zerotag.serving.index`) is compared with brute force in numpy and with LanceDB's
approximate index. Ratios are relative to brute force with all matrices in memory. --qdrant also measures Qdrant's
local mode, if qdrant-client is installed.
"""

import argparse
import resource
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np

from zerotag.serving.index import Entry, Index
from zerotag.words.lexicon import unit

M, D, TOP, QUERIES = 7, 50, 10, 40


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    arguments.add_argument("--photos", type=int, default=100_000)
    arguments.add_argument("--qdrant", action="store_true")
    options = arguments.parse_args()
    random = np.random.default_rng(0)
    matrices = random.standard_normal((options.photos, M, D), dtype=np.float32)
    names = [f"{number:07d}.jpg" for number in range(options.photos)]
    words = unit(random.standard_normal((QUERIES, D), dtype=np.float32))
    expected, brute = timed(lambda word: brute_force(matrices, word), words)
    rows = [("brute force in numpy", brute, 1.0, np.nan)]

    with tempfile.TemporaryDirectory() as folder:
        index = Index(folder, "random", (M, D))
        before = memory()
        started = time.perf_counter()
        for start in range(0, options.photos, 10_000):
            index.fill("photos", names[start : start + 10_000], matrices[start : start + 10_000])
        filled = time.perf_counter() - started
        started = time.perf_counter()
        for start in range(0, 320, 32):
            index.put("photos", names[start : start + 32], [Entry("2", "")] * 32, matrices[start : start + 32])
        refreshed = time.perf_counter() - started
        index.tidy()
        found, seconds = timed(lambda word: [int(hit.photo[:7]) for hit in index.search(word[None], limit=TOP)], words)
        rows.append(("LanceDB, exact (used)", seconds, recall(found, expected), memory() - before))
        pairs = [words[number : number + 2] for number in range(0, QUERIES, 2)]
        both, seconds = timed(lambda pair: [int(hit.photo[:7]) for hit in index.search(pair, limit=TOP)], pairs)
        want = [list(np.argsort(-np.min([(matrices @ word).max(1) for word in pair], axis=0))[:TOP]) for pair in pairs]
        rows.append(("LanceDB, exact, two words", seconds, recall(both, want), memory() - before))
        rows += approximate(index, words, expected)
        size = sum(file.stat().st_size for file in Path(folder).rglob("*") if file.is_file()) / 1e6
    if options.qdrant:
        rows.append(qdrant(matrices, words, expected))

    print(f"\n{options.photos:,} photos, M = {M}, d = {D}, {QUERIES} words, top {TOP}; {size:.0f} MB on disk")
    rates = options.photos / filled, 320 / refreshed
    print(f"written: {rates[0]:,.0f} photos/s in bulk, {rates[1]:,.0f} in batches of 32 with replacement")
    print(f"{'':34}{'median':>10}{'ratio':>8}{'recall':>9}{'memory':>10}")
    for name, seconds, share, used in rows:
        shown = "" if np.isnan(used) else f"{used:8.0f}MB"
        print(f"{name:34}{1000 * seconds:8.1f}ms{seconds / brute:8.2f}{share:9.4f}{shown}")


def timed(search, words) -> tuple[list[list[int]], float]:
    search(words[0])
    found, times = [], []
    for word in words:
        started = time.perf_counter()
        found.append(search(word))
        times.append(time.perf_counter() - started)
    return found, median(times)


def brute_force(matrices: np.ndarray, word: np.ndarray) -> list[int]:
    scores = (matrices.reshape(-1, D) @ word).reshape(-1, M).max(axis=1)
    best = np.argpartition(-scores, TOP)[:TOP]
    return best[np.argsort(-scores[best], kind="stable")].tolist()


def recall(found: list[list[int]], expected: list[list[int]]) -> float:
    """Recall of the top results; 1 only if the order is also the same."""
    if all(list(one) == list(other) for one, other in zip(found, expected, strict=True)):
        return 1.0
    return float(np.mean([len(set(one) & set(other)) / TOP for one, other in zip(found, expected, strict=True)]))


def approximate(index: Index, words: np.ndarray, expected: list[list[int]]) -> list[tuple[str, float, float, float]]:
    """LanceDB's IVF index with uncompressed vectors, at several numbers of probes."""
    from lancedb.index import IvfFlat

    table = index._table
    started = time.perf_counter()
    table.create_index("vector", config=IvfFlat(distance_type="dot", num_partitions=256))
    print(f"approximate index built in {time.perf_counter() - started:.0f} s")
    rows = []
    for probes in (8, 32, 128):

        def search(word: np.ndarray, probes: int = probes) -> list[int]:
            query = table.search(word, vector_column_name="vector").distance_type("dot").nprobes(probes)
            hits = query.select(["photo", "_distance"]).limit(M * TOP).to_arrow()["photo"].to_pylist()
            return [int(name[:7]) for name in dict.fromkeys(hits)][:TOP]

        found, seconds = timed(search, words)
        rows.append((f"LanceDB, approximate, {probes} probes", seconds, recall(found, expected), np.nan))
    return rows


def qdrant(matrices: np.ndarray, words: np.ndarray, expected: list[list[int]]) -> tuple[str, float, float, float]:
    """Qdrant's local mode, with rows as points grouped by photo."""
    from qdrant_client import QdrantClient, models

    before = memory()
    client = QdrantClient(":memory:")
    client.create_collection("rows", vectors_config=models.VectorParams(size=D, distance=models.Distance.DOT))
    flat = matrices.reshape(-1, D)
    started = time.perf_counter()
    photo_of = ({"photo": number // M} for number in range(len(flat)))
    client.upload_collection("rows", vectors=flat, payload=photo_of, ids=range(len(flat)))
    print(f"Qdrant, local mode: {len(matrices) / (time.perf_counter() - started):,.0f} photos/s")

    def search(word: np.ndarray) -> list[int]:
        hits = client.query_points("rows", query=word.tolist(), limit=M * TOP, with_payload=["photo"]).points
        return list(dict.fromkeys(hit.payload["photo"] for hit in hits if hit.payload))[:TOP]

    found, seconds = timed(search, words[:8])
    return "Qdrant, local mode", seconds, recall(found, expected[:8]), memory() - before


def memory() -> float:
    """Peak memory of this process, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000


if __name__ == "__main__":
    main()
