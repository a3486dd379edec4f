"""The facts that a report draws on, read from run directories and study tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import TypeAdapter

from pennyweight.budget.methods import METHODS
from pennyweight.budget.summary import Matrix, RankTable
from pennyweight.documents import read_document
from pennyweight.errors import RunError
from pennyweight.evaluation.metrics import (
    AnyMetrics,
    Headline,
    headline_in,
)
from pennyweight.runs.directory import short_path
from pennyweight.runs.predictions import same_rows
from pennyweight.runs.record import RunRecord, load_record
from pennyweight.runs.results import in_order, ordered_sets
from pennyweight.search.choosing import Choice
from pennyweight.search.study_ranks import StudyRanks

__all__ = [
    "Facts",
    "RankTable",
    "RunFacts",
    "StudyFacts",
    "StudyRowFacts",
    "load_facts",
]


@dataclass(frozen=True, slots=True)
class RunFacts:
    """One run.

    Attributes:
        path: the run's directory.
        record: the run's record.
        notes: statements that must accompany the results: status, leaks, transductive use of the
            target, an exceeded budget, uncommitted changes.
    """

    path: Path
    record: RunRecord
    notes: tuple[str, ...]

    @property
    def name(self) -> str:
        """The recipe's name."""
        return self.record.recipe.name

    @property
    def base_name(self) -> str:
        """The base's name, without the organization or directory that it is in."""
        base = self.record.base
        return Path(base.reference if base else self.record.recipe.base.name).name

    @property
    def sets(self) -> tuple[str, ...]:
        """The evaluated sets: the test first, validation last."""
        return ordered_sets(self.record)

    @property
    def main_metrics(self) -> AnyMetrics:
        """The metrics of the first of `sets`."""
        return self.record.metrics[self.sets[0]]

    @property
    def is_multi_label(self) -> bool:
        """Whether a text may have any number of labels."""
        return self.record.is_multi_label

    @property
    def metric(self) -> str:
        """The metric that the report leads with: "accuracy" or "macro_f1"; see `Headline`."""
        return self.main_metrics.headline.metric

    @property
    def curve_metric(self) -> str:
        """The validation metric that is drawn; accuracy if the record has no other."""
        return self.metric if self.evaluations(self.metric) else "accuracy"

    def headline(self, name: str, *, metric: str | None = None) -> Headline:
        """Return the value on a set of a metric, or of the one that the report leads with."""
        return headline_in(self.record.metrics[name], metric or self.metric)

    @property
    def losses(self) -> list[tuple[int, float]]:
        """The recorded steps, each with its mean training loss."""
        return [(entry.step, entry.loss) for entry in self.record.history]

    def evaluations(self, metric: str) -> list[tuple[int, float]]:
        """Return the steps that ended with an evaluation, each with a validation metric."""
        return [
            (entry.step, entry.evaluation[metric])
            for entry in self.record.history
            if entry.evaluation and metric in entry.evaluation
        ]

    @property
    def adapted(self) -> tuple[Matrix, ...]:
        """The matrices that have an adapter, and what the adapters share."""
        adapters = [name for name, row in METHODS.items() if not row.trains_every_weight]
        return tuple(matrix for matrix in self.record.plan.matrices if matrix.kind in adapters)

    @property
    def parameters_by_kind(self) -> dict[str, int]:
        """Planned trainable parameters of each kind: the adapter method, "head" and "bias"."""
        counts: dict[str, int] = {}
        for matrix in self.record.plan.matrices:
            counts[matrix.kind] = counts.get(matrix.kind, 0) + matrix.parameters
        return counts

    def ranks(self) -> RankTable:
        """Return the rank of every adapted matrix by role and layer."""
        return self.record.plan.ranks()


@dataclass(frozen=True, slots=True)
class StudyRowFacts:
    """One row of a study's table; results are fractions, by set.

    Attributes:
        name: name of the variation.
        mean: mean result over the seeds.
        interval: 95% interval of the mean; None with a single seed.
        p: p-value of the paired test against the first row; None where there is no test.
        parameters: trainable parameters.
        metric: of the results, "accuracy" or "macro_f1".
        adjusted_p: the p-values, adjusted for the number of rows; older studies have none.
        dataset: name of the data set; "" in a study without several.
        choice: values that were chosen on validation; None if there are none.
    """

    name: str
    mean: Mapping[str, float]
    interval: Mapping[str, tuple[float, float] | None]
    p: Mapping[str, float | None]
    parameters: int
    metric: str = "accuracy"
    adjusted_p: Mapping[str, float | None] = field(default_factory=dict)
    dataset: str = ""
    choice: Choice | None = None

    def shown_p(self, name: str) -> float | None:
        """Return the p-value on a set, adjusted if the study's table has adjusted ones."""
        return self.adjusted_p.get(name, self.p.get(name))


