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
from pennyweight.engine.device import DTYPES, Compute, choose_compute
from pennyweight.engine.kernels.attention import PACKED
from pennyweight.environment import cache_directory
from pennyweight.errors import BudgetError, TrainingError
from pennyweight.recipe import Recipe
from pennyweight.recipe.plan_file import with_plan_file
from pennyweight.settings import find_base
from pennyweight.wording import byte_size

__all__ = ["LARGEST_CACHE", "Cache", "derive_prefix_cache", "prefix_cache"]

# The largest cache that is chosen by the rule, in bytes. It may not take more than a share of the
# free disk space either, because the files are kept for later runs.
LARGEST_CACHE = 16_000_000_000
_FREE_SHARE = 0.5
# Caching pays where at least one in so many layers, the lowest ones, is left out.
_PARTS = 3


@dataclass(frozen=True, slots=True)
class Cache:
    """Facts for the rule of `train.prefix_cache`.

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
        size = byte_size(self.size)
        if self.size > LARGEST_CACHE:
            return f"the outputs would take {size}, more than {byte_size(LARGEST_CACHE)}"
        if self.size > _FREE_SHARE * self.free:
            return f"the outputs would take {size} of the {byte_size(self.free)} free"
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
        "disk", f"{lowest}; their outputs, without dropout, take about {byte_size(cache.size)}"
    )


def derive_prefix_cache(recipe: Recipe, facts: Facts) -> Derived:
    """Return the value of `train.prefix_cache`.

    Args:
        recipe: complete apart from this key.
        facts: from which the other keys were derived.

    Raises:
        RecipeError: a pattern or rank does not fit the base.
    """
    base = find_base(recipe, config_only=True)
    layout = layout_of(skeleton(base), labels=len(recipe.data.label_names))
    compute, epochs = _compute(recipe, base), recipe.train.epochs
    assert epochs != "auto"  # noqa: S101 - derived before
    itemsize = DTYPES["fp32" if compute is None else compute.precision].itemsize
    tokens = (facts.training_rows + facts.evaluated_rows) * _tokens_per_row(recipe, facts)
    directory = cache_directory()
    directory.mkdir(parents=True, exist_ok=True)
    return prefix_cache(
        Cache(
            layers=layout.layers,
            frozen_layers=_frozen_layers(recipe, layout),
            epochs=epochs,
            size=round(tokens * int(base.config.hidden_size) * itemsize),
            free=shutil.disk_usage(directory).free,
            refusal=_refusal(recipe, compute),
        )
    )


def _compute(recipe: Recipe, base: BaseModel) -> Compute | None:
    """Return where and how a recipe trains; None where this machine cannot train it."""
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


def _tokens_per_row(recipe: Recipe, facts: Facts) -> float:
    most = recipe.data.max_tokens
    return facts.mean_length if most == "auto" else min(facts.mean_length, float(most))


def _refusal(recipe: Recipe, compute: Compute | None) -> str | None:
    """Return why outputs cannot be cached, or their size not be foreseen; None if they can."""
    if compute is None or compute.attention != PACKED:
        return "only packed batches can start from cached outputs"
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        return "several processes train, and each may see another amount of free space"
    data = recipe.data
    if data.augmentations or data.extra or recipe.generate or recipe.transduction:
        return "rows are added later, so that the size of the outputs is unknown"
    return None


def _frozen_layers(recipe: Recipe, layout: Layout) -> int:
    """Return the number of the lowest layers that certainly hold nothing trained."""
    values: dict[str, Any] = with_plan_file(recipe.adapter).model_dump()
    if "targets" not in values or values.get("bias") == "all":
        return 0
    is_allocated = values.get("rank") == "allocate"
    if is_allocated:
        # Which of the targets get a rank is settled later.
        values = {**values, "rank": 1}
    spending = Spending.of(values)
    matrices = select_targets(layout, spending)
    if not is_allocated:
        budget = recipe.budget.trainable_parameters
        try:
            choice = choose(layout, spending, budget=budget)
        except BudgetError:
            # The plan is refused later, with advice.
            return 0
        adapted = {each.matrix.name for each in choice.adapted}
        matrices = [matrix for matrix in matrices if matrix.name in adapted]
    # A matrix outside the layers, such as one of the embeddings, may come before them.
    return min(matrix.layer or 0 for matrix in matrices)
