"""The run page: its answers, and the page itself in a real browser where there is one."""

from __future__ import annotations

import json
import shutil
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pennyweight.errors import ReportError
from pennyweight.report.serve import RunIndex, make_server
from pennyweight.runs.record import load_record

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


def _ask(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return json.load(answer)


def test_the_table_holds_the_records_numbers(finished: Path, address: str) -> None:
    runs = {run["path"]: run for run in _ask(f"{address}/api/runs")["runs"]}
    assert set(runs) == {"one", "other", "going"}
    for name in ("one", "other"):
        record = load_record(finished / name)
        assert runs[name]["accuracy"] == record.metrics["test"]["accuracy"]
        assert runs[name]["parameters"] == record.parameters["file"]
        assert runs[name]["seconds"] == record.seconds
    assert runs["going"]["status"] == "running"


def test_a_run_and_a_comparison_are_answered(finished: Path, address: str) -> None:
    record = _ask(f"{address}/api/run?path=one")
    assert record["metrics"] == load_record(finished / "one").metrics
    found = _ask(f"{address}/api/compare?one=one&other=other&set=test")
    assert found["rows"] == 12


@pytest.mark.parametrize(
    "query", ["run?path=nothing", "run?path=../../etc", "run", "compare?one=one&other=other&set=x"]
)
def test_what_cannot_be_answered_is_told(address: str, query: str) -> None:
    with pytest.raises(urllib.error.HTTPError) as error:
        _ask(f"{address}/api/{query}")
    assert error.value.code == 400
    assert json.load(error.value)["error"]


def test_a_missing_folder_or_a_taken_port_is_named(finished: Path, tmp_path: Path) -> None:
    with pytest.raises(ReportError, match="no such directory"):
        make_server(tmp_path / "nothing", port=0)
    server = make_server(finished, port=0)
    with pytest.raises(ReportError, match="name another, or 0 for any"):
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
    original = Path.read_text

    def counted(self: Path, *args: Any, **kwargs: Any) -> str:
        read.append(self)
        return original(self, *args, **kwargs)

    monkeypatch.setattr(Path, "read_text", counted)
    index.summaries()
    assert [path.parent.name for path in read] == ["broken"]


@pytest.mark.skipif(_CHROMIUM is None, reason="no Chromium is installed")
def test_the_page_works_in_a_browser(finished: Path, tmp_path: Path) -> None:
    sync = pytest.importorskip("playwright.sync_api")
    many = tmp_path / "runs"
    record = json.loads((finished / "one" / "record.json").read_text())
    for number in range(497):
        record["recipe"]["name"] = f"copy {number:03d}"
        record["metrics"]["test"]["accuracy"] = number / 500
        (many / f"run-{number:03d}").mkdir(parents=True)
        (many / f"run-{number:03d}" / "record.json").write_text(json.dumps(record))
    for name in ("one", "other", "going"):
        shutil.copytree(finished / name, many / name)
    for address in _serve(many):
        with sync.sync_playwright() as play:
            browser = play.chromium.launch(executable_path=_CHROMIUM, args=["--no-sandbox"])
            _walk_through(browser.new_page(), address, load_record(finished / "one"))
            browser.close()


def _walk_through(page: Any, address: str, record: Any) -> None:
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.goto(address)
    expect = pytest.importorskip("playwright.sync_api").expect
    rows = page.locator("#runs tbody tr")
    expect(rows).to_have_count(500)
    page.click("button[data-key=accuracy]")
    first = page.locator("#runs tbody tr").first
    assert "copy 496" in first.inner_text()
    page.fill("#filter", "tiny")
    expect(rows).to_have_count(3)
    page.locator("tr[data-path=one]").click()
    page.wait_for_selector("#detail svg")
    shown = page.locator("#detail").inner_text()
    metrics = record.metrics["test"]
    assert f"{100 * metrics['accuracy']:.2f} %" in shown
    assert f"{record.parameters['file']:,} trainable parameters" in shown
    for row in metrics["confusion"]:
        for count in row:
            assert str(count) in shown
    page.locator("tr[data-path=one] input").check()
    page.locator("tr[data-path=other] input").check()
    page.wait_for_selector("#comparison table")
    assert "McNemar" in page.locator("#comparison").inner_text()
    page.locator("tr[data-path=going]").click()
    expect(page.locator("#detail")).to_contain_text("status: running")
    assert wrong == []
