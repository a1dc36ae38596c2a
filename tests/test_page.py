"""The page in a real headless Chromium."""

import importlib.resources
import json
import shutil
import subprocess
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

needs_exiftool = pytest.mark.skipif(not shutil.which("exiftool"), reason="exiftool is not installed")
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


@pytest.fixture(scope="module")
def album(server: Server) -> Iterator[Path]:
    """Sixty photos in the index."""
    folder = server.root / "album"
    folder.mkdir()
    for seed in range(60):
        (folder / f"{seed:02d}.jpg").write_bytes(encoded(seed))
    answer = httpx.post(f"{server.url}/index", json={}, timeout=60).json()
    assert answer["added"] == 60 and not answer["remaining"]
    yield folder
    shutil.rmtree(folder)
    httpx.delete(f"{server.url}/index", params={"path": ""}, timeout=30)


def names(page: webdriver.Chrome) -> list[str]:
    return [each.text for each in page.find_elements(By.CSS_SELECTOR, "#tags .name")]


def wait(page: webdriver.Chrome, condition) -> None:
    WebDriverWait(page, 20, poll_frequency=0.1, ignored_exceptions=[Exception]).until(lambda _: condition())


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
    made = """
        const [tag, done] = arguments;
        import("/page/tag.js").then(({ row }) => row(tag, 1)).then((one) => done([one.textContent, one.outerHTML]));
    """
    row = page.execute_async_script(made, tag)
    assert row[0] == "car50%also cars, <b>auto</b>" and "<b>" not in row[1]


def test_an_upload_counts_more_than_a_sample_that_arrives_later(page: webdriver.Chrome, tmp_path: Path) -> None:
    first = samples()[0]
    wait(page, lambda: answered(page, f"Photo: {first.title}, {first.credit}"))
    slow = """
        const send = fetch;
        fetch = async (path, how) => {
            if (path === arguments[0]) await new Promise((ready) => setTimeout(ready, 1500));
            const answer = await send(path, how);
            if (path === arguments[0]) setTimeout(() => { window.late = true; }, 100);
            return answer;
        };
        document.querySelectorAll("#samples button")[3].click();
    """
    page.execute_script(slow, f"page/samples/{samples()[3].file.name}")
    upload(page, tmp_path)
    wait(page, lambda: page.execute_script("return window.late"))
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


def found(page: webdriver.Chrome) -> list[str]:
    return [each.get_attribute("alt") for each in page.find_elements(By.CSS_SELECTOR, "#found img")]


def search(page: webdriver.Chrome, words: str) -> list[str]:
    """Search, and return the photos that are shown first."""
    page.execute_script("document.getElementById('found').replaceChildren()")
    field = page.find_element(By.ID, "wanted")
    field.clear()
    field.send_keys(words, Keys.ENTER)
    wait(page, lambda: found(page) and "Top" in page.find_element(By.ID, "search-note").text)
    return found(page)


def press(page: webdriver.Chrome, *keys: str) -> None:
    ActionChains(page).send_keys(*keys).perform()


def focused(page: webdriver.Chrome) -> str:
    """The photo of the grid, or the text, that has the focus."""
    return page.execute_script(
        "const one = document.activeElement; return one.querySelector('img')?.alt ?? one.ariaLabel ?? one.textContent"
    )


def opened(page: webdriver.Chrome, photo: str) -> bool:
    """Whether the large view shows this photo, and large."""
    shown = page.find_element(By.ID, "viewer-photo")
    large = shown.get_attribute("src") == shown.get_attribute("data-large") and shown.get_property("naturalWidth") > 0
    return shown.is_displayed() and shown.get_attribute("alt") == photo and large


