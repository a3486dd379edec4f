"""Measure how much is lost where the stated class shares of a target are wrong.

    python benchmarks/wrong_shares.py RUN --out FILE --sets bbc=bbc.csv shifted=sample:shifted

RUN is a finished run without a correction, and each set a labelled file, which plays the target.
Its true class shares are moved by 5, 10 and 20 points from one class to another, for every pair of
classes that allows it, and predictions are corrected for the wrong shares. Accuracies are means
over the pairs, in percent. Labels are used for the true shares and to measure.
"""

from __future__ import annotations

import argparse
import itertools
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from pennyweight.data.ingest import read_rows
from pennyweight.data.source import Source
from pennyweight.evaluation.shift import match_shares
from pennyweight.inference.classifier import Classifier

METHODS: dict[str, dict[str, float]] = {
    "entropy 1": {},
    "entropy 0.1": {"entropy": 0.1},
    "entropy 0": {"entropy": 0.0},
    "entropy 1, slack 0.5": {"slack": 0.5},
    "entropy 1, slack 2": {"slack": 2.0},
}
POINTS = (0, 5, 10, 20)


def wrong(shares: np.ndarray, points: int) -> Iterator[np.ndarray]:
    """Yield the shares with so many points moved between two classes, for every pair."""
    if points == 0:
        yield shares
        return
    for one, other in itertools.permutations(range(len(shares)), 2):
        if shares[one] > points / 100:
            moved = shares.copy()
            moved[one] -= points / 100
            moved[other] += points / 100
            yield moved


def measure(logits: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """Return the accuracy of every method at every error of the shares."""
    shares = np.bincount(labels, minlength=logits.shape[1]) / len(labels)

    def accuracy(stated: np.ndarray, options: dict[str, float]) -> float:
        corrected = logits + match_shares(logits, stated, **options)
        return 100.0 * float((corrected.argmax(axis=1) == labels).mean())

    return {
        "rows": len(labels),
        "uncorrected": round(100.0 * float((logits.argmax(axis=1) == labels).mean()), 2),
        "methods": {
            method: {
                str(points): round(
                    float(np.mean([accuracy(stated, options) for stated in wrong(shares, points)])),
                    2,
                )
                for points in POINTS
            }
            for method, options in METHODS.items()
        },
    }


def main() -> None:
    """Write the results of all sets."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("run", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--sets", nargs="+", required=True, metavar="NAME=FILE")
    arguments = parser.parse_args()
    classifier = Classifier.load(arguments.run)
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        options = classifier.read_options(bad_rows=Path(folder), on_bad_row="stop")
        for entry in arguments.sets:
            name, _, location = entry.partition("=")
            rows = read_rows(name, Source(location), options)
            labels = np.asarray(rows.table["label"][:])
            results[name] = measure(classifier.outputs(rows.table).logits.astype(float), labels)
            print(name, json.dumps(results[name], indent=1), flush=True)
    arguments.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
