"""The labelled sets that runs can be compared on: those with the same rows in every run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pennyweight.data.shown import listed
from pennyweight.errors import RunError
from pennyweight.runs.predictions import load_predictions, same_rows
from pennyweight.runs.record import RunRecord
from pennyweight.runs.results import ordered_sets
from pennyweight.search.systems import System, SystemRun

__all__ = ["LeftOutSet", "SharedSet", "check_tasks", "shared_sets"]

_VALIDATION = "validation"


@dataclass(frozen=True, slots=True)
class SharedSet:
    """A labelled set with the answers of every run.

    Attributes:
        name: of the set.
        metric: "accuracy" or "macro_f1": what the first run leads with on it.
        classes: number of classes.
        labels: int `[rows]`, or `[rows, classes]` of 0 and 1 in a multi-label task.
        answers: of each run, shaped like the labels, by the name of the system.
    """

    name: str
    metric: str
    classes: int
    labels: np.ndarray
    answers: Mapping[str, tuple[np.ndarray, ...]]


@dataclass(frozen=True, slots=True)
class LeftOutSet:
    """A set that was not compared, and why."""

    name: str
    reason: str


def check_tasks(systems: Sequence[System]) -> None:
    """Check that all runs have the same task, and the same classes in the same order.

    Raises:
        RunError: a run differs from the first one.
    """
    first, *others = [run for system in systems for run in system.runs]
    for run in others:
        if run.record.is_multi_label != first.record.is_multi_label:
            kinds = [_kind(each.record) for each in (run, first)]
            raise RunError(
                f"{run.path}: a {kinds[0]} task, but {first.path} is a {kinds[1]} one; compare "
                "runs of the same task"
            )
        classes, expected = (_classes(each.record) for each in (run, first))
        if classes != expected:
            order = ", in another order" if sorted(classes) == sorted(expected) else ""
            raise RunError(
                f"{run.path}: its classes are {listed(classes)}, but those of {first.path} are "
                f"{listed(expected)}{order}; compare runs with the same classes in the same order"
            )


def shared_sets(
    systems: Sequence[System], names: Sequence[str] | None
) -> tuple[list[SharedSet], tuple[LeftOutSet, ...]]:
    """Return the sets that all runs evaluated on the same rows, and those left out.

    Validation rows that were split off the training rows differ with the seed; such a set is left
    out. A held-out set with different rows is an error.

    Args:
        systems: whose runs are compared; tasks and classes have been checked.
        names: of the sets to compare; None for all.

    Raises:
        RunError: no set is shared, a requested set is not known, the rows of a held-out set
            differ, or a run has no predictions.
    """
    runs = [run for system in systems for run in system.runs]
    evaluated = dict.fromkeys(name for run in runs for name in ordered_sets(run.record))
    known = sorted(evaluated, key=lambda name: (name == _VALIDATION, name != "test"))
    for name in names or ():
        if name not in known:
            raise RunError(
                f"--only {name}: no run has evaluated this set; choose from {', '.join(known)}"
            )
    shared: list[SharedSet] = []
    left_out: list[LeftOutSet] = []
    for name in known:
        if names is not None and name not in names:
            continue
        reason = _missing(runs, name)
        if reason is None:
            reason = _differing(runs, name)
            if reason is not None and name != _VALIDATION:
                others = [f"--only {each}" for each in known if each != name]
                rest = f", or compare other sets with {' '.join(others)}" if others else ""
                raise RunError(f"{reason}; evaluate both runs on the same rows{rest}")
        if reason is None:
            shared.append(_gathered(systems, name))
        else:
            left_out.append(LeftOutSet(name, reason))
    if not shared:
        reasons = "; ".join(f"{each.name}: {each.reason}" for each in left_out)
        raise RunError(
            f"there is no labelled set that all runs evaluated on the same rows: "
            f"{reasons or 'no run has evaluated any'}"
        )
    return shared, tuple(left_out)


def _missing(runs: Sequence[SystemRun], name: str) -> str | None:
    missing = [str(run.path) for run in runs if name not in run.record.metrics]
    return f"not evaluated by {', '.join(missing)}" if missing else None


def _differing(runs: Sequence[SystemRun], name: str) -> str | None:
    """Return which run has other rows than the first one, or other labels; None if none has."""
    first, *others = runs
    labels = load_predictions(first.path, name).labels
    for run in others:
        if not same_rows(first.record, run.record, name):
            return f"{run.path}: its {name} rows differ from those of {first.path}" + _sizes(
                first.record, run.record, name
            )
        if not np.array_equal(load_predictions(run.path, name).labels, labels):
            return f"{run.path}: the labels of its {name} rows differ from those of {first.path}"
    return None


def _sizes(first: RunRecord, other: RunRecord, name: str) -> str:
    """Return in parentheses what tells two sets apart: their sizes, or else their fingerprints."""
    sizes = [record.metrics[name].rows for record in (other, first)]
    if sizes[0] != sizes[1]:
        return f" ({sizes[0]:,} rows and {sizes[1]:,})"
    return " (their fingerprints differ)"


def _gathered(systems: Sequence[System], name: str) -> SharedSet:
    loaded = {
        system.name: [load_predictions(run.path, name) for run in system.runs] for system in systems
    }
    first = systems[0].runs[0].record
    return SharedSet(
        name=name,
        metric=first.metrics[name].headline.metric,
        classes=len(first.metrics[name].classes),
        labels=loaded[systems[0].name][0].labels,
        answers={system: tuple(each.predicted for each in runs) for system, runs in loaded.items()},
    )


def _kind(record: RunRecord) -> str:
    return "multi-label" if record.is_multi_label else "single-label"


def _classes(record: RunRecord) -> tuple[str, ...]:
    if record.recipe.data.labels is not None:
        return record.recipe.data.labels
    metrics = next(iter(record.metrics.values()), None)
    return tuple(entry.label for entry in metrics.classes) if metrics is not None else ()