def test_search(page: webdriver.Chrome, album: Path) -> None:
    another = album / "another.jpg"
    another.write_bytes(encoded(61))
    page.find_element(By.ID, "reindex").click()
    wait(page, lambda: "1 added; 61 photos in the index" in page.find_element(By.ID, "search-note").text)
    another.unlink()
    search(page, "lighthouse")
    pictures = page.find_elements(By.CSS_SELECTOR, "#found img")
    page.execute_script("arguments[0].scrollIntoView()", pictures[0])
    wait(page, lambda: all(int(each.get_property("naturalWidth")) > 0 for each in pictures[:12]))
    scores = [float(each.text) for each in page.find_elements(By.CSS_SELECTOR, "#found figcaption span:last-child")]
    assert len(scores) in (24, 48) and scores == sorted(scores, reverse=True)
    page.find_element(By.ID, "reindex").click()
    wait(page, lambda: "60 photos in the index" in page.find_element(By.ID, "search-note").text)


def test_the_grid_loads_on_scrolling(page: webdriver.Chrome, album: Path) -> None:
    page.set_window_size(600, 500)
    try:
        search(page, "sky")
        assert len(found(page)) == 24  # the others are not near yet, nor are these's thumbnails
        last = page.find_elements(By.CSS_SELECTOR, "#found img")[-1]
        assert not last.get_attribute("src")
        for _ in range(4):
            page.execute_script("window.scrollTo(0, document.body.scrollHeight)")
            page.execute_async_script("requestAnimationFrame(() => setTimeout(arguments[0], 200))")
        wait(page, lambda: len(found(page)) == 60)
        assert len(set(found(page))) == 60 and not page.find_element(By.ID, "more").is_displayed()
        page.execute_script("arguments[0].scrollIntoView()", last)
        wait(page, lambda: int(last.get_property("naturalWidth")) > 0)
    finally:
        page.set_window_size(1200, 900)


def test_load_more_is_a_button_too(page: webdriver.Chrome, album: Path) -> None:
    page.set_window_size(600, 500)
    try:
        search(page, "sky")
        page.execute_script("document.getElementById('more').click()")
        wait(page, lambda: len(found(page)) == 48)
    finally:
        page.set_window_size(1200, 900)


def test_a_search_has_an_address(page: webdriver.Chrome, album: Path) -> None:
    first = search(page, "sky, castle")
    second = search(page, "dog")
    assert page.current_url.endswith("/?words=dog") and first[:24] != second[:24]
    page.back()
    wait(page, lambda: found(page)[:24] == first[:24])
    assert page.find_element(By.ID, "wanted").get_attribute("value") == "sky, castle"
    page.refresh()
    wait(page, lambda: found(page)[:24] == first[:24])
    page.back()
    wait(page, lambda: not found(page))
    assert page.find_element(By.ID, "wanted").get_attribute("value") == ""


def test_the_large_view(page: webdriver.Chrome, album: Path) -> None:
    photos = search(page, "sky")
    page.find_element(By.CSS_SELECTOR, "#found .open").click()
    wait(page, lambda: opened(page, photos[0]))
    assert page.find_element(By.ID, "viewer-place").text.startswith("1 of ")
    assert not page.find_element(By.ID, "viewer-back").is_enabled()
    page.find_element(By.ID, "viewer-on").click()
    wait(page, lambda: opened(page, photos[1]))
    page.find_element(By.ID, "viewer-back").click()
    wait(page, lambda: opened(page, photos[0]))
    press(page, Keys.RIGHT)  # though the button that had the focus is disabled now
    wait(page, lambda: opened(page, photos[1]))
    page.find_element(By.ID, "viewer-close").click()
    wait(page, lambda: focused(page) == photos[1])


