"""Compare allocation strategies at several budgets, over seeds.

    python benchmarks/allocation.py TRAIN TEST --out FILE
    python benchmarks/allocation.py TRAIN TEST --out FILE --budgets 100000 --seeds 0 1 2 3 4
    python benchmarks/allocation.py TRAIN TEST --out FILE --strategies uniform gradient+head
    python benchmarks/allocation.py TRAIN TEST --out FILE --table

TRAIN and TEST are sources of labelled rows, such as CSV files or "sample:train". A strategy is a
value of adapter.allocate.method; with "+head", the head competes with the matrices. All rows of a
budget and a seed have the same split and differ in their ranks only. Results are written after each
run; runs that the output has already are skipped. --table prints means, and differences from the
first strategy with a 95% interval over seeds, as a table in Markdown, and runs nothing.
"""

from __future__ import annotations

import argparse
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
from pennyweight.evaluation.statistics import mean_interval
from pennyweight.recipe import load_recipe
from pennyweight.runs.record import RunRecord
from pennyweight.training.train import train
from pennyweight.training.watcher import Watcher

BUDGETS = (1_000_000, 100_000, 30_000)
STRATEGIES = ("fill", "uniform", "gradient", "activation", "fisher", "knapsack", "adalora")
HEAD = "+head"


def overrides_of(strategy: str) -> list[str]:
    """Return the keys of a strategy."""
    method = strategy.removesuffix(HEAD)
    keys = [
        "adapter.rank=allocate",
        "adapter.alpha=auto",
        f"adapter.allocate.method={method}",
    ]
    return [*keys, "adapter.head=planned"] if strategy.endswith(HEAD) else keys


def run(arguments: argparse.Namespace, strategy: str, budget: int, seed: int) -> dict[str, Any]:
    """Train one recipe and return what its result says about the strategy."""
    recipe = load_recipe(
        arguments.recipe,
        overrides=[
            f"data.train={arguments.train}",
            f"evaluate.test={arguments.test}",
            f"budget.trainable_parameters={budget}",
            f"seed={seed}",
            *arguments.overrides,
            *overrides_of(strategy),
        ],
    )
    with tempfile.TemporaryDirectory() as temporary:
        out = Path(temporary) / "run"
        record = train(recipe, out=out, watcher=Watcher(log=print))
        shutil.rmtree(out)
    return {
        "strategy": strategy,
        "budget": budget,
        "seed": seed,
        "overrides": arguments.overrides,
        **summary_of(record),
    }


def summary_of(record: RunRecord) -> dict[str, Any]:
    """Return scores, ranks and times of a finished run."""
    metrics = record.metrics["test"]
    return {
        "accuracy": metrics.accuracy,
        "macro_f1": metrics.macro_f1,
        "parameters": record.parameters.file if record.parameters else None,
        "head": getattr(record.recipe.adapter, "head", None),
        "head_rank": getattr(record.recipe.adapter, "head_rank", None),
        "ranks": {each.name: each.rank for each in record.plan.matrices if each.rank},
        "notes": record.allocation.notes if record.allocation else (),
        "seconds": round(record.seconds, 1),
    }


def print_table(runs: Sequence[Mapping[str, Any]], strategies: Sequence[str]) -> None:
    """Print a row for each budget and strategy: its mean, and its difference from the first."""
    values: dict[tuple[int, str], dict[int, float]] = defaultdict(dict)
    parameters: dict[tuple[int, str], int] = {}
    for entry in runs:
        place = entry["budget"], entry["strategy"]
        values[place][entry["seed"]] = 100 * entry["accuracy"]
        parameters[place] = entry["parameters"]
    print("| Budget | Strategy | Parameters | Seeds | Accuracy | Difference | 95% interval |")
    print("|---|---|---|---|---|---|---|")
    for budget in sorted({budget for budget, _ in values}, reverse=True):
        first = values.get((budget, strategies[0]), {})
        for strategy in strategies:
            own = values.get((budget, strategy), {})
            if not own:
                continue
            cells = [f"{budget:,}", strategy, f"{parameters[budget, strategy]:,}", str(len(own))]
            cells += [f"{np.mean(list(own.values())):.2f}", *difference(own, first)]
            print("| " + " | ".join(cells) + " |")


def difference(own: Mapping[int, float], first: Mapping[int, float]) -> tuple[str, str]:
    """Return the mean difference over the seeds that both have, and its interval."""
    pairs = [own[seed] - first[seed] for seed in own if seed in first]
    if own is first or not pairs:
        return "", ""
    interval = mean_interval(pairs)
    shown = "" if interval is None else f"{interval[0]:+.2f} to {interval[1]:+.2f}"
    return f"{np.mean(pairs):+.2f}", shown


def main() -> None:
    """Run what is missing in the output."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("train")
    parser.add_argument("test")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--recipe", default="quickstart")
    parser.add_argument("--budgets", nargs="+", type=int, default=list(BUDGETS))
    parser.add_argument("--strategies", nargs="+", default=list(STRATEGIES))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--set", dest="overrides", action="append", default=[])
    arguments = parser.parse_args()
    results: dict[str, Any] = {"runs": []}
    if arguments.out.is_file():
        results = json.loads(arguments.out.read_text(encoding="utf-8"))
    if arguments.table:
        print_table(results["runs"], arguments.strategies)
        return
    done = {(r["strategy"], r["budget"], r["seed"], tuple(r["overrides"])) for r in results["runs"]}
    results["machine"] = f"{describe_environment()['processor']}, {platform.machine()}"
    for seed in arguments.seeds:
        for budget in arguments.budgets:
            for strategy in arguments.strategies:
                if (strategy, budget, seed, tuple(arguments.overrides)) in done:
                    continue
                entry = run(arguments, strategy, budget, seed)
                print(json.dumps({k: v for k, v in entry.items() if k != "ranks"}), flush=True)
                results["runs"].append(entry)
                arguments.out.parent.mkdir(parents=True, exist_ok=True)
                arguments.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
