"""A training that is simulated: a curve that depends on the recipe, and a run directory."""

from __future__ import annotations

import math
from pathlib import Path

from pennyweight.engine.train.progress import ALL_STEPS_DONE, Step
from pennyweight.errors import PrunedError
from pennyweight.recipe import Recipe, dump_recipe
from pennyweight.runs.record import Best, RunRecord, save_record
from pennyweight.training.watcher import Watcher
from runs.records import example_record

__all__ = ["EVALUATIONS", "metric_of", "simulated_train"]

EVALUATIONS = 4


def metric_of(recipe: Recipe, share: float = 1.0) -> float:
    """Return an accuracy: best at a learning rate of 0.003, and better with larger ranks."""
    values = recipe.model_dump()
    distance = abs(math.log10(values["optimizer"]["learning_rate"] / 0.003))
    return 0.9 * share - 0.2 * distance + 0.01 * values["adapter"]["rank"]


def simulated_train(
    recipe: Recipe,
    *,
    out: Path,
    resume: bool = False,
    watcher: Watcher | None = None,
    uses_held_out: bool = True,
) -> RunRecord:
    """Stand in for `train`: as many evaluations as `EVALUATIONS`, and a record at the end."""
    assert not uses_held_out, "a trial must not use held-out sets"
    del resume
    watcher = watcher or Watcher()
    out.mkdir(parents=True)
    (out / "recipe.toml").write_text(dump_recipe(recipe))
    watcher.on_start(0, EVALUATIONS)
    history = []
    record = example_record(recipe=recipe, status="running", history=(), metrics={}, failure=None)
    for number in range(1, EVALUATIONS + 1):
        value = metric_of(recipe, number / EVALUATIONS)
        is_last = number == EVALUATIONS
        step = Step(
            step=number,
            epoch=number,
            loss=1.0,
            learning_rate=0.01,
            gradient_norm=1.0,
            rows_per_second=1.0,
            seconds=0.1,
            evaluation={"accuracy": value, "nll": -value},
            is_best=True,
            stop=ALL_STEPS_DONE if is_last else None,
        )
        history.append(step)
        watcher.on_step(step)
        if reason := watcher.prune(step):
            save_record(
                out, record.with_changes(status="pruned", failure=reason, history=tuple(history))
            )
            raise PrunedError(reason)
    keep_best = recipe.train.keep_best
    metric = "accuracy" if keep_best == "auto" else keep_best
    value = history[-1].evaluation[metric] if history[-1].evaluation else math.nan
    record = record.with_changes(
        status="complete",
        history=tuple(history),
        best=Best(step=EVALUATIONS, metric=metric, value=value),
    )
    save_record(out, record)
    return record
