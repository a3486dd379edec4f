"""Time logistic regressions with BLAS in one thread, as Pennyweight fits them, and in all threads.

    python benchmarks/blas_threads.py [--busy N] [--rounds 3]

--busy starts N programs that compute all the time. Both ways take turns on the same random
features. Medians in seconds are printed as a table in Markdown. OMP_NUM_THREADS must not be set.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import time
from collections.abc import Callable

import numpy as np

from pennyweight.engine.linear import LinearOptions, fit_logistic

# Rows, classes, and whether a row has any number of labels; with the width of the embedded base.
CASES = ((4_000, 4, False), (9_000, 77, False), (20_000, 8, True))
WIDTH = 384
# `fit_logistic` without its decorator, which limits the threads.
IN_ALL_THREADS = fit_logistic.__wrapped__  # type: ignore[attr-defined]


def spin() -> None:
    """Compute until the process is ended."""
    while True:
        pass


def data(rows: int, classes: int, *, several: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return random features and labels that depend on them."""
    random = np.random.default_rng(0)
    features = random.normal(size=(rows, WIDTH)).astype(np.float32)
    scores = features @ random.normal(size=(WIDTH, classes)) + 3 * random.normal(
        size=(rows, classes)
    )
    return features, (scores > WIDTH**0.5).astype(int) if several else scores.argmax(axis=1)


def seconds(fit: Callable[..., object], *inputs: object) -> float:
    """Return how long a fit takes."""
    started = time.perf_counter()
    fit(*inputs)
    return time.perf_counter() - started


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--busy", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    busy = [multiprocessing.Process(target=spin, daemon=True) for _ in range(options.busy)]
    for process in busy:
        process.start()
    fit_logistic(*data(200, 3, several=False), LinearOptions(classes=3, seed=0))
    print("| Rows | Classes | All threads | One | Ratio |\n|---|---|---|---|---|")
    for rows, classes, several in CASES:
        inputs = (*data(rows, classes, several=several), LinearOptions(classes=classes, seed=0))
        times: dict[str, list[float]] = {"all": [], "one": []}
        for _ in range(options.rounds):
            times["all"].append(seconds(IN_ALL_THREADS, *inputs))
            times["one"].append(seconds(fit_logistic, *inputs))
        slow, fast = (statistics.median(values) for values in times.values())
        print(f"| {rows:,} | {classes} | {slow:.2f} | {fast:.2f} | {slow / fast:.1f} |", flush=True)
    for process in busy:
        process.terminate()


if __name__ == "__main__":
    main()
