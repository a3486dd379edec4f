r"""Compare the accuracy of training with pooled and with independent dropout masks.

    python benchmarks/dropout_masks.py --train train.csv --test test.csv \
        --labels World,Sports,Business,Sci/Tech --seeds 5 --epochs 2 --rows 4000 --out masks.json

Trains the recipe `quickstart`, with dropout switched on in the base and in the adapter, once with
each kind of mask per seed; everything else is equal. Prints and saves the test accuracy of every
run, the mean difference (pooled minus independent) and its paired 95% interval. On a CPU only:
elsewhere masks are torch's own.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

import pennyweight
from pennyweight.engine.kernels import prepare
from pennyweight.engine.kernels.masks import MaskPool
from pennyweight.evaluation.statistics import mean_interval

KINDS: dict[str, Callable[[], MaskPool]] = {
    "pooled": MaskPool,
    "independent": partial(MaskPool, independent=True),
}


def recipe_for(options: argparse.Namespace, seed: int) -> pennyweight.Recipe:
    """Return `quickstart` on the given files, with dropout in the base and in the adapter."""
    overrides = [
        f"data.train={options.train}",
        f"data.labels={json.dumps(options.labels.split(','))}",
        f"evaluate.test={options.test}",
        f"base.dropout={options.dropout}",
        f"adapter.dropout={options.dropout}",
        f"train.epochs={options.epochs}",
        f"seed={seed}",
    ]
    if options.rows is not None:
        overrides.append(f"data.train_rows={options.rows}")
    return pennyweight.load_recipe(options.recipe, overrides=[*overrides, *options.set])


def run(recipe: pennyweight.Recipe, kind: str) -> dict[str, Any]:
    """Train with one kind of mask and return the test accuracy and the seconds it took."""
    pools: list[MaskPool] = []

    def make_pool() -> MaskPool:
        pools.append(KINDS[kind]())
        return pools[-1]

    began = time.perf_counter()
    with (
        tempfile.TemporaryDirectory() as folder,
        mock.patch.object(prepare, "MaskPool", make_pool),
    ):
        record = pennyweight.train(recipe, out=Path(folder) / "run")
    if not pools:
        raise SystemExit("no mask pool was used: run this on a CPU, without a GPU in sight")
    # Through JSON, which has the same keys whether the record holds objects or mappings.
    metrics = json.loads(record.model_dump_json())["metrics"]["test"]
    return {"accuracy": metrics["accuracy"], "seconds": time.perf_counter() - began}


def summarize(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Return mean accuracies, the mean paired difference and its 95% interval."""
    accuracies = {kind: [one["accuracy"] for one in runs if one["masks"] == kind] for kind in KINDS}
    differences = np.subtract(accuracies["pooled"], accuracies["independent"]).tolist()
    return {
        "accuracies": accuracies,
        "mean": {kind: float(np.mean(values)) for kind, values in accuracies.items()},
        "differences": differences,
        "mean_difference": float(np.mean(differences)),
        "interval_95": mean_interval(differences),
    }


def main() -> None:
    """Train every seed with both kinds of mask."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--train", required=True, help="labelled training rows")
    parser.add_argument("--test", required=True, help="labelled test rows")
    parser.add_argument("--labels", required=True, help="class names, separated by commas")
    parser.add_argument("--seeds", type=int, default=5, help="number of seeds: 1, 2, ...")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--rows", type=int, help="training rows; all by default")
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--recipe", default="quickstart")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--out", type=Path, required=True, help="where the JSON is saved")
    options = parser.parse_args()
    runs: list[dict[str, Any]] = []
    for seed in range(1, options.seeds + 1):
        recipe = recipe_for(options, seed)
        # The order alternates, so that neither kind always runs first.
        for kind in sorted(KINDS, reverse=seed % 2 == 1):
            runs.append({"seed": seed, "masks": kind, **run(recipe, kind)})
            print(json.dumps(runs[-1]), flush=True)
        result = {"options": {k: str(v) for k, v in vars(options).items()}, "runs": runs}
        result |= summarize(runs)
        options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps({key: value for key, value in result.items() if key != "runs"}, indent=1))


if __name__ == "__main__":
    main()
