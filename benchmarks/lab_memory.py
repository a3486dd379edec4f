"""How much memory and time cleaning and de-duplicating many rows takes.

Writes a CSV of made-up rows (words drawn by a seeded generator; one in twenty is an exact copy of
an earlier row, one in twenty a near one, every tenth holds entities and tags), and in a fresh
process cleans, ingests and de-duplicates it. Prints one JSON object with what was found.

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
_MEBIBYTE = 2**20


def write_rows(path: Path, *, rows: int, seed: int) -> None:
    """Write rows of 25 to 45 words, some of them copies of an earlier row."""
    draw = random.Random(seed)  # noqa: S311 - a load test, no secret
    kept: list[str] = []
    with path.open("w", encoding="utf-8", newline="") as file:
        file.write("label,text\n")
        for number in range(rows):
            kind = draw.random()
            if kept and kind < 0.05:
                text = draw.choice(kept)
            elif kept and kind < 0.1:
                text = f"{draw.choice(kept)} today"
            else:
                words = [f"w{draw.randrange(_VOCABULARY)}" for _ in range(draw.randint(25, 45))]
                text = " ".join(words)
                if number % 10 == 0:
                    text += " &lt;b&gt;it#39;s&lt;/b&gt; http://www.example.org/page"
                if len(kept) < 50_000:
                    kept.append(text)
            file.write(f"{_LABELS[number % 4]},{text}\n")


def measure(path: Path, cache: Path) -> dict[str, float]:
    """Clean and de-duplicate in this process, which should be a fresh one."""
    import numpy as np

    from pennyweight.data.clean import cleaner
    from pennyweight.data.ingest import Source, ingest
    from pennyweight.lab.filters import keep_rows

    baseline = resident_bytes()
    started = time.perf_counter()
    rows = ingest(
        Source(str(path)),
        labels=_LABELS,
        cache=cache,
        clean=cleaner(_STEPS),
        clean_key="+".join(_STEPS),
    ).table
    cleaned = time.perf_counter()
    labels = np.asarray(rows.with_format("numpy")["label"][:])
    exact = keep_rows(rows["text"], labels, method="duplicates", seed=0, options={})
    rows, labels = rows.select(np.flatnonzero(exact)), labels[exact]
    single = time.perf_counter()
    near = keep_rows(
        rows["text"], labels, method="near-duplicates", seed=0, options={"similarity": 0.8}
    )
    ended = time.perf_counter()
    return {
        "rows": len(exact),
        "exact_duplicates": int((~exact).sum()),
        "near_duplicates": int((~near).sum()),
        "cleaning_seconds": round(cleaned - started, 1),
        "duplicates_seconds": round(single - cleaned, 1),
        "near_duplicates_seconds": round(ended - single, 1),
        "rows_per_second": round(len(exact) / (ended - started)),
        "baseline_mebibytes": round(baseline / _MEBIBYTE, 1),
        "peak_mebibytes": round(resident_bytes() / _MEBIBYTE, 1),
    }


if __name__ == "__main__":
    run(write_rows, measure, title=__doc__.splitlines()[0])
