"""A study over data sets that chooses values: tiny, end to end, stopped, and continued."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pennyweight.errors import RunError, TrainingError
from pennyweight.recipe import Recipe, dump_recipe
from pennyweight.recipe.study import Variation, load_study
from pennyweight.runs.record import RunRecord, load_record
from pennyweight.search import choosing, study_training, worker
from pennyweight.search.choosing import Choice, choice_job, chosen, finished_choice
from pennyweight.search.compare import compare_runs
from pennyweight.search.engines import LocalEngine
from pennyweight.search.studies import run_study
from pennyweight.search.study_directory import study_runs
from tiny import news, tiny_recipe, write_news

pytest.importorskip("optuna")


@pytest.fixture
def file(roberta: Path, sets: Path, tmp_path: Path) -> Path:
    """Return the file of a study with 2 rows, 2 data sets and 2 values to choose from."""
    recipe = tmp_path / "base.toml"
    keys = {"train": {"max_steps": 2}}
    recipe.write_text(dump_recipe(tiny_recipe(roberta, sets, **keys)))
    other = write_news(tmp_path / "other.csv", news(40, seed=9))
    study = tmp_path / "study.toml"
    study.write_text(
        f"""
        recipe = "{recipe}"
        seeds = [1]
        [datasets]
        plain = []
        other = ["evaluate.test={other}"]
        [choose]
        "optimizer.learning_rate" = [1e-9, 0.05]
        [[rows]]
        name = "one"
        set = ["adapter.rank=1"]
        [[rows]]
        name = "two"
        """
    )
    return study


def _count(patch: pytest.MonkeyPatch, *, stop_at: int | None = None) -> list[Path]:
    """Note the directory of each training; stop at one of them after its first step."""
    trained: list[Path] = []
    original = study_training.train

    def train(recipe: Recipe, *, out: Path, **options: Any) -> RunRecord:
        trained.append(out)
        if len(trained) == stop_at:
            raise KeyboardInterrupt
        return original(recipe, out=out, **options)

    patch.setattr(study_training, "train", train)
    patch.setattr(worker, "train", train)
    return trained


def test_rows_are_trained_on_each_data_set_with_the_value_that_is_best_on_validation(
    file: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    # Stopped while choosing, and again in a run, it does nothing twice.
    for stop_at in (2, 2):
        with pytest.MonkeyPatch.context() as patch:
            trained = _count(patch, stop_at=stop_at)
            with pytest.raises(KeyboardInterrupt):
                run_study(load_study(file), out=out)
    assert trained[0].name == "trial-0001"
    with pytest.MonkeyPatch.context() as patch:
        trained = _count(patch)
        rows = run_study(load_study(file), out=out)
    assert len(trained) == 1 + 3 * 3
    assert len(set(trained)) == len(trained)
    assert [(row.dataset, row.name) for row in rows] == [
        (dataset, name) for dataset in ("plain", "other") for name in ("one", "two")
    ]
    for row in rows:
        directory = out / ("01-one" if row.name == "one" else "02-two") / row.dataset
        trials = [load_record(path) for path in sorted((directory / "choose").glob("trial-*"))]
        assert [set(trial.metrics) for trial in trials] == [{"validation"}] * 2
        assert row.choice is not None
        assert row.choice.metric == "accuracy"
        by_rate = {t.recipe.optimizer.learning_rate: t.best.value for t in trials if t.best}
        tried = {t.values["optimizer.learning_rate"]: t.value for t in row.choice.tried}
        assert tried == by_rate
        chosen = row.choice.values["optimizer.learning_rate"]
        assert by_rate[chosen] == max(by_rate.values())
        assert row.choice.at_edge == ["optimizer.learning_rate"]
        run = load_record(directory / "seed-1")
        assert run.recipe.optimizer.learning_rate == chosen
        assert row.values["test"] == [run.metrics["test"].accuracy]
    saved = json.loads((out / "study.json").read_text())
    assert saved["rows"][3]["choice"]["values"] == rows[3].choice.values  # type: ignore[union-attr]
    assert [set(row["ranks"]) for row in saved["ranks"][0]["rows"]] == [{"plain", "other"}] * 2
    assert set(study_runs(out)) == {"one, plain", "two, plain", "one, other", "two, other"}
    assert study_runs(out)["two, other"] == [out / "02-two" / "other" / "seed-1"]
    with pytest.raises(RunError):
        compare_runs([out])
    _a_finished_study_is_read_and_another_one_is_refused(file, out)


def _a_finished_study_is_read_and_another_one_is_refused(file: Path, out: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        trained = _count(patch)
        patch.setattr(choosing, "make_search_job", None)
        run_study(load_study(file), out=out)
    assert not trained
    with pytest.raises(RunError, match="trained with another recipe"):
        run_study(load_study(file, overrides=["train.max_steps=3"]), out=out)
    file.write_text(file.read_text().replace("0.05]", "0.05, 0.5]"))
    with pytest.raises(RunError, match="holds another search"):
        run_study(load_study(file), out=out)


def _choose(variation: Variation, out: Path) -> Choice:
    assert variation.choose is not None
    job = choice_job(variation.recipes[0], variation.choose, out=out)
    LocalEngine().search([job], log=lambda _: None)
    return chosen(job)


def test_a_value_whose_training_fails_is_not_chosen_and_without_any_the_row_fails(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = worker.train

    def failing(recipe: Recipe, **options: Any) -> RunRecord:
        if recipe.optimizer.learning_rate in bad:
            raise TrainingError("the loss is not finite")
        return original(recipe, **options)

    monkeypatch.setattr(worker, "train", failing)
    variation = load_study(file).variations[0]
    assert variation.choose is not None
    bad = {0.05}
    choice = _choose(variation, tmp_path / "some")
    assert choice.values == {"optimizer.learning_rate": 1e-9}
    reasons = {each.values["optimizer.learning_rate"]: each.reason for each in choice.tried}
    assert reasons == {1e-9: None, 0.05: "the loss is not finite"}
    assert finished_choice(variation.choose, out=tmp_path / "some") == choice
    assert finished_choice(variation.choose, out=tmp_path / "none") is None
    bad = {1e-9, 0.05}
    with pytest.raises(TrainingError, match=r"none of 2 combinations .* not finite"):
        _choose(variation, tmp_path / "all")
    rows = run_study(load_study(file), out=tmp_path / "out")
    assert all("not finite" in row.failures["1"] for row in rows)


@pytest.mark.parametrize(
    ("value", "values", "expected"),
    [
        (1, (1, 2, 3), True),
        (3, (2, 1, 3), True),
        (2, (1, 2, 3), False),
        (1, (1,), False),
        ("a", ("a", "b"), False),
        (True, (True, False), False),
    ],
)
def test_only_the_smallest_and_the_largest_of_several_numbers_are_at_the_edge(
    value: Any, values: tuple[Any, ...], expected: bool
) -> None:
    assert choosing._is_at_edge(value, values) is expected
