"""The rule for caching the outputs of the layers below all adapters.

It follows those of `pennyweight.defaults.rules`, because it depends on what those derive: the
number of epochs and the length of the texts.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from typing import Any

from pennyweight.base import BaseModel, skeleton
from pennyweight.budget.choose import choose
from pennyweight.budget.layout import Layout, layout_of
from pennyweight.budget.spending import Spending, select_targets
from pennyweight.defaults.rules import Derived, Facts
from pennyweight.engine.batches.prefix import amount
from pennyweight.engine.device import DTYPES, Compute, choose_compute
from pennyweight.engine.kernels.attention import PACKED
from pennyweight.environment import cache_directory
from pennyweight.errors import BudgetError, TrainingError
from pennyweight.recipe import Recipe
from pennyweight.recipe.plan_file import with_plan_file
from pennyweight.settings import find_base

__all__ = ["LARGEST_CACHE", "Cache", "derive_prefix_cache", "prefix_cache"]

# The largest cache that is chosen by the rule, in bytes. It may not take more than a share of the
# free disk space either, because the files are kept for later runs.
LARGEST_CACHE = 16_000_000_000
_FREE_SHARE = 0.5
# Caching pays where at least one in so many layers, the lowest ones, is left out.
_PARTS = 3


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
    if _PARTS * cache.frozen_layers < cache.layers:
        return Derived("off", f"only {lowest}")
    if (obstacle := cache.obstacle()) is not None:
        return Derived("off", f"{lowest}, but {obstacle}")
    return Derived(
        "disk", f"{lowest}; their outputs, without dropout, take about {amount(cache.size)}"
    )


@dataclass(frozen=True, slots=True)
class _Subject:
    """A recipe that is complete apart from `train.prefix_cache`, and what is known about it.

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


def derive_prefix_cache(recipe: Recipe, facts: Facts) -> Derived:
    """Return the value of `train.prefix_cache`.

    Args:
        recipe: complete apart from this key.
        facts: from which the other keys were derived.

    Raises:
        RecipeError: a pattern or rank does not fit the base.
    """
    base = find_base(recipe, config_only=True)
    subject = _Subject(
        recipe,
        facts,
        layout_of(skeleton(base), labels=len(recipe.data.label_names)),
        int(base.config.hidden_size),
        _compute(recipe, base),
    )
    return prefix_cache(_cache(subject))


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
