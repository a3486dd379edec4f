"""What a report may say: plain facts from run directories, read once."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import binomtest

from pennyweight.errors import RunError
from pennyweight.runs.record import PREDICTIONS, RunRecord, load_record

__all__ = ["Comparison", "Facts", "RunFacts", "compare_runs", "load_facts"]

_LAYER = re.compile(r"\.(\d+)\.")


@dataclass(frozen=True, slots=True)
class RunFacts:
    """One run.

    Attributes:
        path: its directory.
        record: everything it recorded.
        notes: what must be said wherever it is shown: status, leaks, transduction, budget.
    """

    path: Path
    record: RunRecord
    notes: tuple[str, ...]

    @property
    def name(self) -> str:
        """What the recipe is called."""
        return str(self.record.recipe["name"])

    @property
    def sets(self) -> list[str]:
        """Names of the measured sets, the test first and validation last."""
        names = [name for name in self.record.metrics if name != "validation"]
        names.sort(key=lambda name: name != "test")
        return [*names, *(["validation"] if "validation" in self.record.metrics else [])]

    @property
    def losses(self) -> list[tuple[int, float]]:
        """Step and mean loss."""
        return [(entry["step"], entry["loss"]) for entry in self.record.history]

    def evaluations(self, metric: str) -> list[tuple[int, float]]:
        """Step and a metric on validation."""
        return [
            (entry["step"], entry["evaluation"][metric])
            for entry in self.record.history
            if "evaluation" in entry
        ]

    def ranks(self) -> tuple[list[str], list[int], np.ndarray]:
        """Kinds of matrices, layers, and the rank of each; 0 where there is no adapter."""
        found: dict[tuple[str, int], int] = {}
        for matrix in self.record.plan["matrices"]:
            layer = _LAYER.search(matrix["name"])
            if matrix["rank"] is not None and layer is not None:
                found[matrix["name"][layer.end() :], int(layer[1])] = matrix["rank"]
        kinds = list(dict.fromkeys(kind for kind, _ in found))
        layers = list(range(max((layer for _, layer in found), default=-1) + 1))
        table = np.array([[found.get((kind, at), 0) for at in layers] for kind in kinds])
        return kinds, layers, table.reshape(len(kinds), len(layers))


@dataclass(frozen=True, slots=True)
class Facts:
    """What one report is about.

    Attributes:
        runs: the first is the report's subject, the others are compared with it.
        study: a study's table, where one was named.
    """

    runs: tuple[RunFacts, ...]
    study: Mapping[str, Any] | None = None

    @property
    def main(self) -> RunFacts:
        """The run that the report is about."""
        return self.runs[0]


def load_facts(paths: Sequence[str | Path]) -> Facts:
    """Read runs; a study's directory stands for its runs and brings its table.

    Raises:
        RunError: a directory is neither a run nor a study, or no run in it is complete.
    """
    found: list[RunFacts] = []
    study = None
    for path in map(Path, paths):
        table = path / "study.json"
        if table.is_file():
            study = json.loads(table.read_text(encoding="utf-8"))
            records = sorted(path.glob("*/*/record.json"))
            found += [_run(record.parent) for record in records]
        else:
            found.append(_run(path))
    complete = [run for run in found if run.record.status == "complete"]
    if not complete:
        named = ", ".join(str(path) for path in paths)
        raise RunError(f"{named}: no complete run; a report is written of complete runs")
    return Facts(tuple(complete), study)


def _run(path: Path) -> RunFacts:
    record = load_record(path)
    notes = []
    if record.status != "complete":
        notes.append(f"This run is not complete: its status is {record.status}.")
    notes += [f"{mark}." for mark in record.marks]
    if record.parameters and record.over_budget:
        notes.append("Over budget: a teacher or baseline, not a submission.")
    states = [state for state in record.git.values() if isinstance(state, Mapping)]
    if any(state.get("dirty") for state in states):
        notes.append("The working tree had changes that were not committed.")
    return RunFacts(path, record, tuple(notes))


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two runs on the same rows.

    Attributes:
        rows: of the set.
        only_one: rows that the first run alone gets right.
        only_other: rows that the second alone gets right.
        p: of McNemar's exact test that both are equally good.
    """

    rows: int
    only_one: int
    only_other: int
    p: float


def compare_runs(one: Path, other: Path, name: str) -> Comparison:
    """McNemar's test (1947) of two runs on a set that both have measured.

    Raises:
        RunError: one of them has not, or its rows are others.
    """
    answers = []
    for path in (one, other):
        try:
            with np.load(path / PREDICTIONS) as file:
                answers.append((file[name], file[f"{name}.labels"]))
        except (OSError, KeyError, ValueError):
            raise RunError(f"{path}: holds no predictions for the set {name}") from None
    (first, labels), (second, others) = answers
    if not np.array_equal(labels, others):
        raise RunError(f"{one} and {other}: their sets {name} are of other rows")
    right, also = first == labels, second == labels
    only_one, only_other = int((right & ~also).sum()), int((also & ~right).sum())
    differing = only_one + only_other
    p = float(binomtest(only_one, differing).pvalue) if differing else 1.0
    return Comparison(len(labels), only_one, only_other, p)
