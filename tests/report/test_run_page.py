"""The run page: its answers, and the page itself in a real browser if there is one."""

from __future__ import annotations

import json
import shutil
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pennyweight.errors import ReportError
from pennyweight.report import run_page
from pennyweight.report.run_page import RunIndex, make_server
from pennyweight.runs.record import RunRecord, load_record, save_record

_CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)


def _serve(folder: Path) -> Iterator[str]:
    server = make_server(folder, port=0)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def address(finished: Path) -> Iterator[str]:
    yield from _serve(finished)


def _get(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return json.load(answer)


def test_the_table_holds_the_records_numbers(finished: Path, address: str) -> None:
    runs = {run["path"]: run for run in _get(f"{address}/api/runs")["runs"]}
    assert set(runs) == {"one", "other", "going"}
    for name in ("one", "other"):
        record = load_record(finished / name)
        assert record.parameters is not None
        assert runs[name]["score"] == record.metrics["test"].accuracy
        assert runs[name]["parameters"] == record.parameters.file
        assert runs[name]["seconds"] == record.seconds
    assert runs["going"]["status"] == "running"
    assert runs["going"]["parameters"] is None


def test_a_run_and_a_comparison_are_answered(finished: Path, address: str) -> None:
    record = load_record(finished / "one")
    answer = _get(f"{address}/api/run?path=one")
    assert set(answer.pop("shown")) == set(record.metrics)
    assert answer == record.model_dump(mode="json")
    assert _get(f"{address}/api/compare?one=one&other=other&set=test")["rows"] == 12


@pytest.mark.parametrize(
    "query", ["run?path=nothing", "run?path=../../etc", "run", "compare?one=one&other=other&set=x"]
)
def test_a_wrong_question_gets_one_line(address: str, query: str) -> None:
    with pytest.raises(urllib.error.HTTPError) as caught:
        _get(f"{address}/api/{query}")
    assert caught.value.code == 400
    message = json.load(caught.value)["error"]
    assert message
    assert "\n" not in message


def test_a_record_that_cannot_be_read_is_not_listed_and_explained_when_requested(
    finished: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(finished, tmp_path / "runs")
    for name, text in (("half", '{"schema_version": 2, "sta'), ("future", '{"schema_version": 9}')):
        (folder / name).mkdir()
        (folder / name / "record.json").write_text(text)
    for address in _serve(folder):
        listed = {run["path"] for run in _get(f"{address}/api/runs")["runs"]}
        assert listed == {"one", "other", "going"}
        for name, reason in (("half", "cannot be read"), ("future", "schema_version: given 9")):
            with pytest.raises(urllib.error.HTTPError) as caught:
                _get(f"{address}/api/run?path={name}")
            assert reason in json.load(caught.value)["error"]


def test_infinite_numbers_reach_the_browser_as_null(finished: Path, tmp_path: Path) -> None:
    record = load_record(finished / "one")
    history = (replace(record.history[0], gradient_norm=float("inf")), *record.history[1:])
    (tmp_path / "runs" / "run").mkdir(parents=True)
    save_record(tmp_path / "runs" / "run", record.with_changes(history=history))
    for address in _serve(tmp_path / "runs"):
        assert _get(f"{address}/api/run?path=run")["history"][0]["gradient_norm"] is None


def test_a_folder_or_port_that_cannot_be_used_is_named(finished: Path, tmp_path: Path) -> None:
    with pytest.raises(ReportError, match="no such directory"):
        make_server(tmp_path / "nothing", port=0)
    server = make_server(finished, port=0)
    with pytest.raises(ReportError, match="choose another port, or 0 for any free one"):
        make_server(finished, port=server.server_port)
    server.server_close()


def test_records_are_read_again_only_when_they_change(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shutil.copytree(finished, tmp_path / "runs")
    (folder / "broken").mkdir()
    (folder / "broken" / "record.json").write_text("{")
    index = RunIndex(folder)
    assert len(index.summaries()) == 3
    read: list[Path] = []
    original = run_page.load_record

    def counted(run: Path) -> RunRecord:
        read.append(run)
        return original(run)

    monkeypatch.setattr(run_page, "load_record", counted)
    assert len(index.summaries()) == 3
    assert read == []
    shutil.copy(folder / "one" / "record.json", folder / "broken" / "record.json")
    assert len(index.summaries()) == 4
    assert [path.name for path in read] == ["broken"]


@pytest.fixture(scope="module")
def many(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """500 runs."""
    folder = tmp_path_factory.mktemp("many")
    record = json.loads((finished / "one" / "record.json").read_text())
    for number in range(497):
        record["recipe"]["name"] = f"copy {number:03d}"
        record["metrics"]["test"]["accuracy"] = number / 500
        (folder / f"run-{number:03d}").mkdir(parents=True)
        (folder / f"run-{number:03d}" / "record.json").write_text(json.dumps(record))
    for name in ("one", "other", "going"):
        shutil.copytree(finished / name, folder / name)
    return folder


@pytest.fixture
def page(many: Path) -> Iterator[Any]:
    """The page over 500 runs; the test fails if a script on it does."""
    if _CHROMIUM is None:
        pytest.skip("no Chromium is installed")
    sync = pytest.importorskip("playwright.sync_api")
    errors: list[str] = []
    for address in _serve(many):
        with sync.sync_playwright() as play:
            browser = play.chromium.launch(executable_path=_CHROMIUM, args=["--no-sandbox"])
            page = browser.new_page(viewport={"width": 1280, "height": 700})
            page.on("pageerror", lambda error: errors.append(str(error)))
            page.goto(address)
            sync.expect(page.locator("#runs tbody tr")).to_have_count(500)
            yield page
            browser.close()
    assert errors == []


def test_the_page_sorts_filters_and_shows_runs(finished: Path, page: Any) -> None:
    expect = pytest.importorskip("playwright.sync_api").expect
    rows = page.locator("#runs tbody tr")
    page.click("button[data-key=score]")
    assert "copy 496" in rows.first.inner_text()
    page.fill("#filter", "tiny")
    expect(rows).to_have_count(3)
    page.locator("tr[data-path=one]").click()
    page.wait_for_selector("#detail svg")
    _assert_shown(page.locator("#detail").inner_text(), load_record(finished / "one"))
    page.locator("tr[data-path=one] input").check()
    page.locator("tr[data-path=other] input").check()
    page.wait_for_selector("#comparison table")
    assert "McNemar" in page.locator("#comparison").inner_text()
    page.locator("tr[data-path=going]").click()
    expect(page.locator("#detail")).to_contain_text("status: running")


def _assert_shown(text: str, record: RunRecord) -> None:
    metrics = record.metrics["test"]
    assert record.parameters is not None
    assert record.best is not None
    assert f"{100 * metrics.accuracy:.2f}%" in text
    assert f"{record.parameters.file:,} trainable parameters" in text
    assert f"step {record.best.step}, validation accuracy {record.best.value:.4f}" in text
    assert "48 training rows" in text
    assert "attention.self.query" in text
    for row in metrics.confusion:
        for count in row:
            assert str(count) in text


def test_the_table_keeps_its_place_when_a_run_is_opened(page: Any) -> None:
    row = page.locator("tr[data-path=run-250]")
    row.scroll_into_view_if_needed()
    before, scrolled = row.bounding_box(), page.evaluate("scrollY")
    assert scrolled > 0
    row.locator("button").click()
    page.wait_for_selector("#detail svg")
    assert page.evaluate("scrollY") == scrolled
    after = page.locator("tr[data-path=run-250]").bounding_box()
    assert (after["y"], after["height"]) == (before["y"], before["height"])
    # The row is still in sight: the panel is beside the table.
    assert after["x"] + 100 < page.locator("#panel").bounding_box()["x"]
    page.locator("#detail >> text=Close").click()
    assert page.evaluate("scrollY") == scrolled
    assert page.locator("#panel").is_hidden()


def test_the_page_can_be_used_with_the_keyboard_alone(page: Any) -> None:
    page.locator("tr[data-path=run-010] button").focus()
    page.keyboard.press("Enter")
    page.wait_for_selector("#detail svg")
    focused = "document.activeElement.closest('tr')?.dataset.path"
    assert page.evaluate(focused) == "run-010"
    following = page.evaluate(
        "document.activeElement.closest('tr').nextElementSibling.dataset.path"
    )
    page.keyboard.press("ArrowDown")
    assert page.evaluate(focused) == following
    pytest.importorskip("playwright.sync_api").expect(page.locator("#detail")).to_contain_text(
        following
    )
    page.keyboard.press("Escape")
    assert page.locator("#panel").is_hidden()
    assert page.evaluate(focused) == following


def test_the_page_follows_the_systems_dark_mode(page: Any) -> None:
    background = "getComputedStyle(document.body).backgroundColor"
    page.emulate_media(color_scheme="light")
    assert page.evaluate(background) == "rgb(255, 255, 255)"
    page.emulate_media(color_scheme="dark")
    assert page.evaluate(background) == "rgb(22, 24, 27)"
