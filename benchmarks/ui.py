"""Measure how quickly the run page shows 500 runs and opens one, in headless Chromium.

    python benchmarks/ui.py RUN [--runs 500]

Copies the record of a finished run, serves the folder with `pennyweight ui`, and prints JSON:
medians of five measurements, in seconds. Needs playwright and Chromium.
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

from pennyweight.runs.record import load_record

PORT = 8765
ADDRESS = f"http://127.0.0.1:{PORT}/"


def write_runs(folder: Path, run: Path, runs: int) -> None:
    """Write copies of a run's record, each with its own name and accuracy."""
    values = load_record(run).model_dump(mode="json")
    for number in range(runs):
        values["recipe"]["name"] = f"copy {number:03d}"
        values["metrics"]["test"]["accuracy"] = number / runs
        copy = folder / f"run-{number:03d}"
        copy.mkdir()
        (copy / "record.json").write_text(json.dumps(values), encoding="utf-8")


def start_server(folder: Path) -> tuple[subprocess.Popen[bytes], float]:
    """Return the server's process, and the seconds until it answered."""
    start = time.perf_counter()
    command = [sys.executable, "-m", "pennyweight", "ui", str(folder), "--port", str(PORT)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    while True:
        if server.poll() is not None:
            sys.exit(f"the server ended with exit code {server.returncode}")
        try:
            urllib.request.urlopen(ADDRESS, timeout=1).read()
            return server, time.perf_counter() - start
        except OSError:
            time.sleep(0.02)


def measure(page: Any, runs: int) -> dict[str, float]:
    """Return the seconds until all rows are shown, sorted anew, and one run is opened."""
    start = time.perf_counter()
    page.goto(ADDRESS)
    rows = page.locator("#runs tbody tr")
    expect(rows).to_have_count(runs, timeout=30_000)
    shown = time.perf_counter()
    page.click("button[data-key=accuracy]")
    expect(rows.first).to_contain_text(f"copy {runs - 1:03d}")
    ordered = time.perf_counter()
    rows.first.click()
    page.wait_for_selector("#detail svg")
    opened = time.perf_counter()
    return {"shown": shown - start, "sorted": ordered - shown, "opened": opened - ordered}


def main() -> None:
    """Serve, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--runs", type=int, default=500)
    options = parser.parse_args()
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    with tempfile.TemporaryDirectory() as name:
        write_runs(Path(name), options.run, options.runs)
        server, seconds = start_server(Path(name))
        try:
            with sync_playwright() as play:
                browser = play.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
                results = [measure(browser.new_page(), options.runs) for _ in range(5)]
                browser.close()
        finally:
            server.terminate()
    medians = {
        key: round(statistics.median(result[key] for result in results), 3) for key in results[0]
    }
    print(json.dumps({"runs": options.runs, "server_start": round(seconds, 2), **medians}))


if __name__ == "__main__":
    main()
