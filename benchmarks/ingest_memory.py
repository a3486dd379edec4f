"""Measure the memory and time of reading a large CSV.

This load test writes a CSV of synthetic rows, whose words a seeded generator draws from a small
list, and reads it in a new process. It prints one JSON object: seconds, rows per second, and peak
resident memory above that of the imports alone. The files are deleted afterwards.

    python benchmarks/ingest_memory.py --rows 5000000
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

_LABELS = ("World", "Sports", "Business", "Sci/Tech")
_VOCABULARY = (
    "market team study talks price goal chip vote bank match probe rival share coach orbit leader "
    "profit season signal border growth record sensor treaty the a of in on for with after over"
)
_WORDS = tuple(_VOCABULARY.split())
_WORDS_PER_ROW = 40
# Rows are combinations of this many half sentences, because drawing every word is slow.
_HALVES = 2000
_MEBIBYTE = 2**20


def write_rows(path: Path, *, rows: int, seed: int) -> None:
    """Write `rows` rows of label and text, some with quotes, commas and line breaks."""
    generator = random.Random(seed)  # noqa: S311 - a load test, no secret
    halves = [" ".join(generator.choices(_WORDS, k=_WORDS_PER_ROW // 2)) for _ in range(_HALVES)]
    with path.open("w", encoding="utf-8", newline="") as file:
        file.write("label,text\n")
        for number in range(rows):
            text = f"{generator.choice(halves)} {generator.choice(halves)} {number}"
            if number % 50 == 0:
                text = f'"{text}, he said ""so""\nand left"'
            file.write(f"{_LABELS[number % 4]},{text}\n")


def resident_bytes() -> int:
    """Return the peak resident memory of this process so far."""
    # The unit is a kibibyte on Linux, and a byte on macOS.
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def read_and_measure(path: Path, cache: Path) -> dict[str, float]:
    """Read the rows in this process, which should be a new one, and return the measurements."""
    from pennyweight.data.ingest import ReadOptions, read_rows
    from pennyweight.data.source import Source

    baseline = resident_bytes()
    started = time.perf_counter()
    options = ReadOptions(labels=_LABELS, clean=(), on_bad_row="stop", cache=cache)
    rows = read_rows("rows", Source(str(path)), options)
    seconds = time.perf_counter() - started
    peak = resident_bytes()
    return {
        "rows": rows.read,
        "seconds": round(seconds, 2),
        "rows_per_second": round(rows.read / seconds),
        "baseline_mebibytes": round(baseline / _MEBIBYTE, 1),
        "peak_mebibytes": round(peak / _MEBIBYTE, 1),
        "peak_over_baseline_mebibytes": round((peak - baseline) / _MEBIBYTE, 1),
    }


def run(
    write: Callable[..., None], measure: Callable[[Path, Path], dict[str, float]], *, title: str
) -> None:
    """Write a CSV, measure it in a new process of the calling script, and print the result."""
    parser = argparse.ArgumentParser(description=title)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--measure", nargs=2, metavar=("CSV", "CACHE"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure(*map(Path, arguments.measure))))
        return
    with tempfile.TemporaryDirectory(prefix="pennyweight-") as folder:
        path = Path(folder) / "rows.csv"
        write(path, rows=arguments.rows, seed=arguments.seed)
        measured = subprocess.run(
            [sys.executable, sys.argv[0], "--measure", str(path), str(Path(folder) / "cache")],
            check=True,
            capture_output=True,
            text=True,
        )
        report = {"csv_mebibytes": round(path.stat().st_size / _MEBIBYTE, 1)}
        print(json.dumps(report | json.loads(measured.stdout), indent=2))


if __name__ == "__main__":
    run(write_rows, read_and_measure, title=__doc__.splitlines()[0])
