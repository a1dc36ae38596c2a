"""Connect to a Ray cluster."""

import gc
import os
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zerotag.cluster.spread import Spread, spread
from zerotag.data.batches import cores
from zerotag.errors import ZerotagError, extras_named
from zerotag.settings import from_params

LOCAL = "local"
# Seconds in which a cluster has to answer.
_ANSWER = 5.0
# Bytes of a local Ray's object store: paths and results pass through it, no pixels unless there is a GPU.
_STORE = 256 * 2**20


@dataclass(frozen=True)
class ClusterSettings:
    """Attributes:
    address: of a Ray cluster, HOST:PORT or `auto`; `local` for a Ray of one's own; empty for none.
    """

    address: str = ""


def cluster_address(params: dict[str, Any]) -> str:
    """The address in params.yaml.

    Raises:
        ZerotagError: an unknown name in its section.
    """
    return from_params(ClusterSettings, params.get("cluster"), "cluster").address


@contextmanager
def connected(address: str, logs: bool = False) -> Iterator[Spread | None]:
    """Connect to a cluster, and disconnect in the end.

    Args:
        address: as in `ClusterSettings`.
        logs: whether what workers print is printed here.

    Yields:
        `zerotag.cluster.spread.spread`; None without an address.

    Raises:
        ZerotagError: Ray is not installed, or nothing answers at the address.
    """
    if not address:
        yield None
        return
    # Before the import of Ray, which reads them.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    if address != LOCAL and _has_token():  # `ray start` asks for it then, while Ray sends none by itself
        os.environ.setdefault("RAY_AUTH_MODE", "token")
    with extras_named():
        import ray
        import ray.data
    if ray.is_initialized():  # by the program that calls this
        yield spread
        return
    disconnect = _start(ray, logs) if address == LOCAL else _join(ray, address, logs)
    try:
        yield spread
    finally:
        # What Ray Data left in reference cycles: collected while Ray shuts down, it would end this process.
        gc.collect()
        disconnect()


def _has_token() -> bool:
    named = os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH")
    return bool(named) or (Path.home() / ".ray" / "auth_token").is_file()


def _start(ray: Any, logs: bool) -> Callable[[], None]:
    # Paths of sockets must be short, so not below TMPDIR.
    folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp")
    ray.init(
        "local",
        _node_ip_address="127.0.0.1",  # nobody else has to reach it
        num_cpus=cores(),
        include_dashboard=False,
        object_store_memory=None if Path("/dev/nvidia0").exists() else _STORE,
        _temp_dir=folder,
        logging_level="ERROR",
        log_to_driver=logs,
    )

    def stop() -> None:
        ray.shutdown()
        shutil.rmtree(folder, ignore_errors=True)

    return stop


def _join(ray: Any, address: str, logs: bool) -> Callable[[], None]:
    mend = (
        "Start Ray on each machine (`ray start --head --port=6379`, then `ray start --address=HOST:6379`), and run "
        f"this on one of them; `{LOCAL}` starts a Ray of its own."
    )
    if address != "auto":
        host, _, port = address.rpartition("://")[2].rpartition(":")
        if not host or not port.isdigit():
            raise ZerotagError(f"{address}: not the address of a Ray cluster; use HOST:PORT, auto or {LOCAL}.")
        try:
            # Ray itself waits for minutes.
            socket.create_connection((host, int(port)), _ANSWER).close()
        except OSError as error:
            raise ZerotagError(f"{address}: no Ray cluster answers there ({error}). {mend}") from error
    try:
        ray.init(address, logging_level="ERROR", log_to_driver=logs)
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        # Of a wrong token, the cause says so.
        why = [str(each).strip().splitlines()[0] for each in (error, error.__cause__) if str(each or "").strip()]
        raise ZerotagError(f"{address}: the Ray cluster cannot be used ({'; '.join(why)}). {mend}") from error
    return ray.shutdown