def test_the_grid_by_keyboard_alone(page: webdriver.Chrome, album: Path) -> None:
    photos = search(page, "sky")
    columns = page.execute_script(
        "return getComputedStyle(document.getElementById('found')).gridTemplateColumns.split(' ').length"
    )
    for _ in range(8):  # from the field to the grid
        press(page, Keys.TAB)
        if focused(page) == photos[0]:
            break
    for key, place in ((Keys.RIGHT, 1), (Keys.DOWN, 1 + columns), (Keys.LEFT, columns), (Keys.UP, 0), (Keys.LEFT, 0)):
        press(page, key)
        assert focused(page) == photos[place]
    press(page, Keys.TAB)
    assert focused(page) == f"More like this: {photos[0]}"
    press(page, Keys.RIGHT, Keys.RIGHT, Keys.ENTER)
    wait(page, lambda: opened(page, photos[2]))
    press(page, Keys.RIGHT)
    wait(page, lambda: opened(page, photos[3]))
    press(page, Keys.LEFT, Keys.LEFT)
    wait(page, lambda: opened(page, photos[1]))
    press(page, Keys.ESCAPE)
    wait(page, lambda: focused(page) == photos[1])
    # One stop of the Tab key for all photos: back to the form, and again to the photo.
    press(page, Keys.SHIFT, Keys.TAB)
    press(page, Keys.NULL)
    page.find_element(By.ID, "reindex").send_keys(Keys.TAB)
    assert focused(page) == photos[1]


def judged(page: webdriver.Chrome) -> dict[str, str]:
    """The tags of the large view, with what was decided."""
    script = """
        return [...document.querySelectorAll("#viewer-tags li")].map((row) => [
            row.querySelector(".word").textContent,
            [...row.querySelectorAll("[aria-pressed=true]")].map((one) => one.classList[0]).join(),
        ]);
    """
    return dict(page.execute_script(script))


def said(page: webdriver.Chrome, text: str) -> bool:
    return text in page.find_element(By.ID, "viewer-note").text


def open_tags(page: webdriver.Chrome, photo: str) -> list[str]:
    """Open the large view of a photo of the grid, and return its tags."""
    page.find_elements(By.CSS_SELECTOR, "#found .open")[found(page).index(photo)].click()
    wait(page, lambda: judged(page) and opened(page, photo))
    return list(judged(page))


def decisions(server: Server, photo: str) -> tuple[list[str], list[str]]:
    answer = httpx.get(f"{server.url}/tags/{photo}", timeout=30).json()
    return answer["accepted"], answer["rejected"]


@needs_exiftool
def test_tags_are_accepted_and_rejected(page: webdriver.Chrome, server: Server, album: Path) -> None:
    photo = search(page, "sky")[0]
    tags = open_tags(page, photo)
    assert set(judged(page).values()) == {""} and not page.find_element(By.ID, "viewer-undo").is_enabled()
    page.find_element(By.CSS_SELECTOR, "#viewer-tags .accept").click()
    wait(page, lambda: said(page, f"Accepted: {tags[0]}.") and judged(page)[tags[0]] == "accept")
    assert decisions(server, photo) == ([tags[0]], [])
    page.find_elements(By.CSS_SELECTOR, "#viewer-tags .reject")[1].click()
    wait(page, lambda: said(page, f"Rejected: {tags[1]}.") and judged(page)[tags[1]] == "reject")
    assert decisions(server, photo) == ([tags[0]], [tags[1]])
    # Again, which takes it back; and undone, which brings it again.
    page.find_element(By.CSS_SELECTOR, "#viewer-tags .accept").click()
    wait(page, lambda: said(page, f"Undecided again: {tags[0]}.") and judged(page)[tags[0]] == "")
    assert decisions(server, photo) == ([], [tags[1]])
    page.find_element(By.ID, "viewer-undo").click()
    wait(page, lambda: judged(page)[tags[0]] == "accept")
    # What was decided is there when the photo is opened again, rejected tags included.
    page.find_element(By.ID, "viewer-close").click()
    open_tags(page, photo)
    assert judged(page)[tags[0]] == "accept" and judged(page)[tags[1]] == "reject"
    page.find_element(By.ID, "viewer-word").send_keys("ramen", Keys.ENTER)  # with a letter that is a key elsewhere
    wait(page, lambda: judged(page).get("ramen") == "accept")
    assert decisions(server, photo) == ([tags[0], "ramen"], [tags[1]])
    (server.root / f"{photo}.xmp").unlink()


