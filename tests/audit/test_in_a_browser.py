"""The pages of an audit in Chromium, on a desk and on a phone: `make test-browser`."""

import json
import os
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from audit_folders import audited

from imae.audit.decisions import FILE
from imae.audit.report import write_report
from imae.audit.review import Review, Server

sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install 'imae[browser]'")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not CHROMIUM, reason="there is no chromium on this machine"),
]
DESK, PHONE = 1280, 400
Open = Callable[..., Any]


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        arguments = ["--no-sandbox"] if os.getuid() == 0 else []  # Chromium has none for root
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield browser
        browser.close()


@pytest.fixture
def open_page(chromium: Any) -> Iterator[Open]:
    """Open an address; at the end nothing may have failed, asked for another host, or shown a dialogue."""
    asked: list[str] = []
    wrong: list[str] = []

    def at(address: str, width: int, scheme: str = "light") -> Any:
        page = chromium.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme).new_page()
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda message: wrong.append(message.text) if "Policy" in message.text else None)
        page.on("dialog", lambda dialog: wrong.append(dialog.message))
        page.goto(address)
        return page

    yield at
    assert not wrong and all(url.startswith(("file:", "data:", "http://127.0.0.1:")) for url in asked)


def paper(page: Any) -> int:
    """How light the page's background is, 0 to 765."""
    return sum(map(int, re.findall(r"\d+", page.evaluate("getComputedStyle(document.body).backgroundColor"))))


def fits(page: Any) -> bool:
    return bool(page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"))


@pytest.mark.parametrize("width", [DESK, PHONE])
def test_the_report(width: int, open_page: Open, tmp_path: Path) -> None:
    folder, samples = audited(tmp_path)
    page = open_page(write_report(folder, "imae audit photos --resume", samples).as_uri(), width)
    assert fits(page) and paper(page) > 600 > 200 > paper(open_page(page.url, width, "dark"))
    cards = page.locator("#cards li")
    assert cards.count() == 20 and page.locator("#cards img").count() == 19
    assert page.locator("#cards b, #cards i").count() == 0 and "<b>.png" in cards.first.inner_text()
    assert page.locator("#cards img").first.evaluate("image => image.naturalWidth") == 120
    page.locator("#search").focus()
    page.keyboard.type("0003 ")
    assert cards.count() == 1 and "1 of the 20 suspects" in page.locator("#count").inner_text()
    page.locator("#search").fill("")
    page.locator("#pair").select_option("1,2")
    assert cards.count() == 7
    page.locator("#least").focus()
    page.keyboard.press("End")
    assert cards.count() == 0
    page.keyboard.press("Home")
    page.locator("#pair").select_option("")
    page.locator("#order").select_option("pair")
    assert cards.count() == 23 and cards.first.inner_text() == "cat → <img src=x onerror=alert(1)>"
    button = page.locator(".matrix button").first
    button.focus()
    page.keyboard.press("Enter")
    assert page.locator("#pair").input_value() == button.get_attribute("data-pair") and cards.count() == 7
    assert fits(page)


def test_a_report_of_many_rows(open_page: Open, tmp_path: Path) -> None:
    folder, samples = audited(tmp_path, 9000, images=False)
    page = open_page(write_report(folder, "imae audit x.npy", samples).as_uri(), PHONE)
    cards = page.locator("#cards li")
    assert cards.count() == 60 and "2000 of the first 2000 suspects" in page.locator("#count").inner_text()
    page.locator("#more").click()
    assert cards.count() == 120 and fits(page)


@pytest.mark.parametrize("width", [DESK, PHONE])
def test_a_review_by_keys(width: int, open_page: Open, tmp_path: Path) -> None:
    folder, _ = audited(tmp_path)

    def says(page: Any, count: str) -> None:
        page.locator("#count").get_by_text(count).wait_for()

    with Review(folder) as review, Server(review) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        page = open_page(server.address, width)
        says(page, "1 of 20; 20 left")
        assert fits(page) and page.locator("b b, i").count() == 0
        assert page.locator("#image").evaluate("image => image.decode().then(() => image.naturalWidth)") == 120
        page.keyboard.type("kdr2")  # faster than the server answers
        says(page, "5 of 20; 16 left; kept 1, relabelled 2, dropped 1")
        page.keyboard.press("u")
        says(page, "4 of 20; 17 left; kept 1, relabelled 1, dropped 1")
        page.keyboard.press("ArrowLeft")
        says(page, "3 of 20")
        assert page.locator("#decided").inner_text() == "Relabelled: cat"
        page.locator("[data-key=d]").click()
        says(page, "4 of 20; 17 left; kept 1, relabelled 0, dropped 2")
        page.locator("#any").select_option(label="</script><b>dog")
        says(page, "5 of 20; 16 left; kept 1, relabelled 1, dropped 2")
        page.reload()
        says(page, "5 of 20; 16 left")
        assert paper(page) > 600 > 200 > paper(open_page(server.address, width, "dark"))
        server.shutdown()
        server.server_close()
        page.keyboard.press("d")
        page.locator("#error").get_by_text("Not saved").wait_for()
    lines = [json.loads(line) for line in (folder / FILE).read_text().splitlines()]
    assert " ".join(line.get("action", "undo") for line in lines) == "keep drop relabel relabel undo drop relabel"
