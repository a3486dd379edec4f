"""Searches that train tiny models: killed and continued, several workers, and the held-out sets."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pennyweight.errors import RunError
from pennyweight.evaluation.metrics import measure
from pennyweight.recipe import dump_recipe
from pennyweight.recipe.load import load_recipe
from pennyweight.runs.record import load_record
from pennyweight.search import held_out
from pennyweight.search.results import describe_held_out
from pennyweight.search.search import run_search
from pennyweight.training.train import train
from tiny import tiny_recipe

_RATE = {"optimizer.learning_rate": {"low": 1e-3, "high": 1e-1, "log": True}}


@pytest.fixture
def file(roberta: Path, sets: Path, tmp_path: Path) -> Path:
    """Return the file of a recipe with a search of three trials."""
    recipe = tiny_recipe(
        roberta,
        sets,
        train={"epochs": 2},
        evaluate={"baselines": ["tf-idf"]},
        search={"trials": 3, "ranges": _RATE, "pruning": "off"},
    )
    path = tmp_path / "tiny.toml"
    path.write_text(dump_recipe(recipe))
    return path


def test_a_search_chooses_on_validation_and_compares_two_trials_on_the_test(
    file: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    result = run_search(file, out=out)
    records = {row.run: load_record(out / row.run) for row in result.rows}
    for row in result.rows:
        record = records[row.run]
        # The rows of the test are known, so that overlaps are found, and not evaluated.
        assert record.data is not None
        assert "test" in record.data.sets
        assert set(record.metrics) == {"validation"}
        assert record.baselines == {}
        with np.load(out / row.run / "predictions.npz") as predictions:
            assert set(predictions) == {"validation", "validation.labels"}
        assert record.best is not None
        assert row.value == record.best.value
    assert set(result.held_out) == {"test"}
    test = result.held_out["test"]
    # The best recipe, trained again, is the same classifier, now evaluated on everything.
    again = train(load_recipe(out / "best.toml"), out=tmp_path / "again")
    assert again.metrics["test"].headline.value == pytest.approx(test.best)
    assert set(again.baselines) == {"tf-idf"}
    assert again.best == records[str(result.best)].best
    assert (test.rows, test.metric) == (12, again.metrics["test"].headline.metric)
    assert test.default is not None
    assert test.difference == pytest.approx(test.best - test.default)


def test_macro_f1_is_not_judged_by_a_test_of_accuracy() -> None:
    labels = np.repeat([0, 1], [1800, 200])
    best, default = labels.copy(), labels.copy()
    # As accurate, with other mistakes: of the frequent class and of the rare one.
    best[:100] = 1
    default[-100:] = 0
    answers = [
        held_out._Answers(
            measure(np.eye(2)[given] * 4.0, labels, names=("a", "b"), resamples=0), given, labels
        )
        for given in (best, default)
    ]

    found = held_out._compare(answers[0], answers[1])

    assert (found.metric, found.test) == ("macro_f1", "randomization")
    assert found.difference is not None
    assert found.difference > 0.05
    assert found.p is not None
    # McNemar's test of as many mistakes of both has a p of 1.
    assert found.p < 0.05
    assert "(randomization test, p = " in describe_held_out("test", found)


def test_the_test_is_not_looked_at_again_unless_there_is_another_trial(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[Path] = []
    compare = held_out.compare_on_held_out

    def counted(best: Path, default: Path | None) -> Any:
        looks.append(best)
        return compare(best, default)

    monkeypatch.setattr(held_out, "compare_on_held_out", counted)
    recipe = load_recipe(file, overrides=["search.trials=1"])
    first = run_search(recipe, out=tmp_path / "out")
    # The best trial is the recipe itself.
    assert first.held_out["test"].difference == 0.0
    assert run_search(recipe, out=tmp_path / "out") == first
    assert len(looks) == 1


def _start(file: Path, out: Path, *options: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "pennyweight", "search", str(file), "--out", str(out), *options],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def _wait_until(condition: Any, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + 300
    while not condition():
        assert process.poll() is None, "the search ended too early"
        assert time.monotonic() < until
        time.sleep(0.01)


def test_a_search_that_is_killed_continues_where_it_was(file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    process = _start(file, out)
    second = out / "trial-0001"
    _wait_until((second / "checkpoints" / "last").is_dir, process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = load_record(out / "trial-0000")
    started = load_record(second).started
    result = run_search(file, out=out)
    assert [(row.run, row.status) for row in result.rows] == [
        (f"trial-{number:04d}", "complete") for number in range(3)
    ]
    assert load_record(out / "trial-0000") == before
    # Resumed from its checkpoint, or complete already when the search was killed.
    assert load_record(second).started == started


@pytest.mark.slow
def test_forty_trials_that_are_killed_again_and_again_are_forty(file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    options = ("--trials", "40", "--set", "search.pruning=median")
    for number in (2, 9, 20):
        process = _start(file, out, *options)
        _wait_until((out / f"trial-{number:04d}").is_dir, process)
        time.sleep(0.1 * number)
        process.send_signal(signal.SIGKILL)
        process.wait()
    recipe = load_recipe(file, overrides=["search.trials=40", "search.pruning=median"])
    result = run_search(recipe, out=out)
    assert [row.run for row in result.rows] == [f"trial-{number:04d}" for number in range(40)]
    assert result.count("complete", "pruned") == 40
    assert len({json.dumps(row.values) for row in result.rows}) == 40
    runs = sorted(path.name for path in out.glob("trial-*"))
    assert runs == [row.run for row in result.rows]


@pytest.mark.slow
def test_a_killed_worker_of_several_is_one_line_and_the_same_command_continues(
    file: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"

    def kill_a_worker() -> None:
        while not list(out.glob("trial-*/checkpoints/last")):
            time.sleep(0.01)
        multiprocessing.active_children()[0].kill()

    killer = threading.Thread(target=kill_a_worker)
    killer.start()
    recipe = load_recipe(file, overrides=["search.trials=6"])
    line = "1 of 2 workers ended with exit code -9; the same command continues the search"
    with pytest.raises(RunError) as caught:
        run_search(recipe, out=out, workers=2)
    killer.join()
    assert str(caught.value) == line
    result = run_search(recipe, out=out)
    assert result.count("complete") == 6
    assert len({json.dumps(row.values) for row in result.rows}) == 6


@pytest.mark.slow
def test_two_workers_share_the_trials_of_one_search(file: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    recipe = load_recipe(file, overrides=["search.trials=6"])
    result = run_search(recipe, out=tmp_path / "out", workers=2, log=lines.append)
    assert result.count("complete") == 6
    processes = {load_record(tmp_path / "out" / row.run).process_id for row in result.rows}
    assert len(processes) == 2
    assert os.getpid() not in processes
    ended = [line for line in lines if ": validation accuracy" in line]
    assert sorted(line[:10] for line in ended) == [row.run for row in result.rows]
