"""The recipe of a run that is made by combining others: that of the first run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pennyweight.model.combinations import Combination, Space
from pennyweight.recipe import Recipe
from pennyweight.training.combined_runs import CombinedMember

__all__ = ["combined_recipe"]


def combined_recipe(members: Sequence[CombinedMember], row: Combination, space: Space) -> Recipe:
    """Return the recipe of the first run, under a name of its own, as far as it still holds.

    The correction for class shares is left out. Where ranks add up, the adapter has those of all
    runs together, and the budget is the smallest of the runs.
    """
    recipe = members[0].record.recipe
    values = recipe.model_dump()
    values["name"] = f"{recipe.name}-{row.name}"
    if values["transduction"] is not None:
        values["transduction"]["prior"] = None
    if space == "ranks":
        budgets = [member.record.recipe.budget.trainable_parameters for member in members]
        values["budget"]["trainable_parameters"] = min(budgets)
        values["adapter"] |= _added_ranks(members)
    return Recipe.model_validate(values)


def _added_ranks(members: Sequence[CombinedMember]) -> dict[str, Any]:
    """Return the keys of `[adapter]` with the ranks of all runs added up."""
    first = members[0].record.recipe
    adapter = first.adapter.model_dump()
    ranks: dict[str, int] = {}
    for member in members:
        for name, part in member.adapted.items():
            ranks[name] = ranks.get(name, 0) + (part.rank or 0)
    alphas = {name: float(rank) for name, rank in ranks.items()}
    keys: dict[str, Any] = {
        "targets": tuple(
            dict.fromkeys(
                target
                for member in members
                for target in member.record.recipe.adapter.model_dump()["targets"]
            )
        ),
        "alpha": _one_or_table(alphas, others=1.0),
    }
    if adapter["head"] == "low-rank" and first.base.pooling == "native":
        # The adapter of the head's dense layer comes after all others, with a key of its own.
        keys["head_rank"] = ranks.pop(list(members[0].adapted)[-1])
    tables = [isinstance(m.record.recipe.adapter.model_dump()["rank"], dict) for m in members]
    keys["rank"] = ranks if any(tables) else _one_or_table(ranks, others=0)
    if any(tables):
        keys["rank"] = {"*": 0, **ranks}
        keys["alpha"] = {"*": 1.0, **alphas}
    return keys


def _one_or_table(values: Mapping[str, Any], *, others: Any) -> Any:
    """Return the value that all matrices have, or a table that starts with that of all others."""
    distinct = set(values.values())
    return distinct.pop() if len(distinct) == 1 else {"*": others, **values}
