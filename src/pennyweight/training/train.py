"""Train recipes into run directories: read, plan, build, train, prove, evaluate, record."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from pennyweight.budget.prove import prove_artifact
from pennyweight.engine.adapter_bank import AdapterBank, Member
from pennyweight.engine.adapter_bank import train_together as train_steps_together
from pennyweight.engine.batches.rows import TokenizedRows
from pennyweight.engine.train.loop import TrainContext
from pennyweight.engine.train.loop import train as train_steps
from pennyweight.errors import (
    NonFiniteLogitsError,
    NonFiniteLossError,
    PrunedError,
    RecipeError,
)
from pennyweight.inference.model_card import write_model_card
from pennyweight.recipe import Recipe, as_recipe
from pennyweight.runs.directory import hash_artifact
from pennyweight.runs.record import ParameterCounts, RunRecord
from pennyweight.signals import deferred_interrupt
from pennyweight.training.active_run import (
    ActiveRun,
    open_run,
    read_splits,
    record_rows,
    tokenized,
    training_rows,
)
from pennyweight.training.baselines import (
    Baselines,
    evaluate_baselines,
    fit_baselines,
    refit_head,
    start_head,
)
from pennyweight.training.class_shares import learned_class_shares
from pennyweight.training.diagnosis import describe_falling_loss
from pennyweight.training.final_evaluation import evaluate_finally
from pennyweight.training.job import make_job
from pennyweight.training.pace import keep_time_limit, work_of
from pennyweight.training.padding_check import check_padding
from pennyweight.training.processes import explaining_lost_processes, share_model
from pennyweight.training.rows import PreparedRows
from pennyweight.training.saving import StepSaver
from pennyweight.training.stages import (
    Built,
    Fit,
    build,
    cache_prefix,
    initialize_adapters,
    make_fit,
    make_objective,
    measure_run,
    record_memory,
    resume_fit,
    tokenize_training_rows,
)
from pennyweight.training.start import continue_from
from pennyweight.training.step_log import StepLog
from pennyweight.training.watcher import Watcher

__all__ = ["train", "train_together"]

# In what runs that are trained together may differ.
_OWN = frozenset({"name", "summary", "budget", "adapter", "optimizer"})


def train(
    recipe: Recipe | str | Path,
    *,
    out: str | Path,
    resume: bool = False,
    watcher: Watcher | None = None,
    uses_held_out: bool = True,
) -> RunRecord:
    """Train a recipe and leave everything about it in the directory `out`.

    Whatever can be refused is refused before the directory is created. An unfinished run in the
    directory is started over, or resumed from its last checkpoint with `resume`.

    Args:
        recipe: the system to train; or the name of a shipped recipe, a TOML file, or a run
            directory.
        out: the run's directory.
        resume: go on from the last checkpoint of an unfinished run.
        watcher: receives the events of the training, and may end the run early.
        uses_held_out: whether the finished run is evaluated on the sets in `[evaluate]`. Without,
            the rows of these sets are still compared with the others, and nothing else is done
            with them; a search evaluates its trials so.

    Raises:
        PrunedError: the watcher ended the run; `record.json` says "pruned" and why.
        PennyweightError: the training cannot begin or go on; once the run has begun,
            `record.json` says "failed" and why.
    """
    job = make_job(
        as_recipe(recipe),
        Path(out),
        resume=resume,
        watcher=watcher,
        uses_held_out=uses_held_out,
    )
    try:
        with explaining_lost_processes(job.accelerator, rest=lambda: "start the training again"):
            splits, built = read_splits(job), build(job)
            with open_run(job, splits) as run:
                return _train(run, built)
    finally:
        # Closes the trackers and, of several processes, the group that they communicate through.
        job.accelerator.end_training()


def _train(run: ActiveRun, built: Built) -> RunRecord:
    record_memory(run, built)
    prepared = training_rows(run)
    rows = tokenize_training_rows(run, built, prepared)
    check_padding(run.job, built, rows)
    initialize_adapters(run, built, rows)
    baselines = fit_baselines(run, built, prepared, rows)
    start_head(run, built, baselines)
    continue_from(built, run.job.settings, run.job.plan, run.splits, log=run.log)
    rows = cache_prefix(run, built, rows)
    validation = cache_prefix(run, built, _validation(run, built))
    objective = make_objective(run, built, rows.labels)
    model = share_model(run.job.accelerator, built.model)
    run, work = keep_time_limit(
        run,
        work_of(run, rows, validation, baselines.measured),
        rows,
        measure=partial(measure_run, run, built, model, objective, rows),
    )
    fit = resume_fit(run, built, make_fit(run, built, objective, rows, validation))
    saver, log = StepSaver(run, built, fit), StepLog(run, rows, work)
    log.begin(done=fit.progress.step)
    saver.save_start()
    _take_steps(saver, log, model)
    _refit_head(saver, rows)
    run.job.accelerator.wait_for_everyone()
    saver.save_interpolated()
    run.job.accelerator.wait_for_everyone()
    return _finish(run, built, prepared, baselines)


def _take_steps(saver: StepSaver, log: StepLog, model: Any) -> None:
    """Take the steps of a run with its model, wrapped for its processes, until one ends it.

    Raises:
        PrunedError: the watcher ended the run.
        KeyboardInterrupt: a signal did, after a checkpoint of the last step.
        NonFiniteLossError: a loss is NaN or infinite.
        NonFiniteLogitsError: the logits of a validation row are.
    """
    run, fit = saver.run, saver.fit
    optimizer = run.job.accelerator.prepare(fit.learner.optimizer)
    context = TrainContext(saver.built.batcher, run.job.settings.fit.options, run.job.accelerator)
    try:
        with deferred_interrupt(run.log) as interrupt:
            for step in train_steps(
                replace(fit.learner, model=model, optimizer=optimizer),
                log.rows,
                context=context,
                evaluate=fit.evaluate,
                progress=fit.progress,
                is_stopping=lambda: interrupt.number is not None,
            ):
                log.take(step)
                saver.take(step)
                if interrupt.number is None and step.evaluation:
                    reason = run.job.watcher.prune(step)
                    if reason is not None:
                        raise PrunedError(reason)
            if interrupt.number is not None:
                saver.save_interrupted()
                interrupt.check()
    except (NonFiniteLossError, NonFiniteLogitsError) as error:
        raise saver.explain(error) from None


def _refit_head(saver: StepSaver, rows: TokenizedRows) -> None:
    """Fit the head of the last step again on the training rows, where the recipe asks for it."""
    run, fit = saver.run, saver.fit
    if not run.job.settings.fit.refits_head:
        return
    with fit.averaged():
        refit_head(run, saver.built, fit.predictor, rows)
    saver.save_refit_head()


def _validation(run: ActiveRun, built: Built) -> TokenizedRows:
    splits = run.splits
    fingerprint = splits.sets["validation"].fingerprint
    return tokenized(run, splits.validation, fingerprint, tokenizer=built.tokenizer)


def _finish(
    run: ActiveRun, built: Built, prepared: PreparedRows, baselines: Baselines
) -> RunRecord:
    """Prove the count, measure what was saved, hash it, and close the record.

    Every process does all of it, so that all return the whole record, or fail together.
    """
    artifact = run.directory.artifact(run.job.plan.method.artifact)
    counts = ParameterCounts(**prove_artifact(built.model, run.job.plan, artifact))
    run.writer.update(parameters=counts)
    detail = (
        "as planned"
        if counts.file == counts.model
        else f"of the {counts.model:,} that were trained"
    )
    run.log(f"verified: {artifact.name} holds {counts.file:,} parameters, {detail}")
    settings = run.job.settings
    shares = None
    if settings.prior is not None:
        shares = learned_class_shares(settings, prepared.table, record=run.record)
    evaluate_finally(run, built, shares)
    evaluate_baselines(run, built, baselines)
    _warn_of_falling_loss(run)
    if run.job.accelerator.is_main_process:
        write_model_card(run.directory.path, run.record)
    run.job.accelerator.wait_for_everyone()
    run.writer.update(status="complete", artifact=hash_artifact(artifact))
    return run.record


def _warn_of_falling_loss(run: ActiveRun) -> None:
    """Log a warning if the run ended too early: the last checkpoint is the best, and learns fast.

    A loss that falls while validation gets worse is no reason to train longer.
    """
    history, best = run.record.history, run.record.best
    if not history or (best is not None and best.step < history[-1].step):
        return
    epochs = run.job.settings.fit.options.epochs
    warning = describe_falling_loss([step.loss for step in history], epochs=epochs)
    if warning is not None:
        run.log(warning)


def train_together(
    recipes: Sequence[Recipe],
    *,
    outs: Sequence[str | Path],
    watchers: Sequence[Watcher] | None = None,
) -> list[RunRecord]:
    """Train several recipes at once on the same batches, each into its own directory.

    They may differ in adapter, optimizer, budget and name. Each becomes what `train` would make of
    it alone, up to rounding, except that dropout below the lowest adapter is the same for all. One
    process and one device, without a time limit; an interrupted run is trained again, alone or
    together.

    Raises:
        RecipeError: two recipes differ in something else, or limit the time.
        PennyweightError: as for `train`; all runs then stop.
    """
    if not recipes or len(outs) != len(recipes):
        raise RecipeError("train_together: give at least one recipe, and a directory for each")
    _refuse_differences(recipes)
    if recipes[0].train.minutes is not None:
        raise RecipeError(
            "train.minutes: the time of runs that are trained together cannot be limited; leave "
            "it out, or train them one by one"
        )
    jobs = [
        make_job(recipe, Path(out), watcher=watcher)
        for recipe, out, watcher in zip(
            recipes, outs, watchers or [Watcher()] * len(recipes), strict=True
        )
    ]
    if jobs[0].compute.precision == "fp16":
        raise RecipeError(
            'train.precision: "fp16" needs loss scaling, which runs trained together do not '
            "have; use bf16 or fp32, or train them one by one"
        )
    with ExitStack() as stack:
        for job in jobs:
            stack.callback(job.accelerator.end_training)
        splits, builts = read_splits(jobs[0]), [build(job) for job in jobs]
        runs = [stack.enter_context(open_run(job, splits)) for job in jobs]
        return _train_together(runs, builts)


def _train_together(runs: Sequence[ActiveRun], builts: Sequence[Built]) -> list[RunRecord]:
    for run, built in zip(runs, builts, strict=True):
        record_memory(run, built)
    first, first_built = runs[0], builts[0]
    prepared = training_rows(first)
    for run in runs[1:]:
        record_rows(run, prepared)
    rows = tokenize_training_rows(first, first_built, prepared)
    layers = min(built.batcher.skippable_layers(built.model) for built in builts)
    # With "auto", each recipe has decided for its own adapters.
    caches = all(run.job.settings.fit.prefix_cache != "off" for run in runs)
    validation = _validation(first, first_built)
    if caches:
        validation = cache_prefix(first, first_built, validation, layers=layers)
    check_padding(first.job, first_built, rows)
    baselines = fit_baselines(first, first_built, prepared, rows)
    fits = []
    for run, built in zip(runs, builts, strict=True):
        initialize_adapters(run, built, rows)
        start_head(run, built, baselines)
        continue_from(built, run.job.settings, run.job.plan, run.splits, log=run.log)
        objective = make_objective(run, built, rows.labels)
        fits.append(make_fit(run, built, objective, rows, validation))
    work = work_of(first, rows, validation, baselines.measured)
    savers = [StepSaver(*parts) for parts in zip(runs, builts, fits, strict=True)]
    logs = [StepLog(run, rows, work) for run in runs]
    for saver, log in zip(savers, logs, strict=True):
        log.begin(done=saver.fit.progress.step)
        saver.save_start()
    if caches:
        rows = cache_prefix(first, first_built, rows, layers=layers)
    _fit_together(savers, logs, rows)
    return [
        _finish(run, built, prepared, baselines) for run, built in zip(runs, builts, strict=True)
    ]


def _fit_together(
    savers: Sequence[StepSaver], logs: Sequence[StepLog], rows: TokenizedRows
) -> None:
    first = savers[0]
    fits: list[Fit] = [saver.fit for saver in savers]
    bank = AdapterBank([fit.learner.model for fit in fits], first.built.batcher)
    members = [Member(fit.learner, fit.evaluate, fit.progress) for fit in fits]
    options = first.run.job.settings.fit.options
    try:
        for index, step in train_steps_together(bank, members, rows, options=options):
            logs[index].take(step)
            savers[index].take(step)
    except (NonFiniteLossError, NonFiniteLogitsError) as error:
        raise first.explain(error) from None
    for saver, log in zip(savers, logs, strict=True):
        _refit_head(saver, log.rows)
        saver.save_interpolated()


def _refuse_differences(recipes: Sequence[Recipe]) -> None:
    adapters = [recipe.adapter for recipe in recipes]
    for recipe in recipes:
        if recipe.adapter.changes_base and any(one != recipe.adapter for one in adapters):
            raise RecipeError(
                f"{recipe.name}: adapter.initialization changes the weights of the base, which "
                "runs that are trained together share; use another one, or train them one by one"
            )
    shared = [recipe.model_dump(exclude=set(_OWN)) for recipe in recipes]
    for recipe, values in zip(recipes[1:], shared[1:], strict=True):
        for section, value in values.items():
            if value != shared[0][section]:
                raise RecipeError(
                    f"{recipe.name}: [{section}] differs from {recipes[0].name}'s; runs that are "
                    f"trained together may differ in {', '.join(sorted(_OWN - {'summary'}))} only"
                )