@needs_exiftool
def test_tags_by_keyboard_alone(page: webdriver.Chrome, server: Server, album: Path) -> None:
    first, second, *_ = search(page, "sky")
    tags = open_tags(page, first)
    press(page, "a")
    assert said(page, "Move to a tag first")
    press(page, Keys.DOWN, "a")
    wait(page, lambda: judged(page)[tags[0]] == "accept")
    press(page, Keys.DOWN, "r")
    wait(page, lambda: judged(page)[tags[1]] == "reject")
    assert focused(page) == f"Search for {tags[1]}"
    press(page, Keys.TAB, Keys.TAB)
    assert focused(page) == f"Reject {tags[1]}"
    press(page, "u", "u")
    wait(page, lambda: set(judged(page).values()) == {""} and said(page, f"Undecided again: {tags[0]}."))
    assert decisions(server, first) == ([], [])
    # The focus stays in the tags from photo to photo, and a decision of the photo before can be undone.
    press(page, Keys.UP, "a", Keys.RIGHT)
    wait(page, lambda: opened(page, second) and focused(page).startswith("Search for "))
    press(page, "u")
    wait(page, lambda: said(page, f"Undecided again: {tags[0]} ({Path(first).name})."))
    assert decisions(server, first) == decisions(server, second) == ([], [])


def test_a_tag_filters(page: webdriver.Chrome, album: Path) -> None:
    photos = search(page, "castle")
    tags = [tag for tag in open_tags(page, photos[0]) if tag != "castle"]
    page.find_element(By.CSS_SELECTOR, f"[aria-label='Search for {tags[0]}']").click()
    wait(page, lambda: page.current_url.endswith(f"?words=castle%2C{tags[0]}") and focused(page) == found(page)[0])
    assert page.find_element(By.ID, "wanted").get_attribute("value") == f"castle, {tags[0]}"
    assert not page.find_element(By.ID, "viewer").is_displayed()


@needs_exiftool
def test_keywords_are_shown_apart(page: webdriver.Chrome, server: Server, album: Path) -> None:
    first, second, *_ = search(page, "sky")
    tag = open_tags(page, second)[0]
    sidecar = server.root / f"{second}.xmp"
    keywords = [f"-XMP-dc:Subject={word}" for word in (tag, "Grandma")]
    subprocess.run(["exiftool", "-q", *keywords, sidecar], check=True, timeout=60)
    press(page, Keys.LEFT)
    wait(page, lambda: opened(page, first))
    assert not page.find_element(By.ID, "viewer-keywords").is_displayed()
    press(page, Keys.RIGHT)
    wait(page, lambda: page.find_element(By.ID, "viewer-keywords").text.split() == [tag, "Grandma"])
    sidecar.unlink()
    # A tag that is a keyword already says so; it is not accepted here.
    row = page.find_element(By.CSS_SELECTOR, "#viewer-tags li.theirs")
    assert row.get_attribute("data-tag") == tag and judged(page)[tag] == ""
    page.find_element(By.CSS_SELECTOR, "#viewer-keywords li:first-child button").click()
    wait(page, lambda: page.find_element(By.ID, "wanted").get_attribute("value") == f"sky, {tag}")


def test_a_search_in_a_folder_and_between_dates(page: webdriver.Chrome, server: Server, album: Path) -> None:
    page.get(f"{server.url}/?words=sky&folder=nowhere")
    wait(page, lambda: page.find_element(By.ID, "search-note").text == "No photo matches.")
    folder = page.find_element(By.ID, "folder")
    assert folder.is_displayed() and folder.get_attribute("value") == "nowhere"
    for wanted in ({"since": "2020-01-31"}, {"until": "2020-01-31"}):
        page.execute_script("""
            for (const id of ["since", "until"]) document.getElementById(id).value = arguments[0][id] ?? "";
        """, wanted)  # fmt: skip
        folder.clear()
        folder.send_keys("album", Keys.ENTER)
        [(name, day)] = wanted.items()
        wait(page, lambda name=name, day=day: page.current_url.endswith(f"?words=sky&folder=album&{name}={day}"))
        body = {"words": ["sky"], "folder": "album", "limit": 24, **wanted}
        answer = httpx.post(f"{server.url}/search", json=body, timeout=30).json()
        photos = [each["photo"] for each in answer["photos"]]
        wait(page, lambda photos=photos: found(page)[:24] == photos)


