"""Overhead of the train flow over plain `dvc repro`: python -m benchmarks.flow_overhead.

Both run from scratch in separate workspaces, on a small rendered set with two backbones. The flow's time includes the
start of its temporary Prefect server.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml
from flows.pipeline import workspace

PHOTOS, BACKBONES = 200, ["test_efficientnet", "tf_efficientnet_lite0"]


def main() -> None:
    params = yaml.safe_load(Path("params.yaml").read_text())
    params["sources"]["scenes"].update(photos=PHOTOS, size=64)
    params["validate"]["min_tag_photos"] = 1
    params["backbones"] = BACKBONES
    params["weights"]["other"] = "none"
    with tempfile.TemporaryDirectory() as folder:
        plain = timed(Path(folder) / "plain", params, ["-m", "dvc", "repro", "report"])
        flow = timed(Path(folder) / "flow", params, ["-m", "flows.train"])
    models = len(BACKBONES) * len(params["methods"])
    print(f"\n{PHOTOS} rendered photos, {models} models, {os.cpu_count()} cores\n")
    print(f"{'':14}{'seconds':>9}{'ratio':>8}")
    print(f"{'dvc repro':14}{plain:9.1f}{1:8.2f}")
    print(f"{'flow':14}{flow:9.1f}{flow / plain:8.2f}")
    print(f"overhead: {flow - plain:.1f} s")


def timed(folder: Path, params: dict, command: list[str]) -> float:
    workspace(folder, params)
    shutil.rmtree(folder / ".dvc" / "cache", ignore_errors=True)
    # A separate cache, so that nothing is taken from earlier runs.
    own = ["-m", "dvc", "cache", "dir", "--quiet", str(folder / "cache")]
    subprocess.run([sys.executable, *own], cwd=folder, check=True)
    shutil.copytree("flows", folder / "flows", dirs_exist_ok=True)
    environment = {**os.environ, "PREFECT_HOME": str(folder / "prefect"), "PYTHONPATH": str(folder / "src")}
    environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), environment["PATH"]])
    started = time.monotonic()
    subprocess.run([sys.executable, *command], cwd=folder, env=environment, check=True)
    return time.monotonic() - started


if __name__ == "__main__":
    main()
