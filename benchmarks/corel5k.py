"""SDL against Fast0Tag on Corel5K's photographs: python -m benchmarks.corel5k FOLDER [--seeds 5].

FOLDER holds tags.csv (image,tags) and images/. The pipeline itself runs, in a copy of this checkout under
work/corel5k, with nothing changed but params.yaml: 4,000 training and 500 test photos chosen by a hash of the
name, 60 unseen tags, and one random split a seed. DVC keeps what is done, so that the command can be interrupted
and repeated.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import yaml
from flows.pipeline import workspace

FIGURES = [("zsl", "f1@3"), ("zsl", "f1@5"), ("zsl", "map"), ("gzsl", "f1@3"), ("gzsl", "f1@5"), ("gzsl", "map")]
PROJECT = Path(__file__).resolve().parents[1]


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    arguments.add_argument("folder", type=Path)
    arguments.add_argument("--seeds", type=int, default=5)
    options = arguments.parse_args()
    params = yaml.safe_load((PROJECT / "params.yaml").read_text())
    params["source"] = "csv"
    params["sources"]["csv"] = {
        "table": str(options.folder.resolve() / "tags.csv"),
        "photos": str(options.folder.resolve() / "images"),
        "test": 500,
    }
    params["split"] = {"kind": "random", "unseen": 60}
    rows = []
    for seed in range(options.seeds):
        params["split"]["seed"] = seed
        folder = workspace(PROJECT / "work" / "corel5k", params)
        stages = [f"evaluate@{backbone}-{method}" for backbone in params["backbones"] for method in params["methods"]]
        subprocess.run([sys.executable, "-m", "dvc", "repro", *stages], cwd=folder, check=True)
        for file in sorted(folder.glob("evaluation/*/*/metrics.json")):
            metrics = json.loads(file.read_text())
            row = {"backbone": file.parts[-3], "method": file.parts[-2], "seed": seed}
            rows.append({**row, **{f"{task} {name}": metrics[task][name] for task, name in FIGURES}})
    print_table(pd.DataFrame(rows))


def print_table(runs: pd.DataFrame) -> None:
    columns = [f"{task} {name}" for task, name in FIGURES]
    print(f"\nCorel5K, {runs['seed'].nunique()} split seeds, mean ± standard deviation; {os.cpu_count()} cores,")
    print(f"{platform.machine()}\n")
    print("| backbone | method | " + " | ".join(columns) + " |")
    print("|---" * (len(columns) + 2) + "|")
    for (backbone, method), group in runs.groupby(["backbone", "method"], sort=False):
        cells = [f"{group[column].mean():.1f} ± {group[column].std():.1f}" for column in columns]
        print(f"| {backbone} | {method} | " + " | ".join(cells) + " |")
    by_method = runs.set_index(["backbone", "seed"])
    if {"sdl", "fast0tag"} <= set(runs["method"]):
        sdl, fast = (by_method[by_method["method"] == name][columns] for name in ("sdl", "fast0tag"))
        difference = sdl - fast
        print("| | SDL - Fast0Tag | " + " | ".join(f"{value:+.1f}" for value in np.asarray(difference.mean())) + " |")


if __name__ == "__main__":
    main()