@dataclass(frozen=True, slots=True)
class StudyFacts:
    """A study's table, as `study.json` holds it; `ranks` has one entry for each budget."""

    summary: str
    rows: tuple[StudyRowFacts, ...]
    ranks: tuple[StudyRanks, ...] = ()

    @property
    def metric(self) -> str:
        """The metric of the results on the first data set; all rows have the same."""
        return self.rows[0].metric if self.rows else "accuracy"

    @property
    def datasets(self) -> tuple[str, ...]:
        """The names of the data sets; "" alone in a study without `[datasets]`."""
        return tuple(dict.fromkeys(row.dataset for row in self.rows))

    @property
    def has_datasets(self) -> bool:
        """Whether the rows were trained on data sets that have names."""
        return self.datasets not in ((), ("",))

    @property
    def leading_set(self) -> str:
        """The set whose results come first: the test, if there is one."""
        return next(iter(in_order({name: None for row in self.rows for name in row.mean})), "test")

    def metric_on(self, dataset: str) -> str:
        """Return the metric of the results on a data set; all rows have the same."""
        return next(row.metric for row in self.rows if row.dataset == dataset)

    def on(self, dataset: str) -> list[tuple[str, int, float]]:
        """Return name, parameters and result of each row on the leading set of a data set."""
        name = self.leading_set
        return [
            (row.name, row.parameters, row.mean[name])
            for row in self.rows
            if row.dataset == dataset and name in row.mean
        ]

    def overall(self) -> list[tuple[str, int, float]]:
        """Return name, largest parameters and mean result of the rows that all data sets have."""
        by_name: dict[str, list[tuple[int, float]]] = {}
        for dataset in self.datasets:
            for name, parameters, mean in self.on(dataset):
                by_name.setdefault(name, []).append((parameters, mean))
        return [
            (name, max(count for count, _ in each), sum(mean for _, mean in each) / len(each))
            for name, each in by_name.items()
            if len(each) == len(self.datasets)
        ]

    def rows_with(self, name: str) -> tuple[StudyRowFacts, ...]:
        """Return the rows that were evaluated on a set."""
        return tuple(row for row in self.rows if name in row.mean)


@dataclass(frozen=True, slots=True)
class Facts:
    """The subject of a report.

    Attributes:
        runs: the first run is the report's subject; the others are compared with it.
        study: the table of a study, if one was given.
    """

    runs: tuple[RunFacts, ...]
    study: StudyFacts | None = None

    @property
    def main(self) -> RunFacts:
        """The run that the report describes."""
        return self.runs[0]

    @property
    def has_datasets(self) -> bool:
        """Whether the runs are those of a study over data sets that have names."""
        return self.study is not None and self.study.has_datasets

    @property
    def groups(self) -> tuple[tuple[RunFacts, ...], ...]:
        """The runs by the rows of the set that the report is about; the main run's group is first.

        Results are compared only inside a group. Runs that have not evaluated the set are in
        none.
        """
        name = self.main.sets[0]
        groups: list[list[RunFacts]] = []
        for run in self.runs:
            if name not in run.record.metrics:
                continue
            group = next(
                (each for each in groups if same_rows(each[0].record, run.record, name)), None
            )
            if group is None:
                groups.append([run])
            else:
                group.append(run)
        return tuple(map(tuple, groups))

    @property
    def compared_metric(self) -> str:
        """The metric of comparisons: that of the study if there is one."""
        return self.main.metric if self.study is None else self.study.metric

    def label(self, run: RunFacts) -> str:
        """Return a run's name, with its directory's name if another run has the same name."""
        is_unique = sum(other.name == run.name for other in self.runs) == 1
        return run.name if is_unique else f"{run.name} ({self.directory(run)})"

    def directory(self, run: RunFacts) -> str:
        """Return the end of a run's path, as short as it can be and still name this run only."""
        return short_path(run.path, [other.path for other in self.runs if other is not run])


def load_facts(paths: Sequence[str | Path]) -> Facts:
    """Read the complete runs among `paths`; a study's directory contributes its runs and table.

    Raises:
        RunError: a directory is neither a run nor a study, a study's table is damaged, no run is
            complete, or the first complete run has no metrics.
    """
    runs: list[RunFacts] = []
    study = None
    for path in map(Path, paths):
        table = path / "study.json"
        if table.is_file():
            study = _read_study(table)
            # With several data sets, a row has a directory for each.
            records = [*path.glob("*/seed-*/record.json"), *path.glob("*/*/seed-*/record.json")]
            runs += [_read_run(record.parent) for record in sorted(records)]
        else:
            runs.append(_read_run(path))
    complete = tuple(run for run in runs if run.record.status == "complete")
    if not complete:
        names = ", ".join(str(path) for path in paths)
        raise RunError(f"{names}: no complete run; a report needs at least one")
    if not complete[0].sets:
        raise RunError(
            f"{complete[0].path}: no labelled set was evaluated, so there is nothing to report; "
            "train with validation rows or with evaluate.test"
        )
    return Facts(complete, study)


def _read_study(table: Path) -> StudyFacts:
    try:
        return TypeAdapter(StudyFacts).validate_json(read_document(table))
    except (OSError, ValueError):
        raise RunError(
            f"{table}: damaged, or written by another version; repeat `pennyweight study`"
        ) from None


def _read_run(path: Path) -> RunFacts:
    record = load_record(path)
    notes = []
    if record.status != "complete":
        notes.append(f"This run is not complete: its status is {record.status}.")
    notes += [f"{mark}." for mark in record.marks]
    if record.over_budget:
        notes.append("Over budget: a teacher or baseline, not a submission.")
    if record.git.working_directory.dirty or record.git.pennyweight.dirty:
        notes.append("The working tree had uncommitted changes.")
    return RunFacts(path, record, tuple(notes))
