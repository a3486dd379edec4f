"""Start a training from the trained weights of a finished run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pennyweight.base.locate import BaseModel
from pennyweight.budget.plan import Matrix, Plan
from pennyweight.data.splits import Splits
from pennyweight.engine.train.checkpoint import load_weights
from pennyweight.errors import RecipeError
from pennyweight.runs.directory import RunDirectory, verify_artifact
from pennyweight.runs.record import RunRecord, load_record
from pennyweight.settings import find_base
from pennyweight.settings.values import Settings
from pennyweight.training.finished_run import finished_run, pooling_of

__all__ = ["check_start", "continue_from"]

_KEY = "train.start_from"


def check_start(settings: Settings, plan: Plan, base: BaseModel) -> None:
    """Refuse a run whose weights do not fit, without reading them.

    Raises:
        RecipeError: it is no run, or has another base, other classes or another plan.
        RunError: it is unfinished.
    """
    run = settings.fit.start_from
    if run is None:
        return
    record = finished_run(_KEY, run, settings.labels)
    if difference := _difference(record, plan, base):
        raise RecipeError(f"{_KEY}: {run}: {difference}; both must be the same")


def continue_from(
    model: Any, settings: Settings, plan: Plan, splits: Splits, *, log: Callable[[str], None]
) -> None:
    """Load the weights that training starts from, where the recipe names a run.

    Logs a warning if that run may have been trained on what are validation rows now.
    """
    start = settings.fit.start_from
    if start is None:
        return
    record = load_record(start)
    artifact = RunDirectory(start).artifact(plan.method.artifact)
    verify_artifact(start, record, artifact)
    load_weights(model, artifact)
    log(f"weights: start from those of {start}")
    if len(splits.validation) and _validation(record) != splits.sets["validation"].fingerprint:
        log(
            f"warning: {start} had other validation rows, so it may have been trained on those of "
            "this run, which then look easier than they are; name the same rows for both with "
            "data.validation"
        )


def _validation(record: RunRecord) -> str | None:
    """Return the fingerprint of a run's validation rows; None if it had none."""
    facts = None if record.data is None else record.data.sets.get("validation")
    return None if facts is None else facts.fingerprint


def _difference(record: RunRecord, plan: Plan, base: BaseModel) -> str | None:
    """Return how a run differs from the one that is to start from it; None if it fits."""
    if record.base is not None and record.base.reference != base.reference:
        return f"its base is {record.base.reference}, and that of the recipe is {base.reference}"
    poolings = [pooling_of(find_base(record.recipe, config_only=True)), pooling_of(base)]
    if poolings[0] != poolings[1]:
        return f"its base.pooling is {poolings[0]}, and that of the recipe is {poolings[1]}"
    theirs, ours = record.plan.matrices, plan.matrices
    for one, other in zip(theirs, ours, strict=False):
        if one != other:
            return f"its plan has {_shown(one)}, and that of the recipe has {_shown(other)}"
    if len(theirs) != len(ours):
        return f"its plan has {len(theirs)} trained parts, and that of the recipe has {len(ours)}"
    return None


def _shown(part: Matrix) -> str:
    rank = "" if part.rank is None else f", rank {part.rank}"
    alpha = "" if part.alpha is None else f", alpha {part.alpha:g}"
    return f"{part.name} ({part.kind}{rank}{alpha})"
