"""Measure how the time and memory of preparing training rows grow with their number.

Each stage, from reading a CSV to drawing the batches of an epoch, runs in a process of its own, on
synthetic rows: of twenty, one is an exact copy of an earlier row and one a near copy. The script
prints one JSON object: for each stage and number of rows the processor seconds and the peak of
the memory that the process itself allocates, above that of the imports; and over these numbers of
rows the exponents of both, the bytes for each row, and what they say about more rows. Pages of
memory-mapped files do not count as memory, because the system drops them when it needs the room.

    python benchmarks/growth.py --rows 1000000 3000000 10000000 --out growth.json

Above 1,048,576 rows, stages work in blocks of this size. With `--block-rows`, they do so for fewer
rows, which shows in minutes how they grow.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from lab_memory import write_rows
from pennyweight.data.scale import MANY_ROWS
from pennyweight.environment import describe_environment

_LABELS = ("World", "Sports", "Business", "Sci/Tech")
_TEST_ROWS = 2_000
_BATCH_ROWS = 64
_MEBIBYTE = 2**20
_SAMPLES_PER_SECOND = 200
# Numbers of rows that the result is extrapolated to.
_MORE_ROWS = (10_000_000, 100_000_000)


def own_bytes() -> int:
    """Return the memory that this process has allocated, without pages of mapped files."""
    memory = psutil.Process().memory_info()
    return int(memory.rss - getattr(memory, "shared", 0))


@contextmanager
def peak_bytes() -> Iterator[list[int]]:
    """Watch the memory of this process, and leave its peak as the only element of the list."""
    peak = [own_bytes()]
    is_over = threading.Event()

    def watch() -> None:
        while not is_over.wait(1 / _SAMPLES_PER_SECOND):
            peak[0] = max(peak[0], own_bytes())

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        is_over.set()
        thread.join()


def _subset(folder: Path, name: str = "train") -> Any:
    """Return the rows of a set, which the stage "ingest" has left in the cache."""
    from pennyweight.data.ingest import ReadOptions, read_rows
    from pennyweight.data.source import Source
    from pennyweight.data.subset import Subset

    options = ReadOptions(labels=_LABELS, clean=(), on_bad_row="stop", cache=folder / "cache")
    rows = read_rows(name, Source(str(folder / f"{name}.csv")), options)
    return Subset(rows, rows.table)


def _ingest(folder: Path) -> Callable[[], object]:
    return lambda: (_subset(folder), _subset(folder, "test"))


def _infer(folder: Path) -> Callable[[], object]:
    from pennyweight.data.infer import infer
    from pennyweight.data.source import Source

    return lambda: infer(Source(str(folder / "train.csv")))


def _split(folder: Path) -> Callable[[], object]:
    from pennyweight.data import splits

    train = _subset(folder)
    options = splits.SplitOptions(validation_fraction=0.05, train_rows=None, seed=0)
    method = options.method_for(len(train.table))
    divide = splits._split_by_hash if method == "hash" else splits._split_stratified

    def split() -> object:
        kept, validation, _ = divide(train, labels=_LABELS, options=options)
        return kept.facts(), validation.facts()

    return split


def _overlap(folder: Path) -> Callable[[], object]:
    from pennyweight.data.compare import find_overlaps

    train, test = _subset(folder), _subset(folder, "test")
    rows = np.arange(len(train.table))
    sets = {
        "train": train.select(rows[rows % 20 != 0]),
        "validation": train.select(rows[rows % 20 == 0]),
        "test": test,
    }
    return lambda: find_overlaps(sets, ["test"], 0.8, folder / "found")


def _conflicts(folder: Path) -> Callable[[], object]:
    from pennyweight.data.compare import find_conflicts

    table = _subset(folder).table
    return lambda: find_conflicts(table)


def _filter(method: str, **options: object) -> Callable[[Path], Callable[[], object]]:
    def prepare(folder: Path) -> Callable[[], object]:
        from pennyweight.lab.filters import keep_rows

        table = _subset(folder).table
        labels = np.asarray(table.with_format("numpy")["label"][:])
        return lambda: keep_rows(table["text"], labels, method=method, seed=0, options=options)

    return prepare


def _tokens(folder: Path) -> Callable[[], Any]:
    from pennyweight.base.locate import locate
    from pennyweight.engine.batches.tokenize import tokenize
    from pennyweight.model.build import load_tokenizer

    train = _subset(folder)
    tokenizer = load_tokenizer(locate("embedded", labels=_LABELS), tokenizer=None)
    return lambda: tokenize(
        train.table,
        fingerprint=train.rows.fingerprint,
        tokenizer=tokenizer,
        max_tokens=64,
        cache=folder / "tokens",
    )


def _epoch(folder: Path) -> Callable[[], object]:
    from pennyweight.engine.batches.order import epoch_batches
    from pennyweight.engine.batches.rows import collate

    rows = _tokens(folder)()
    options: Any = {"batch_rows": _BATCH_ROWS, "order": "grouped", "seed": 0, "epoch": 0}

    def read() -> None:
        for batch in epoch_batches(rows.lengths, **options):
            collate(rows, batch)

    return read


def _tfidf(folder: Path) -> Callable[[], object]:
    from pennyweight.engine.linear import LinearOptions, fit_tfidf
    from pennyweight.inference.texts import texts_of

    table = _subset(folder).table
    labels = np.asarray(table.with_format("numpy")["label"][:])
    return lambda: fit_tfidf(texts_of(table), labels, LinearOptions(classes=4, seed=0))


# A stage loads what it needs, and returns the function that is measured.
_STAGES: dict[str, Callable[[Path], Callable[[], object]]] = {
    "ingest": _ingest,
    "infer": _infer,
    "split": _split,
    "overlap": _overlap,
    "conflicts": _conflicts,
    "duplicates": _filter("duplicates"),
    "near-duplicates": _filter("near-duplicates", similarity=0.8),
    "tokenize": _tokens,
    "epoch": _epoch,
    "tf-idf": _tfidf,
}


def measure(stage: str, folder: Path, block_rows: int | None) -> dict[str, float]:
    """Run a stage in this process, which should be a new one, and return the measurements."""
    from pennyweight.data import scale

    os.environ["HF_DATASETS_DISABLE_PROGRESS_BARS"] = "1"
    os.environ["PENNYWEIGHT_CACHE"] = str(folder / "cache")
    # Before the modules that use it are imported.
    scale.MANY_ROWS = block_rows or scale.MANY_ROWS
    run = _STAGES[stage](folder)
    baseline = own_bytes()
    started = time.process_time()
    with peak_bytes() as peak:
        run()
    return {
        "seconds": round(time.process_time() - started, 2),
        "mebibytes": round((peak[0] - baseline) / _MEBIBYTE, 1),
    }


def run_stages(
    rows: int, stages: Sequence[str], folder: Path, block_rows: int | None
) -> dict[str, dict[str, float]]:
    """Write rows and measure every stage in a new process."""
    write_rows(folder / "train.csv", rows=rows, seed=0)
    write_rows(folder / "test.csv", rows=_TEST_ROWS, seed=0)
    results = {}
    for stage in dict.fromkeys(("ingest", *stages)):
        command = [sys.executable, __file__, "--measure", stage, str(folder)]
        command += [] if block_rows is None else ["--block-rows", str(block_rows)]
        measured = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        results[stage] = json.loads(measured.stdout.splitlines()[-1])
        print(f"{rows:,} rows, {stage}: {results[stage]}", file=sys.stderr)
    return results


def summarize(measured: dict[int, dict[str, dict[str, float]]]) -> dict[str, dict[str, float]]:
    """Return for each stage the exponents, the bytes for each row, and what they say of more."""
    rows = np.array(sorted(measured), dtype=float)
    summary = {}
    for stage in measured[int(rows[0])]:
        seconds = np.array([measured[int(each)][stage]["seconds"] for each in rows])
        memory = np.array([measured[int(each)][stage]["mebibytes"] for each in rows])
        time_exponent, _ = _line(np.log(rows), np.log(np.maximum(seconds, 0.01)))
        memory_exponent, _ = _line(np.log(rows), np.log(np.maximum(memory, 0.1)))
        per_row, constant = _line(rows, memory * _MEBIBYTE)
        summary[stage] = {
            "time_exponent": round(time_exponent, 2),
            "memory_exponent": round(memory_exponent, 2),
            "bytes_per_row": round(per_row, 1),
            **{
                f"hours_for_{more}": round(
                    seconds[-1] * (more / rows[-1]) ** max(1.0, time_exponent) / 3600, 2
                )
                for more in _MORE_ROWS
            },
            **{
                f"gibibytes_for_{more}": round((constant + per_row * more) / 2**30, 2)
                for more in _MORE_ROWS
            },
        }
    return summary


def _line(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Return slope and intercept of the line through some points."""
    if len(x) == 1:
        return 0.0, float(y[0])
    slope, intercept = np.polyfit(x, y, 1)
    return float(slope), float(intercept)


