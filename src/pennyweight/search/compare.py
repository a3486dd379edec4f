"""Compare finished runs on the labelled sets that they share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from pennyweight.errors import RunError
from pennyweight.evaluation.answers import answered_rows
from pennyweight.evaluation.differences import Difference, compare_answers
from pennyweight.evaluation.statistics import ALPHA, holm
from pennyweight.search.shared_sets import LeftOutSet, SharedSet, check_tasks, shared_sets
from pennyweight.search.systems import System, find_systems

__all__ = [
    "ComparedSystem",
    "LeftOutSet",
    "PairComparison",
    "RunComparison",
    "SetComparison",
    "SystemScore",
    "compare_runs",
]

Verdict = Literal["better", "worse", "undecided"]


@dataclass(frozen=True, slots=True)
class ComparedSystem:
    """A system that was compared.

    Attributes:
        name: of the system.
        runs: directories of its runs.
        seeds: of its runs, in the same order.
        leaks: warnings of its runs about rows that are in two sets.
        transductive: uses that its runs made of the target's text.
    """

    name: str
    runs: tuple[str, ...]
    seeds: tuple[int, ...]
    leaks: tuple[str, ...]
    transductive: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SystemScore:
    """The results of a system on a set.

    Attributes:
        system: its name.
        scores: metric of each run, in 0..1.
        mean: mean over the runs.
        deviation: standard deviation over the runs; None for a single run.
    """

    system: str
    scores: tuple[float, ...]
    mean: float
    deviation: float | None


@dataclass(frozen=True, slots=True)
class PairComparison:
    """A system compared with the reference on a set.

    Attributes:
        system: the system's name.
        difference: how much better it is than the reference, with interval and p-value.
        adjusted_p: the p-value by Holm's method, among `comparisons` comparisons.
        comparisons: number of comparisons that are corrected together.
        verdict: "better" or "worse" if the adjusted p-value is below 0.05.
    """

    system: str
    difference: Difference
    adjusted_p: float
    comparisons: int
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class SetComparison:
    """All systems on one labelled set.

    Attributes:
        name: of the set.
        rows: number of rows.
        metric: "accuracy", or "macro_f1" where classes are uneven or rows have several labels.
        is_validation: whether the set chose checkpoints, so that results on it are too good.
        scores: of each system, the reference first.
        comparisons: of each other system with the reference.
    """

    name: str
    rows: int
    metric: str
    is_validation: bool
    scores: tuple[SystemScore, ...]
    comparisons: tuple[PairComparison, ...]


@dataclass(frozen=True, slots=True)
class RunComparison:
    """A comparison of systems with a reference.

    Attributes:
        reference: name of the system that the others are compared with.
        systems: all systems, the reference first.
        sets: the labelled sets that all runs share: the test first, validation last.
        left_out: sets that could not be compared, each with the reason.
        schema_version: of this structure.
    """

    reference: str
    systems: tuple[ComparedSystem, ...]
    sets: tuple[SetComparison, ...]
    left_out: tuple[LeftOutSet, ...] = ()
    schema_version: Literal[1] = 1


def compare_runs(
    runs: Sequence[str | Path],
    *,
    groups: Mapping[str, Sequence[str | Path]] | None = None,
    reference: str | None = None,
    sets: Sequence[str] | None = None,
) -> RunComparison:
    """Compare systems on the same rows, with intervals, p-values and what could be detected.

    Runs whose recipes differ in nothing but the seed form one system, and so does each row of a
    study. Every system is compared with the reference. Holm's correction covers the comparisons on
    all held-out sets together, and those on validation apart.

    Args:
        runs: directories of finished runs and of studies.
        groups: runs of further systems, by their name; these come first.
        reference: name of the system that the others are compared with; None for the first.
        sets: names of the sets to compare; None for all that the runs share.

    Raises:
        RunError: there are fewer than two systems, a run is not complete or has no predictions, or
            the runs differ in their task, their classes or the rows of a held-out set.
    """
    named = {name: [Path(run) for run in each] for name, each in (groups or {}).items()}
    systems = _with_reference_first(find_systems([Path(run) for run in runs], named), reference)
    check_tasks(systems)
    shared, left_out = shared_sets(systems, sets)
    compared = [_compare(systems, each) for each in shared]
    return RunComparison(
        reference=systems[0].name,
        systems=tuple(map(_described, systems)),
        sets=(
            *_corrected([each for each in compared if not each.is_validation]),
            *_corrected([each for each in compared if each.is_validation]),
        ),
        left_out=left_out,
    )


def _with_reference_first(systems: tuple[System, ...], reference: str | None) -> tuple[System, ...]:
    names = [system.name for system in systems]
    if len(systems) < 2:
        only = f"all runs are of one recipe, {names[0]}" if systems else "no runs were given"
        raise RunError(
            f"{only}; a comparison needs at least two systems: give runs of another recipe, or "
            "name the systems with --group NAME=RUN,RUN"
        )
    if reference is None:
        return systems
    if reference not in names:
        raise RunError(f"--reference {reference}: no such system; choose from {', '.join(names)}")
    first = systems[names.index(reference)]
    return (first, *(system for system in systems if system is not first))


def _described(system: System) -> ComparedSystem:
    records = [run.record for run in system.runs]
    return ComparedSystem(
        name=system.name,
        runs=tuple(str(run.path) for run in system.runs),
        seeds=system.seeds,
        leaks=tuple(dict.fromkeys(leak for record in records for leak in record.leaks)),
        transductive=tuple(dict.fromkeys(use for record in records for use in record.transductive)),
    )


def _compare(systems: Sequence[System], shared: SharedSet) -> SetComparison:
    """Compare systems on one set; p-values are not corrected yet."""
    scores, comparisons = [], []
    for system in systems:
        rows = answered_rows(
            shared.labels,
            shared.answers[system.name],
            classes=shared.classes,
            metric=shared.metric,
        )
        values = rows.scores()
        deviation = float(np.std(values, ddof=1)) if len(values) > 1 else None
        scores.append(
            SystemScore(system.name, tuple(values.tolist()), float(values.mean()), deviation)
        )
    reference, *others = systems
    for system in others:
        rows = answered_rows(
            shared.labels,
            [*shared.answers[reference.name], *shared.answers[system.name]],
            classes=shared.classes,
            metric=shared.metric,
        )
        difference = compare_answers(rows, reference_seeds=reference.seeds, seeds=system.seeds)
        comparisons.append(PairComparison(system.name, difference, difference.p, 1, "undecided"))
    return SetComparison(
        name=shared.name,
        rows=len(shared.labels),
        metric=shared.metric,
        is_validation=shared.name == "validation",
        scores=tuple(scores),
        comparisons=tuple(comparisons),
    )


def _corrected(sets: Sequence[SetComparison]) -> list[SetComparison]:
    """Return the sets with p-values corrected for all of their comparisons together."""
    pairs = [pair for each in sets for pair in each.comparisons]
    adjusted = iter(holm([pair.difference.p for pair in pairs]))
    return [
        replace(
            each,
            comparisons=tuple(
                _judged(pair, next(adjusted), comparisons=len(pairs)) for pair in each.comparisons
            ),
        )
        for each in sets
    ]


def _judged(pair: PairComparison, adjusted_p: float, *, comparisons: int) -> PairComparison:
    verdict: Verdict = "undecided"
    if adjusted_p < ALPHA:
        verdict = "better" if pair.difference.value > 0.0 else "worse"
    return PairComparison(
        system=pair.system,
        difference=pair.difference.among(comparisons),
        adjusted_p=adjusted_p,
        comparisons=comparisons,
        verdict=verdict,
    )