def example(page: webdriver.Chrome) -> str:
    return page.find_element(By.ID, "example").text.partition("✕")[0].strip()


def test_more_like_this(page: webdriver.Chrome, server: Server, album: Path) -> None:
    third = search(page, "sky")[2]
    page.find_elements(By.CSS_SELECTOR, "#found .like")[2].click()
    wait(page, lambda: f"like={third.replace('/', '%2F')}" in page.current_url and focused(page) == found(page)[0])
    body = {"words": [], "like": third, "limit": 24}
    wanted = [each["photo"] for each in httpx.post(f"{server.url}/search", json=body, timeout=30).json()["photos"]]
    assert found(page)[:24] == wanted and example(page) == f"like {Path(third).name}"
    # Combined with a word; and the same from the large view, by keyboard.
    combined = search(page, "castle")
    body["words"] = ["castle"]
    wanted = [each["photo"] for each in httpx.post(f"{server.url}/search", json=body, timeout=30).json()["photos"]]
    assert combined[:24] == wanted
    page.find_element(By.ID, "example-remove").click()
    wait(page, lambda: page.current_url.endswith("?words=castle") and not example(page))
    first = search(page, "castle")[0]
    open_tags(page, first)
    press(page, "m")
    wait(page, lambda: example(page) == f"like {Path(first).name}" and page.current_url.endswith(Path(first).name))
    page.back()
    wait(page, lambda: not example(page) and found(page)[0] == first)


def test_search_by_a_photo(page: webdriver.Chrome, server: Server, album: Path, tmp_path: Path) -> None:
    def wanted(photo: bytes, **fields: str) -> list[str]:
        files = {"photo": ("photo.jpg", photo, "image/jpeg")}
        answer = httpx.post(f"{server.url}/search", files=files, data={"limit": "24", **fields}, timeout=30).json()
        return [each["photo"] for each in answer["photos"]]

    def shown(name: str, photos: list[str]) -> bool:
        return example(page) == f"like {name}" and found(page)[:24] == photos and focused(page) == photos[0]

    photo = tmp_path / "mine.jpg"
    photo.write_bytes(encoded(7))
    page.find_element(By.ID, "example-file").send_keys(str(photo))
    wait(page, lambda: shown("mine.jpg", wanted(encoded(7))))
    page.execute_script("window.scrollTo(0, document.body.scrollHeight)")
    wait(page, lambda: len(found(page)) > 24)  # the next page is of the same search
    assert search(page, "castle")[:24] == wanted(encoded(7), words="castle")
    # The same for the photo that is tagged, and for one that is dropped on the search.
    page.refresh()
    upload(page, tmp_path)
    page.find_element(By.ID, "similar").click()
    wait(page, lambda: shown("photo.jpg", wanted(encoded(1))))
    drop = """
        fetch("page/samples/cat.jpg").then((answer) => answer.blob()).then((blob) => {
            const dropped = new DataTransfer();
            dropped.items.add(new File([blob], "dropped.jpg"));
            const event = new DragEvent("drop", {dataTransfer: dropped, bubbles: true});
            document.getElementById("found").dispatchEvent(event);
        });
    """
    page.execute_script(drop)
    cat = next(each.file for each in samples() if each.file.name == "cat.jpg")
    wait(page, lambda: shown("dropped.jpg", wanted(cat.read_bytes())))
    assert answered(page)  # the photo that is tagged is still the other one


