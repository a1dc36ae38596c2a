"""mAP and F1@K at the size of NUS-WIDE, against scikit-learn and torchmetrics: python -m benchmarks.metrics.

107,859 photos x 1,006 tags: random float32 scores, and labels as sparse as NUS-WIDE's (2.4 of the 81 concepts and 7
of the 925 other tags per photo, with a long-tailed frequency). scikit-learn is called tag by tag, torchmetrics for
several tags; both are timed on a sample of tags for mAP (--sample), extrapolated to all tags, and their values are
compared. torchmetrics' F1@K is its multilabel F1 of the top tags by torch.topk, on all tags.
"""

import argparse
import os
import platform
import resource
import sys
import time

import numpy as np
import scipy.sparse as sp
import sklearn
import torch
import torchmetrics
from sklearn.metrics import average_precision_score
from torchmetrics.functional.classification import multilabel_average_precision, multilabel_f1_score

from zerotag.evaluation.metrics import average_precision, top_k_counts

PHOTOS, CONCEPTS, OTHERS = 107_859, 81, 925
TARGET, MEMORY_TARGET = 10.0, 4.0


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    arguments.add_argument("--sample", type=int, default=20)
    sample = arguments.parse_args().sample
    random = np.random.default_rng(0)
    scores = random.standard_normal((PHOTOS, CONCEPTS + OTHERS), dtype=np.float32)
    labels = sp.hstack([random_labels(random, CONCEPTS, 2.4), random_labels(random, OTHERS, 7)]).tocsr()

    started = time.perf_counter()
    precisions = average_precision(scores, labels)
    ap_time = time.perf_counter() - started
    started = time.perf_counter()
    counts = {k: top_k_counts(scores, labels, k) for k in (3, 5)}
    f1_time = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**30 if sys.platform == "darwin" else 2**20)

    columns = labels.tocsc()
    tags = np.flatnonzero(~np.isnan(precisions))
    chosen = random.choice(tags, size=min(sample, tags.size), replace=False)
    sampled_time = 0.0
    for tag in chosen:
        wanted, values = columns[:, [tag]].toarray().ravel(), scores[:, tag].copy()
        started = time.perf_counter()
        expected = average_precision_score(wanted, values)
        sampled_time += time.perf_counter() - started
        np.testing.assert_allclose(precisions[tag], expected, rtol=1e-9)
    sklearn_time = sampled_time / len(chosen) * tags.size

    wanted, given = torch.from_numpy(columns[:, chosen].toarray().astype(np.int64)), torch.from_numpy(scores[:, chosen])
    started = time.perf_counter()
    # Scores beyond 0 and 1 would be taken for logits, and rounded.
    found = multilabel_average_precision(
        (given - given.min()) / (given.max() - given.min()), wanted, len(chosen), "none"
    )
    torchmetrics_time = (time.perf_counter() - started) / len(chosen) * tags.size
    np.testing.assert_allclose(precisions[chosen], found.numpy(), rtol=1e-3)
    every, labelled = torch.from_numpy(labels.toarray().astype(np.int64)), torch.from_numpy(scores)
    started = time.perf_counter()
    for k, counted in counts.items():
        best = torch.zeros_like(every).scatter_(1, labelled.topk(k).indices, 1)
        f1 = multilabel_f1_score(best, every, scores.shape[1], average="micro")
        # Photos without a tag, which zerotag leaves out, are few.
        np.testing.assert_allclose(counted.f1, float(f1), rtol=0.02)
    torchmetrics_f1_time = time.perf_counter() - started

    print(
        f"\n{PHOTOS:,} photos x {scores.shape[1]:,} tags, {labels.nnz / PHOTOS:.1f} tags per photo; "
        f"numpy {np.__version__}, scikit-learn {sklearn.__version__}, "
        f"torchmetrics {torchmetrics.__version__}, {os.cpu_count()} cores, {platform.machine()}\n"
    )
    ratio = sklearn_time / (ap_time + f1_time)
    print("| metric | implementation | seconds | ms per tag |")
    print("|---|---|---|---|")
    for figure, by, seconds in (
        ("mAP", f"scikit-learn, {len(chosen)} tags extrapolated to {tags.size:,}", sklearn_time),
        ("mAP", f"torchmetrics, {len(chosen)} tags extrapolated to {tags.size:,}", torchmetrics_time),
        ("mAP", "zerotag", ap_time),
        ("F1@3 and F1@5", "torchmetrics, top tags by torch.topk", torchmetrics_f1_time),
        ("F1@3 and F1@5", "zerotag", f1_time),
    ):
        print(f"| {figure} | {by} | {seconds:.1f} | {1e3 * seconds / tags.size:.2f} |")
    print(
        f"\nmAP {100 * np.nanmean(precisions):.3f}, F1@3 {100 * counts[3].f1:.3f}, F1@5 {100 * counts[5].f1:.3f}; "
        f"equal to scikit-learn on the {len(chosen)} sampled tags."
    )
    met = ratio >= TARGET and peak <= MEMORY_TARGET
    print(
        f"mAP and both F1 together {ratio:.1f} times faster than scikit-learn's mAP alone (mAP alone "
        f"{sklearn_time / ap_time:.1f} times); peak memory {peak:.2f} GiB.\n"
        f"Targets: at least {TARGET:.0f} times, at most {MEMORY_TARGET:.0f} GB: {'met' if met else 'NOT MET'}."
    )
    raise SystemExit(not met)


def random_labels(random: np.random.Generator, tags: int, per_photo: float, photos: int = PHOTOS) -> sp.csr_matrix:
    """(photos, tags) 0/1 with tag frequencies proportional to 1 / rank."""
    share = 1 / np.arange(1, tags + 1)
    counts = np.minimum(share / share.sum() * per_photo, 0.5) * photos
    rows = [random.choice(photos, size=max(1, int(count)), replace=False) for count in counts]
    places = np.repeat(np.arange(tags), [part.size for part in rows])
    ones = np.ones(places.size, dtype=np.uint8)
    return sp.csr_matrix((ones, (np.concatenate(rows), places)), shape=(photos, tags))


if __name__ == "__main__":
    main()
