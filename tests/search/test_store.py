"""Trials in Optuna's database: each is taken once, and none is lost when a worker is killed."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState

from pennyweight.errors import RunError
from pennyweight.search.job import SearchJob
from pennyweight.search.store import WAIT, TrialStore
from search.simulated_job import make_job

TESTS = Path(__file__).parents[1]


@contextmanager
def _open(job: SearchJob) -> Iterator[TrialStore]:
    store = TrialStore(job)
    try:
        yield store
    finally:
        store.close()


def _take(store: TrialStore) -> optuna.Trial:
    trial = store.take()
    assert isinstance(trial, optuna.Trial)
    return trial


def _finish(store: TrialStore) -> list[FrozenTrial]:
    """Finish all trials that are left, and return all of them."""
    while isinstance(trial := store.take(), optuna.Trial):
        store.complete(trial, 0.5, seconds=1.0)
    assert trial is None
    return store.trials()


def _values(trials: list[FrozenTrial]) -> list[Any]:
    return [sorted(trial.user_attrs["values"].items()) for trial in trials]


def test_the_first_trial_is_the_recipe_itself_and_the_values_of_others_are_on_their_axes(
    tmp_path: Path,
) -> None:
    job = make_job(tmp_path)
    with _open(job) as store:
        trials = _finish(store)
    assert [trial.user_attrs["run"] for trial in trials] == [f"trial-{n:04d}" for n in range(6)]
    assert trials[0].user_attrs["values"] == {}
    assert trials[0].params == {"optimizer.learning_rate": 0.01, "adapter.rank": 2}
    for trial in trials[1:]:
        assert job.space.contains(trial.user_attrs["values"])


def test_a_value_of_the_recipe_that_is_off_its_axis_is_not_told_to_optuna(tmp_path: Path) -> None:
    ranges = {"optimizer.learning_rate": [0.1, 0.2], "adapter.rank": [2, 4]}
    with _open(make_job(tmp_path, ranges=ranges)) as store:
        trials = _finish(store)
    assert trials[0].params == {"adapter.rank": 2}
    # The four combinations, and the recipe itself.
    assert len(trials) == 5
    assert len({str(one) for one in _values(trials)}) == 5


@pytest.mark.parametrize("sampler", ["tpe", "random", "grid"])
def test_no_combination_is_tried_twice(sampler: str, tmp_path: Path) -> None:
    ranges = {"adapter.rank": [1, 2, 4, 8], "train.epochs": {"low": 1, "high": 3}}
    job = make_job(tmp_path, ranges=ranges, sampler=sampler, trials=50)
    assert job.trials == 12
    with _open(job) as store:
        values = [{**job.space.default, **dict(one)} for one in _values(_finish(store))]
    assert len({str(sorted(one.items())) for one in values}) == 12


def test_the_same_seed_chooses_the_same_values_and_another_one_others(tmp_path: Path) -> None:
    def values(name: str, **options: Any) -> list[Any]:
        with _open(make_job(tmp_path / name, **options)) as store:
            return _values(_finish(store))

    first = values("a")
    assert first == values("b")
    assert first != values("c", seed=1)
    assert first != values("d", sampler="random", seed=1)


def test_a_search_that_is_opened_again_goes_on_with_other_values(tmp_path: Path) -> None:
    job = make_job(tmp_path)
    seen = []
    for _ in range(6):
        with _open(job) as store:
            trial = _take(store)
            seen.append(str(trial.user_attrs["values"]))
            store.complete(trial, 0.5, seconds=1.0)
    with _open(job) as store:
        assert store.take() is None
    assert len(set(seen)) == 6


def test_a_search_whose_workers_were_killed_chooses_the_values_of_an_unbroken_one(
    tmp_path: Path,
) -> None:
    with _open(make_job(tmp_path / "whole")) as store:
        expected = _values(_finish(store))
    job = make_job(tmp_path / "killed")
    for _ in range(5):
        with _open(job) as store:
            store.complete(_take(store), 0.5, seconds=1.0)
            store.take()  # and left, as a kill leaves it
    with _open(job) as store:
        assert _values(_finish(store)) == expected


def test_a_trial_of_a_worker_that_has_ended_is_taken_over_with_its_values(tmp_path: Path) -> None:
    job = make_job(tmp_path)
    with _open(job) as store:
        store.complete(_take(store), 0.5, seconds=1.0)
        left = _take(store)
        with _open(job) as other:
            # The first worker is alive: its trial is left alone.
            assert _take(other).user_attrs["run"] == "trial-0002"
    with _open(job) as store:
        again = [_take(store).user_attrs for _ in range(2)]
        assert sorted(one["run"] for one in again) == ["trial-0001", "trial-0002"]
        (mine,) = (one for one in again if one["run"] == "trial-0001")
        assert mine["values"] == left.user_attrs["values"]
    with _open(job) as store:
        trials = _finish(store)
    assert [trial.user_attrs["run"] for trial in trials] == [f"trial-{n:04d}" for n in range(6)]


def test_a_trial_that_was_not_yet_described_is_given_up(tmp_path: Path) -> None:
    job = make_job(tmp_path)
    with _open(job) as store:
        store.complete(_take(store), 0.5, seconds=1.0)
        # As if the worker had been killed between two statements of `take`.
        store.study.ask()
        trials = _finish(store)
    assert len(trials) == 6
    assert len({trial.user_attrs["run"] for trial in trials}) == 6
    assert sum(trial.state == TrialState.FAIL for trial in store.study.trials) == 1


def test_a_queued_trial_whose_worker_ended_before_it_had_values_is_taken_over(
    tmp_path: Path,
) -> None:
    job = make_job(tmp_path)
    with _open(job) as store:
        # The recipe itself is queued with its values.
        queued = store.study.ask()
        assert queued.user_attrs["run"] == "trial-0000"
        trials = _finish(store)
    assert len(trials) == 6
    assert len({trial.user_attrs["run"] for trial in trials}) == 6
    (first,) = (trial for trial in trials if trial.user_attrs["run"] == "trial-0000")
    assert set(first.params) == set(queued.user_attrs["keys"])


def test_a_trial_that_was_queued_again_is_not_queued_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = make_job(tmp_path)
    with _open(job) as store:
        _take(store)

    def killed(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with _open(job) as store:
        with monkeypatch.context() as patch:
            patch.setattr(store.study, "tell", killed)
            with pytest.raises(KeyboardInterrupt):
                store.take()
        trials = _finish(store)
    assert len(trials) == 6
    assert len({trial.user_attrs["run"] for trial in trials}) == 6


def test_the_last_trials_of_others_are_waited_for(tmp_path: Path) -> None:
    job = make_job(tmp_path, trials=2)
    with _open(job) as first, _open(job) as second:
        trials = [_take(first), _take(first)]
        assert second.take() == WAIT
        for trial in trials:
            first.fail(trial, "no luck")
        assert second.take() is None


def test_more_trials_can_be_added(tmp_path: Path) -> None:
    with _open(make_job(tmp_path, trials=2)) as store:
        assert len(_finish(store)) == 2
    with _open(make_job(tmp_path, trials=4)) as store:
        assert len(_finish(store)) == 4


def test_every_value_of_a_grid_is_tried_although_the_recipe_has_one_of_them(
    tmp_path: Path,
) -> None:
    ranges = {"train.label_smoothing": [0, 0.01, 0.1]}
    job = make_job(tmp_path, ranges=ranges, sampler="grid")
    with _open(job) as store:
        values = [dict(each) for each in _values(_finish(store))]
    tried = [each.get("train.label_smoothing", 0.0) for each in values]
    assert sorted(tried) == [0.0, 0.01, 0.1]


def test_a_search_does_not_go_on_with_other_rows(tmp_path: Path) -> None:
    job = make_job(tmp_path)
    with _open(replace(job, sources={"train.csv": "one"})):
        pass
    with pytest.raises(RunError, match=r'the search ".*": train\.csv changed since it began'):
        TrialStore(replace(job, sources={"train.csv": "other"}))


def test_a_storage_of_another_search_is_refused(tmp_path: Path) -> None:
    with _open(make_job(tmp_path)):
        pass
    message = r'search\.db: holds another search called "example", with another recipe'
    with pytest.raises(RunError, match=message):
        TrialStore(make_job(tmp_path, ranges={"adapter.rank": [1, 2]}))


def test_runs_that_the_storage_does_not_know_are_refused(tmp_path: Path) -> None:
    (tmp_path / "trial-0003").mkdir()
    with pytest.raises(RunError, match=r"holds trial-0003 and the storage does not know it"):
        TrialStore(make_job(tmp_path))


@pytest.mark.parametrize(
    ("storage", "message"),
    [
        ("nonsense", "--storage nonsense: cannot be used: "),
        ("sqlite:////no/such/folder/x.db", "--storage sqlite:////no/such/folder/x.db: cannot be"),
        ("nosuchdb://me:secret@host/x", r"--storage nosuchdb://me:\*\*\*@host/x: cannot be used"),
    ],
)
def test_a_storage_that_cannot_be_used_is_an_error_of_one_line(
    storage: str, message: str, tmp_path: Path
) -> None:
    job = make_job(tmp_path)
    values = {name: getattr(job, name) for name in SearchJob.__slots__}
    with pytest.raises(RunError, match=message) as caught:
        TrialStore(SearchJob(**{**values, "storage": storage}))
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)


def _start(out: Path, trials: int) -> subprocess.Popen[bytes]:
    script = Path(__file__).with_name("kill_store.py")
    paths = os.pathsep.join([str(TESTS), *filter(None, [os.environ.get("PYTHONPATH")])])
    return subprocess.Popen(
        [sys.executable, "-W", "error", str(script), str(out), str(trials)],
        env={**os.environ, "PYTHONPATH": paths},
    )


def _wait_for(path: Path) -> None:
    until = time.monotonic() + 120
    while not path.exists():
        assert time.monotonic() < until, path
        time.sleep(0.02)


def test_forty_trials_are_forty_although_workers_are_killed(tmp_path: Path) -> None:
    draw = random.Random(0)
    for number in (3, 10):
        workers = [_start(tmp_path, 40), _start(tmp_path, 40)]
        _wait_for(tmp_path / f"trial-{number:04d}.txt")
        time.sleep(draw.uniform(0.0, 0.2))
        for worker in workers:
            worker.send_signal(signal.SIGKILL)
            assert worker.wait() == -signal.SIGKILL
    job = make_job(tmp_path, trials=40)
    with _open(job) as store:
        trials = _finish(store)
    assert [trial.user_attrs["run"] for trial in trials] == [f"trial-{n:04d}" for n in range(40)]
    assert all(trial.state == TrialState.COMPLETE for trial in trials)
    assert len({str(one) for one in _values(trials)}) == 40
