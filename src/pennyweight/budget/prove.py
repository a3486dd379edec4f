"""Compare the counts of trainable parameters: planned, in the model, and in the saved file."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

from pennyweight.budget.count import read_adapter, read_shapes, trainable_sizes
from pennyweight.budget.plan import Plan
from pennyweight.errors import BudgetError

if TYPE_CHECKING:
    from torch import nn

__all__ = ["prove", "prove_artifact"]


def prove_artifact(model: nn.Module, plan: Plan, directory: Path) -> dict[str, int]:
    """Return the counts "planned", "model", "file" and "budget" of a saved artifact.

    Only full fine-tuning may exceed the budget, and its counts then show it.

    Raises:
        BudgetError: the counts differ, or exceed the budget.
        RunError: the artifact cannot be read.
    """
    in_model = sum(trainable_sizes(model).values())
    if plan.method.tensors is None:
        shapes = read_shapes(directory / "model.safetensors")
        in_file, dropped = sum(math.prod(shape) for shape in shapes.values()), 0
    else:
        file = read_adapter(directory, frozen=plan.method.frozen)
        in_file = file.parameters
        dropped = plan.method.tensors.dropped(file.config, plan.matrices)
    prove(
        planned=plan.trainable_parameters,
        model=in_model,
        file=in_file,
        budget=max(plan.budget, in_model) if plan.method.may_exceed_budget else plan.budget,
        dropped=dropped,
    )
    return {
        "planned": plan.trainable_parameters,
        "model": in_model,
        "file": in_file,
        "budget": plan.budget,
    }


def prove(*, planned: int, model: int, file: int, budget: int, dropped: int = 0) -> None:
    """Check that the three counts agree and keep to the budget.

    Args:
        planned: trainable parameters of the plan.
        model: trainable parameters of the model.
        file: trained parameters in the saved file.
        budget: the largest number of trainable parameters allowed.
        dropped: parameters of ranks that were trained and then dropped before saving.

    Raises:
        BudgetError: the counts differ, or exceed the budget.
    """
    if not planned == model == file + dropped:
        raise BudgetError(
            f"the counts of trainable parameters differ: {planned:,} planned, {model:,} in the "
            f"model, {file:,} in the saved file; the run is not valid"
        )
    if model > budget:
        raise BudgetError(
            f"{model:,} parameters were trained and the saved file holds {file:,}, over the "
            f"budget of {budget:,}"
        )
