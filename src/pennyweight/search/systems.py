"""Group runs into systems: runs that differ in nothing but the seed are one system."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pennyweight.errors import RunError
from pennyweight.runs.directory import short_path
from pennyweight.runs.record import RunRecord, load_record
from pennyweight.search.study_directory import is_study, study_runs

__all__ = ["System", "SystemRun", "find_systems"]

# Keys that change neither the training nor the rows that are evaluated.
_IGNORED = {
    "": ("seed", "name", "summary"),
    "train": ("log_every", "trackers", "evaluation_batch_rows"),
    "evaluate": ("baselines", "calibration_bins"),
}


@dataclass(frozen=True, slots=True)
class SystemRun:
    """A finished run: its directory and its record."""

    path: Path
    record: RunRecord

    @property
    def seed(self) -> int:
        """The seed that it was trained with."""
        return self.record.recipe.seed


@dataclass(frozen=True, slots=True)
class System:
    """One or more runs that differ in their seeds, under one name."""

    name: str
    runs: tuple[SystemRun, ...]

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seed of each run."""
        return tuple(run.seed for run in self.runs)


def find_systems(paths: Sequence[Path], groups: Mapping[str, Sequence[Path]]) -> tuple[System, ...]:
    """Return the systems that some runs belong to, in the order in which they are given.

    Runs of the same recipe but for the seed form one system, under the recipe's name. Each row of a
    study is a system, under the row's name. Names that several systems have are followed by the
    directory of the first run.

    Args:
        paths: directories of runs and studies.
        groups: runs of further systems, by their name; these come first.

    Raises:
        RunError: a directory is no complete run, a study has no complete run, or a run would be in
            two systems or would be there twice.
    """
    named = [_system(name, runs) for name, runs in groups.items()]
    by_recipe: dict[str, list[SystemRun]] = {}
    # Systems of studies, and the recipe keys of others, in the order in which they are given.
    order: list[System | str] = []
    for path in paths:
        if is_study(path):
            rows = study_runs(path)
            order += [_system(name, runs) for name, runs in rows.items() if runs]
            if not any(rows.values()):
                raise RunError(f"{path}: the study has no complete run")
            continue
        run = _complete_run(path)
        key = _recipe_key(run.record)
        if key not in by_recipe:
            by_recipe[key] = []
            order.append(key)
        by_recipe[key].append(run)
    unnamed = [
        each if isinstance(each, System) else _of_one_recipe(by_recipe[each]) for each in order
    ]
    systems = (*named, *_with_distinct_names(unnamed, taken=set(groups)))
    _refuse_repeated_runs(systems)
    return systems


def _system(name: str, runs: Sequence[Path]) -> System:
    if not runs:
        raise RunError(f"--group {name}: no runs; write --group {name}=RUN,RUN")
    return System(name, tuple(map(_complete_run, runs)))


def _complete_run(path: Path) -> SystemRun:
    record = load_record(path)
    if record.status != "complete":
        raise RunError(
            f"{path}: not complete: its status is {record.status}; finish it with "
            f"pennyweight train {path} --out {path} --resume, or leave it out"
        )
    return SystemRun(path, record)


def _recipe_key(record: RunRecord) -> str:
    """Return the recipe as text, without the keys that make no other system.

    A run that was made by combining others is of another system than those that were trained.
    """
    values = record.recipe.model_dump(mode="json")
    for section, names in _IGNORED.items():
        table = values[section] if section else values
        for name in names:
            del table[name]
    if (combination := record.combination) is not None:
        made = combination.model_dump(include={"method", "space", "head", "toward", "density"})
        values["combination"] = {**made, "runs": len(combination.runs)}
    return json.dumps(values, sort_keys=True)


def _of_one_recipe(runs: Sequence[SystemRun]) -> System:
    """Return the system of runs whose recipes are the same but for the seed."""
    by_seed: dict[int, SystemRun] = {}
    for run in runs:
        other = by_seed.setdefault(run.seed, run)
        if other is not run and other.path.resolve() == run.path.resolve():
            raise RunError(f"{run.path}: given twice; name two different runs")
        if other is not run:
            raise RunError(
                f"{other.path} and {run.path}: runs of the same recipe with the same seed "
                f"{run.seed}, which are not independent repetitions; leave one out, or compare "
                f"them with --group one={other.path} --group other={run.path}"
            )
    return System(runs[0].record.recipe.name, tuple(runs))


def _with_distinct_names(systems: Sequence[System], *, taken: set[str]) -> list[System]:
    """Return the systems, with a directory behind names that are used more than once."""
    names = [system.name for system in systems]
    firsts = [system.runs[0].path for system in systems]
    result = []
    for system, path in zip(systems, firsts, strict=True):
        if names.count(system.name) > 1 or system.name in taken:
            others = [other for other in firsts if other is not path]
            system = replace(system, name=f"{system.name} ({short_path(path, others)})")
        result.append(system)
    return result


def _refuse_repeated_runs(systems: Sequence[System]) -> None:
    seen: dict[Path, str] = {}
    for system in systems:
        for run in system.runs:
            path = run.path.resolve()
            if path in seen:
                raise RunError(
                    f"{run.path}: given twice, in {seen[path]} and in {system.name}; a run is in "
                    "one system, once"
                )
            seen[path] = system.name
