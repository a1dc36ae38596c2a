"""Take the screenshot of the Prefect UI: python -m docs.screenshot_flows.

Starts the server and deployments like `python -m flows.deploy`, on a free port and with a separate database. Then runs
the deployment train/on-demand in this checkout (takes seconds if nothing changed), and takes a screenshot of the run.
Needs Debian's chromium and chromium-driver.
"""

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
from docs.chromium import chromium, photograph, resize
from selenium.common.exceptions import WebDriverException
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

ARTIFACTS = (By.ID, "artifacts")
PROJECT = Path(__file__).resolve().parents[1]


def main() -> None:
    """Start the server, run the flow, take the screenshot, and stop it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as work:
        environment = {**os.environ, "PREFECT_HOME": f"{work}/prefect", "ZEROTAG_PREFECT_PORT": str(port)}
        environment.pop("PREFECT_API_URL", None)
        server = subprocess.Popen([sys.executable, "-m", "flows.deploy"], cwd=PROJECT, env=environment)
        try:
            take(f"http://127.0.0.1:{port}", Path(work))
        finally:
            server.terminate()
            server.wait(60)


def take(url: str, work: Path) -> None:
    """Run the train deployment, and take prefect.png."""

    def ask(path: str, content: dict[str, Any] | None = None) -> Any:
        answer = httpx.request("GET" if content is None else "POST", f"{url}/api/{path}", json=content, timeout=30)
        return answer.raise_for_status().json()

    found = wait_for(lambda: ask("flows/name/train") and ask("deployments/name/train/on-demand"), 120)
    run = ask(f"deployments/{found['id']}/create_flow_run", {})["id"]
    wait_for(lambda: ask(f"flow_runs/{run}")["state_type"] in ("COMPLETED", "FAILED"), 3600)
    with chromium(work / "chromium") as browser:
        resize(browser, 1280, 1000)
        browser.get(f"{url}/runs/flow-run/{run}")
        wait = WebDriverWait(browser, 60, ignored_exceptions=[WebDriverException])
        wait.until(lambda one: one.find_element(*ARTIFACTS).click() or True)
        wait.until(lambda one: "figures" in one.find_element(By.TAG_NAME, "body").text.lower())
        time.sleep(3)  # the timeline renders after the text
        photograph(browser, PROJECT / "docs" / "prefect.png")


def wait_for(what: Callable[[], Any], seconds: float) -> Any:
    """Wait for a true value; HTTP errors count as false."""
    end = time.monotonic() + seconds
    while True:
        try:
            if found := what():
                return found
        except httpx.HTTPError:
            pass
        if time.monotonic() > end:
            raise SystemExit(f"Timed out after {seconds:g} s.")
        time.sleep(1)


if __name__ == "__main__":
    main()
