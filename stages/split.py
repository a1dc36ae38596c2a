"""Split the tags into seen and unseen."""

from pathlib import Path

import pandas as pd

from zerotag.data.dataset import Dataset
from zerotag.data.splits import SplitSettings, split_tags
from zerotag.errors import plain_exit
from zerotag.files import write_aside
from zerotag.settings import from_params, read_params

with plain_exit():
    settings = from_params(SplitSettings, read_params()["split"], "split")
    vocabulary = pd.read_csv("words/vocabulary.csv", dtype=str, keep_default_na=False)["tag"].tolist()
    split = split_tags(settings, Dataset.read(Path("prepared")).tags, vocabulary)
    with write_aside(Path("split.csv")) as draft:
        split.to_csv(draft, index=False)
    print(split["split"].value_counts().to_string())
