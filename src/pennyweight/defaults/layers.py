"""The rules for the layers that get adapters, and for caching the outputs of the layers below.

They follow those of `pennyweight.defaults.rules`, because they depend on what those derive: the
number of epochs and the length of the texts.
"""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from pennyweight.base import BaseModel, skeleton
from pennyweight.budget.choose import choose
from pennyweight.budget.layout import Layout, layout_of
from pennyweight.budget.spending import Spending, select_targets
from pennyweight.defaults.rules import Derived, Facts
from pennyweight.defaults.speed import speed_of
from pennyweight.engine.batches.prefix import amount
from pennyweight.engine.device import DTYPES, Compute, choose_compute
from pennyweight.engine.kernels.attention import PACKED
from pennyweight.engine.train.speed import Speed
from pennyweight.environment import cache_directory
from pennyweight.errors import BudgetError, RecipeError, TrainingError
from pennyweight.recipe import Recipe
from pennyweight.recipe.plan_file import with_plan_file
from pennyweight.settings import find_base

__all__ = ["LARGEST_CACHE", "Cache", "LimitedRun", "derive_layers", "prefix_cache", "top_layers"]

# The largest cache that is chosen by the rule, in bytes. It may not take more than a share of the
# free disk space either, because the files are kept for later runs.
LARGEST_CACHE = 16_000_000_000
_FREE_SHARE = 0.5
# Caching pays where at least one in so many layers, the lowest ones, is left out.
_PARTS = 3
# A time limit is spent on the top third of the layers where that trains so many times as many
# epochs, and at least one.
_WORTHWHILE, _FEWEST_EPOCHS = 1.5, 1.0
# Of a time limit; the rest is for reading, loading and saving.
_SHARE = 0.9
# What a batch costs besides its layers, as a share of the time of all layers.
_BESIDES_LAYERS = 0.06
# The head is not fitted again where that would take more of the limit.
_REFIT_SHARE = 0.25
# In a shorter time, measuring the speed would cost too much of it.
_SHORTEST_SECONDS = 60.0
# The most rows that are embedded for the first and the last fit of the head.
_EMBEDDED_ROWS = 20_000


@dataclass(frozen=True, slots=True)
class Cache:
    """What the rule for `train.prefix_cache` knows.

    Attributes:
        layers: number of the encoder's layers.
        frozen_layers: number of the lowest layers that hold nothing trained.
        epochs: passes over the training rows.
        size: bytes of the outputs of these layers, for training and validation rows.
        free: bytes of the disk that are free.
        refusal: why outputs cannot be cached whatever their size; None if they can.
    """

    layers: int
    frozen_layers: int
    epochs: int
    size: int
    free: int
    refusal: str | None = None

    @property
    def has_few_frozen_layers(self) -> bool:
        """Whether too few of the lowest layers are frozen for a cache to pay."""
        return _PARTS * self.frozen_layers < self.layers

    def obstacle(self) -> str | None:
        """Return why the outputs of frozen lowest layers are not cached, or None if they are."""
        if self.refusal is not None:
            return self.refusal
        if self.epochs < 2:
            return "rows are seen once only"
        if self.size > LARGEST_CACHE:
            return f"the outputs would take {amount(self.size)}, more than {amount(LARGEST_CACHE)}"
        if self.size > _FREE_SHARE * self.free:
            return f"the outputs would take {amount(self.size)} of the {amount(self.free)} free"
        return None


def prefix_cache(cache: Cache) -> Derived:
    """Return the value of `train.prefix_cache`."""
    if not cache.frozen_layers:
        return Derived("off", "the lowest layer has adapters")
    lowest = f"the lowest {cache.frozen_layers} of {cache.layers} layers have no adapter"
    if cache.has_few_frozen_layers:
        return Derived("off", f"only {lowest}")
    if (obstacle := cache.obstacle()) is not None:
        return Derived("off", f"{lowest}, but {obstacle}")
    return Derived(
        "disk", f"{lowest}; their outputs, without dropout, take about {amount(cache.size)}"
    )


