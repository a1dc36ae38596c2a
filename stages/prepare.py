"""Decode every photo once and pack the dataset into shards."""

from functools import partial
from pathlib import Path

from zerotag.cluster.connect import cluster_address, connected
from zerotag.cluster.stages import make_shards
from zerotag.data import sources
from zerotag.data.dataset import Dataset
from zerotag.data.prepare import PrepareSettings, prepare
from zerotag.data.statistics import statistics
from zerotag.errors import plain_exit
from zerotag.settings import from_params, read_params

if __name__ == "__main__":  # its worker processes may import this file
    with plain_exit():
        params = read_params()
        name = params["source"]
        source = sources.read(name, params["sources"].get(name), Path("raw"))
        settings = from_params(PrepareSettings, params["prepare"], "prepare")
        with connected(cluster_address(params)) as spread:
            other = partial(make_shards, spread) if spread else None
            prepare(source, settings, Path("prepared"), Path("work/prepare"), other)
        print(*statistics(Dataset.read(Path("prepared"))), sep="\n")
