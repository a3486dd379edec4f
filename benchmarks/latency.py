"""Measure how long `Classifier.predict` takes for 1, 32 and 1,000 texts.

    python benchmarks/latency.py runs/demo

Prints the median of several calls, in milliseconds, after two calls that are not counted. The texts
are those of the bundled test set.
"""

from __future__ import annotations

import argparse
import statistics
import time

import pennyweight
from pennyweight.data.ingest import ReadOptions, read_rows
from pennyweight.data.source import Source
from pennyweight.environment import cache_directory

CALLS = {1: 30, 32: 10, 1000: 3}


def main() -> None:
    """Print one line per number of texts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", help="directory of a complete run")
    classifier = pennyweight.Classifier.load(parser.parse_args().run)
    options = ReadOptions(classifier.labels, (), "stop", cache_directory() / "rows")
    rows = read_rows("texts", Source("sample:test"), options, labelled=False)
    texts = (rows.table["text"][:] * 3)[: max(CALLS)]
    for count, calls in CALLS.items():
        durations = []
        for call in range(calls + 2):
            start = call % (len(texts) - count + 1)
            began = time.perf_counter()
            classifier.predict(texts[start : start + count])
            durations.append(time.perf_counter() - began)
        print(f"{count} texts: {statistics.median(durations[2:]) * 1e3:.1f} ms")


if __name__ == "__main__":
    main()
