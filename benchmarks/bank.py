r"""Measure memory and throughput of 32 classifiers in one `ClassifierBank`.

    python benchmarks/bank.py --runs build/bank --out benchmarks/results/bank-PROCESSOR.json

First trains 32 runs on the embedded base for two steps each, unless they are in the folder already.
They differ in rank, targets, head, pooling and number of classes; what they have learned plays no
part. Then measures

- by how much the memory of the process grows when 30 of them are loaded beside the first two,
  against the bytes of their adapters;
- how many rows a second the bank classifies if the classifiers of the rows take turns, against one
  classifier of the bank for all of the same rows, and against `Classifier` with a merged model.

The rows are those of the bundled sample. All kinds of batches take turns in one process; the rates
are medians of three. Rates are given by the clock and by the time of the processor, which other
programs on the same cores do not disturb; the ratio is that of the latter.
"""

from __future__ import annotations

import argparse
import csv
import ctypes
import gc
import json
import multiprocessing
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch

import pennyweight
from pennyweight.data.ingest import ReadOptions, read_rows
from pennyweight.data.source import Source
from pennyweight.environment import cache_directory, describe_environment
from pennyweight.recipe import resolve_recipe

COUNT = 32
ROWS = 512
REPEATS = 3
RANKS = (2, 4, 8, 16)
CLASSES = (2, 4, 7, 20)
TARGETS = (["query", "value"], ["*"])
# Head and pooling.
HEADS: tuple[tuple[dict[str, Any], str], ...] = (
    ({"head": "full"}, "mean"),
    ({"head": "low-rank", "head_rank": 1}, "mean"),
    ({"head": "low-rank", "head_rank": 4}, "native"),
    ({"head": "output-only"}, "native"),
)


def sample_texts() -> list[str]:
    """Return the texts of the bundled training set."""
    options = ReadOptions(("World", "Sports", "Business", "Sci/Tech"), (), "stop", _cache())
    texts: list[str] = read_rows("texts", Source("sample:train"), options).table["text"][:]
    return texts


def _cache() -> Path:
    return cache_directory() / "rows"


