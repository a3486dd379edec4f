"""Search for better values of a recipe's keys, and compare the best with it on the test."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

from filelock import FileLock

from pennyweight.defaults import complete, plan
from pennyweight.errors import RecipeError, RunError, TrainingError
from pennyweight.recipe import Recipe, as_recipe, change_recipe
from pennyweight.recipe.search import Search
from pennyweight.runs.record import load_record
from pennyweight.search.engines import Engine, engine_of
from pennyweight.search.job import SearchJob
from pennyweight.search.results import (
    BEST_RECIPE,
    SearchResult,
    load_result,
    save_result,
    write_best_recipe,
)
from pennyweight.search.sources import source_digests
from pennyweight.search.space import space_of
from pennyweight.settings.task import selection_metric, task_of

__all__ = ["make_search_job", "run_search"]


def run_search(
    recipe: Recipe | str | Path,
    *,
    out: str | Path,
    storage: str | None = None,
    workers: int | None = None,
    engine: str | Engine = "local",
    log: Callable[[str], None] = lambda _: None,
) -> SearchResult:
    """Train the trials of a search that are not trained yet, and compare the best with the recipe.

    Each trial is a run directory in `out`. They are compared on validation rows only. When all are
    done, the best trial and the recipe itself are evaluated on the recipe's held-out sets, and
    `out/best.toml` holds the recipe of the best. A search that was stopped, at any moment,
    continues where it was; several processes may work on the same `out` and storage.

    Args:
        recipe: the recipe with its `[search]` section; without one, the learning rate is searched.
        out: directory of the search.
        storage: URL of the database that holds the trials; None for `out/search.db`.
        workers: trials that are trained at the same time; None for one on this machine, and for
            as many as a cluster has room for.
        engine: where they are trained: a row of `pennyweight.search.engines.ENGINES`, or its name.
        log: gets one line when a trial begins, and one when it ends.

    Raises:
        RecipeError: the ranges or the metric cannot be used, or there are no validation rows.
        RunError: Optuna is missing, the storage cannot be used or holds another search, or a
            directory cannot be written.
        TrainingError: no trial was completed.
        PennyweightError: the recipe itself cannot be planned, or a held-out set cannot be read.
    """
    if find_spec("optuna") is None:
        raise RunError("a search needs Optuna; run: pip install 'pennyweight[search]'")
    engine = engine_of(engine)
    recipe = as_recipe(recipe)
    job = make_search_job(recipe, out=Path(out), storage=storage, workers=workers)
    if recipe.search is not None and job.trials < recipe.search.trials:
        log(f"the ranges have {job.trials} different trials, fewer than search.trials")
    engine.search([job], log=log)
    return _finish(job, log=log)


def make_search_job(
    recipe: Recipe, *, out: Path, storage: str | None = None, workers: int | None = None
) -> SearchJob:
    """Settle a search; nothing is written.

    Args:
        recipe: with or without a `[search]` section.
        out: directory of the search.
        storage: URL of a database; None for an SQLite file in `out`.
        workers: trials that are trained at the same time; None for the engine's default.

    Raises:
        RecipeError: the ranges or the metric cannot be used, or there are no validation rows.
        BudgetError: the recipe itself is over budget.
        DataError: the training rows of a recipe that leaves keys open cannot be read.
        BaseModelError: the base model cannot be found.
        RunError: `workers` is below 1, or torchrun started this process.
    """
    if workers is not None and workers < 1:
        raise RunError(f"--workers {workers}: give a whole number from 1")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise RunError(
            "search: a trial is trained by one process; start the search without torchrun, and "
            "use --workers to train several trials at the same time"
        )
    search = recipe.search or Search()
    recipe = recipe.model_copy(update={"search": None})
    if search.metric != "auto":
        recipe = change_recipe(recipe, {"train.keep_best": search.metric})
    completed = complete(recipe).recipe
    try:
        metric = selection_metric(completed, task_of(completed))
    except RecipeError as error:
        key = "train.keep_best" if search.metric == "auto" else "search.metric"
        raise RecipeError(str(error).replace("train.keep_best", key, 1)) from None
    data = completed.data
    if data.validation is None and data.validation_fraction == 0:
        raise RecipeError(
            "search: the trials are compared on validation rows, and the recipe has none; name "
            "some in data.validation, or set data.validation_fraction"
        )
    plan(completed)
    space = space_of(recipe, completed, search)
    trials = search.trials if space.trials is None else min(search.trials, space.trials)
    return SearchJob(
        recipe,
        search,
        space,
        metric,
        trials,
        out,
        storage or f"sqlite:///{out.absolute()}/search.db",
        workers,
        source_digests([recipe]),
    )


def _finish(job: SearchJob, *, log: Callable[[str], None]) -> SearchResult:
    """Write the best recipe and the comparison on held-out sets, unless that has been done.

    Raises:
        TrainingError: no trial was completed.
    """
    from pennyweight.search.held_out import compare_on_held_out
    from pennyweight.search.worker import current_result

    # Other workers finish as well; the first one does the work.
    with FileLock(job.out / ".locks" / "finish"):
        result = current_result(job)
        best, default = result.best_row, result.default_row
        if best is None:
            reasons = [row.reason for row in result.rows if row.reason]
            raise TrainingError(
                f"{job.out}: none of {len(result.rows)} trials was completed; the first one: "
                f"{reasons[0] if reasons else 'no reason is known'}"
            )
        saved = load_result(job.out)
        has_sets = job.recipe.evaluate.test is not None or bool(job.recipe.evaluate.also)
        is_finished = bool(saved.held_out) or not has_sets
        if (
            is_finished
            and (job.out / BEST_RECIPE).is_file()
            and replace(saved, held_out={}, marks=[]) == result
        ):
            return saved
        write_best_recipe(result, job.recipe, job.out)
        result = replace(result, marks=list(load_record(job.out / best.run).marks))
        if has_sets:
            log(f"{best.run} is the best; held-out sets are evaluated now, for the first time")
            is_complete = default is not None and default.status == "complete"
            held_out = compare_on_held_out(
                job.out / best.run,
                job.out / default.run if default is not None and is_complete else None,
            )
            result = replace(result, held_out=held_out)
        save_result(result, job.out)
    return result
