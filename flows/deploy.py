"""Serve the deployments of prefect.yaml; `python -m flows.deploy` starts a server unless PREFECT_API_URL is set."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import yaml
from prefect import Flow, serve
from prefect.client.schemas.objects import ConcurrencyLimitConfig
from prefect.deployments.runner import EntrypointType, RunnerDeployment
from prefect.flows import load_flow_from_entrypoint
from prefect.schedules import Cron

PORT = os.environ.get("ZEROTAG_PREFECT_PORT", "4200")


def main() -> None:
    """Serve the deployments until interrupted."""
    if "PREFECT_API_URL" not in os.environ:
        with_server()
        return
    serve(*deployments())


def deployments() -> list[RunnerDeployment]:
    """The deployments of prefect.yaml, whatever its work pool."""
    found = []
    for given in yaml.safe_load(Path("prefect.yaml").read_text(encoding="utf-8"))["deployments"]:
        flow: Flow[..., Any] = load_flow_from_entrypoint(given["entrypoint"])
        made: Any = flow.to_deployment(
            given["name"],
            tags=given["tags"],
            schedules=[Cron(each["cron"], timezone=each["timezone"]) for each in given.get("schedules", [])],
            concurrency_limit=ConcurrencyLimitConfig(**given["concurrency_limit"]),
            entrypoint_type=EntrypointType.MODULE_PATH,
        )
        found.append(made)
    return found


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
