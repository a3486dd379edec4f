"""Searches with simulated trainings: choice, pruning, failures, results, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pennyweight.errors import (
    BudgetError,
    NonFiniteLossError,
    PennyweightError,
    RecipeError,
    RunError,
    TrainingError,
)
from pennyweight.recipe import Recipe, load_recipe
from pennyweight.runs.record import RunRecord, load_record
from pennyweight.search import search, worker
from pennyweight.search.engines import ENGINES
from pennyweight.search.results import SearchResult, load_result
from pennyweight.search.search import make_search_job, run_search
from runs.records import example_recipe
from search.simulated import metric_of, simulated_train
from search.simulated_job import RANGES
from training.live_keys import SEARCH_KEYS

# With its task, so that no rows are read to infer it.
_DATA = {"task": "single-label"}


def _recipe(**options: Any) -> Recipe:
    values = {"trials": 8, "ranges": dict(RANGES), "pruning": "off", **options}
    return example_recipe(
        data={**_DATA, "validation": "validation.csv"}, adapter={"rank": 2}, search=values
    )


def _search(out: Path, **options: Any) -> SearchResult:
    return run_search(_recipe(**options), out=out)


def test_a_search_finds_better_values_and_writes_their_recipe(simulated: Path) -> None:
    result = _search(simulated, trials=12)
    assert result.count("complete") == 12
    best, default = result.best_row, result.default_row
    assert best is not None
    assert default is not None
    assert default.run == "trial-0000"
    assert default.values == {"optimizer.learning_rate": 0.01, "adapter.rank": 2}
    assert default.value == pytest.approx(metric_of(_recipe()))
    assert best.value == max(row.value or 0.0 for row in result.rows)
    assert best.value > (default.value or 0.0)
    recipe = load_recipe(simulated / "best.toml")
    assert recipe.adapter.model_dump()["rank"] == best.values["adapter.rank"]
    assert recipe.optimizer.learning_rate == best.values["optimizer.learning_rate"]
    assert recipe.search is None
    # The trials have no baselines; whoever trains the best again wants them.
    assert recipe.evaluate == _recipe().evaluate
    assert load_record(simulated / best.run).recipe.evaluate.baselines == ()
    assert sum(result.importances.values()) == pytest.approx(1.0)
    assert load_result(simulated) == result
    record = load_record(simulated / best.run)
    assert result.marks == list(record.marks)
    assert record.marks


def test_results_are_written_after_each_trial(
    simulated: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []

    def counted(recipe: Recipe, *, out: Path, **options: Any) -> RunRecord:
        if seen or (simulated / "search.json").exists():
            seen.append(load_result(simulated).count("complete"))
        return simulated_train(recipe, out=out, **options)

    monkeypatch.setattr(worker, "train", counted)
    _search(simulated, trials=4)
    assert seen == [1, 2, 3]


@pytest.mark.parametrize("pruning", ["median", "hyperband"])
def test_weak_trials_are_pruned_and_say_so(simulated: Path, pruning: str) -> None:
    result = _search(simulated, trials=16, pruning=pruning, sampler="random")
    pruned = [row for row in result.rows if row.status == "pruned"]
    assert pruned
    assert result.count("pruned", "complete") == 16
    for row in pruned:
        record = load_record(simulated / row.run)
        assert record.status == "pruned"
        assert record.failure == row.reason
        assert "% of its training: validation accuracy" in str(row.reason)
        assert row.value == record.history[-1].evaluation["accuracy"]  # type: ignore[index]
    assert all(row.value is not None for row in result.rows)
    assert result.best_row is not None
    assert result.best_row.status == "complete"


def test_without_pruning_every_trial_is_trained_to_its_end(simulated: Path) -> None:
    assert _search(simulated, trials=16, sampler="random").count("complete") == 16


def test_a_metric_of_which_less_is_better_is_minimized(simulated: Path) -> None:
    result = _search(simulated, metric="nll", trials=10)
    assert result.is_lower_better
    assert result.best_row is not None
    assert result.best_row.value == min(row.value or 0.0 for row in result.rows)
    # The metric also selects the checkpoint of each trial.
    assert load_recipe(simulated / "best.toml").train.keep_best == "nll"


def test_a_trial_that_fails_is_recorded_and_the_search_goes_on(
    simulated: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(recipe: Recipe, *, out: Path, **options: Any) -> RunRecord:
        if recipe.adapter.model_dump()["rank"] == 4:
            raise NonFiniteLossError("the loss is NaN\nmore")
        return simulated_train(recipe, out=out, **options)

    monkeypatch.setattr(worker, "train", failing)
    lines: list[str] = []
    result = run_search(_recipe(trials=9), out=simulated, log=lines.append)
    failed = [row for row in result.rows if row.status == "failed"]
    assert failed
    assert {row.values["adapter.rank"] for row in failed} == {4}
    assert {row.reason for row in failed} == {"the loss is NaN"}
    assert len(result.rows) == 9
    assert f"{failed[0].run}: failed: the loss is NaN" in lines


def test_a_search_without_a_complete_trial_is_an_error(
    simulated: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: Any, **__: Any) -> RunRecord:
        raise BudgetError("over budget")

    monkeypatch.setattr(worker, "train", failing)
    with pytest.raises(TrainingError, match=r"none of 3 trials was completed.*: over budget"):
        _search(simulated, trials=3)


def test_a_search_that_is_done_trains_nothing_and_one_that_is_extended_the_rest(
    simulated: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[str] = []

    def counted(recipe: Recipe, *, out: Path, **options: Any) -> RunRecord:
        trained.append(out.name)
        return simulated_train(recipe, out=out, **options)

    monkeypatch.setattr(worker, "train", counted)
    first = _search(simulated, trials=3)
    assert _search(simulated, trials=3) == first
    assert trained == ["trial-0000", "trial-0001", "trial-0002"]
    extended = _search(simulated, trials=5)
    assert trained[3:] == ["trial-0003", "trial-0004"]
    assert extended.rows[:3] == first.rows


def test_an_interrupted_search_goes_on_with_the_trial_that_was_interrupted(
    simulated: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[str, float]] = []

    def interrupted(recipe: Recipe, *, out: Path, **options: Any) -> RunRecord:
        rate = recipe.optimizer.learning_rate
        assert isinstance(rate, float)
        calls.append((out.name, rate))
        if len(calls) == 2:
            (out / "checkpoints").mkdir(parents=True)  # as if killed before its record
            raise KeyboardInterrupt
        return simulated_train(recipe, out=out, **options)

    monkeypatch.setattr(worker, "train", interrupted)
    with pytest.raises(KeyboardInterrupt):
        _search(simulated, trials=4)
    result = _search(simulated, trials=4)
    assert calls[2] == calls[1]
    assert [name for name, _ in calls[2:]] == ["trial-0001", "trial-0002", "trial-0003"]
    assert result.count("complete") == len(result.rows) == 4


@pytest.mark.parametrize("status", ["complete", "pruned"])
def test_a_run_that_ended_before_the_search_was_told_is_read(
    simulated: Path, monkeypatch: pytest.MonkeyPatch, status: str
) -> None:
    def killed_after(recipe: Recipe, *, out: Path, **options: Any) -> RunRecord:
        if out.name == "trial-0001" and status == "pruned":
            watcher = options["watcher"]
            options["watcher"] = replace(watcher, prune=lambda _: "pruned after 25%")
        try:
            record = simulated_train(recipe, out=out, **options)
        except PennyweightError:
            raise KeyboardInterrupt from None
        if out.name == "trial-0001":
            raise KeyboardInterrupt
        return record

    with monkeypatch.context() as patch:
        patch.setattr(worker, "train", killed_after)
        with pytest.raises(KeyboardInterrupt):
            _search(simulated, trials=3)
    before = load_record(simulated / "trial-0001")
    result = _search(simulated, trials=3)
    assert load_record(simulated / "trial-0001") == before
    assert result.rows[1].status == status
    assert result.rows[1].value is not None


def test_a_run_of_another_recipe_in_the_place_of_a_trial_is_refused(simulated: Path) -> None:
    _search(simulated, trials=2)
    values = json.loads((simulated / "trial-0001" / "record.json").read_text())
    values["recipe"]["seed"] = 7
    (simulated / "trial-0002").mkdir()
    (simulated / "trial-0002" / "record.json").write_text(json.dumps(values))
    with pytest.raises(RunError, match=r"trial-0002: trained with another recipe"):
        _search(simulated, trials=3)


def test_a_recipe_without_validation_rows_cannot_be_searched(tmp_path: Path) -> None:
    recipe = example_recipe(data={**_DATA, "validation_fraction": 0.0})
    with pytest.raises(RecipeError, match="search: the trials are compared on validation rows"):
        make_search_job(recipe, out=tmp_path)


def test_a_metric_that_the_task_does_not_have_is_refused(tmp_path: Path) -> None:
    recipe = example_recipe(data=_DATA, search={"metric": "micro_f1"})
    with pytest.raises(RecipeError, match=r'^search\.metric: given "micro_f1", which is a metric'):
        make_search_job(recipe, out=tmp_path)


def test_a_recipe_over_budget_is_refused_before_the_first_trial(tmp_path: Path) -> None:
    recipe = example_recipe(data=_DATA, budget={"trainable_parameters": 10})
    with pytest.raises(BudgetError, match="over budget"):
        run_search(recipe, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_workers_and_engines_that_do_not_exist_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="--workers 0: give a whole number from 1"):
        run_search(_recipe(), out=tmp_path, workers=0)
    with pytest.raises(RunError, match="engine cloud: unknown; choose from local"):
        run_search(_recipe(), out=tmp_path, engine="cloud")
    assert list(ENGINES) == ["local", "ray"]


def test_a_search_is_not_started_by_torchrun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(RunError, match="start the search without torchrun"):
        run_search(_recipe(), out=tmp_path)


def test_a_missing_optuna_is_an_instruction(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "find_spec", lambda _: None)
    with pytest.raises(RunError, match=r"pip install 'pennyweight\[search\]'"):
        run_search(_recipe(), out=tmp_path)


def test_a_search_of_fewer_points_than_trials_says_so(simulated: Path) -> None:
    lines: list[str] = []
    recipe = _recipe(trials=50, ranges={"adapter.rank": [1, 2]})
    assert len(run_search(recipe, out=simulated, log=lines.append).rows) == 2
    assert "the ranges have 2 different trials, fewer than search.trials" in lines


# A change of each key of the section, and the search that must differ from the one without it.
_KEYS: dict[str, Any] = {
    "trials": 7,
    "metric": "nll",
    "seed": 3,
    "sampler": "random",
    "pruning": "hyperband",
    "ranges": {"adapter.rank": [1, 2]},
    "ranges.low": {"optimizer.learning_rate": {"low": 1e-3, "high": 0.1, "log": True}},
    "ranges.high": {"optimizer.learning_rate": {"low": 1e-4, "high": 0.01, "log": True}},
    "ranges.log": {"optimizer.learning_rate": {"low": 1e-4, "high": 0.1}},
    "ranges.step": {"optimizer.learning_rate": {"low": 1e-4, "high": 0.1, "step": 1e-4}},
}


def test_every_key_of_the_section_changes_the_search(simulated: Path) -> None:
    assert {f"search.{key}" for key in _KEYS} | {"search"} == SEARCH_KEYS
    rate = {"optimizer.learning_rate": {"low": 1e-4, "high": 0.1, "log": True}}
    plain: dict[str, Any] = {"trials": 12, "pruning": "median", "ranges": rate}
    outcomes = {}
    for key, value in {"": None, **_KEYS}.items():
        options = plain if not key else {**plain, key.partition(".")[0]: value}
        out = simulated / (key or "plain")
        rows = run_search(_recipe(**options), out=out).rows
        outcomes[key] = [(row.values, row.status, row.value) for row in rows]
    plain_rows = outcomes.pop("")
    assert [key for key, rows in outcomes.items() if rows == plain_rows] == []
    plain_recipe = _recipe().model_copy(update={"search": None})
    without = make_search_job(plain_recipe, out=simulated)
    assert without.space != make_search_job(_recipe(), out=simulated).space
