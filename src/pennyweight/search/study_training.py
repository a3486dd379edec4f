"""One run of a study: trained, resumed, or read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pennyweight.budget.methods import METHODS
from pennyweight.errors import PennyweightError
from pennyweight.recipe import Recipe
from pennyweight.runs.directory import RunDirectory
from pennyweight.runs.record import RunRecord, load_record
from pennyweight.training.train import train
from pennyweight.training.watcher import Watcher

__all__ = ["StudyRun", "complete_run", "train_here"]


@dataclass(frozen=True, slots=True)
class StudyRun:
    """A run of a study.

    Attributes:
        title: of the row, for messages.
        recipe: with the seed.
        directory: of the run.
    """

    title: str
    recipe: Recipe
    directory: Path


def train_here(
    run: StudyRun, *, log: Callable[[str], None], watcher: Watcher | None
) -> RunRecord | PennyweightError:
    """Return the record of a run that is completed in this process, or why it failed."""
    log(f"{run.title}, seed {run.recipe.seed}: {run.directory}")
    try:
        return complete_run(run, watcher)
    except PennyweightError as error:
        log(f"failed: {error}")
        return error


def complete_run(run: StudyRun, watcher: Watcher | None) -> RunRecord:
    """Return the record of a run, which is read, resumed, or trained.

    Raises:
        PennyweightError: the training cannot begin or go on.
    """
    recipe, out = run.recipe, run.directory
    if not RunDirectory(out).record.is_file():
        return train(recipe, out=out, watcher=watcher)
    record = load_record(out)
    if record.status == "complete":
        return record
    can_resume = METHODS[recipe.adapter.method].resume_refusal is None
    return train(recipe, out=out, resume=can_resume, watcher=watcher)
