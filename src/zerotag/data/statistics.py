"""Summary statistics of a dataset."""

from collections.abc import Iterator

import numpy as np

from zerotag.data.dataset import Dataset


def statistics(dataset: Dataset) -> Iterator[str]:
    """Lines about photos, tags and duplicates, of train, test and both."""
    splits = {"train": dataset.photos["train"].to_numpy(), "test": ~dataset.photos["train"].to_numpy()}
    for name, split in splits.items():
        labels = dataset.labels[split]
        photos = int(split.sum())
        of_photo = np.diff(labels.indptr)
        of_tag = np.asarray(labels.sum(axis=0)).ravel()
        yield f"{name}: {photos:,} photos, {photos - int((split & dataset.usable).sum()):,} of them unusable"
        if photos:
            yield (
                f"  tags per photo: mean {of_photo.mean():.2f}, median {np.median(of_photo):g}, max {of_photo.max()}; "
                f"{(of_photo == 0).mean():.1%} of the photos have none"
            )
        low, middle, high = np.quantile(of_tag, [0.25, 0.5, 0.75])
        yield (
            f"  positives per tag: {of_tag.min():,} to {of_tag.max():,}, quartiles {low:,.0f}, {middle:,.0f}, "
            f"{high:,.0f}; {int((of_tag == 0).sum())} tags have none"
        )
    concepts = int((dataset.tags["concept"] == 1).sum())
    others = f"; {len(dataset.spelled_otherwise)} are spelled otherwise" if dataset.spelled_otherwise else ""
    yield f"tags: {len(dataset.tags):,}, of them {concepts} ground-truth concepts{others}"
    for tag, given in dataset.spelled_otherwise.items():
        yield f"  {tag}: spelled {given}"
    if dataset.rejected is not None:
        photos = int((np.diff(dataset.rejected.indptr) > 0).sum())
        yield f"rejected: {dataset.rejected.nnz:,} tags of {photos:,} photos"
    known = dataset.photos[dataset.photos["sha256"] != ""]
    twice = known[known.duplicated("sha256", keep=False)]
    across = twice.groupby("sha256")["train"].nunique() > 1
    yield (
        f"duplicates: {int(known.duplicated('sha256').sum()):,} photos duplicate an earlier one; "
        f"{int(across.sum()):,} distinct ones occur in both train and test"
    )
