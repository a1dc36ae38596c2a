"""Take the README's screenshots of the web page: python -m docs.screenshot_page.

Starts the service with the starter on a free port, waits for the tags of the sample that the page opens with, indexes
the samples, runs a search, and opens a result. Needs Debian's chromium and chromium-driver.
"""

import argparse
import os
import shutil
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
from selenium.webdriver.remote.webdriver import WebDriver
from selenium.webdriver.support.ui import WebDriverWait

from zerotag.registry.served import starter_package
from zerotag.samples import samples

PROJECT = Path(__file__).resolve().parents[1]


def main() -> None:
    """Start the service, take the screenshots, and stop it."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    arguments.add_argument("--photos", type=Path, default=samples()[0].file.parent, help="the root; the samples")
    arguments.add_argument("--photo", type=Path, help="a photo to upload; the page's own first sample")
    arguments.add_argument("--model", type=Path, help="a package; the starter")
    arguments.add_argument("--search", default="drink")
    arguments.add_argument("--out", type=Path, default=PROJECT / "docs")
    options = arguments.parse_args()
    model = options.model or starter_package(PROJECT)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    with tempfile.TemporaryDirectory() as work:
        photos = shutil.copytree(options.photos, f"{work}/photos")  # a decision is written beside the photo
        ours = {"MODEL": model.resolve(), "ROOT": photos, "PORT": port}
        ours |= {"INDEX": f"{work}/index", "LOG": "", "WORKERS": 1, "INDEX_SECONDS": 100}
        environment = {**os.environ, **{f"ZEROTAG_{name}": str(value) for name, value in ours.items()}}
        command = [sys.executable, "-m", "bentoml", "serve", "service.service:Zerotag"]
        process = subprocess.Popen(command, cwd=PROJECT, env=environment, stdout=subprocess.DEVNULL)
        try:
            wait_for(f"{url}/readyz")
            take(url, options.photo, options.search, work, options.out)
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


def take(url: str, photo: Path | None, search: str, work: str, out: Path) -> None:
    """Take page.png and page-phone.png, and page-view.png of the large view."""
    with chromium(Path(work) / "chromium") as browser:
        wait = WebDriverWait(browser, 180)
        browser.get(url)
        wait.until(tagged)  # the first answer is slower: the model is loaded meanwhile
        for name, width, height in (("page", 1100, 1190), ("page-phone", 390, 1500)):
            resize(browser, width, height)
            browser.get(url)
            if photo:
                browser.find_element(By.ID, "file").send_keys(str(photo.resolve()))
                wait.until(lambda one: not one.find_element(By.ID, "credit").text)
            wait.until(tagged)
            browser.find_element(By.ID, "reindex").click()
            wait.until(lambda one: "in the index" in one.find_element(By.ID, "search-note").text)
            browser.find_element(By.ID, "wanted").send_keys(search, Keys.ENTER)
            wait.until(lambda one: one.find_elements(By.CSS_SELECTOR, "#found li"))
            time.sleep(2)  # thumbnails load one by one
            browser.execute_script("document.activeElement.blur(); window.scrollTo(0, 0)")
            photograph(browser, out / f"{name}.png")
        resize(browser, 960, 620)
        browser.find_element(By.CSS_SELECTOR, "#found .open").click()
        wait.until(lambda one: one.find_elements(By.CSS_SELECTOR, "#viewer-tags li"))
        photo_shown = "const one = document.getElementById('viewer-photo'); return one.src === one.dataset.large"
        wait.until(lambda one: one.execute_script(photo_shown))
        browser.find_element(By.CSS_SELECTOR, "#viewer-tags .accept").click()
        wait.until(lambda one: "Accepted" in one.find_element(By.ID, "viewer-note").text)
        photograph(browser, out / "page-view.png")


def tagged(browser: WebDriver) -> bool:
    """Whether the tags are there: the note shows the time then, and dots before."""
    return " ms." in browser.find_element(By.ID, "tag-note").text


if __name__ == "__main__":
    main()
