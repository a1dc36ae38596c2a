"""The page in a real headless Chromium."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from conftest import Server, encoded
from docs.chromium import CHROMIUM, DRIVER, chromium
from selenium import webdriver
from selenium.webdriver import ActionChains, Keys
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from zerotag.samples import samples
from zerotag.serving.tagger import Tagger

pytestmark = pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="needs Debian's chromium and chromium-driver")


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    with chromium(tmp_path_factory.mktemp("chromium")) as driver:
        yield driver


@pytest.fixture
def page(browser: webdriver.Chrome, server: Server) -> Iterator[webdriver.Chrome]:
    browser.get_log("browser")
    browser.get(server.url)
    yield browser
    # Neither a script error, nor anything that the security policy had to stop.
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []


def names(page: webdriver.Chrome) -> list[str]:
    return [each.text for each in page.find_elements(By.CSS_SELECTOR, "#tags .name")]


def wait(page: webdriver.Chrome, condition) -> None:
    WebDriverWait(page, 20, ignored_exceptions=[Exception]).until(lambda _: condition())


def answered(page: webdriver.Chrome, credit: str = "") -> bool:
    """Whether the tags are those of the photo with this credit, or of an uploaded one, which has none."""
    return page.find_element(By.ID, "credit").text == credit and " ms." in page.find_element(By.ID, "tag-note").text


def upload(page: webdriver.Chrome, folder: Path) -> None:
    """Upload a photo, and wait for ten tags, however improbable."""
    photo = folder / "photo.jpg"
    photo.write_bytes(encoded(1))
    page.execute_script("document.getElementById('everything').click()")  # leaves the focus where it is
    page.find_element(By.ID, "file").send_keys(str(photo))
    wait(page, lambda: answered(page) and len(names(page)) == 10)


def test_samples(page: webdriver.Chrome, server: Server, packaged: Path) -> None:
    credits = [f"Photo: {each.title}, {each.credit}" for each in samples()]
    wait(page, lambda: answered(page, credits[0]))  # the first one is tagged when the page is opened
    buttons = page.find_elements(By.CSS_SELECTOR, "#samples button")
    assert len(buttons) == 6
    pictures = page.find_elements(By.CSS_SELECTOR, "#samples img")
    wait(page, lambda: all(int(each.get_property("naturalWidth")) > 0 for each in pictures))
    assert [each.get_attribute("alt") for each in pictures] == [each.title for each in samples()]
    tagger = Tagger(packaged)
    for place in (2, 4, 0):
        buttons[place].click()
        wait(page, lambda place=place: answered(page, credits[place]))
        pressed = [each.get_attribute("aria-pressed") for each in buttons]
        assert pressed == ["true" if each == place else "false" for each in range(6)]
        found = tagger.tag(samples()[place].file.read_bytes(), "sample")
        assert [name.strip("*") for name in names(page)] == [each.tag for each in found]
        shares = [each.text for each in page.find_elements(By.CSS_SELECTOR, "#tags .share")]
        assert shares == [f"{100 * each.probability:.0f}%" for each in found]
    # The last one that was clicked counts, however long each takes.
    page.execute_script("for (const one of document.querySelectorAll('#samples button')) one.click()")
    wait(page, lambda: answered(page, credits[5]))
    assert httpx.get(f"{server.url}/page/samples/passwd").status_code == 404


def test_improbable_tags_and_near_synonyms(page: webdriver.Chrome, tmp_path: Path) -> None:
    page.execute_script("""
        const send = fetch;
        window.asked_for = [];
        fetch = (path, how) => { if (path === "tag") asked_for.push(how.body.get("all")); return send(path, how); };
    """)
    upload(page, tmp_path)  # checks the box
    page.find_element(By.ID, "everything").click()
    wait(page, lambda: page.execute_script("return asked_for.slice(-2)") == ["true", "false"] and answered(page))
    tag = {"tag": "car", "score": 1, "seen": True, "probability": 0.5, "principal_vector": 0, "understood": "itself"}
    tag |= {"made_of": "car", "also": ["cars", "<b>auto</b>"]}
    row = page.execute_script("const row = bar(arguments[0], 1); return [row.textContent, row.outerHTML]", tag)
    assert row[0] == "car50%also cars, <b>auto</b>" and "<b>" not in row[1]


def test_an_upload_counts_more_than_a_sample_that_arrives_later(page: webdriver.Chrome, tmp_path: Path) -> None:
    first = samples()[0]
    wait(page, lambda: answered(page, f"Photo: {first.title}, {first.credit}"))
    slow = """
        const now = ask, later = new Promise((ready) => setTimeout(ready, 1500));
        ask = async (...one) => { if (one[0].startsWith("page/")) await later; return now(...one); };
        window.late = showSample({photo: "cat.jpg", title: "Chelsea", credit: "nobody"});
    """
    page.execute_script(slow)
    upload(page, tmp_path)
    page.execute_async_script("late.then(arguments[0])")
    assert answered(page)


def test_upload_and_own_words(page: webdriver.Chrome, tmp_path: Path) -> None:
    upload(page, tmp_path)
    assert page.find_element(By.ID, "photo").is_displayed()
    assert all(name.endswith("*") == (name.strip("*") in {"dog", "sea", "tree"}) for name in names(page))
    widths = [float(each.get_attribute("width")) for each in page.find_elements(By.CSS_SELECTOR, "#tags rect")]
    assert len(widths) == 10 and max(widths) > 0

    words = page.find_element(By.ID, "words")
    words.send_keys("castle, sky, qzxv")
    wait(page, lambda: set(names(page)) == {"castle*", "sky"})
    assert "No word vector for qzxv." in page.find_element(By.ID, "tag-note").text
    words.clear()
    words.send_keys("zebra-boat")
    wait(page, lambda: names(page) == ["zebra-boat*"])
    assert "zebra + boat" in page.find_element(By.CSS_SELECTOR, "#tags li").get_attribute("title")
    words.clear()
    words.send_keys("qzxv")
    wait(page, lambda: "No word vector for qzxv" in page.find_element(By.ID, "tag-note").text)
    # The refusal's own line in the browser's log is expected.
    page.get_log("browser")


def test_search(page: webdriver.Chrome, server: Server) -> None:
    folder = server.root / "page"
    folder.mkdir(exist_ok=True)
    for seed in range(5):
        (folder / f"{seed}.jpg").write_bytes(encoded(seed))
    try:
        page.find_element(By.ID, "reindex").click()
        wait(page, lambda: "5 photos in the index" in page.find_element(By.ID, "search-note").text)
        page.find_element(By.ID, "wanted").send_keys("lighthouse", Keys.ENTER)
        wait(page, lambda: len(page.find_elements(By.CSS_SELECTOR, "#found li")) == 5)
        pictures = page.find_elements(By.CSS_SELECTOR, "#found img")
        page.execute_script("arguments[0].scrollIntoView()", pictures[0])
        wait(page, lambda: all(int(each.get_property("naturalWidth")) > 0 for each in pictures))
        scores = [float(each.text) for each in page.find_elements(By.CSS_SELECTOR, "#found figcaption span:last-child")]
        assert scores == sorted(scores, reverse=True)
    finally:
        shutil.rmtree(folder)
        httpx.delete(f"{server.url}/index", params={"path": ""}, timeout=30)


def test_by_keyboard_alone(page: webdriver.Chrome, tmp_path: Path) -> None:
    upload(page, tmp_path)
    order = []
    page.execute_script("document.body.tabIndex = -1; document.body.focus()")  # from the top of the page
    for _ in range(16):
        ActionChains(page).send_keys(Keys.TAB).perform()
        order.append(page.switch_to.active_element.get_attribute("id"))
    fields = ["words", "everything", "unseen", "top", "wanted", "unwanted", "", "reindex"]
    assert order[:15] == ["drop", *[""] * 6, *fields]  # after the photo, the six samples
    page.find_element(By.ID, "unseen").send_keys(Keys.SPACE)
    wait(page, lambda: set(names(page)) == {"dog*", "sea*", "tree*"})


def test_on_a_phone(page: webdriver.Chrome, tmp_path: Path) -> None:
    page.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": 360, "height": 740, "deviceScaleFactor": 2, "mobile": True}
    )
    try:
        upload(page, tmp_path)
        assert page.execute_script("return document.documentElement.scrollWidth") <= 360
    finally:
        page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_api_documentation(browser: webdriver.Chrome, server: Server) -> None:
    browser.get_log("browser")
    browser.get(f"{server.url}/docs")
    schema = httpx.get(f"{server.url}/openapi.json").json()
    expected = {f"{method.upper()} {path}" for path, methods in schema["paths"].items() for method in methods}

    def listed() -> set[str]:
        return {
            f"{row.find_element(By.CLASS_NAME, 'opblock-summary-method').text} "
            f"{row.find_element(By.CLASS_NAME, 'opblock-summary-path').get_attribute('data-path')}"
            for row in browser.find_elements(By.CLASS_NAME, "opblock-summary")
        }

    wait(browser, lambda: listed() == expected)
    browser.find_element(By.CSS_SELECTOR, "[id$=index_state_index_get] button").click()
    wait(browser, lambda: browser.find_element(By.CLASS_NAME, "try-out__btn").click() is None)
    browser.find_element(By.CLASS_NAME, "execute").click()
    wait(browser, lambda: "indexed" in browser.find_element(By.CLASS_NAME, "live-responses-table").text)
    # Neither a script error, nor anything that the security policy had to stop.
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []


def test_nothing_from_elsewhere(page: webdriver.Chrome, server: Server) -> None:
    messages = [json.loads(entry["message"])["message"] for entry in page.get_log("performance")]
    sent = [each["params"] for each in messages if each["method"] == "Network.requestWillBeSent"]
    asked = [each["request"]["url"] for each in sent if each["documentURL"].startswith(server.url)]
    assert len(asked) > 5 and all(url.startswith((server.url, "blob:", "data:")) for url in asked)
