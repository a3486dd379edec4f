"""Measure the default recipe on several data sets and sizes, beside its two baselines.

    python benchmarks/out_of_the_box.py SUITE --out FILE
    python benchmarks/out_of_the_box.py SUITE --out FILE --sets trec6 sst2 --sizes 8 64 --seeds 0 1
    python benchmarks/out_of_the_box.py SUITE --out FILE --development --set train.epochs=4
    python benchmarks/out_of_the_box.py SUITE --out FILE --table

SUITE is a directory with NAME_train.csv and NAME_test.csv for each set. A size is a number of rows
for each class, drawn by the seed, or "full". With --development, a fifth of the training rows
replaces the test set, so that settings can be compared without a look at it. Results are written
after each run; runs that the output has already are skipped. --table prints the results as a table
in Markdown, and runs nothing.
"""

from __future__ import annotations

import argparse
import csv
import json
import platform
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pennyweight.environment import describe_environment
from pennyweight.recipe import load_recipe
from pennyweight.runs.record import RunRecord
from pennyweight.training.train import train
from pennyweight.training.watcher import Watcher

Rows = list[dict[str, str]]
DEVELOPMENT_SHARE = 0.2
# Sets for which macro F1 is the custom; the others are compared by accuracy.
MACRO_F1 = ("goemotions", "tweet_emotion")


def read(path: Path) -> Rows:
    """Return the rows of a CSV file with a header."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def write(path: Path, rows: Rows) -> None:
    """Write rows as CSV with a header."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def labels_of(row: dict[str, str]) -> list[str]:
    """Return the label or labels of a row."""
    return row["labels"].split("|") if "labels" in row else [row["label"]]


def draw(rows: Rows, per_class: int, *, seed: int) -> Rows:
    """Return so many rows of each class; a row with several labels counts for each of them."""
    by_class: dict[str, list[int]] = defaultdict(list)
    for number in np.random.default_rng(seed).permutation(len(rows)):
        for label in labels_of(rows[number]):
            by_class[label].append(int(number))
    drawn = {number for numbers in by_class.values() for number in numbers[:per_class]}
    return [rows[number] for number in sorted(drawn)]


def prepare(arguments: argparse.Namespace, name: str, size: str, seed: int, folder: Path) -> None:
    """Write train.csv and test.csv of one run."""
    rows = read(arguments.suite / f"{name}_train.csv")
    test = None
    if arguments.development:
        order = np.random.default_rng(7).permutation(len(rows))
        held_out = set(order[: round(DEVELOPMENT_SHARE * len(rows))].tolist())
        test = [row for number, row in enumerate(rows) if number in held_out]
        rows = [row for number, row in enumerate(rows) if number not in held_out]
    write(folder / "test.csv", test or read(arguments.suite / f"{name}_test.csv"))
    write(folder / "train.csv", rows if size == "full" else draw(rows, int(size), seed=seed))