@dataclass(frozen=True, slots=True)
class LimitedRun:
    """What a run with a time limit has to do.

    Attributes:
        seconds: the limit.
        epochs: passes over the training rows, if there is time for them.
        tokens: of the training rows.
        validation_tokens: of the validation rows.
        evaluations: how often these are predicted during training.
        embedded_tokens: of the rows that the frozen encoder embeds before training.
        refit_tokens: of the rows that are embedded to fit the head again.
    """

    seconds: float
    epochs: int
    tokens: float
    validation_tokens: float
    evaluations: int
    embedded_tokens: float = 0.0
    refit_tokens: float = 0.0

    def epochs_at(self, speed: Speed, *, cached_share: float = 0.0) -> float:
        """Return the number of epochs that fit into the limit, at most those planned.

        A step goes forward and backward through the layers that are not cached, and a prediction on
        rows with cached outputs forward through them.

        Args:
            speed: with adapters in all layers, and nothing cached.
            cached_share: of all layers, those whose outputs are computed once for every row.
        """
        once = self.embedded_tokens + self.validation_tokens
        once += cached_share * (self.tokens + self.validation_tokens)
        cost = min(1.0, 1.0 - cached_share + _BESIDES_LAYERS)
        refit = cost * self.refit_tokens / speed.prediction
        if refit > _REFIT_SHARE * self.seconds:
            refit = 0.0
        evaluating = cost * self.evaluations * self.validation_tokens / speed.prediction
        left = _SHARE * self.seconds - once / speed.prediction - evaluating - refit
        return min(float(self.epochs), max(0.0, left * speed.training / (cost * self.tokens)))


def top_layers(run: LimitedRun, *, layers: int, top: int, speed: Speed) -> Derived:
    """Return the value of `adapter.top_layers` under a time limit.

    Args:
        run: what has to be done in the time.
        layers: number of the encoder's layers.
        top: the number of layers to choose instead of all.
        speed: with adapters in all layers.
    """
    all_epochs = run.epochs_at(speed)
    top_epochs = run.epochs_at(speed, cached_share=1.0 - top / layers)
    time = f"in {run.seconds / 60.0:g} min"
    if top_epochs >= max(_WORTHWHILE * all_epochs, _FEWEST_EPOCHS):
        return Derived(
            top,
            f"{time}, adapters in all {layers} layers would train about {all_epochs:.1f} of "
            f"{run.epochs} epochs; in the top {top}, with the outputs of the others cached, about "
            f"{top_epochs:.1f}",
        )
    return Derived(
        "all",
        f"{time}, they train about {all_epochs:.1f} of {run.epochs} epochs; the top {top} of "
        f"{layers} layers alone would train {top_epochs:.1f}",
    )


@dataclass(frozen=True, slots=True)
class _Subject:
    """A recipe that is complete apart from the keys of layers, and what is known about it.

    Attributes:
        recipe: itself.
        facts: from which its other keys were derived.
        layout: of its base.
        hidden: numbers that describe a token.
        compute: where and how it trains; None where this machine cannot train it.
    """

    recipe: Recipe
    facts: Facts
    layout: Layout
    hidden: int
    compute: Compute | None

    @property
    def spending(self) -> Spending:
        """The values of its `[adapter]` section."""
        return Spending.of(self.recipe.adapter.model_dump())

    @property
    def epochs(self) -> int:
        """Passes over the training rows."""
        epochs = self.recipe.train.epochs
        assert epochs != "auto"  # noqa: S101 - derived before
        return epochs

    @property
    def tokens_per_row(self) -> float:
        """Mean number of tokens of a text."""
        most = self.recipe.data.max_tokens
        length = self.facts.mean_length
        return length if most == "auto" else min(length, float(most))

    def with_top_layers(self, value: Any) -> _Subject:
        """Return the subject with a value of `adapter.top_layers`."""
        section = self.recipe.adapter.model_copy(update={"top_layers": value})
        return replace(self, recipe=self.recipe.model_copy(update={"adapter": section}))


def derive_layers(recipe: Recipe, facts: Facts) -> Iterator[tuple[str, Derived]]:
    """Yield `adapter.top_layers` and `train.prefix_cache`, as far as they are "auto".

    Where a time limit is set and the recipe allows a choice, the speed of training is measured,
    which takes a few seconds.

    Args:
        recipe: complete apart from these keys.
        facts: from which the other keys were derived.

    Raises:
        RecipeError: a pattern or rank does not fit the base.
        BudgetError: the plan whose speed is to be measured is over budget.
    """
    base = find_base(recipe, config_only=True)
    subject = _Subject(
        recipe,
        facts,
        layout_of(skeleton(base), labels=len(recipe.data.label_names)),
        int(base.config.hidden_size),
        _compute(recipe, base),
    )
    if getattr(recipe.adapter, "top_layers", None) == "auto":
        derived = Derived("all", "")
        if recipe.train.minutes is not None:
            derived = _under_limit(subject, seconds=60.0 * recipe.train.minutes)
        subject = subject.with_top_layers(derived.value)
        yield "adapter.top_layers", derived
    if recipe.train.prefix_cache == "auto":
        yield "train.prefix_cache", prefix_cache(_cache(subject))


def _compute(recipe: Recipe, base: BaseModel) -> Compute | None:
    try:
        return choose_compute(
            precision=recipe.train.precision,
            attention=recipe.base.attention,
            products=recipe.train.frozen_products,
            config=base.config,
        )
    except TrainingError:
        # Training refuses it; a plan may be for another machine.
        return None


