"""Look up the word vector of every tag."""

from pathlib import Path

from zerotag.data.dataset import Dataset
from zerotag.errors import plain_exit
from zerotag.settings import from_params, read_params
from zerotag.words.vectors import WordSettings, write_vocabulary

with plain_exit():
    settings = from_params(WordSettings, read_params()["words"], "words")
    tags = Dataset.read(Path("prepared")).tags["tag"].tolist()
    missing = write_vocabulary(tags, settings, Path("words"))
    print(f"{len(tags) - len(missing)} of {len(tags)} tags have a vector", *missing, sep="\n  without: ")
