"""The trials of a search in Optuna's database: taken by one worker at a time, none lost or twice.

What a trial trains with is kept in attributes of the trial, written before its training begins:

- `run`: the name of its run directory; a trial that is continued keeps it.
- `values`: the values of the searched keys; empty for the recipe itself.
- `keys`: those of them that are parameters of Optuna's trial.
- `worker`: which process trains it. The process holds a lock on a file of that name, which the
  operating system releases when it ends, however it ends.
- `failure`: why a training failed.

A trial whose worker has ended becomes one that Optuna calls failed, without a `failure`, and is not
counted; a new one with the same run and values waits in its place.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import optuna
from filelock import FileLock, Timeout
from optuna.exceptions import StorageInternalError
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError

from pennyweight.errors import RunError, first_line
from pennyweight.search.job import SearchJob
from pennyweight.search.sources import check_sources
from pennyweight.search.space import Axis, Values

__all__ = ["ALL_STEPS", "WAIT", "TrialStore", "counts", "readable_storage"]

# Other workers train the last trials; one of them may end, and its trial be free again.
WAIT = "wait"
# Optuna's steps of a trial are percents of its training, so that trials with batches of different
# sizes can be compared.
ALL_STEPS = 100
_LOCK_SECONDS = 120.0
_DEFAULT_RUN = "trial-0000"


class TrialStore:
    """The trials of a search, as one worker sees them.

    Raises:
        RunError: the storage cannot be opened, or holds another search; or `out` holds trials that
            the storage does not know.
    """

    def __init__(self, job: SearchJob) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._job = job
        self._locks = job.out / ".locks"
        self._worker = uuid.uuid4().hex
        self._own = FileLock(self._locks / self._worker)
        self._take = FileLock(self._locks / "take", timeout=_LOCK_SECONDS)
        try:
            self._locks.mkdir(parents=True, exist_ok=True)
            self._own.acquire(timeout=0)
        except OSError as error:
            raise RunError(
                f"--out {job.out}: cannot be created: {error.strerror or error}"
            ) from None
        with readable_storage(job.storage), self._take:
            self._study = self._open()

    def close(self) -> None:
        """Let others take over whatever this worker has not finished."""
        self._own.release()
        (self._locks / self._worker).unlink(missing_ok=True)

    @property
    def study(self) -> optuna.Study:
        """Optuna's study."""
        return self._study

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Let one worker of the search at a time into the block."""
        with self._take:
            yield

    def trials(self) -> list[FrozenTrial]:
        """Return the trials that count, by their runs."""
        trials = [one for one in self._study.get_trials(deepcopy=False) if counts(one)]
        return sorted(trials, key=lambda one: str(one.user_attrs.get("run", "~")))

    def take(self) -> optuna.Trial | str | None:
        """Return a trial to train; `WAIT` if others train the last ones; None if all are done."""
        with self._take:
            self._free_trials_of_ended_workers()
            trials = self.trials()
            finished = sum(one.state.is_finished() for one in trials)
            if finished >= self._job.trials:
                return None
            is_waiting = any(one.state == TrialState.WAITING for one in trials)
            if len(trials) >= self._job.trials and not is_waiting:
                return WAIT
            return self._ask(trials)

    def complete(self, trial: optuna.Trial, value: float, *, seconds: float) -> None:
        """Record the value of a trial that was trained."""
        trial.set_user_attr("seconds", seconds)
        self._study.tell(trial, value)

    def prune(self, trial: optuna.Trial, reason: str, *, seconds: float) -> None:
        """Record that a trial was ended early."""
        trial.set_user_attr("seconds", seconds)
        trial.set_user_attr("reason", reason)
        self._study.tell(trial, state=TrialState.PRUNED)

    def fail(self, trial: optuna.Trial, reason: str) -> None:
        """Record why the training of a trial failed."""
        trial.set_user_attr("failure", reason)
        self._study.tell(trial, state=TrialState.FAIL)

    def _open(self) -> optuna.Study:
        job = self._job
        study = optuna.create_study(
            storage=_connect(job.storage),
            study_name=job.recipe.name,
            direction="minimize" if job.is_lower_better else "maximize",
            pruner=_pruner(job.search.pruning),
            load_if_exists=True,
        )
        known = study.user_attrs.get("fingerprint")
        if known is None:
            self._refuse_other_runs()
            self._enqueue_default(study)
            study.set_user_attr("sources", dict(job.sources))
            study.set_user_attr("fingerprint", job.fingerprint)
        elif known != job.fingerprint:
            raise RunError(
                f'{_shown(job.storage)}: holds another search called "{job.recipe.name}", with '
                "another recipe or other ranges; name a new --out, or another name with "
                "--set name=NAME"
            )
        name = f'the search "{job.recipe.name}"'
        check_sources(study.user_attrs.get("sources", {}), job.sources, name=name)
        return study

    def _refuse_other_runs(self) -> None:
        runs = sorted(self._job.out.glob("trial-*"))
        if runs:
            raise RunError(
                f"--out {self._job.out}: holds {runs[0].name} and the storage does not know it; "
                "name a new --out, or the --storage of its search"
            )

    def _enqueue_default(self, study: optuna.Study) -> None:
        """Make the recipe itself the first trial; values off their axis are not told to Optuna."""
        if study.get_trials(deepcopy=False):
            return  # a worker ended between the two steps
        space = self._job.space
        fixed = {
            axis.key: axis.parameter(space.default[axis.key])
            for axis in space.axes
            if axis.contains(space.default[axis.key])
        }
        attributes = {"run": _DEFAULT_RUN, "values": {}, "keys": list(fixed)}
        study.enqueue_trial(fixed, user_attrs=attributes)

    def _free_trials_of_ended_workers(self) -> None:
        """Queue the trials again whose worker has ended before they were finished."""
        trials = self._study.get_trials(deepcopy=False)
        continued = {one.user_attrs.get("continues") for one in trials}
        for one in trials:
            if one.state != TrialState.RUNNING or self._is_alive(one.user_attrs.get("worker")):
                continue
            attributes = one.user_attrs
            # Without a run, the worker ended before anything was trained.
            if "run" in attributes and one.number not in continued:
                kept = {name: attributes[name] for name in ("run", "values", "keys")}
                # A trial that was queued has values before it is asked for them, one by one.
                known = {**one.system_attrs.get("fixed_params", {}), **one.params}
                fixed = {key: known[key] for key in attributes["keys"]}
                self._study.enqueue_trial(fixed, user_attrs={**kept, "continues": one.number})
            self._study.tell(one.number, state=TrialState.FAIL)

    def _is_alive(self, worker: str | None) -> bool:
        """Return whether a process holds the lock of a worker.

        Whoever takes a trial names itself in it before it lets go of the common lock, so a trial
        without a worker was left behind.
        """
        if worker is None:
            return False
        if worker == self._worker:
            return True
        path = self._locks / worker
        if not path.exists():
            return False
        try:
            with FileLock(path, timeout=0):
                return False
        except Timeout:
            return True

    def _ask(self, trials: Sequence[FrozenTrial]) -> optuna.Trial:
        """Take a waiting trial, or make a new one; it belongs to this worker then."""
        job = self._job
        # Seeded anew for each trial: a sampler that begins again would repeat its first values. By
        # the trials that count, so that a search that was killed goes on like an unbroken one.
        draw = np.random.default_rng([job.search.seed, len(trials)])
        self._study.sampler = _sampler(job.search.sampler, int(draw.integers(2**31)))
        is_waiting = any(one.state == TrialState.WAITING for one in trials)
        if job.search.sampler == "grid" and not is_waiting:
            self._enqueue_untried(trials, draw)
        trial = self._study.ask()
        values = self._suggest(trial, trial.user_attrs.get("keys"))
        if "run" not in trial.user_attrs:
            is_repeated = _identity(values) in self._used(trials)
            if is_repeated and self._enqueue_untried(trials, draw):
                self._study.tell(trial, state=TrialState.FAIL)
                trial = self._study.ask()
                self._suggest(trial, trial.user_attrs["keys"])
            else:
                for name, value in _attributes(values, len(trials)).items():
                    trial.set_user_attr(name, value)
        trial.set_user_attr("worker", self._worker)
        return trial

    def _suggest(self, trial: optuna.Trial, keys: Sequence[str] | None) -> Values:
        """Let Optuna choose the values of some keys, or of all."""
        values: Values = {}
        for axis in self._job.space.axes:
            if keys is None or axis.key in keys:
                parameter = _suggest(trial, axis)
                values[axis.key] = axis.decode(parameter)
        return values

    def _enqueue_untried(self, trials: Sequence[FrozenTrial], draw: np.random.Generator) -> bool:
        """Queue one of the combinations that no trial has; return whether there is one."""
        used = self._used(trials)
        untried = [one for one in self._job.space.points() if _identity(one) not in used]
        if not untried:
            return False
        values = untried[int(draw.integers(len(untried)))]
        axes = self._job.space.axes
        fixed = {axis.key: axis.parameter(values[axis.key]) for axis in axes}
        self._study.enqueue_trial(fixed, user_attrs=_attributes(values, len(trials)))
        return True

    def _used(self, trials: Sequence[FrozenTrial]) -> set[str]:
        """Return the combinations of values that trials have."""
        default = self._job.space.default
        return {_identity({**default, **one.user_attrs.get("values", {})}) for one in trials}


def counts(trial: FrozenTrial) -> bool:
    """Return whether a trial is one of the search, and not one that was given up for another."""
    return trial.state != TrialState.FAIL or "failure" in trial.user_attrs


@contextmanager
def readable_storage(storage: str) -> Iterator[None]:
    """Turn the errors of a database into one line.

    Raises:
        RunError: the storage cannot be used.
    """
    try:
        yield
    except (StorageInternalError, SQLAlchemyError) as error:
        raise _unusable(storage, error) from None
    except Timeout:
        raise RunError(
            f"{_shown(storage)}: another worker has not finished with it for "
            f"{_LOCK_SECONDS:.0f} s; try again"
        ) from None


def _connect(storage: str) -> optuna.storages.RDBStorage:
    # Another worker may be writing to the file.
    options = {"connect_args": {"timeout": 60}} if storage.startswith("sqlite") else {}
    try:
        return optuna.storages.RDBStorage(storage, engine_kwargs=options)
    except (ImportError, ValueError) as error:  # a driver is missing, or it is no URL
        raise _unusable(storage, error) from None


def _unusable(storage: str, error: Exception) -> RunError:
    reason = first_line(error.__cause__ or error)
    return RunError(
        f"--storage {_shown(storage)}: cannot be used: {reason}; give the URL of a database, "
        "such as sqlite:///search.db or postgresql://user@host/name"
    )


def _shown(storage: str) -> str:
    """Return a URL without its password."""
    try:
        return make_url(storage).render_as_string(hide_password=True)
    except (SQLAlchemyError, ValueError):
        return "(not a URL)" if "@" in storage else storage


def _attributes(values: Values, number: int) -> dict[str, Any]:
    return {"keys": list(values), "values": values, "run": f"trial-{number:04d}"}


def _identity(values: Values) -> str:
    return json.dumps(values, sort_keys=True)


def _suggest(trial: optuna.Trial, axis: Axis) -> Any:
    match axis.distribution():
        case optuna.distributions.CategoricalDistribution(choices=choices):
            return trial.suggest_categorical(axis.key, choices)
        case optuna.distributions.IntDistribution() as whole:
            return trial.suggest_int(
                axis.key, whole.low, whole.high, log=whole.log, step=whole.step
            )
        case optuna.distributions.FloatDistribution() as real:
            return trial.suggest_float(axis.key, real.low, real.high, log=real.log)
    raise AssertionError(axis)


def _sampler(name: str, seed: int) -> optuna.samplers.BaseSampler:
    if name == "tpe":
        return optuna.samplers.TPESampler(seed=seed)
    # The points of a grid are queued, so that none is left for a sampler.
    return optuna.samplers.RandomSampler(seed=seed)


def _pruner(name: str) -> optuna.pruners.BasePruner:
    if name == "median":
        return optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=20)
    if name == "hyperband":
        return optuna.pruners.HyperbandPruner(min_resource=10, max_resource=ALL_STEPS)
    return optuna.pruners.NopPruner()
