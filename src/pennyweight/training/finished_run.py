"""Check a finished run that another run builds on, without reading its weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pennyweight.base.locate import BaseModel
from pennyweight.data.label import Task
from pennyweight.errors import RecipeError
from pennyweight.inference.load import require_complete
from pennyweight.runs.directory import RunDirectory
from pennyweight.runs.record import RunRecord, load_record

__all__ = ["finished_run", "pooling_of", "require_labels", "require_task"]


def finished_run(key: str, run: Path, labels: Sequence[str]) -> RunRecord:
    """Return the record of a finished run with the given classes.

    Args:
        key: the recipe's key that names the run, for messages.
        run: its directory.
        labels: the classes that it must have, in order.

    Raises:
        RecipeError: it is no run, or has other classes.
        RunError: it is unfinished.
    """
    if not RunDirectory(run).record.is_file():
        raise RecipeError(f"{key}: {run}: not a run; train one first, and name its directory")
    record = load_record(run)
    require_complete(run, record)
    require_labels(f"{key}: {run}", record.recipe.data.label_names, labels)
    return record


def require_labels(place: str, labels: Sequence[str], expected: Sequence[str]) -> None:
    """Refuse classes that are not those of the recipe.

    Args:
        place: the key and the run or model, which the message begins with.
        labels: its classes.
        expected: `data.labels`.

    Raises:
        RecipeError: they differ, or their order does.
    """
    if tuple(labels) != tuple(expected):
        raise RecipeError(
            f"{place}: its classes are {', '.join(labels)}, and data.labels are "
            f"{', '.join(expected)}; they must be the same, in the same order"
        )


def require_task(place: str, task: Task, expected: Task) -> None:
    """Refuse a task that is not that of the recipe.

    Args:
        place: the key and the run or model, which the message begins with.
        task: of the run.
        expected: the recipe's.

    Raises:
        RecipeError: they differ.
    """
    if task != expected:
        raise RecipeError(
            f"{place}: its task is {task}, and that of the recipe is {expected}; they must be the "
            "same"
        )


def pooling_of(base: BaseModel) -> str:
    """Return how a base's hidden states are pooled, "native" with transformers' own head."""
    pooling: str = getattr(base.config, "classifier_pooling", "native")
    return pooling