def main() -> None:
    """Measure the stages for each number of rows, and print and write the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[30_000, 100_000, 300_000])
    parser.add_argument("--stages", nargs="+", choices=list(_STAGES), default=list(_STAGES))
    parser.add_argument("--out", type=Path, help="write the result to this JSON file too")
    parser.add_argument("--block-rows", type=int, help="work in blocks above this many rows")
    parser.add_argument("--folder", type=Path, help="where rows and caches are written; deleted")
    parser.add_argument("--measure", nargs=2, metavar=("STAGE", "FOLDER"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        stage, folder = arguments.measure
        print(json.dumps(measure(stage, Path(folder), arguments.block_rows)))
        return
    if arguments.folder is not None:
        arguments.folder.mkdir(parents=True, exist_ok=True)
    measured = {}
    for rows in arguments.rows:
        with tempfile.TemporaryDirectory(prefix="growth-", dir=arguments.folder) as folder:
            measured[rows] = run_stages(rows, arguments.stages, Path(folder), arguments.block_rows)
    result = {
        "machine": f"{describe_environment()['processor']}, {psutil.cpu_count()} CPUs",
        "block_rows": arguments.block_rows or MANY_ROWS,
        "measured": {str(rows): stages for rows, stages in measured.items()},
        "summary": summarize(measured),
    }
    text = json.dumps(result, indent=2)
    print(text)
    if arguments.out is not None:
        arguments.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
