"""Measure how long `Classifier.predict` takes for one text and for 32.

    python benchmarks/latency.py runs/demo [--calls 200] [--out results/latency.json]

A single text is compared with the bare merged model, as transformers loads it: in float32, called
with what its tokenizer returns. Both sides include the tokenizer; `Classifier.predict` also cleans
the text, and turns the logits into a calibrated label. Calls take turns, so that other work on the
machine slows both down alike; processor time counts this process only, and is what to compare on a
machine that is not idle. The texts are those of the bundled test set.

For 32 texts, the median of several calls is given, after two calls that are not counted.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

import pennyweight
from pennyweight.environment import describe_environment
from serve import bare_forward, read_texts

OUT = Path(__file__).parent / "results" / "latency.json"
_MANY, _CALLS = 32, 10
_CLOCKS = {"wall": time.perf_counter, "processor": time.process_time}
_WARM_UP = 10


def main() -> None:
    """Measure, print and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", help="directory of a complete run")
    parser.add_argument("--calls", type=int, default=200, help="calls with a single text")
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    classifier = pennyweight.Classifier.load(options.run)
    texts = read_texts(classifier.labels)
    with tempfile.TemporaryDirectory() as folder:
        merged = str(Path(folder) / "merged")
        classifier.merge(merged)
        single = compare(classifier, bare_forward(merged), texts, calls=options.calls)
    results = {
        "machine": describe_environment()["processor"],
        "threads": torch.get_num_threads(),
        "precision": {"predict": classifier.precision, "bare model": "fp32"},
        "one text": single,
        f"{_MANY} texts": {
            f"{name}_p50_ms": median(classifier, texts, clock) for name, clock in _CLOCKS.items()
        },
    }
    options.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(results, indent=1))


def compare(
    classifier: Any, bare: Callable[[str], Any], texts: list[str], *, calls: int
) -> dict[str, Any]:
    """Return the durations of both for one text, in turn, and their ratios."""
    sides: dict[str, Callable[[str], Any]] = {"predict": classifier.predict, "bare model": bare}
    durations: dict[tuple[str, str], list[float]] = {(c, s): [] for c in _CLOCKS for s in sides}
    for call in range(calls + _WARM_UP):
        text = texts[call % len(texts)]
        for side, run in sides.items():
            began = {name: clock() for name, clock in _CLOCKS.items()}
            run(text)
            for name, clock in _CLOCKS.items():
                durations[name, side].append(clock() - began[name])
    results: dict[str, Any] = {"calls": calls}
    for name in _CLOCKS:
        ours, theirs = (durations[name, side][_WARM_UP:] for side in sides)
        results[name] = {
            "predict_p50_ms": percentile(ours, 50),
            "predict_p99_ms": percentile(ours, 99),
            "bare_model_p50_ms": percentile(theirs, 50),
            "bare_model_p99_ms": percentile(theirs, 99),
            "p50_ratio": round(percentile(ours, 50) / percentile(theirs, 50), 2),
            "p99_ratio": round(percentile(ours, 99) / percentile(theirs, 99), 2),
        }
    return results


def percentile(durations: list[float], percent: float) -> float:
    """Return a percentile in milliseconds."""
    return round(1000 * float(np.percentile(durations, percent)), 2)


def median(classifier: Any, texts: list[str], clock: Callable[[], float]) -> float:
    """Return the median duration for many texts, in milliseconds."""
    durations = []
    for call in range(_CALLS + 2):
        began = clock()
        classifier.predict(texts[call : call + _MANY])
        durations.append(clock() - began)
    return round(1000 * statistics.median(durations[2:]), 1)


if __name__ == "__main__":
    main()
