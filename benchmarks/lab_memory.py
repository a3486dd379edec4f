"""Measure the memory and time of cleaning and de-duplicating many rows.

This load test writes a CSV of synthetic rows, whose words a seeded generator draws. One row in
twenty is an exact copy of an earlier row, one in twenty a near copy, and one in ten has HTML
entities and tags. A new process reads, cleans and de-duplicates the rows, and prints one JSON
object: counts, seconds, and peak resident memory. The files are deleted afterwards.

    python benchmarks/lab_memory.py --rows 1000000
"""

from __future__ import annotations

import random
import time
from pathlib import Path

from ingest_memory import resident_bytes, run

_LABELS = ("World", "Sports", "Business", "Sci/Tech")
_VOCABULARY = 20_000
_STEPS = ("html-entities", "html-tags", "backslashes", "urls", "agency-prefix", "whitespace")
# Copies are drawn from this many of the first rows.
_COPIED_ROWS = 50_000
_MEBIBYTE = 2**20


def write_rows(path: Path, *, rows: int, seed: int) -> None:
    """Write rows of 25 to 45 words, some of them copies of an earlier row."""
    generator = random.Random(seed)  # noqa: S311 - a load test, no secret
    originals: list[str] = []
    with path.open("w", encoding="utf-8", newline="") as file:
        file.write("label,text\n")
        for number in range(rows):
            kind = generator.random()
            if originals and kind < 0.05:
                text = generator.choice(originals)
            elif originals and kind < 0.1:
                text = f"{generator.choice(originals)} today"
            else:
                length = generator.randint(25, 45)
                text = " ".join(f"w{generator.randrange(_VOCABULARY)}" for _ in range(length))
                if number % 10 == 0:
                    text += " &lt;b&gt;it#39;s&lt;/b&gt; http://www.example.org/page"
                if len(originals) < _COPIED_ROWS:
                    originals.append(text)
            file.write(f"{_LABELS[number % 4]},{text}\n")


def measure(path: Path, cache: Path) -> dict[str, float]:
    """Clean and de-duplicate in this process, which should be a new one."""
    import numpy as np

    from pennyweight.data.ingest import ReadOptions, read_rows
    from pennyweight.data.source import Source
    from pennyweight.lab.filters import keep_rows

    baseline = resident_bytes()
    started = time.perf_counter()
    rows = read_rows("rows", Source(str(path)), ReadOptions(_LABELS, _STEPS, "stop", cache)).table
    cleaned = time.perf_counter()
    labels = np.asarray(rows.with_format("numpy")["label"][:])
    exact = keep_rows(rows["text"], labels, method="duplicates", seed=0, options={})
    rows, labels = rows.select(np.flatnonzero(exact)), labels[exact]
    deduplicated = time.perf_counter()
    near = keep_rows(
        rows["text"], labels, method="near-duplicates", seed=0, options={"similarity": 0.8}
    )
    ended = time.perf_counter()
    return {
        "rows": len(exact),
        "exact_duplicates": int((~exact).sum()),
        "near_duplicates": int((~near).sum()),
        "cleaning_seconds": round(cleaned - started, 1),
        "duplicates_seconds": round(deduplicated - cleaned, 1),
        "near_duplicates_seconds": round(ended - deduplicated, 1),
        "rows_per_second": round(len(exact) / (ended - started)),
        "baseline_mebibytes": round(baseline / _MEBIBYTE, 1),
        "peak_mebibytes": round(resident_bytes() / _MEBIBYTE, 1),
    }


if __name__ == "__main__":
    run(write_rows, measure, title=__doc__.splitlines()[0])
