"""Decode every photo once and pack the dataset into shards."""

from pathlib import Path

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
        prepare(source, settings, Path("prepared"), Path("work/prepare"))
        print(*statistics(Dataset.read(Path("prepared"))), sep="\n")
