"""The page in a real browser: headless Chromium, driven by Playwright."""

import base64
import os
import shutil

import pytest

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (pip install 'cxr[dev]')")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(not CHROMIUM, reason="there is no Chromium here")

HOSTILE = "<img src=x onerror='document.title=1'>\n../../" + "흉부" * 50 + ".png"
# What a mouse does: a file is dropped on an element.
DROP = """([content, names]) => {
  const data = new DataTransfer(), bytes = Uint8Array.from(atob(content), c => c.charCodeAt(0));
  for (const name of names) data.items.add(new File([bytes], name));
  const options = {dataTransfer: data, bubbles: true, cancelable: true};
  for (const kind of ["dragover", "drop"])
    document.querySelector("#drop").dispatchEvent(new DragEvent(kind, options));
}"""


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as driver:
        # As root, as in containers, Chromium has no sandbox.
        arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
        running = driver.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield running
        running.close()


@pytest.fixture
def visit(browser, url):
    """Open the page; it must neither fail nor ask another server, nor be wider than the screen."""
    opened = []

    def go(lang="en", width=1280, **options):
        context = browser.new_context(viewport={"width": width, "height": 844}, **options)
        page, troubles, asked = context.new_page(), [], []
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on("console", lambda line: troubles.append(line.text) if "Content Security" in line.text else None)
        page.on("request", lambda request: asked.append(request.url))
        page.goto(f"{url}/?lang={lang}")
        page.wait_for_selector("#notes li")
        opened.append((context, page, width, troubles, asked))
        return page

    yield go
    for context, page, width, troubles, asked in opened:
        assert troubles == []
        assert {address for address in asked if not address.startswith((f"{url}/", "data:"))} == set()
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert "rgb" in page.evaluate("getComputedStyle(document.querySelector('footer')).backgroundColor")
        assert page.locator("footer").bounding_box()["y"] < 844, "not a medical device is in view"
        context.close()


def drop(page, content, *names):
    page.evaluate(DROP, [base64.b64encode(content).decode(), list(names)])


@pytest.fixture
def good(drawn):
    return sorted((drawn / "test" / "NORMAL").iterdir())[0].read_bytes()


@pytest.mark.parametrize(
    ("lang", "width", "words"),
    [("en", 1280, ("Probabilities", "Not a medical device")), ("ko", 390, ("확률", "의료기기가 아닙니다"))],
)
def test_drop_a_file_and_read_the_result(visit, good, fetch, url, lang, width, words):
    page = visit(lang, width)
    drop(page, good, HOSTILE)
    page.wait_for_selector("#bars .first")
    answer = fetch(f"{url}/answer?lang={lang}", good)[2]
    text = page.inner_text("body")
    assert all(word in text for word in words) and page.title() != "1"
    assert page.inner_text("#bars .name.first") == answer["predicted"]
    assert page.locator("#bars .share").all_text_contents() == [of["text"] for of in answer["classes"]]
    widths = page.evaluate(
        "[...document.querySelectorAll('#bars .fill')].map(bar => parseFloat(bar.style.width) / 100)"
    )
    assert widths == pytest.approx([of["share"] for of in answer["classes"]], abs=1e-3)
    assert page.evaluate("document.querySelector('#image').naturalWidth") == 32
    one_column = page.locator("#probabilities").bounding_box()["y"] > page.locator("#image").bounding_box()["y"] + 300
    assert one_column == (width == 390)


def test_the_slider_changes_the_sentences(visit, good):
    page = visit()
    drop(page, good, "a.png")
    page.wait_for_selector("#bars .first")
    before = page.inner_text("#means"), page.inner_text("#share-text")
    page.focus("#share")
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    assert page.inner_text("#share-text") != before[1] and page.inner_text("#means") != before[0]


def test_another_network_judges_the_same_image(visit, good, fetch, url):
    page = visit()
    drop(page, good, "a.png")
    page.wait_for_selector("#bars .first")
    with page.expect_response(lambda reply: "answer?network=1" in reply.url) as reply:
        page.select_option("#network", "1")
    assert reply.value.json()["classes"] == fetch(f"{url}/answer?network=1", good)[2]["classes"]


def test_no_answer_for_an_image_unlike_the_training_images_unless_one_insists(visit, image, tmp_path):
    page = visit()
    page.set_input_files("#file", image(tmp_path / "noise.png", size=(64, 64)))
    page.wait_for_selector("#refused:visible")
    assert not page.locator("#bars").is_visible() and page.locator("#image").is_visible()
    page.click("#anyway")
    assert page.locator("#bars").is_visible() and "grey" in page.get_attribute("#probabilities", "class")


def test_training_images_are_shown_only_to_who_asks(visit, good):
    page = visit()
    drop(page, good, "a.png")
    page.wait_for_selector("#bars .first")
    assert not page.locator("#nearest").is_visible() and page.locator("#cases img").count() == 0
    page.click("#ask-nearest")
    page.wait_for_selector("#cases img >> nth=3")
    assert page.locator("#nearest").is_visible()


def test_errors_are_a_line(visit, good):
    page = visit("ko")
    drop(page, b"no image", "a.png")
    page.wait_for_selector("#error:visible")
    assert page.inner_text("#error") == (
        "이 파일은 사용할 수 없습니다: JPEG, PNG, DICOM 영상이 아닙니다 (not a JPEG, PNG or DICOM image)."
    )
    drop(page, good, "a.png", "b.png")
    assert "하나만" in page.inner_text("#error")
    drop(page, good, "a.png")
    page.wait_for_selector("#bars .first")
    assert not page.locator("#error").is_visible()


def test_it_is_dark_where_the_system_is(visit):
    light, dark = (
        visit(color_scheme=scheme).evaluate("getComputedStyle(document.body).backgroundColor")
        for scheme in ("light", "dark")
    )
    assert light != dark
