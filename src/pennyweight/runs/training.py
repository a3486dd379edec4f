"""Train recipes into run directories: read, plan, build, train, prove, evaluate, record."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from pennyweight.budget.plan import FULL
from pennyweight.data.splits import Splits
from pennyweight.engine.batch import Tokens
from pennyweight.engine.device import choose_compute
from pennyweight.engine.features import output_layer_of
from pennyweight.engine.loop import train as train_steps
from pennyweight.engine.prefix import frozen_layers
from pennyweight.engine.together import Member, Together
from pennyweight.engine.together import train_together as train_steps_together
from pennyweight.errors import NonFiniteLossError, RecipeError
from pennyweight.recipe import Recipe
from pennyweight.runs.planning import find_base, plan
from pennyweight.runs.record import RunRecord
from pennyweight.runs.run import Run
from pennyweight.runs.setup import Watcher, make_accelerator, prepare_directory, settings_of
from pennyweight.runs.teacher import teach

__all__ = ["train", "train_together"]

# What runs that are trained together may differ in.
_OWN = frozenset({"name", "summary", "budget", "adapter", "optimizer"})


def train(
    recipe: Recipe,
    *,
    out: str | Path,
    resume: bool = False,
    watcher: Watcher | None = None,
) -> RunRecord:
    """Train a recipe and leave everything about it in the directory `out`.

    Raises:
        PennyweightError: whatever cannot go on, in one line; `record.json` then says "failed" and
            why, once the run has begun.
    """
    run = _open(recipe, Path(out), resume=resume, watcher=watcher)
    with run.recorded():
        run.begin(resume=resume)
        splits = run.read()
        run.build()
        tokens, validation = _training_tokens(run, splits), run.tokens(splits.validation)
        run.begin_adapters(tokens)
        tokens = run.cached(tokens)
        run.prepare(len(tokens), run.cached(validation), resume=resume)
        prepared, optimizer = run.accelerator.prepare(run.model, run.optimizer)
        steps = train_steps(
            prepared,
            tokens,
            feed=run.feed,
            optimizer=optimizer,
            scheduler=run.scheduler,
            accelerator=run.accelerator,
            settings=settings_of(recipe),
            objective=run.objective,
            evaluate=run.evaluate,
            progress=run.progress,
        )
        try:
            for step in steps:
                run.take(step)
        except NonFiniteLossError as error:
            raise run.explain(error) from None
        run.accelerator.wait_for_everyone()
        return run.finish(splits)


def train_together(
    recipes: Sequence[Recipe],
    *,
    outs: Sequence[str | Path],
    watchers: Sequence[Watcher] | None = None,
) -> list[RunRecord]:
    """Train several recipes at once on the same batches, each into its own directory.

    They may differ in adapter, optimizer, budget and name. Each becomes what `train` makes of it
    alone, up to rounding, except that dropout below the lowest adapter is the same for all. One
    process, one device; a run that was interrupted is trained again, alone or together.

    Raises:
        RecipeError: two recipes differ in something else.
        PennyweightError: as for `train`; all the runs then stop.
    """
    if not recipes or len(outs) != len(recipes):
        raise RecipeError("train_together: give at least one recipe, and a directory for each")
    _refuse_differences(recipes)
    watchers = watchers or [Watcher()] * len(recipes)
    runs = [
        _open(recipe, Path(out), watcher=watcher)
        for recipe, out, watcher in zip(recipes, outs, watchers, strict=True)
    ]
    with ExitStack() as stack:
        for run in runs:
            stack.enter_context(run.recorded())
            run.begin()
        first = runs[0]
        splits = first.read()
        for run in runs:
            if run is not first:
                run.note_splits(splits)
            run.build()
        tokens = _training_tokens(first, splits, others=runs[1:])
        validation = first.tokens(splits.validation)
        layers = None
        if first.recipe.train.prefix_cache != "off" and first.feed.first_position is not None:
            layers = min(frozen_layers(run.model) for run in runs)
        cached = first.cached(validation, layers=layers)
        for run in runs:
            run.begin_adapters(tokens)
            run.prepare(len(tokens), cached)
        _fit(runs, Together([run.model for run in runs], first.feed), tokens, layers=layers)
        return [run.finish(splits) for run in runs]


def _fit(runs: Sequence[Run], group: Together, tokens: Tokens, *, layers: int | None) -> None:
    members = [
        Member(run.model, run.optimizer, run.scheduler, run.objective, run.progress, run.evaluate)
        for run in runs
    ]
    first = runs[0]
    steps = train_steps_together(
        group, members, first.cached(tokens, layers=layers), settings=settings_of(first.recipe)
    )
    try:
        for at, step in steps:
            runs[at].take(step)
    except NonFiniteLossError as error:
        raise first.explain(error) from None


def _training_tokens(run: Run, splits: Splits, others: Sequence[Run] = ()) -> Tokens:
    """The training rows as tokens, with what the recipe's teachers say of them."""
    prepared = run.training_rows(splits)
    for other in others:
        other.note_rows(prepared)
    tokens = replace(
        run.tokens(prepared.rows), weights=prepared.weights, smoothing=prepared.smoothing
    )
    if run.recipe.distillation is None:
        return tokens
    with run.accelerator.main_process_first():
        width = output_layer_of(run.model, run.plan.output_layer).in_features
        taught = teach(run.recipe, prepared.rows, width=width, say=run.say)
    return replace(tokens, taught=taught)


def _open(
    recipe: Recipe, out: Path, *, resume: bool = False, watcher: Watcher | None = None
) -> Run:
    """Everything that can be refused before a directory is touched, then the directory."""
    if recipe.data.train is None:
        raise RecipeError(
            "data.train: missing; name the labelled training rows, for example "
            "--set data.train=train.csv"
        )
    base = find_base(recipe, config_only=False)
    compute = choose_compute(
        precision=recipe.train.precision,
        attention=recipe.base.attention,
        config=base.config,
        trains_all=recipe.adapter.method == FULL,
    )
    planned = plan(recipe, base=base)
    accelerator = make_accelerator(recipe, compute, out)
    if accelerator.is_main_process:
        prepare_directory(out, recipe, resume=resume)
    accelerator.wait_for_everyone()
    return Run(recipe, out, base, planned, compute, accelerator, watcher or Watcher())


def _refuse_differences(recipes: Sequence[Recipe]) -> None:
    shared = [recipe.model_dump(exclude=set(_OWN)) for recipe in recipes]
    for recipe, values in zip(recipes[1:], shared[1:], strict=True):
        for section, value in values.items():
            if value != shared[0][section]:
                raise RecipeError(
                    f"{recipe.name}: [{section}] differs from {recipes[0].name}'s; runs that are "
                    f"trained together may differ in {', '.join(sorted(_OWN - {'summary'}))} only"
                )
    if recipes[0].train.accumulation_steps != 1:
        raise RecipeError(
            "train.accumulation_steps: must be 1 where runs are trained together; "
            "train.batch_tokens bounds the memory"
        )
