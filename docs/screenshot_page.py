"""Take the README's screenshots of the web page: python -m docs.screenshot_page PHOTOS [PHOTO].

Starts the service with the packaged model on a free port and PHOTOS as its root, indexes the folder, tags PHOTO (or the
first photo) with the model's vocabulary, and runs a search. Needs Debian's chromium and chromium-driver.
"""

import argparse
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from docs.chromium import chromium, photograph, resize
from selenium.webdriver import Keys
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

PROJECT = Path(__file__).resolve().parents[1]


def main() -> None:
    """Start the service, take the screenshots, and stop it."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    arguments.add_argument("photos", type=Path)
    arguments.add_argument("photo", type=Path, nargs="?")
    arguments.add_argument("--model", type=Path, default=PROJECT / "served")
    arguments.add_argument("--search", default="sunset")
    arguments.add_argument("--out", type=Path, default=PROJECT / "docs")
    options = arguments.parse_args()
    photo = options.photo or next(
        file for file in sorted(options.photos.rglob("*")) if file.suffix in (".jpg", ".jpeg")
    )
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    with tempfile.TemporaryDirectory() as work:
        ours = {"MODEL": options.model.resolve(), "ROOT": options.photos.resolve(), "PORT": port}
        ours |= {"INDEX": f"{work}/index", "LOG": "", "WORKERS": 1, "INDEX_SECONDS": 100}
        environment = {**os.environ, **{f"ZEROTAG_{name}": str(value) for name, value in ours.items()}}
        command = [sys.executable, "-m", "bentoml", "serve", "service.service:Zerotag"]
        process = subprocess.Popen(command, cwd=PROJECT, env=environment, stdout=subprocess.DEVNULL)
        try:
            wait_for(f"{url}/readyz")
            take(url, photo.resolve(), options.search, work, options.out)
        finally:
            process.terminate()
            process.wait(30)


def wait_for(url: str) -> None:
    """Wait until the service is ready."""
    for _ in range(300):
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except OSError:
            time.sleep(0.2)
    raise SystemExit("The service did not start.")


def take(url: str, photo: Path, search: str, work: str, out: Path) -> None:
    """Take page.png and page-phone.png."""
    with chromium(Path(work) / "chromium") as browser:
        wait = WebDriverWait(browser, 180)
        for name, width, height in (("page", 1100, 1000), ("page-phone", 390, 1500)):
            resize(browser, width, height)
            browser.get(url)
            browser.find_element(By.ID, "file").send_keys(str(photo))
            wait.until(lambda one: len(one.find_elements(By.CSS_SELECTOR, "#tags li")) == 10)
            browser.find_element(By.ID, "reindex").click()
            wait.until(lambda one: "in the index" in one.find_element(By.ID, "search-note").text)
            browser.find_element(By.ID, "wanted").send_keys(search, Keys.ENTER)
            wait.until(lambda one: one.find_elements(By.CSS_SELECTOR, "#found li"))
            time.sleep(2)  # thumbnails load one by one
            browser.execute_script("window.scrollTo(0, 0)")
            photograph(browser, out / f"{name}.png")


if __name__ == "__main__":
    main()