def _under_limit(subject: _Subject, *, seconds: float) -> Derived:
    layers = subject.layout.layers
    top = round(layers / _PARTS)
    obstacle = _obstacle(subject, top=top, seconds=seconds)
    if obstacle is not None or subject.compute is None:
        return Derived("all", f"whatever the time limit: {obstacle}")
    speed = speed_of(
        subject.recipe, compute=subject.compute, tokens=max(2, round(subject.tokens_per_row))
    )
    run = _limited_run(subject, seconds=seconds)
    return top_layers(run, layers=layers, top=top, speed=speed)


def _obstacle(subject: _Subject, *, top: int, seconds: float) -> str | None:
    """Return why a time limit does not change the layers that get adapters; None if it may."""
    recipe, spending = subject.recipe, subject.spending
    if getattr(recipe.adapter, "plan", None) is not None:
        return "a plan file names the matrices"
    if spending.rank != "fill":
        return 'only the size "fill" spends the same budget on fewer layers'
    if spending.bias == "all":
        return 'adapter.bias = "all" trains every layer'
    if recipe.train.start_from is not None:
        return "train.start_from needs the adapters of that run"
    if recipe.train.prefix_cache not in ("auto", "disk"):
        return f'train.prefix_cache is "{recipe.train.prefix_cache}"'
    if subject.layout.layers < _PARTS:
        return f"the encoder has {subject.layout.layers} layers"
    if seconds < _SHORTEST_SECONDS:
        return "it is shorter than a minute"
    try:
        select_targets(subject.layout, replace(spending, top_layers=top))
    except RecipeError:
        return f"no target is in the top {top} layers"
    cache = _cache(subject)
    if not cache.has_few_frozen_layers:
        return "the lowest layers have no adapter"
    return cache.obstacle()


def _limited_run(subject: _Subject, *, seconds: float) -> LimitedRun:
    recipe, facts, tokens = subject.recipe, subject.facts, subject.tokens_per_row
    train, rows = recipe.train, facts.training_rows
    validation = facts.evaluated_rows * tokens
    evaluations = subject.epochs
    if isinstance(train.evaluate_every, int) and isinstance(train.batch_rows, int):
        steps = subject.epochs * math.ceil(rows / train.batch_rows)
        evaluations = max(1, steps // train.evaluate_every)
    embedded = min(rows, _EMBEDDED_ROWS) * tokens + validation
    embeds = train.head_start == "logistic" or "embedding" in recipe.evaluate.baselines
    return LimitedRun(
        seconds=seconds,
        epochs=subject.epochs,
        tokens=rows * tokens,
        validation_tokens=validation,
        evaluations=evaluations,
        embedded_tokens=embedded if embeds else 0.0,
        refit_tokens=embedded if train.head_end == "logistic" else 0.0,
    )


def _cache(subject: _Subject) -> Cache:
    facts, compute = subject.facts, subject.compute
    tokens = (facts.training_rows + facts.evaluated_rows) * subject.tokens_per_row
    itemsize = DTYPES["fp32" if compute is None else compute.precision].itemsize
    directory = cache_directory()
    directory.mkdir(parents=True, exist_ok=True)
    return Cache(
        layers=subject.layout.layers,
        frozen_layers=_frozen_layers(subject),
        epochs=subject.epochs,
        size=round(tokens * subject.hidden * itemsize),
        free=shutil.disk_usage(directory).free,
        refusal=_refusal(subject),
    )


def _refusal(subject: _Subject) -> str | None:
    """Return why outputs cannot be cached, or their size not be foreseen; None if they can."""
    if subject.compute is None or subject.compute.attention != PACKED:
        return "only packed batches can start from cached outputs"
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        return "several processes train, and each may see another amount of free space"
    data, recipe = subject.recipe.data, subject.recipe
    if data.augmentations or data.extra or recipe.generate or recipe.transduction:
        return "rows are added later, so that the size of the outputs is unknown"
    return None


def _frozen_layers(subject: _Subject) -> int:
    """Return the number of the lowest layers that certainly hold nothing trained."""
    values: dict[str, Any] = with_plan_file(subject.recipe.adapter).model_dump()
    if "targets" not in values or values.get("bias") == "all":
        return 0
    is_allocated = values.get("rank") == "allocate"
    if is_allocated:
        # Which of the targets get a rank is settled later.
        values = {**values, "rank": 1}
    spending, layout = Spending.of(values), subject.layout
    matrices = select_targets(layout, spending)
    if not is_allocated:
        budget = subject.recipe.budget.trainable_parameters
        try:
            choice = choose(layout, spending, budget=budget)
        except BudgetError:
            # The plan is refused later, with advice.
            return 0
        adapted = {each.matrix.name for each in choice.adapted}
        matrices = [matrix for matrix in matrices if matrix.name in adapted]
    # A matrix outside the layers, such as one of the embeddings, may come before them.
    return min(matrix.layer or 0 for matrix in matrices)
