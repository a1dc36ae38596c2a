"""Start a training script on the workers of a Ray cluster, with Ray Train, as torchrun does without one::

    python -m zerotag.cluster.launch --num-workers=2 stages/train.py BACKBONE METHOD

The nodes share the current folder, such as on a network drive. A worker with a GPU each, if the cluster has GPUs. When
a worker or its node is lost, all start again, and go on from the script's own checkpoint.
"""

import argparse
import importlib.util
import os
import shutil
import sys
from pathlib import Path
from typing import Any
from uuid import uuid4

from zerotag.cluster.connect import LOCAL, cluster_address, connected
from zerotag.errors import ZerotagError, plain_exit
from zerotag.settings import read_params


def launch(script: Path, arguments: list[str], workers: int | tuple[int, int], restarts: int, address: str) -> None:
    """Call `main(*arguments)` of a script in each worker.

    Args:
        script: below the current folder.
        arguments: of its `main`.
        workers: their number, or the least and the largest one.
        restarts: after the loss of a worker, or an error.
        address: of the cluster, as for `zerotag.cluster.connect.connected`; empty: a Ray of its own on this machine.

    Raises:
        ZerotagError: the cluster does not answer, or the script failed in the end.
    """
    with connected(address or LOCAL, logs=True):
        import ray
        from ray.train import FailureConfig, RunConfig, ScalingConfig
        from ray.train.torch import TorchTrainer
        from ray.train.v2.api.exceptions import WorkerGroupError

        folder = Path("work/ray").resolve()
        name = f"{script.stem}-{uuid4().hex[:8]}"
        scaling: Any = {"num_workers": workers, "use_gpu": ray.cluster_resources().get("GPU", 0) > 0}
        trainer = TorchTrainer(
            _call_main,
            train_loop_config={"checkout": str(Path.cwd()), "script": str(script), "arguments": arguments},
            scaling_config=ScalingConfig(**scaling),
            run_config=RunConfig(
                name=name, storage_path=str(folder), failure_config=FailureConfig(max_failures=restarts)
            ),
        )
        try:
            trainer.fit()
        except WorkerGroupError as error:
            # It quotes the traceback of each worker.
            lines = str(error).strip().splitlines()
            ours = [line.partition("ZerotagError: ")[2] for line in lines if "ZerotagError: " in line]
            raise ZerotagError(f"{script} failed on the Ray cluster: {[*lines[-1:], *ours][-1]}") from error
        finally:
            shutil.rmtree(folder / name, ignore_errors=True)


def _call_main(call: dict) -> None:
    os.chdir(call["checkout"])
    spec = importlib.util.spec_from_file_location("launched", call["script"])
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where its dataclasses look themselves up
    spec.loader.exec_module(module)
    module.main(*call["arguments"])


def _workers(text: str) -> int | tuple[int, int]:
    least, colon, most = text.partition(":")
    return (int(least), int(most)) if colon else int(least)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Start a training script on the workers of a Ray cluster.")
    parser.add_argument("--num-workers", type=_workers, default=1, help="a number, or MIN:MAX for elastic training")
    parser.add_argument("--max-restarts", type=int, default=3, help="after the loss of a worker, or an error")
    parser.add_argument("script", type=Path)
    parser.add_argument("arguments", nargs="*")
    given = parser.parse_args()
    with plain_exit():
        address = cluster_address(read_params())
        launch(given.script, given.arguments, given.num_workers, given.max_restarts, address)


if __name__ == "__main__":
    main()