@needs_exiftool
def test_what_cannot_be_written_is_said(page: webdriver.Chrome, album: Path) -> None:
    photo = search(page, "sky")[4]
    blocked = album / f"{Path(photo).name}.xmp"  # a folder where the sidecar would be
    blocked.mkdir()
    try:
        open_tags(page, photo)
        press(page, Keys.DOWN, "a")
        wait(page, lambda: "bad" in page.find_element(By.ID, "viewer-note").get_attribute("class"))
        assert said(page, ".xmp") and set(judged(page).values()) == {""}
        assert not page.find_element(By.ID, "viewer-undo").is_enabled()
        page.get_log("browser")  # the refusal's own line is expected
    finally:
        blocked.rmdir()


def test_by_keyboard_alone(page: webdriver.Chrome, tmp_path: Path) -> None:
    upload(page, tmp_path)
    order = []
    page.execute_script("document.body.tabIndex = -1; document.body.focus()")  # from the top of the page
    for _ in range(17):
        press(page, Keys.TAB)
        order.append(page.switch_to.active_element.get_attribute("id"))
    # After the photo, the six samples; after the words of a search, the folder and the dates, and the button Search.
    fields = ["similar", "words", "everything", "unseen", "top", "wanted", "unwanted", "", "", "by-photo", "reindex"]
    assert order == ["file", *[""] * 6, *fields][:17]
    page.find_element(By.ID, "unseen").send_keys(Keys.SPACE)
    wait(page, lambda: set(names(page)) == {"dog*", "sea*", "tree*"})


def test_on_a_phone(page: webdriver.Chrome, album: Path, tmp_path: Path) -> None:
    outside = """
        const places = [...document.querySelectorAll("#viewer, #viewer *")].map((one) => one.getBoundingClientRect());
        return places.filter((box) => box.left < 0 || box.right > innerWidth);
    """
    for width in (390, 360):
        size = {"width": width, "height": 844, "deviceScaleFactor": 2, "mobile": True}
        page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        try:
            page.refresh()
            upload(page, tmp_path)
            page.find_element(By.CSS_SELECTOR, "summary").click()
            photos = search(page, "sky")
            assert page.execute_script("return document.documentElement.scrollWidth <= innerWidth")
            page.find_element(By.CSS_SELECTOR, "#found .open").click()
            wait(page, lambda photo=photos[0]: opened(page, photo))
            assert page.execute_script("return document.documentElement.scrollWidth <= innerWidth")
            assert page.execute_script(outside) == []
        finally:
            page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


@needs_exiftool
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_accessibility(page: webdriver.Chrome, server: Server, album: Path, scheme: str) -> None:
    axe = importlib.resources.files("axe_playwright_python") / "axe.min.js"
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    try:
        page.get(f"{server.url}/?words=sky&folder=album&like=album/03.jpg")  # with all parts of the form shown
        wait(page, lambda: found(page))
        page.execute_script(axe.read_text(encoding="utf-8"))
        assert violations(page) == []
        page.find_element(By.CSS_SELECTOR, "#found .open").click()
        wait(page, lambda: judged(page))
        page.find_elements(By.CSS_SELECTOR, "#viewer-tags .accept")[0].click()
        page.find_elements(By.CSS_SELECTOR, "#viewer-tags .reject")[1].click()
        wait(page, lambda: {"accept", "reject"} <= set(judged(page).values()))
        assert violations(page) == []
        (server.root / f"{found(page)[0]}.xmp").unlink()
    finally:
        page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def violations(page: webdriver.Chrome) -> list[str]:
    """What axe-core finds of serious and critical impact."""
    results = page.execute_async_script("axe.run().then(arguments[0], (error) => arguments[0]({error: String(error)}))")
    assert len(results["passes"]) > 10, results
    return [
        f"{each['id']}: {node['html']} {node['failureSummary']}"
        for each in results["violations"]
        if each["impact"] in ("serious", "critical")
        for node in each["nodes"]
    ]


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