def run(arguments: argparse.Namespace, name: str, size: str, seed: int) -> dict[str, Any]:
    """Train the default recipe and return what the results say about it."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        prepare(arguments, name, size, seed, folder)
        overrides = [
            f"data.train={folder / 'train.csv'}",
            f"evaluate.test={folder / 'test.csv'}",
            f"seed={seed}",
            *arguments.overrides,
        ]
        recipe = load_recipe("quickstart", overrides=overrides)
        record = train(recipe, out=folder / "run", watcher=Watcher(log=print))
        shutil.rmtree(folder / "run")
    return {
        "set": name,
        "size": size,
        "seed": seed,
        "overrides": arguments.overrides,
        **summary_of(record),
    }


def summary_of(record: RunRecord) -> dict[str, Any]:
    """Return scores, baselines, settings and times of a finished run."""
    recipe, metrics = record.recipe, record.metrics["test"]
    return {
        "accuracy": metrics.accuracy,
        "macro_f1": metrics.macro_f1,
        "accuracy_interval": metrics.accuracy_interval,
        "macro_f1_interval": metrics.macro_f1_interval,
        "baselines": {
            baseline: {
                "accuracy": entry.metrics["test"].accuracy,
                "macro_f1": entry.metrics["test"].macro_f1,
                "seconds": round(entry.seconds, 1),
            }
            for baseline, entry in record.baselines.items()
        },
        "validation": {
            str(step.step): dict(step.evaluation) for step in record.history if step.evaluation
        },
        "best_step": record.best.step if record.best else None,
        "learning_rate": recipe.optimizer.learning_rate,
        "epochs": recipe.train.epochs,
        "batch_rows": recipe.train.batch_rows,
        "parameters": record.parameters.file if record.parameters else None,
        "seconds": round(record.seconds, 1),
        "predicted_seconds": record.predicted_seconds and round(record.predicted_seconds, 1),
    }


def print_table(runs: Sequence[Mapping[str, Any]]) -> None:
    """Print a row for each set, size and setting: means over the seeds, and each seed's result."""
    cells: dict[tuple[str, str, str], list[Mapping[str, Any]]] = defaultdict(list)
    for entry in sorted(runs, key=lambda entry: entry["seed"]):
        cells[entry["size"], ", ".join(entry["overrides"]), entry["set"]].append(entry)
    print("| Set | Rows | Seeds | Default | Embeddings | TF-IDF | Gain |")
    print("|---|---|---|---|---|---|---|")
    for (size, overrides, name), entries in sorted(cells.items(), key=_place):
        metric = "macro_f1" if name in MACRO_F1 else "accuracy"
        own = [100 * entry[metric] for entry in entries]
        others = [
            np.mean([100 * entry["baselines"][baseline][metric] for entry in entries])
            for baseline in ("embedding", "tf-idf")
        ]
        seeds = ", ".join(f"{value:.1f}" for value in own) if len(own) > 1 else ""
        cell = f"{np.mean(own):.1f}" + (f" ({seeds})" if seeds else "")
        gain = f"{np.mean(own) - max(others):+.1f}"
        rows = "all" if size == "full" else f"{size} of each class"
        title = name + (" (macro F1)" if name in MACRO_F1 else "")
        title += f", {overrides}" if overrides else ""
        baselines = f"{others[0]:.1f} | {others[1]:.1f}"
        print(f"| {title} | {rows} | {len(own)} | {cell} | {baselines} | {gain} |")


def _place(cell: tuple[tuple[str, str, str], Any]) -> tuple[str, int, str]:
    (size, overrides, name), _ = cell
    return overrides, 1_000_000 if size == "full" else int(size), name


def main() -> None:
    """Run what is missing in the output."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("suite", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--sets", nargs="+", default=None)
    parser.add_argument("--sizes", nargs="+", default=["8", "64", "full"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--development", action="store_true")
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--set", dest="overrides", action="append", default=[])
    arguments = parser.parse_args()
    names = arguments.sets or sorted(
        path.name.removesuffix("_train.csv") for path in arguments.suite.glob("*_train.csv")
    )
    results: dict[str, Any] = {"runs": []}
    if arguments.out.is_file():
        results = json.loads(arguments.out.read_text(encoding="utf-8"))
    if arguments.table:
        print_table(results["runs"])
        return
    done = {(r["set"], r["size"], r["seed"], tuple(r["overrides"])) for r in results["runs"]}
    results["machine"] = f"{describe_environment()['processor']}, {platform.machine()}"
    results["development"] = arguments.development
    for size in arguments.sizes:
        for seed in arguments.seeds:
            for name in names:
                if (name, size, seed, tuple(arguments.overrides)) in done:
                    continue
                entry = run(arguments, name, size, seed)
                print(json.dumps({k: v for k, v in entry.items() if k != "validation"}), flush=True)
                results["runs"].append(entry)
                arguments.out.parent.mkdir(parents=True, exist_ok=True)
                arguments.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
