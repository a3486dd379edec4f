"""Hold the counts against each other: what was planned, what was trained, what the file holds."""

from __future__ import annotations

import math
from pathlib import Path

from torch import nn

from pennyweight.budget.count import read_adapter, read_shapes, trainable_sizes
from pennyweight.budget.plan import Plan
from pennyweight.errors import BudgetError

__all__ = ["prove", "prove_artifact"]


def prove_artifact(model: nn.Module, plan: Plan, directory: Path) -> dict[str, int]:
    """The counts "planned", "model", "file" and "budget" of a saved artifact, which agree.

    Full fine-tuning may be over budget, and everything that reads its counts sees that it is.

    Raises:
        BudgetError: they differ, or exceed the budget.
        RunError: the artifact cannot be read.
    """
    in_model = sum(trainable_sizes(model).values())
    counts = {"planned": plan.trainable_parameters, "model": in_model}
    if plan.peft_config is None:
        shapes = read_shapes(directory / "model.safetensors")
        in_file = sum(math.prod(shape) for shape in shapes.values())
        prove(**counts, file=in_file, budget=max(plan.budget, in_model))
    else:
        file = read_adapter(directory)
        in_file = file.trained(plan.frozen)
        cost = {m.name: m.parameters // m.rank for m in plan.matrices if m.rank}
        prove(**counts, file=in_file, budget=plan.budget, dropped=file.dropped(cost))
    return {**counts, "file": in_file, "budget": plan.budget}


def prove(*, planned: int, model: int, file: int, budget: int, dropped: int = 0) -> None:
    """Hold the three counts against each other and the budget.

    Args:
        planned: by the plan.
        model: trained in the model.
        file: trained ones in the saved file.
        budget: the most that may be trained.
        dropped: parameters of ranks that were trained and are not in the file any more.

    Raises:
        BudgetError: they differ, or exceed the budget.
    """
    if not planned == model == file + dropped:
        raise BudgetError(
            f"the counts of trainable parameters differ: planned {planned:,}, in the model "
            f"{model:,}, in the saved adapter {file:,}; the run is not valid"
        )
    if model > budget:
        raise BudgetError(
            f"the saved adapter holds {file:,} parameters, and {model:,} were trained, over the "
            f"budget of {budget:,}"
        )
