"""Start a training from the trained weights of a finished run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from pennyweight.base.locate import BaseModel
from pennyweight.budget.methods.lora import changes_base
from pennyweight.budget.plan import Matrix, Plan
from pennyweight.data.splits import Splits
from pennyweight.engine.train.checkpoint import load_weights
from pennyweight.errors import RecipeError, RunError
from pennyweight.model.artifact import read_fresh_weights
from pennyweight.runs.directory import RunDirectory, verify_artifact
from pennyweight.runs.record import RunRecord, load_record
from pennyweight.settings import find_base
from pennyweight.settings.values import Settings
from pennyweight.training.finished_run import finished_run, pooling_of

if TYPE_CHECKING:
    from pennyweight.training.stages import Built

__all__ = ["check_start", "continue_from", "load_fresh_weights"]

_KEY = "train.start_from"


def check_start(settings: Settings, plan: Plan, base: BaseModel) -> None:
    """Refuse a run whose weights do not fit, without reading them.

    Raises:
        RecipeError: it is no run, or has another base, other classes or another plan; or its
            weights belong to other frozen ones.
        RunError: it is unfinished.
    """
    run = settings.fit.start_from
    if run is None:
        return
    record = finished_run(_KEY, run, settings.labels)
    if difference := _difference(record, settings, plan, base):
        raise RecipeError(f"{_KEY}: {run}: {difference}; both must be the same")


def continue_from(
    built: Built, settings: Settings, plan: Plan, splits: Splits, *, log: Callable[[str], None]
) -> None:
    """Load the weights that training starts from, where the recipe names a run.

    The frozen weights that were drawn for that run come with them. Logs a warning if that run may
    have been trained on what are validation rows now.

    Raises:
        RunError: the artifact is not the one that was saved, or lacks weights.
    """
    start = settings.fit.start_from
    if start is None:
        return
    record = load_record(start)
    artifact = RunDirectory(start).artifact(plan.method.artifact)
    verify_artifact(start, record, artifact)
    load_weights(built.model, artifact)
    load_fresh_weights(built, artifact, moves_base=changes_base(plan.initialization))
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


def load_fresh_weights(built: Built, artifact: Path, *, moves_base: bool) -> None:
    """Replace the frozen weights that were drawn from the seed by those of an artifact.

    Raises:
        RunError: the artifact lacks one; or it has another one, of which an initialization such as
            PiSSA has moved a part into the adapter.
    """
    if not built.fresh_weights:
        return
    stored = read_fresh_weights(artifact)
    if missing := sorted(set(built.fresh_weights) - set(stored)):
        raise RunError(f"{artifact}: lacks the frozen weights {missing[0]}; train the run again")
    # By the names that they have without adapters.
    named = {
        name.replace(".base_layer", ""): (parameter, ".base_layer" in name)
        for name, parameter in built.model.get_base_model().named_parameters()
    }
    with torch.no_grad():
        for name, tensor in built.fresh_weights.items():
            if torch.equal(tensor.cpu(), stored[name]):
                continue
            parameter, is_adapted = named[name]
            if moves_base and is_adapted:
                raise RunError(
                    f"{artifact}: its adapter was initialized on another {name}, which was drawn "
                    "from its seed; use the same seed, or an adapter.initialization that leaves "
                    "the base as it is"
                )
            tensor.copy_(stored[name])
            parameter.copy_(stored[name])


def _difference(record: RunRecord, settings: Settings, plan: Plan, base: BaseModel) -> str | None:
    """Return how a run differs from the one that is to start from it; None if it fits."""
    if record.base is not None and record.base.reference != base.reference:
        return f"its base is {record.base.reference}, and that of the recipe is {base.reference}"
    poolings = [pooling_of(find_base(record.recipe, config_only=True)), pooling_of(base)]
    if poolings[0] != poolings[1]:
        return f"its base.pooling is {poolings[0]}, and that of the recipe is {poolings[1]}"
    seeds = (record.recipe.seed, settings.seed)
    if record.recipe.base.weights == "random" and seeds[0] != seeds[1]:
        return f"its random base has the seed {seeds[0]}, and the recipe {seeds[1]}"
    adapter = record.recipe.adapter.model_dump()
    initializations = (adapter.get("initialization"), plan.initialization)
    if initializations[0] != initializations[1] and any(map(changes_base, initializations)):
        return (
            f"its adapter.initialization is {initializations[0]}, which belongs to other weights "
            f"of the base than {initializations[1]}"
        )
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
