"""Compare adapters in the top third of the layers, with cached outputs below, with all layers.

    python benchmarks/top_layers.py --data train.csv --validation validation.csv \
        --rates all=5e-4 all=1e-3 top=5e-4 top=1e-3

Trains the recipe `quickstart` once for every learning rate and number of epochs of both sides: with
adapters in all layers, and with adapters in the top third, the same number of parameters, and the
prefix cache. Reports how long each side trains until it has the validation accuracy that all
layers have at their best. The time is that of training steps, without evaluations; computing the
cached outputs counts. The result is written after every run, and runs in it are not repeated.

Validation rows choose the moment and the learning rate of both sides, so the accuracies are a
little too high for both. Several rates for one side alone would favour it.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import psutil

import pennyweight
from pennyweight.engine.train import loop
from pennyweight.environment import cache_directory, describe_environment
from pennyweight.training import train as training
from pennyweight.training.watcher import Watcher

_CLOCKS: dict[str, Callable[[], float]] = {
    "wall": time.perf_counter,
    "processor": time.process_time,
}
_SIDES = ("all", "top")
_OUT = Path(__file__).parent / "results" / "top-layers.json"


def recipe_for(
    options: argparse.Namespace, side: str, rate: float, epochs: str
) -> pennyweight.Recipe:
    """Return `quickstart` on the given rows, with the adapters of one side."""
    is_top = side == "top"
    overrides = [
        f"data.train={options.data}",
        f"data.validation={options.validation}",
        f"base.name={options.base}",
        f"adapter.top_layers={options.top if is_top else 'all'}",
        f"train.prefix_cache={'disk' if is_top else 'off'}",
        f"optimizer.learning_rate={rate}",
        f"train.epochs={epochs}",
        # Every run goes to its end, and only what is trained step by step is measured.
        "train.early_stopping=off",
        "train.head_end=trained",
        "train.trackers=[]",
        "evaluate.baselines=[]",
        f"seed={options.seed}",
    ]
    if options.rows is not None:
        overrides.append(f"data.train_rows={options.rows}")
    return pennyweight.load_recipe("quickstart", overrides=[*overrides, *options.set])


def run(recipe: pennyweight.Recipe, clock: Callable[[], float]) -> dict[str, Any]:
    """Train a recipe and return how its accuracy grew with the time."""
    shutil.rmtree(cache_directory() / "states", ignore_errors=True)
    prefix_seconds = 0.0
    cache_prefix = training.cache_prefix

    def timed(*arguments: Any, **keywords: Any) -> Any:
        nonlocal prefix_seconds
        began = clock()
        rows = cache_prefix(*arguments, **keywords)
        prefix_seconds += clock() - began
        return rows

    watcher = Watcher(log=print)
    with (
        tempfile.TemporaryDirectory() as folder,
        mock.patch.object(training, "cache_prefix", timed),
        mock.patch.object(loop, "time", SimpleNamespace(perf_counter=clock)),
    ):
        record = pennyweight.train(recipe, out=Path(folder) / "run", watcher=watcher)
    curve = [
        [round(prefix_seconds + step.seconds, 2), dict(step.evaluation)["accuracy"]]
        for step in record.history
        if step.evaluation
    ]
    parameters = record.parameters
    return {
        "parameters": None if parameters is None else parameters.file,
        "prefix_seconds": round(prefix_seconds, 2),
        "seconds": curve[-1][0],
        "epochs": record.recipe.train.epochs,
        "best_accuracy": max(accuracy for _, accuracy in curve),
        "curve": curve,
    }


def seconds_until(curve: Sequence[Sequence[float]], accuracy: float) -> float | None:
    """Return when an accuracy was first reached; None if it was not."""
    return next((seconds for seconds, reached in curve if reached >= accuracy), None)


def summarize(runs: Sequence[dict[str, Any]], *, tolerance: float) -> dict[str, Any]:
    """Return the best accuracy of both sides, and how long each takes to that of all layers."""
    sides = {side: [one for one in runs if one["side"] == side] for side in _SIDES}
    if not all(sides.values()):
        return {}
    best = {side: max(one["best_accuracy"] for one in each) for side, each in sides.items()}
    target = best["all"] - tolerance
    fastest: dict[str, dict[str, Any] | None] = {}
    for side, each in sides.items():
        reached = [
            {"seconds": seconds, "learning_rate": one["learning_rate"], "epochs": one["epochs"]}
            for one in each
            if (seconds := seconds_until(one["curve"], target)) is not None
        ]
        fastest[side] = min(reached, key=lambda one: float(one["seconds"]), default=None)
    all_layers, top = fastest["all"], fastest["top"]
    ratio = None if all_layers is None or top is None else all_layers["seconds"] / top["seconds"]
    return {
        "best_accuracy": best,
        "target_accuracy": target,
        "until_target": fastest,
        "times_as_fast": None if ratio is None else round(ratio, 2),
    }


def _values(pairs: Sequence[str], parser: argparse.ArgumentParser) -> dict[str, list[str]]:
    """Return the values of both sides from texts such as "top=5e-4"."""
    values: dict[str, list[str]] = {side: [] for side in _SIDES}
    for pair in pairs:
        side, _, value = pair.partition("=")
        if side not in values or not value:
            parser.error(f'given "{pair}"; expected all=VALUE or top=VALUE')
        values[side].append(value)
    if missing := [side for side, each in values.items() if not each]:
        parser.error(f"no value for {missing[0]}; give {missing[0]}=VALUE as well")
    return values


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", required=True, help="labelled training rows")
    parser.add_argument("--validation", required=True, help="labelled validation rows")
    parser.add_argument("--base", default="embedded")
    parser.add_argument("--top", type=int, default=2, help="top layers with adapters; default: 2")
    parser.add_argument("--rates", nargs="+", default=["all=5e-4", "top=5e-4"], metavar="SIDE=RATE")
    parser.add_argument(
        "--epochs", nargs="+", default=["all=auto", "top=auto"], metavar="SIDE=NUMBER"
    )
    parser.add_argument("--rows", type=int, help="training rows; all by default")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--clock",
        choices=list(_CLOCKS),
        default="wall",
        help='"processor" counts processor seconds, for a machine that others use too',
    )
    parser.add_argument(
        "--tolerance", type=float, default=0.0, help="how far below the best accuracy is as good"
    )
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--folder", type=Path, help="where the cache is written; deleted")
    parser.add_argument("--out", type=Path, default=_OUT, help="where the JSON is written")
    return parser


def main() -> None:
    """Train every run that the result file does not hold yet."""
    parser = _parser()
    options = parser.parse_args()
    rates, epochs = _values(options.rates, parser), _values(options.epochs, parser)
    given = {
        # Of files, their names only.
        key: Path(value).name if key in ("data", "validation") else str(value)
        for key, value in vars(options).items()
        if key not in ("rates", "epochs", "out", "folder", "tolerance")
    }
    runs: list[dict[str, Any]] = []
    if options.out.is_file():
        earlier = json.loads(options.out.read_text(encoding="utf-8"))
        if earlier["options"] != given:
            parser.error(f"{options.out} is of other options; name another --out")
        runs = earlier["runs"]
    done = {(one["side"], one["learning_rate"], one["given_epochs"]) for one in runs}
    tasks = [(side, float(r), e) for side in _SIDES for r in rates[side] for e in epochs[side]]
    if options.folder is not None:
        options.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="top-layers-", dir=options.folder) as cache:
        os.environ["PENNYWEIGHT_CACHE"] = cache
        for side, rate, number in tasks:
            if (side, rate, number) in done:
                continue
            print(f"== {side}, learning rate {rate:g}, epochs {number}", flush=True)
            measured = run(recipe_for(options, side, rate, number), _CLOCKS[options.clock])
            identity = {"side": side, "learning_rate": rate, "given_epochs": number}
            runs.append({**identity, **measured})
            result = {
                "machine": f"{describe_environment()['processor']}, {psutil.cpu_count()} CPUs",
                "threads": os.environ.get("OMP_NUM_THREADS", "all"),
                "options": given,
                **summarize(runs, tolerance=options.tolerance),
                "runs": runs,
            }
            options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    summary = summarize(runs, tolerance=options.tolerance)
    print(json.dumps(summary, indent=1))


if __name__ == "__main__":
    main()
