"""The trials of searches, as a Ray cluster trains them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import optuna

from pennyweight.cluster import IDLE, Task
from pennyweight.errors import PennyweightError, RunError, first_line
from pennyweight.search.job import SearchJob
from pennyweight.search.ray_tasks import training_task
from pennyweight.search.ray_trainer import Channel, Order
from pennyweight.search.store import TrialStore, readable_storage
from pennyweight.search.worker import (
    Outcome,
    announce_trial,
    finish_trial,
    train_trial,
)

__all__ = ["TrialTasks"]

Log = Callable[[str], None]


class TrialTasks:
    """The trials of some searches: those of the first one first.

    Args:
        jobs: the searches.
        log: gets a line when a trial begins, and one when it ends.

    Raises:
        RunError: a storage cannot be used, or holds another search.
    """

    def __init__(self, jobs: Sequence[SearchJob], *, log: Log) -> None:
        self._log = log
        self._left: list[tuple[SearchJob, TrialStore]] = []
        try:
            for job in jobs:
                with readable_storage(job.storage):
                    self._left.append((job, TrialStore(job)))
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let other workers take over whatever is not finished."""
        for _, store in self._left:
            store.close()

    def __call__(self) -> Task | str | None:
        """Return a trial to begin now; `IDLE` if there may be one later; None if all are done."""
        for job, store in list(self._left):
            with readable_storage(job.storage):
                trial = store.take()
            if trial is None:
                store.close()
                self._left.remove((job, store))
            elif not isinstance(trial, str):
                announce_trial(trial, log=self._log)
                return _Trial(job, store, trial, self._log).task
        return IDLE if self._left else None


@dataclass(slots=True)
class _Trial:
    """A trial; what its training reports is recorded here, so that nodes need no database."""

    job: SearchJob
    store: TrialStore
    trial: optuna.Trial
    log: Log
    reported: set[int] = field(default_factory=set)

    @property
    def task(self) -> Task:
        """The training of the trial."""
        attributes = self.trial.user_attrs
        run = str(attributes["run"])
        order = Order(run, self.job.out / run, partial(_train_trial, self.job, attributes))
        return training_task(order, finish=self.finish, log=self.log, answer=self.answer)

    def answer(self, question: Any) -> bool:
        """Record an evaluation, or return whether the trial is pruned after it."""
        with readable_storage(self.job.storage):
            if question is None:
                return self.trial.should_prune()
            value, percent = question
            # A training that begins again reports its first evaluations again.
            if percent not in self.reported:
                self.reported.add(percent)
                self.trial.report(value, percent)
            return False

    def finish(self, result: Any) -> None:
        """Record what became of the trial.

        Raises:
            RunError: the run's directory could not be used.
        """
        if isinstance(result, RunError):
            raise result
        if isinstance(result, PennyweightError):
            result = Outcome("failed", reason=first_line(result))
        with readable_storage(self.job.storage):
            finish_trial(self.job, self.store, self.trial, result, log=self.log)


@dataclass(frozen=True, slots=True)
class _DistantTrial:
    """A trial on a node: it asks the process that has the database."""

    user_attrs: dict[str, Any]
    channel: Channel

    def report(self, value: float, step: int) -> None:
        """Have an evaluation recorded."""
        self.channel.ask((value, step))

    def should_prune(self) -> bool:
        """Return whether the training should end early."""
        return bool(self.channel.ask(None))


def _train_trial(job: SearchJob, attributes: dict[str, Any], channel: Channel) -> Outcome:
    return train_trial(job, _DistantTrial(attributes, channel), log=channel.log)