def settings_of(number: int) -> dict[str, Any]:
    """Return the adapter, the pooling and the number of classes of a run."""
    # Every rank occurs with every head, and the other two change with both.
    rank, head = number % 4, number // 4 % 4
    section, pooling = HEADS[head]
    return {
        "adapter": {
            "rank": RANKS[rank],
            "alpha": 2.0 * RANKS[rank],
            "targets": TARGETS[number // 16],
            **section,
        },
        "pooling": pooling,
        "classes": CLASSES[(rank + head) % 4],
    }


def train_all(folder: Path) -> None:
    """Train the runs that are missing."""
    texts = sample_texts()[:80]
    for number in range(COUNT):
        out = folder / f"run-{number:02}"
        if (out / "record.json").is_file():
            continue
        changes = settings_of(number)
        labels = [f"class {label}" for label in range(changes["classes"])]
        rows = [(labels[place % len(labels)], text) for place, text in enumerate(texts)]
        folder.mkdir(parents=True, exist_ok=True)
        for name, part in (("train", rows[:60]), ("validation", rows[60:])):
            with (folder / f"{name}.csv").open("w", encoding="utf-8", newline="") as file:
                csv.writer(file).writerows([("label", "text"), *part])
        recipe = resolve_recipe(
            {
                "seed": number,
                "base": {"name": "embedded", "pooling": changes["pooling"]},
                "data": {
                    "train": str(folder / "train.csv"),
                    "validation": str(folder / "validation.csv"),
                    "labels": labels,
                },
                "adapter": changes["adapter"],
                "train": {"max_steps": 2, "batch_rows": 16, "trackers": []},
            }
        )
        pennyweight.train(recipe, out=out)
        print(out, flush=True)


def resident_bytes() -> int:
    """Return the memory of this process, without what it could reuse (Linux with glibc)."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return int(psutil.Process().memory_info().rss)


def measure_memory(
    bank: pennyweight.ClassifierBank, runs: list[Path], texts: list[str]
) -> dict[str, Any]:
    """Load all runs, and return the growth from the second on."""
    names = [run.name for run in runs]
    # Two runs of each pooling first, so that what they load once is not counted as theirs.
    for run in (runs[0], runs[-1]):
        bank.load(run)
    bank.predict_probabilities(texts, [names[0], names[-1]] * (len(texts) // 2))
    before = resident_bytes()
    others = [bank.load(run) for run in runs[1:-1]]
    bank.predict_probabilities(texts, [names[row % COUNT] for row in range(len(texts))])
    growth, size = resident_bytes() - before, sum(info.bytes for info in others)
    return {
        "adapters": len(others),
        "adapter_bytes": size,
        "growth_bytes": growth,
        "growth_by_bytes": round(growth / size, 2),
        "resident_bytes": before + growth,
    }


def measure_rates(calls: dict[str, Callable[[], object]], rows: int) -> dict[str, dict[str, float]]:
    """Return the median rows per second of each call, by either clock; the calls take turns."""
    clocks = {"clock": time.perf_counter, "processor": time.process_time}
    rates = {name: {clock: list[float]() for clock in clocks} for name in calls}
    for repeat in range(REPEATS + 1):
        for name, call in calls.items():
            began = {clock: read() for clock, read in clocks.items()}
            call()
            for clock, read in clocks.items():
                if repeat:  # the first round warms up
                    rates[name][clock].append(rows / (read() - began[clock]))
    return {
        name: {clock: round(statistics.median(values), 1) for clock, values in by_clock.items()}
        for name, by_clock in rates.items()
    }


def main() -> None:
    """Train, measure, print and save."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=Path, required=True, help="folder of the 32 runs")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    # In another process, so that training leaves nothing in the memory that is measured.
    training = multiprocessing.get_context("spawn").Process(target=train_all, args=(options.runs,))
    training.start()
    training.join()
    if training.exitcode:
        raise SystemExit(f"training failed with exit code {training.exitcode}")
    runs = [options.runs / f"run-{number:02}" for number in range(COUNT)]
    texts = (sample_texts() * 2)[:ROWS]
    bank = pennyweight.ClassifierBank()
    memory = measure_memory(bank, runs, texts)
    print(json.dumps(memory), flush=True)
    names = [run.name for run in runs]
    sizes = {info.name: info.trainable_parameters for info in bank.classifiers}
    single = {
        f"one of the bank, {place}": choose(names, key=sizes.__getitem__)
        for place, choose in (("smallest", min), ("largest", max))
    }
    alone = pennyweight.Classifier.load(options.runs / single["one of the bank, smallest"])
    mixed = [names[row % COUNT] for row in range(len(texts))]
    calls: dict[str, Callable[[], object]] = {
        "mixed": lambda: bank.predict_probabilities(texts, mixed),
        **{
            title: lambda name=name: bank.predict_probabilities(texts, [name] * len(texts))
            for title, name in single.items()
        },
        "Classifier, merged": lambda: alone.predict_probabilities(texts),
    }
    rates = measure_rates(calls, len(texts))
    by_processor = {title: rate["processor"] for title, rate in rates.items()}
    mixed_rate = by_processor.pop("mixed")
    result = {
        "environment": describe_environment(),
        "threads": torch.get_num_threads(),
        "rows": len(texts),
        "mean_characters": round(float(np.mean([len(text) for text in texts]))),
        "precision": alone.record.compute.precision if alone.record.compute else None,
        "memory": memory,
        "rows_per_second": rates,
        "mixed_by": {title: round(mixed_rate / rate, 3) for title, rate in by_processor.items()},
    }
    options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps({key: result[key] for key in ("rows_per_second", "mixed_by")}))


if __name__ == "__main__":
    main()
