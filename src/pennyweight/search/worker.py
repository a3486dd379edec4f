"""One worker of a search: it takes trials and trains them until all are done."""

from __future__ import annotations

import multiprocessing
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import optuna
import torch

from pennyweight.budget.methods import METHODS
from pennyweight.defaults import is_completion
from pennyweight.engine.train.progress import Step
from pennyweight.errors import PennyweightError, PrunedError, RunError, first_line
from pennyweight.recipe import Recipe
from pennyweight.runs.directory import RunDirectory
from pennyweight.runs.record import RunRecord, load_record
from pennyweight.search.job import SearchJob
from pennyweight.search.results import SearchResult, save_result, shown
from pennyweight.search.store import ALL_STEPS, WAIT, TrialStore, readable_storage
from pennyweight.search.summary import read_result
from pennyweight.training.train import train
from pennyweight.training.watcher import Watcher, is_warning

__all__ = [
    "SECONDS_BETWEEN_LOOKS",
    "Log",
    "Outcome",
    "ReportedTrial",
    "announce_trial",
    "current_result",
    "finish_trial",
    "train_trial",
    "work",
]

Log = Callable[[str], None]
SECONDS_BETWEEN_LOOKS = 1.0


class ReportedTrial(Protocol):
    """The trial as its training sees it: Optuna's trial, or one that asks for it elsewhere.

    Attributes:
        user_attrs: as `pennyweight.search.store` describes them.
    """

    @property
    def user_attrs(self) -> dict[str, Any]:
        """The run, its values and what else was recorded of it."""
        ...

    def report(self, value: float, step: int) -> None:
        """Record the validation metric after a percentage of the training."""
        ...

    def should_prune(self) -> bool:
        """Return whether the training should end early."""
        ...


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of a trial's training.

    Attributes:
        status: how it ended.
        value: the validation metric of a complete run.
        seconds: duration of the run.
        reason: why it was pruned or failed.
    """

    status: Literal["complete", "pruned", "failed"]
    value: float = 0.0
    seconds: float = 0.0
    reason: str = ""


def work(job: SearchJob, *, log: Log) -> None:
    """Train trials until the search has all of them; several processes may do so at once.

    `search.json` is written anew after each trial. Trials of workers that have ended are continued.

    Raises:
        RunError: the storage or a run directory cannot be used.
        KeyboardInterrupt: from the keyboard, or because the process that began this one has ended.
    """
    with readable_storage(job.storage):
        store = TrialStore(job)
        try:
            _work(job, store, log)
        finally:
            store.close()


def current_result(job: SearchJob) -> SearchResult:
    """Return the state of a search that has begun, without held-out sets.

    Raises:
        RunError: the storage cannot be used.
    """
    with readable_storage(job.storage):
        store = TrialStore(job)
        try:
            return read_result(job, store.study, store.trials())
        finally:
            store.close()


def _work(job: SearchJob, store: TrialStore, log: Log) -> None:
    while True:
        _stop_without_parent()
        trial = store.take()
        if trial is None:
            return
        if isinstance(trial, str):
            assert trial == WAIT  # noqa: S101 - the only other answer
            time.sleep(SECONDS_BETWEEN_LOOKS)
            continue
        announce_trial(trial, log=log)
        finish_trial(job, store, trial, train_trial(job, trial, log=log), log=log)


def announce_trial(trial: ReportedTrial, *, log: Log) -> None:
    """Log which values a trial is trained with."""
    log(f"{trial.user_attrs['run']}: {_describe(trial.user_attrs['values'])}")


def train_trial(job: SearchJob, trial: ReportedTrial, *, log: Log) -> Outcome:
    """Train a trial and return what became of it; the storage is used through the trial only.

    Raises:
        RunError: the run's directory cannot be used.
        KeyboardInterrupt: as for `work`.
    """
    run = str(trial.user_attrs["run"])
    try:
        recipe = job.trial_recipe(trial.user_attrs["values"], run)
        record = _run(job, trial, recipe, log)
        if record.best is None:
            raise PennyweightError("the run has no validation metric")
    except PrunedError as error:
        seconds = load_record(job.out / run).seconds
        return Outcome("pruned", seconds=seconds, reason=str(error))
    except RunError:
        raise
    except (PennyweightError, torch.OutOfMemoryError) as error:
        return Outcome("failed", reason=first_line(error))
    return Outcome("complete", record.best.value, record.seconds)


def finish_trial(
    job: SearchJob, store: TrialStore, trial: optuna.Trial, outcome: Outcome, *, log: Log
) -> None:
    """Record what became of a trial, log it, and write `search.json` anew."""
    match outcome.status:
        case "complete":
            store.complete(trial, outcome.value, seconds=outcome.seconds)
            line = f"validation {job.metric} {outcome.value:.4f} ({outcome.seconds:.0f} s)"
        case "pruned":
            store.prune(trial, outcome.reason, seconds=outcome.seconds)
            line = outcome.reason
        case "failed":
            store.fail(trial, outcome.reason)
            line = f"failed: {outcome.reason}"
    log(f"{trial.user_attrs['run']}: {line}")
    with store.locked():
        save_result(read_result(job, store.study, store.trials()), job.out)


def _run(job: SearchJob, trial: ReportedTrial, recipe: Recipe, log: Log) -> RunRecord:
    """Return the record of a trial's run, which is trained, resumed, or read.

    Raises:
        PrunedError: the run was ended early.
    """
    out = job.out / str(trial.user_attrs["run"])
    reporter = _Reporter(job, trial, log)
    if not RunDirectory(out).record.is_file():
        # A worker may have ended before the record was written.
        shutil.rmtree(out, ignore_errors=True)
        return _begin(recipe, out, reporter, resume=False)
    record = load_record(out)
    allocated = None if record.allocation is None else record.allocation.adapter
    if not is_completion(record.recipe, recipe, allocated=allocated):
        raise RunError(
            f"{out}: trained with another recipe than that of the trial; name a new --out, or "
            "delete the directory"
        )
    reporter.repeat(record)
    if record.status == "complete":
        return record
    if record.status == "pruned":
        raise PrunedError(record.failure or "pruned")
    can_resume = METHODS[recipe.adapter.method].resume_refusal is None
    return _begin(recipe, out, reporter, resume=can_resume)


def _begin(recipe: Recipe, out: Path, reporter: _Reporter, *, resume: bool) -> RunRecord:
    return train(recipe, out=out, resume=resume, watcher=reporter.watcher(), uses_held_out=False)


class _Reporter:
    """Tells Optuna a trial's validation metric while it is trained, and asks whether to prune it.

    Optuna knows when a metric was measured as a percentage of the training.
    """

    def __init__(self, job: SearchJob, trial: ReportedTrial, log: Log) -> None:
        self._metric = job.metric
        self._can_prune = job.search.pruning != "off"
        self._trial = trial
        self._log = log
        self._last_step = 1
        self._reported: set[int] = set()

    def watcher(self) -> Watcher:
        """Return what the training calls; of its own lines, only warnings are passed on."""
        return Watcher(
            log=self._pass_on, on_start=self._start, on_step=self._step, prune=self._prune
        )

    def repeat(self, record: RunRecord) -> None:
        """Report what a run that is continued has measured already."""
        if record.planned_steps is None:  # it ended before its first step
            return
        self._last_step = record.planned_steps
        for step in record.history:
            self._report(step)

    def _start(self, _first: int, last: int) -> None:
        self._last_step = last

    def _step(self, step: Step) -> None:
        del step
        _stop_without_parent()

    def _pass_on(self, line: str) -> None:
        if is_warning(line):
            self._log(f"{self._trial.user_attrs['run']}: {line}")

    def _report(self, step: Step) -> int | None:
        """Report an evaluation; return its percentage, or None if there is nothing new."""
        percent = round(ALL_STEPS * step.step / self._last_step)
        if not step.evaluation or percent in self._reported:
            return None
        self._reported.add(percent)
        self._trial.report(step.evaluation[self._metric], percent)
        return percent

    def _prune(self, step: Step) -> str | None:
        percent = self._report(step)
        if percent is None or step.stop or not self._can_prune or not self._trial.should_prune():
            return None
        assert step.evaluation is not None  # noqa: S101 - it was reported
        value = step.evaluation[self._metric]
        return f"pruned after {percent}% of its training: validation {self._metric} {value:.4f}"


def _stop_without_parent() -> None:
    """End a worker whose parent has been killed, so that none is left behind unseen."""
    parent = multiprocessing.parent_process()
    if parent is not None and not parent.is_alive():
        raise KeyboardInterrupt


def _describe(values: dict[str, Any]) -> str:
    if not values:
        return "the recipe itself"
    return ", ".join(f"{key} = {shown(value)}" for key, value in values.items())
