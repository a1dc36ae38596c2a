"""Serve the deployments: `python -m flows.deploy` also starts a Prefect server if PREFECT_API_URL is not set."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
from prefect import serve
from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy
from prefect.deployments.runner import EntrypointType

from flows.evaluate import evaluate_model
from flows.photos import photos
from flows.retrain import retrain
from flows.settings import read_flow_settings
from flows.train import train

PORT = os.environ.get("ZEROTAG_PREFECT_PORT", "4200")


def main() -> None:
    """Serve the deployments until interrupted."""
    if "PREFECT_API_URL" not in os.environ:
        with_server()
        return
    module = EntrypointType.MODULE_PATH
    waits = ConcurrencyLimitConfig(limit=1, collision_strategy=ConcurrencyLimitStrategy.ENQUEUE)
    gives_way = ConcurrencyLimitConfig(limit=1, collision_strategy=ConcurrencyLimitStrategy.CANCEL_NEW)
    common: Any = {"tags": ["zerotag"], "entrypoint_type": module}
    cron = read_flow_settings().cron
    deployments: Any = [
        train.to_deployment("on-demand", concurrency_limit=waits, **common),
        evaluate_model.to_deployment("on-demand", concurrency_limit=waits, **common),
        photos.to_deployment("on-demand", concurrency_limit=waits, **common),
        retrain.to_deployment("nightly", concurrency_limit=gives_way, cron=cron, **common),
    ]
    serve(*deployments)


def with_server() -> None:
    """Start a server, run this module again with its URL, and stop both together."""
    url = f"http://127.0.0.1:{PORT}/api"
    Path(os.environ["PREFECT_HOME"]).mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", PORT]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # so that SIGTERM stops both
    server = subprocess.Popen(command, env={**os.environ, "PREFECT_UI_API_URL": url})
    try:
        while not _healthy(url):
            if server.poll() is not None:
                raise SystemExit(
                    f"The Prefect server did not start on port {PORT}. Set another port with ZEROTAG_PREFECT_PORT."
                )
            time.sleep(0.5)
        print(
            f"\nOpen http://127.0.0.1:{PORT} for deployments, runs and artifacts. Press Ctrl+C to stop.\n", flush=True
        )
        subprocess.run([sys.executable, "-m", "flows.deploy"], env={**os.environ, "PREFECT_API_URL": url})
    except KeyboardInterrupt:
        pass
    finally:
        server.terminate()
        server.wait(30)


def _healthy(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health", timeout=2).status_code == 200
    except httpx.HTTPError:
        return False


if __name__ == "__main__":
    main()
