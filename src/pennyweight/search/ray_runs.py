"""The runs of a study, as a Ray cluster trains them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from pennyweight.cluster import Task
from pennyweight.errors import PennyweightError
from pennyweight.runs.record import RunRecord
from pennyweight.search.ray_tasks import training_task
from pennyweight.search.ray_trainer import Channel, Order
from pennyweight.search.study_training import StudyRun, complete_run
from pennyweight.training.watcher import Watcher, is_warning

__all__ = ["RunTasks"]

Log = Callable[[str], None]


class RunTasks:
    """The runs of a study.

    Args:
        runs: of the study.
        log: gets a line when a run begins, and one when it fails.
    """

    def __init__(self, runs: Sequence[StudyRun], *, log: Log) -> None:
        self._log = log
        self._runs = runs
        self._begun = 0
        self._ended: dict[int, RunRecord | PennyweightError] = {}

    @property
    def results(self) -> list[RunRecord | PennyweightError]:
        """The records of the runs, or why they failed, once all have ended."""
        return [self._ended[number] for number in range(len(self._runs))]

    def __call__(self) -> Task | None:
        """Return a run to begin now; None if all have begun."""
        if self._begun == len(self._runs):
            return None
        number, run = self._begun, self._runs[self._begun]
        self._begun += 1
        name = f"{run.title}, seed {run.recipe.seed}"
        self._log(f"{name}: {run.directory}")
        order = Order(name, run.directory, partial(_complete_run, run))
        return training_task(order, finish=partial(self._end, number), log=self._log)

    def _end(self, number: int, result: RunRecord | PennyweightError) -> None:
        self._ended[number] = result
        if isinstance(result, PennyweightError):
            self._log(f"{self._runs[number].directory}: failed: {result}")


def _complete_run(run: StudyRun, channel: Channel) -> RunRecord:
    def log(line: str) -> None:
        if is_warning(line):
            channel.log(f"{run.title}, seed {run.recipe.seed}: {line}")

    return complete_run(run, Watcher(log=log))
