"""The page in a real browser, if there is one."""

from __future__ import annotations

import asyncio
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from pennyweight.serve.app import make_app
from pennyweight.serve.options import Access, ServeOptions
from pennyweight.serve.service import Service
from serve.planted import PlantedBank, expected, plant

_CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
_TOKEN = "a-token-of-many-letters"


@contextmanager
def _address(service: Service, options: ServeOptions) -> Iterator[str]:
    config = uvicorn.Config(make_app(service, options), port=0, lifespan="off", log_config=None)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve()))
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join()


@contextmanager
def _page(folder: Path, access: Access, *, errors: list[str]) -> Iterator[Any]:
    """Yield the page over the classifiers news, tags and pairs."""
    if _CHROMIUM is None:
        pytest.skip("no Chromium is installed")
    sync = pytest.importorskip("playwright.sync_api")
    options = ServeOptions(access=access)
    service = Service(PlantedBank(), options)
    service.catalog.load(plant(folder / "news", "<b>news</b>", classes=4), "news")
    pair = ("premise", "hypothesis")
    service.catalog.load(plant(folder / "pairs", "p", pair=pair), "pairs")
    service.catalog.load(plant(folder / "tags", "t", classes=5, thresholds=[0.2] * 5), "tags")
    with _address(service, options) as address, sync.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=_CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1000, "height": 900})
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on(
            "console",
            lambda line: errors.append(line.text) if "Content Security" in line.text else None,
        )
        page.goto(address)
        yield page
        browser.close()
    service.close()


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Any]:
    """The page; the test fails if a script on it does, or if the policy blocks something."""
    errors: list[str] = []
    with _page(tmp_path, Access(), errors=errors) as page:
        yield page
    assert errors == []


def test_texts_get_bars_and_words_get_shades(page: Any) -> None:
    expect = pytest.importorskip("playwright.sync_api").expect
    expect(page.locator("#loaded")).to_have_text("3 classifiers are loaded")
    expect(page.locator("#about")).to_contain_text("4 classes, one label per text")
    text = "Late goal \U0001f600 settles <i>the</i> derby"
    page.fill("#texts", f"{text}\n\nShares fall")
    page.press("#texts", "Control+Enter")
    articles = page.locator("article")
    expect(articles).to_have_count(2)
    values = expected("<b>news</b>", text, 4)
    first = articles.first
    assert first.locator(".value").all_inner_texts() == [
        f"{100 * value:.1f}%" for value in sorted(values, reverse=True)
    ]
    # Labels and texts are shown as they are, and never become elements.
    expect(first.locator(".given")).to_have_text(f"<b>news</b>-{values.argmax()}")
    expect(first.locator(".text")).to_have_text(text)
    widths = [bar.bounding_box()["width"] for bar in first.locator(".fill").all()]
    assert widths == sorted(widths, reverse=True)
    assert widths[0] / widths[-1] == pytest.approx(values.max() / values.min(), rel=0.02)
    first.locator("button").click()
    expect(first.locator("mark")).to_have_count(6)
    assert first.locator(".words").inner_text() == text
    assert first.locator("mark").all_inner_texts() == text.split()
    assert "%" in first.locator("mark").first.get_attribute("title")
    assert page.locator("b, i").count() == 0


def test_pairs_and_several_labels_are_shown(page: Any) -> None:
    expect = pytest.importorskip("playwright.sync_api").expect
    page.select_option("#classifier", "pairs")
    expect(page.locator("#texts-label")).to_have_text(
        "Pairs of texts, one per line: premise, a tab, hypothesis"
    )
    page.fill("#texts", "only one")
    page.click("#run")
    expect(page.locator("#message")).to_contain_text("Line 1: separate its two texts by one tab")
    page.fill("#texts", "one\tother one")
    page.click("#run")
    expect(page.locator("article .given")).to_have_count(1)
    expect(page.locator("#message")).to_be_hidden()
    page.locator("article button").click()
    assert page.locator("mark").all_inner_texts() == ["one", "other", "one"]
    page.select_option("#classifier", "tags")
    page.fill("#texts", "a text")
    page.click("#run")
    given = int((expected("t", "a text", 5) >= 0.2).sum())
    expect(page.locator("article .given")).to_have_count(given)


def test_a_token_is_requested_and_an_error_is_shown(tmp_path: Path) -> None:
    errors: list[str] = []
    with _page(tmp_path, Access(tokens=(_TOKEN,)), errors=errors) as page:
        expect = pytest.importorskip("playwright.sync_api").expect
        expect(page.locator("#message")).to_contain_text("a token is needed")
        page.fill("#token", _TOKEN)
        page.press("#token", "Tab")
        expect(page.locator("#loaded")).to_have_text("3 classifiers are loaded")
        expect(page.locator("#message")).to_be_hidden()
        page.fill("#texts", "x" * 20_001)
        page.click("#run")
        expect(page.locator("#message")).to_contain_text("shorten it to at most 20000")
    assert errors == []


def test_the_page_follows_the_systems_dark_mode(page: Any) -> None:
    background = "getComputedStyle(document.body).backgroundColor"
    page.emulate_media(color_scheme="light")
    assert page.evaluate(background) == "rgb(255, 255, 255)"
    page.emulate_media(color_scheme="dark")
    assert page.evaluate(background) == "rgb(22, 24, 27)"
