"""Preparation of a run's directory: new, started over, or resumed."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

from pennyweight.data.splits import SetFacts
from pennyweight.engine.train.checkpoint import check_manifest
from pennyweight.errors import RunError
from pennyweight.files import recover_directory, remove_leftovers
from pennyweight.recipe import Recipe
from pennyweight.runs.directory import RunDirectory
from pennyweight.runs.record import RowStep, RunRecord, TrainingRows, load_record

__all__ = [
    "Opening",
    "check_data",
    "check_training_rows",
    "decide_opening",
    "prepare_directory",
]


@dataclass(frozen=True, slots=True)
class Opening:
    """The decision about a run's directory; nothing has been changed yet.

    Attributes:
        directory: of the run.
        previous: the record of the run that is resumed; None for a new run.
        replaced: the record of an unfinished run that is deleted and started over.
    """

    directory: RunDirectory
    previous: RunRecord | None = None
    replaced: RunRecord | None = None

    def describe(self) -> str | None:
        """Return a line that says what is replaced, if anything is."""
        if self.replaced is None:
            return None
        reason = f" ({self.replaced.failure})" if self.replaced.failure else ""
        line = f"{self.directory.path}: replacing the {_state(self.replaced)} run in it{reason}"
        if self.replaced.best is not None:
            line += f"; its {self.replaced.history[-1].step} steps are lost"
        return line


def decide_opening(out: Path, recipe: Recipe, *, resume: bool) -> Opening:
    """Decide what to do with a directory.

    A new or empty directory becomes a new run. An unfinished run is resumed on request, and
    otherwise started over. Nothing else is ever overwritten.

    Raises:
        RunError: the directory holds a complete run or something else, or the run to resume is
            missing, complete, or of another recipe.
    """
    directory = RunDirectory(out)
    if not resume:
        return _opening_of_new(directory)
    record = load_record(out)
    if record.status == "complete":
        raise RunError(f"{out}: the run is complete already; name a new directory to train again")
    if record.combination is not None:
        raise RunError(
            f"{out}: was made by pennyweight combine and cannot be resumed; run that command again"
        )
    if differing := _differing_keys(record.recipe, recipe):
        keys = ", ".join(differing)
        raise RunError(
            f"{out}: the recipe differs from the one this run was begun with, in {keys}; resume it "
            f"with pennyweight train {out} --out {out} --resume"
        )
    return Opening(directory, previous=record)


def _opening_of_new(directory: RunDirectory) -> Opening:
    if directory.is_unused():
        return Opening(directory)
    if not directory.record.is_file():
        raise RunError(f"--out {directory.path}: not empty, and not a run; name a new directory")
    record = load_record(directory.path)
    if record.status == "complete":
        raise RunError(
            f"--out {directory.path}: not empty: it holds a complete run; name a new directory"
        )
    return Opening(directory, replaced=record)


def _differing_keys(one: Recipe, other: Recipe) -> list[str]:
    """Return the keys in which two recipes differ, their summaries aside."""
    first, second = (recipe.model_dump(mode="json", exclude={"summary"}) for recipe in (one, other))
    keys = []
    for section in first:
        if first[section] == second[section]:
            continue
        old, new = first[section], second[section]
        if isinstance(old, dict) and isinstance(new, dict):
            keys += [f"{section}.{k}" for k in {**old, **new} if old.get(k) != new.get(k)]
        else:
            keys.append(section)
    return keys


def check_data(opening: Opening, sets: Mapping[str, SetFacts]) -> None:
    """Refuse to resume on other rows than the run was begun with.

    Raises:
        RunError: the fingerprint of a set differs from the recorded one.
    """
    previous = opening.previous
    if previous is None or previous.data is None:
        return
    changed = [
        name
        for name, facts in previous.data.sets.items()
        if name not in sets or sets[name].fingerprint != facts.fingerprint
    ]
    if changed:
        sources = ", ".join(f"{name} ({previous.data.sets[name].source})" for name in changed)
        raise RunError(
            f"{opening.directory.path}: the rows of {sources} have changed since this run was "
            "begun; restore them, or train again into a new directory"
        )


def check_training_rows(opening: Opening, rows: TrainingRows) -> None:
    """Refuse to resume if filters, files or generation lead to other training rows than before.

    Raises:
        RunError: a step that changes the training rows gives another result.
    """
    previous = opening.previous
    if previous is None or previous.data is None or previous.data.training is None:
        return
    before = previous.data.training
    old, new = ([_result(step) for step in each.steps] for each in (before, rows))
    if before.rows == rows.rows and old == new:
        return
    changed = [
        step.step
        for step, result, earlier in zip_longest(rows.steps, new, old)
        if step is not None and result != earlier
    ]
    steps = f", in {', '.join(changed)}," if changed else ""
    raise RunError(
        f"{opening.directory.path}: the training rows{steps} differ from those that this run "
        f"started with ({before.rows:,} then, {rows.rows:,} now); restore their sources, or train "
        "again into a new directory"
    )


def _result(step: RowStep) -> tuple[object, ...]:
    """Return what a step did, without where its rows are stored."""
    return (step.step, step.added, step.removed, step.sha256, step.by_class)


def prepare_directory(opening: Opening, *, log: Callable[[str], None]) -> None:
    """Delete an unfinished run that is started over; recover what a crash left half-renamed.

    The directory must be locked by this process. Of a run that is started over, the record stays
    until the next one replaces it: a directory with files and no record would be no run.

    Args:
        opening: what becomes of the directory.
        log: receives a line if the last checkpoint is damaged and the one before it is used.

    Raises:
        RunError: another process has changed the directory since the opening was decided, or no
            checkpoint is whole.
    """
    directory = opening.directory
    _require_unchanged(opening)
    if opening.previous is not None:
        _recover_checkpoint(directory, log)
        for kind in ("adapter", "model"):
            recover_directory(directory.artifact(kind))
    elif opening.replaced is not None:
        for entry in directory.path.iterdir():
            if entry in (directory.lock, directory.record):
                continue
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()
    for folder in (directory.path, directory.checkpoint.parent):
        remove_leftovers(folder)


def _recover_checkpoint(directory: RunDirectory, log: Callable[[str], None]) -> None:
    """Leave the last whole checkpoint as the last one.

    Raises:
        RunError: there are checkpoints, and none is whole.
    """
    last, previous = directory.checkpoint, directory.previous_checkpoint
    recover_directory(last)
    if not last.is_dir() and not previous.is_dir():
        return
    try:
        if last.is_dir():
            check_manifest(last)
            return
        damage = f"{last}: missing"
    except RunError as error:
        damage = str(error)
    try:
        if not previous.is_dir():
            raise RunError("there is no checkpoint before it")
        check_manifest(previous)
    except RunError as error:
        raise RunError(
            f"{damage}; {error}; to train this run from the beginning, delete {last.parent}"
        ) from None
    log(f"warning: {damage}; the checkpoint before it is used")
    shutil.rmtree(last, ignore_errors=True)
    previous.rename(last)


def _require_unchanged(opening: Opening) -> None:
    """Refuse a directory in which another process worked before this one held the lock."""
    directory, record = opening.directory, opening.previous or opening.replaced
    now = None if directory.is_unused() else load_record(directory.path)
    # Compared as JSON, because a NaN in a record does not equal itself.
    first, second = (None if one is None else one.model_dump_json() for one in (record, now))
    if first != second:
        raise RunError(
            f"{directory.path}: another process has changed this run in the meantime; try again"
        )


def _state(record: RunRecord) -> str:
    return "unfinished" if record.status == "running" else record.status
