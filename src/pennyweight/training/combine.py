"""Combine the adapters of finished runs into one run, which is evaluated like a trained one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import peft
import torch

from pennyweight.budget.methods.lora import changes_base
from pennyweight.budget.plan import Plan
from pennyweight.budget.prove import prove_artifact
from pennyweight.engine.train.progress import LOWER_IS_BETTER
from pennyweight.errors import BudgetError, RecipeError, RunError
from pennyweight.files import replace_directory
from pennyweight.inference.model_card import write_model_card
from pennyweight.model.artifact import read_fresh_weights, save_artifact
from pennyweight.model.combinations import (
    Ingredients,
)
from pennyweight.model.trained_weights import (
    TrainedWeights,
    read_trained_weights,
    trained_weights_of,
)
from pennyweight.recipe import Recipe
from pennyweight.runs.directory import hash_artifact, verify_artifact
from pennyweight.runs.record import ParameterCounts, RunRecord
from pennyweight.training.active_run import ActiveRun, open_run, read_splits, tokenized
from pennyweight.training.combination_record import (
    CombineTask,
    record_combination,
    record_results,
)
from pennyweight.training.combine_options import CombineOptions
from pennyweight.training.combined_recipe import combined_recipe
from pennyweight.training.combined_rows import describe_other_rows, require_same_validation
from pennyweight.training.combined_runs import (
    CombinedMember,
    choose_space,
    notes_on,
    read_members,
    warn_of_head,
)
from pennyweight.training.final_evaluation import evaluate_finally
from pennyweight.training.job import Job, make_job
from pennyweight.training.stages import (
    Built,
    build,
    make_predictor,
    measure_selection,
    record_memory,
)
from pennyweight.training.start import load_fresh_weights
from pennyweight.training.watcher import Watcher

__all__ = ["combine"]


def combine(
    runs: Sequence[str | Path],
    *,
    out: str | Path,
    options: CombineOptions | None = None,
    watcher: Watcher | None = None,
) -> RunRecord:
    """Combine the adapters and heads of finished runs, and leave a finished run in `out`.

    The run has the recipe of the first one, is evaluated on validation and on the first one's
    held-out sets as after training, and its record says what it was made of.

    Args:
        runs: the directories of the runs.
        out: the directory of the new run.
        options: how they are combined; None for the average.
        watcher: receives the events of the training.

    Raises:
        RunError: the runs do not fit each other, or the method.
        BudgetError: the ranks of the runs together are over the smallest of their budgets.
        PennyweightError: as for `train`.
    """
    options, watcher = options or CombineOptions(), watcher or Watcher()
    row = options.check(len(runs))
    members = read_members([Path(run) for run in runs], row)
    space, reason = choose_space(members, row, requested=options.space)
    notes = (*notes_on(members), *warn_of_head(members, space, options.head))
    task = CombineTask(members, row, options, space, reason, notes)
    job = _make_job(combined_recipe(members, row, space), Path(out), task, watcher)
    try:
        splits = read_splits(job)
        if row.scores:
            require_same_validation(members, splits, row=row)
        built = build(job)
        weights = [_read(member, job) for member in members]
        _check_fresh_weights(members, built)
        moves_base = changes_base(job.plan.initialization)
        load_fresh_weights(built, members[0].artifact, moves_base=moves_base)
        for line in (*task.notes, *describe_other_rows(members, splits)):
            job.log(line)
        with open_run(job, splits) as run:
            return _combine(run, built, task, weights)
    finally:
        job.accelerator.end_training()


def _make_job(recipe: Recipe, out: Path, task: CombineTask, watcher: Watcher) -> Job:
    try:
        return make_job(recipe, out, watcher=watcher, trains=False)
    except (BudgetError, RecipeError) as error:
        if task.space != "ranks":
            raise
        kind = BudgetError if isinstance(error, BudgetError) else RunError
        excess = str(error).partition(";")[0]
        raise kind(
            f"--method {task.row.name}: the ranks of {len(task.members)} runs add up: {excess}; "
            "combine fewer runs, or use --method average, which keeps the ranks of the first"
        ) from None


def _read(member: CombinedMember, job: Job) -> TrainedWeights:
    """Return the weights of a run, with its classes in the order of the first run."""
    verify_artifact(member.path, member.record, member.artifact)
    output, parts = job.plan.output_layer, member.record.plan.matrices
    weights = read_trained_weights(member.artifact, parts, output=output)
    return weights if member.has_first_order else weights.reordered(member.order, output=output)


def _check_fresh_weights(members: Sequence[CombinedMember], built: Built) -> None:
    """Refuse runs whose frozen weights, drawn from the seed, differ from those of the first.

    Raises:
        RunError: a layer of a head that is not trained in full differs.
    """
    # Of the first run itself: it may have started from a run with another seed.
    first = read_fresh_weights(members[0].artifact)
    for member in members:
        stored = read_fresh_weights(member.artifact)
        for name in built.fresh_weights:
            if not (name in first and name in stored and torch.equal(stored[name], first[name])):
                raise RunError(
                    f"{member.path}: its frozen {name} is not that of {members[0].path}, because "
                    "it was drawn with another seed; train the runs with the same seed, or with "
                    'adapter.head = "full"'
                )


def _combine(
    run: ActiveRun, built: Built, task: CombineTask, weights: Sequence[TrainedWeights]
) -> RunRecord:
    job, members = run.job, task.members
    record_memory(run, built)
    run.log(f"combining {len(members)} run{'s'[: len(members) - 1]}: {_described(task)}")
    ingredients, order = _ingredients(run, built, task, weights)
    combined = task.row.combine(ingredients)
    _load(built.model, combined.weights)
    artifact = run.directory.artifact(job.plan.method.artifact)
    replace_directory(artifact, lambda directory: _save(run, built, directory))
    counts = ParameterCounts(**prove_artifact(built.model, job.plan, artifact))
    run.writer.update(parameters=counts)
    used = [members[index] for index in order]
    record_combination(run, task, combined, used)
    run.log(f"verified: {artifact.name} holds {counts.file:,} parameters, as planned")
    evaluate_finally(run, built, None)
    record_results(run, used, first=members[0])
    if job.accelerator.is_main_process:
        write_model_card(run.directory.path, run.record)
    job.accelerator.wait_for_everyone()
    run.writer.update(status="complete", artifact=hash_artifact(artifact))
    return run.record


def _described(task: CombineTask) -> str:
    return f"{task.row.name} of {task.space} ({task.reason})"


def _ingredients(
    run: ActiveRun, built: Built, task: CombineTask, weights: Sequence[TrainedWeights]
) -> tuple[Ingredients, tuple[int, ...]]:
    """Return what is combined, and the index of each member in the order in which it is."""
    options, order = task.options, tuple(range(len(weights)))
    shares = _shares(options, len(weights))
    if task.row.scores:
        order = _best_first(run, task)
    members = [weights[index] for index in order]
    head = options.head
    if options.toward is not None and len(members) == 1:
        # The untrained head has nothing to say, so that of the run is kept.
        start = _untrained(built, run.job.plan)
        members, head = [members[0], replace(start, head=members[0].head)], "first"
        shares = (options.toward, 1.0 - options.toward)
    ingredients = Ingredients(
        members=tuple(members),
        weights=shares,
        space=task.space,
        parts=_parts(built, run.job.plan),
        head=head,
        density=options.kept_share,
        seed=run.job.settings.seed if options.seed is None else options.seed,
        score=_scorer(run, built) if task.row.scores else None,
    )
    return ingredients, order


def _shares(options: CombineOptions, number: int) -> tuple[float, ...]:
    if options.toward is not None:
        return (1.0 - options.toward, options.toward)
    values = options.weights or (1.0,) * number
    return tuple(value / sum(values) for value in values)


def _best_first(run: ActiveRun, task: CombineTask) -> tuple[int, ...]:
    """Return the members by their own validation result, the best first."""
    metric = run.job.settings.fit.options.keep_best
    sign = -1.0 if metric in LOWER_IS_BETTER else 1.0
    values = [
        sign * member.record.metrics["validation"].scalars()[metric] for member in task.members
    ]
    return tuple(sorted(range(len(values)), key=lambda index: -values[index]))


def _scorer(run: ActiveRun, built: Built) -> Callable[[TrainedWeights], float]:
    """Return a function that measures weights on validation; larger is better."""
    job, splits = run.job, run.splits
    fingerprint = splits.sets["validation"].fingerprint
    rows = tokenized(run, splits.validation, fingerprint, tokenizer=built.tokenizer)
    predictor, metric = make_predictor(job, built), job.settings.fit.options.keep_best
    sign = -1.0 if metric in LOWER_IS_BETTER else 1.0

    def score(weights: TrainedWeights) -> float:
        _load(built.model, weights)
        metrics = measure_selection(
            predictor.rows(rows, name="validation").logits,
            rows.labels,
            names=job.settings.labels,
            bins=job.settings.inference.calibration_bins,
        )
        return sign * metrics[metric]

    return score


def _untrained(built: Built, plan: Plan) -> TrainedWeights:
    state = peft.get_peft_model_state_dict(built.model, save_embedding_layers=False)
    return trained_weights_of(
        state, plan.matrices, output=plan.output_layer, is_stabilized=_is_stabilized(plan)
    )


def _parts(built: Built, plan: Plan) -> dict[str, tuple[int, float]]:
    """Return rank and scaling of each adapted matrix of the result."""
    updates = _untrained(built, plan).updates
    return {name: (update.rank, update.scaling) for name, update in updates.items()}


def _is_stabilized(plan: Plan) -> bool:
    return bool(getattr(plan.peft_config, "use_rslora", False))


def _load(model: Any, weights: TrainedWeights) -> None:
    peft.set_peft_model_state_dict(model, weights.state())


def _save(run: ActiveRun, built: Built, directory: Path) -> None:
    settings = run.job.settings
    save_artifact(
        built.model,
        directory,
        run.job.plan.artifact_facts(settings.labels, task=settings.task),
        fresh_weights=built.fresh_weights,
        tokenizer=built.tokenizer,
    )
