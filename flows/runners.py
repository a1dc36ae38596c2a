"""Where the models of a flow train: in threads of its own, or on the nodes of a Dask or Ray cluster.

Nodes run in a checkout that they share with the flow, such as on a network drive. The task that a lost node ran is
started again on another one.
"""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner

from zerotag.errors import ZerotagError, require

# Seconds in which a cluster has to answer.
_ANSWER = 5.0


@contextmanager
def task_runner(runner: str, at_once: int) -> Iterator[TaskRunner[Any]]:
    """Start Prefect's task runner of a setting, or connect to its cluster.

    Args:
        runner: `flows.runner` of params.yaml.
        at_once: workers of a cluster that is started for this flow alone.

    Raises:
        ZerotagError: an unknown runner, a package that is not installed, or a cluster that does not answer.
    """
    kind, _, address = runner.partition(":")
    if kind not in ("", "dask", "ray"):
        raise ZerotagError(f"params.yaml: flows.runner = {runner!r} is unknown; use dask, dask:ADDRESS, ray or ray://…")
    if not kind:
        threads: TaskRunner[Any] = ThreadPoolTaskRunner()
        with threads:
            yield threads
    elif kind == "dask":
        with _dask(address, at_once) as dask:
            yield dask
    else:
        with _ray(runner if address.startswith("//") else address, at_once) as ray:
            yield ray


@contextmanager
def _dask(address: str, at_once: int) -> Iterator[TaskRunner[Any]]:
    require("prefect_dask")
    from prefect_dask import DaskTaskRunner

    own = {"n_workers": at_once, "threads_per_worker": 1, "dashboard_address": None}
    with DaskTaskRunner(address=address or None, cluster_kwargs=None if address else own) as dask:
        with _connecting(address):
            assert dask.client  # which connects
        yield dask


@contextmanager
def _ray(address: str, at_once: int) -> Iterator[TaskRunner[Any]]:
    require("prefect_ray")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # read when Ray is imported
    import ray
    from prefect_ray import RayTaskRunner
    from prefect_ray.context import remote_options

    own = {"num_cpus": at_once, "include_dashboard": False}
    # With no address, Ray would join any cluster that it finds on this machine.
    runner: TaskRunner[Any] = RayTaskRunner(address=address or "local", init_kwargs={} if address else own)
    with _connecting(address):
        runner.__enter__()
    try:
        # Ray hides the GPUs from a task that asks for none.
        with remote_options(num_gpus=min(1, ray.cluster_resources().get("GPU", 0))):
            yield runner
    finally:
        runner.__exit__(None, None, None)


@contextmanager
def _connecting(address: str) -> Iterator[None]:
    host, _, port = address.rpartition("://")[2].rpartition(":")
    try:
        if port.isdigit():  # Dask and Ray themselves wait long
            socket.create_connection((host, int(port)), _ANSWER).close()
        yield
    except (OSError, RuntimeError, ValueError) as error:
        where = f"no cluster answers at {address}" if address else "no cluster can be started"
        raise ZerotagError(f"params.yaml: flows.runner: {where} ({error}).") from error
