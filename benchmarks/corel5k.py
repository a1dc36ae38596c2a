"""SDL against Fast0Tag on Corel5K's photographs: python benchmarks/corel5k.py FOLDER [--seeds 5].

FOLDER holds tags.csv (image,tags) and images/. The pipeline itself runs, in a copy of this checkout under
work/corel5k, with nothing changed but params.yaml: 4,000 training and 500 test photos chosen by a hash of the
name, 60 unseen tags, and one random split a seed. DVC keeps what is done, so that the command can be interrupted
and repeated.
"""

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

FIGURES = [("zsl", "f1@3"), ("zsl", "f1@5"), ("zsl", "map"), ("gzsl", "f1@3"), ("gzsl", "f1@5"), ("gzsl", "map")]
PROJECT = Path(__file__).resolve().parents[1]


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    arguments.add_argument("folder", type=Path)
    arguments.add_argument("--seeds", type=int, default=5)
    options = arguments.parse_args()
    workspace = copy_project(PROJECT / "work" / "corel5k")
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
        (workspace / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
        stages = [f"evaluate@{backbone}-{method}" for backbone in params["backbones"] for method in params["methods"]]
        subprocess.run([sys.executable, "-m", "dvc", "repro", *stages], cwd=workspace, check=True)
        for file in sorted(workspace.glob("evaluation/*/*/metrics.json")):
            metrics = json.loads(file.read_text())
            row = {"backbone": file.parts[-3], "method": file.parts[-2], "seed": seed}
            rows.append({**row, **{f"{task} {name}": metrics[task][name] for task, name in FIGURES}})
    print_table(pd.DataFrame(rows))


def copy_project(workspace: Path) -> Path:
    """Bring the working tree's files (not its outputs) to a folder with a DVC repository of its own."""
    workspace.mkdir(parents=True, exist_ok=True)
    for name in ("src", "stages"):
        shutil.copytree(PROJECT / name, workspace / name, dirs_exist_ok=True)
    for name in ("dvc.yaml", "data.dvc", ".dvcignore"):
        shutil.copyfile(PROJECT / name, workspace / name)
    if not (workspace / "data.version").is_symlink():
        (workspace / "data.version").symlink_to("data.dvc")
    if not (workspace / ".dvc").exists():
        subprocess.run([sys.executable, "-m", "dvc", "init", "--no-scm", "--quiet"], cwd=workspace, check=True)
    return workspace


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
