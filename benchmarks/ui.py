"""How long the run page takes to show 500 runs, and to answer a click, in headless Chromium.

    python benchmarks/ui.py RUN [--runs 500]

Copies the record of a finished run, serves the folder with `pennyweight ui`, and prints JSON:
medians of five, in seconds. Needs playwright and a Chromium.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

from playwright.sync_api import expect, sync_playwright

PORT = 8765


def fill(folder: Path, run: Path, runs: int) -> None:
    """Copies of a record under names and accuracies of their own."""
    record = json.loads((run / "record.json").read_text(encoding="utf-8"))
    for number in range(runs):
        record["recipe"]["name"] = f"copy {number:03d}"
        record["metrics"]["test"]["accuracy"] = number / runs
        place = folder / f"run-{number:03d}"
        place.mkdir()
        (place / "record.json").write_text(json.dumps(record), encoding="utf-8")


def started(folder: Path) -> tuple[subprocess.Popen[bytes], float]:
    """The server, and the seconds until it answers."""
    began = time.perf_counter()
    command = [sys.executable, "-m", "pennyweight", "ui", str(folder), "--port", str(PORT)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    while True:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{PORT}/", timeout=1).read()
            return server, time.perf_counter() - began
        except OSError:
            time.sleep(0.02)


def measure(page: Any, runs: int) -> dict[str, float]:
    """Seconds until all rows are shown, until they are sorted anew, and until a run is open."""
    began = time.perf_counter()
    page.goto(f"http://127.0.0.1:{PORT}/")
    rows = page.locator("#runs tbody tr")
    expect(rows).to_have_count(runs, timeout=30_000)
    shown = time.perf_counter()
    page.click("button[data-key=accuracy]")
    expect(rows.first).to_contain_text(f"copy {runs - 1:03d}")
    ordered = time.perf_counter()
    rows.first.click()
    page.wait_for_selector("#detail svg")
    opened = time.perf_counter()
    return {"shown": shown - began, "sorted": ordered - shown, "opened": opened - ordered}


def main() -> None:
    """Serve, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--runs", type=int, default=500)
    options = parser.parse_args()
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    with tempfile.TemporaryDirectory() as name:
        fill(Path(name), options.run, options.runs)
        server, start = started(Path(name))
        try:
            with sync_playwright() as play:
                browser = play.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
                found = [measure(browser.new_page(), options.runs) for _ in range(5)]
                browser.close()
        finally:
            server.terminate()
    medians = {key: round(statistics.median(one[key] for one in found), 3) for key in found[0]}
    print(json.dumps({"runs": options.runs, "server_starts": round(start, 2), **medians}))


if __name__ == "__main__":
    main()
