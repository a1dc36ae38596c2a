"""A headless Chromium, for the screenshots and the tests. Needs Debian's chromium and chromium-driver."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

from PIL import Image
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
_FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--hide-scrollbars", "--window-size=1200,900",
]  # fmt: skip


@contextmanager
def chromium(profile: Path) -> Iterator[webdriver.Chrome]:
    """Start a browser, and quit it at the end.

    Args:
        profile: an empty folder for user data.
    """
    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for flag in [*_FLAGS, f"--user-data-dir={profile}"]:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    browser = webdriver.Chrome(options, Service(str(DRIVER)))
    try:
        yield browser
    finally:
        browser.quit()


def resize(browser: webdriver.Chrome, width: int, height: int) -> None:
    """Set the viewport in CSS pixels, at double density; narrow viewports emulate a phone."""
    size = {"width": width, "height": height, "deviceScaleFactor": 2, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)


def photograph(browser: webdriver.Chrome, file: Path) -> None:
    """Save a screenshot with a palette of 256 colours, at a quarter of the file size."""
    shown = Image.open(BytesIO(browser.get_screenshot_as_png())).convert("RGB")
    # Pillow dithers only with a palette that is given.
    shown.quantize(palette=shown.quantize(256, kmeans=1)).save(file, optimize=True)
