"""Studies: every variation with every seed, one table, and continuing after an interruption."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pennyweight.errors import BudgetError, DataError, RunError, TrainingError
from pennyweight.recipe import Recipe, dump_recipe
from pennyweight.recipe.study import load_study
from pennyweight.runs.record import RunRecord, load_record
from pennyweight.search import studies, study_training
from pennyweight.search.studies import run_study
from pennyweight.training.watcher import Watcher
from tiny import BASELINES, news, tiny_recipe, write_news


@pytest.fixture
def file(roberta: Path, sets: Path, tmp_path: Path) -> Path:
    """Return the file of a study with two variations and two seeds."""
    recipe = tmp_path / "base.toml"
    recipe.write_text(dump_recipe(tiny_recipe(roberta, sets, train={"max_steps": 3})))
    study = tmp_path / "study.toml"
    study.write_text(
        f"""
        summary = "two ranks"
        recipe = "{recipe}"
        seeds = [1, 2]
        set = ["adapter.alpha=4"]
        [[rows]]
        name = "one"
        set = ["adapter.rank=1"]
        [[rows]]
        name = "two"
        set = ["adapter.rank=2", "adapter.method=dora"]
        """
    )
    return study


def test_a_study_trains_every_variation_with_every_seed_and_summarizes_them(
    file: Path, tmp_path: Path
) -> None:
    rows = run_study(load_study(file), out=tmp_path / "out")
    assert [row.name for row in rows] == ["one", "two"]
    for number, row in enumerate(rows, start=1):
        runs = sorted((tmp_path / "out").glob(f"{number:02d}-*/seed-*"))
        records = [load_record(run) for run in runs]
        assert [record.recipe.seed for record in records] == row.seeds == [1, 2]
        accuracies = [record.metrics["test"].accuracy for record in records]
        assert row.values["test"] == accuracies
        assert row.mean["test"] == pytest.approx(np.mean(accuracies))
        assert row.deviation["test"] == pytest.approx(np.std(accuracies, ddof=1))
        # Two seeds are too few for an interval.
        assert row.interval["test"] is None
        assert records[0].parameters is not None
        assert row.parameters == records[0].parameters.file
        assert row.peak_memory_bytes == max(record.peak_memory_bytes for record in records)
        assert row.seconds == pytest.approx(np.mean([record.seconds for record in records]))
        assert records[0].recipe.adapter.alpha == 4.0
    assert rows[1].parameters > rows[0].parameters
    assert rows[0].p["test"] is None
    # One comparison alone is not adjusted.
    assert rows[1].adjusted_p == rows[1].p
    assert rows[0].adjusted_p["test"] is None
    saved = json.loads((tmp_path / "out" / "study.json").read_text())
    assert [row["mean"] for row in saved["rows"]] == [row.mean for row in rows]
    assert saved["summary"] == "two ranks"


def test_an_interrupted_study_continues_and_a_failed_run_does_not_stop_it(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train, trained = study_training.train, list[str]()

    def failing(recipe: Recipe, *, out: Path, **options: Any) -> RunRecord:
        trained.append(out.parent.name)
        if out.parent.name == "01-one" and out.name == "seed-2":
            raise TrainingError("no luck")
        if len(trained) == 3:
            raise KeyboardInterrupt
        return train(recipe, out=out, **options)

    monkeypatch.setattr(study_training, "train", failing)
    lines: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        run_study(load_study(file), out=tmp_path / "out", log=lines.append)
    assert f"one, seed 1: {tmp_path / 'out' / '01-one' / 'seed-1'}" in lines
    assert "failed: no luck" in lines
    rows = run_study(load_study(file), out=tmp_path / "out")
    assert rows[0].failures == {"2": "no luck"}
    assert rows[0].seeds == [1]
    assert rows[1].seeds == [1, 2]
    # The first run was complete already, and was not trained again.
    assert trained == ["01-one", "01-one", "02-two", "01-one", "02-two", "02-two"]


@pytest.mark.parametrize(("method", "resumes"), [("lora", True), ("adalora", False)])
def test_an_unfinished_run_is_resumed_if_its_method_can_be_and_else_started_over(
    roberta: Path,
    sets: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    method: str,
    resumes: bool,
) -> None:
    adapter = {"method": method, "rank": 2}
    if method == "adalora":
        adapter |= {"target_rank": 1, "start_steps": 1, "final_steps": 1, "every": 1}
    recipe = tiny_recipe(roberta, sets, adapter=adapter)
    (tmp_path / "base.toml").write_text(dump_recipe(recipe))
    study = tmp_path / "study.toml"
    study.write_text(f'recipe = "{tmp_path / "base.toml"}"\nseeds = [1]\n[[rows]]\nname = "only"\n')
    calls: list[bool] = []

    def interrupted(recipe: Recipe, *, out: Path, resume: bool = False, **_: Any) -> RunRecord:
        calls.append(resume)
        watcher = Watcher(on_step=_raise if len(calls) == 1 else lambda _: None)
        return train(recipe, out=out, resume=resume, watcher=watcher)

    train = study_training.train
    monkeypatch.setattr(study_training, "train", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_study(load_study(study), out=tmp_path / "out")
    (row,) = run_study(load_study(study), out=tmp_path / "out")
    assert calls == [False, resumes]
    assert row.seeds == [1]
    assert row.failures == {}


def _raise(_: object) -> None:
    raise KeyboardInterrupt


def test_a_directory_of_another_recipe_is_refused(file: Path, tmp_path: Path) -> None:
    run_study(load_study(file), out=tmp_path / "out")
    with pytest.raises(RunError, match="trained with another recipe"):
        run_study(load_study(file, overrides=["adapter.alpha=5"]), out=tmp_path / "out")


def test_a_study_does_not_go_on_with_other_rows(file: Path, sets: Path, tmp_path: Path) -> None:
    train, out = tmp_path / "train.csv", tmp_path / "out"
    shutil.copy(sets / "train.csv", train)
    study = load_study(file, overrides=[f"data.train={train}"])
    run_study(study, out=out)
    shutil.rmtree(next(out.glob("02-*")))
    train.write_text("".join(train.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(RunError, match=r"train\.\w+ changed since it began"):
        run_study(study, out=out)


def test_rows_that_evaluate_other_sets_are_compared_on_those_that_both_have(
    file: Path, tmp_path: Path
) -> None:
    text = file.read_text()
    file.write_text(text.replace('["adapter.rank=1"]', '["adapter.rank=1", "evaluate.also={}"]'))
    overrides = ["evaluate.also={more='sample:test'}"]
    rows = run_study(load_study(file, overrides=overrides), out=tmp_path / "out")
    assert [set(row.p) for row in rows] == [set(row.values) for row in rows]
    assert ("more" in rows[0].values, "more" in rows[1].values) == (False, True)
    assert rows[1].p["more"] is None


def test_a_row_over_budget_is_refused_before_anything_is_trained(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(study_training, "train", _raise)
    text = file.read_text().replace('"adapter.rank=2"', '"budget.trainable_parameters=10"')
    file.write_text(text)
    message = r'^study study: nothing was trained: row "two": over budget: .* 10 allowed'
    with pytest.raises(BudgetError, match=message):
        run_study(load_study(file), out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_labels_and_keys_that_are_left_open_are_completed_before_the_plan(
    roberta: Path, sets: Path, tmp_path: Path
) -> None:
    open_keys = {
        "data": {"labels": None, "max_tokens": "auto"},
        "train": {"max_steps": 1},
        "evaluate": BASELINES,
    }
    recipe = tiny_recipe(roberta, sets, **open_keys)
    (tmp_path / "base.toml").write_text(dump_recipe(recipe))
    study = tmp_path / "study.toml"
    study.write_text(f'recipe = "{tmp_path / "base.toml"}"\nseeds = [1]\n[[rows]]\nname = "only"\n')
    (first,) = run_study(load_study(study), out=tmp_path / "out")
    assert first.seeds == [1]
    assert set(first.baselines["test"]) == {"embedding", "tf-idf"}
    # Complete runs are recognized without another look at the rows.
    (again,) = run_study(load_study(study), out=tmp_path / "out")
    assert again == first
    study.write_text(study.read_text() + f'set = ["data.train={tmp_path / "none.csv"}"]\n')
    with pytest.raises(DataError, match=r'nothing was trained: row "only": .*none\.csv'):
        run_study(load_study(study), out=tmp_path / "other")


def test_the_table_is_written_even_if_no_run_could_begin(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def offline(*_: Any, **__: Any) -> RunRecord:
        raise DataError("hub:x/y: the hub cannot be reached")

    monkeypatch.setattr(study_training, "train", offline)
    rows = run_study(load_study(file), out=tmp_path / "away" / "out")
    assert [set(row.failures) for row in rows] == [{"1", "2"}, {"1", "2"}]
    saved = json.loads((tmp_path / "away" / "out" / "study.json").read_text())
    assert saved["rows"][0]["failures"]["1"] == "hub:x/y: the hub cannot be reached"


def test_p_values_are_adjusted_for_the_rows_that_have_one_on_the_set() -> None:
    by_set = ("values", "mean", "deviation", "interval", "predicted_shares", "failures")
    values: dict[str, Any] = {name: {} for name in by_set}
    values |= {"seeds": [], "metric": "accuracy", "parameters": 1, "seconds": 1.0}
    values |= {"peak_memory_bytes": 1, "leaks": [], "transductive": []}
    p_values = ({"test": None}, {"test": 0.03, "other": 0.4}, {}, {"test": 0.01})
    rows = [studies.StudyRow(name=str(n), p=dict(p), **values) for n, p in enumerate(p_values)]
    adjusted = [row.adjusted_p for row in studies._with_adjusted_p(rows)]
    assert adjusted == [{"test": None}, {"test": 0.03, "other": 0.4}, {}, {"test": 0.02}]


def test_a_study_compares_macro_f1_where_the_classes_of_the_test_are_uneven(
    file: Path, tmp_path: Path
) -> None:
    rows = news(40, seed=9)
    # One row of the first class, ten of each of the others.
    kept = [rows[0], *(row for row in rows if row[0] != rows[0][0])]
    write_news(tmp_path / "uneven.csv", kept)
    study = load_study(file, overrides=[f"evaluate.test={tmp_path / 'uneven.csv'}"])
    table = run_study(study, out=tmp_path / "out")
    assert {row.metric for row in table} == {"macro_f1"}
    record = load_record(next((tmp_path / "out").glob("01-*/seed-1")))
    assert table[0].values["test"][0] == record.metrics["test"].macro_f1


def test_a_run_whose_record_is_damaged_fails_and_does_not_end_the_study(
    file: Path, tmp_path: Path
) -> None:
    run = tmp_path / "out" / "01-one" / "seed-1"
    run.mkdir(parents=True)
    (run / "record.json").write_text("[]")
    rows = run_study(load_study(file), out=tmp_path / "out")
    assert [(row.name, row.seeds) for row in rows] == [("one", [2]), ("two", [1, 2])]
    assert set(rows[0].failures) == {"1"}
    assert str(run / "record.json") in rows[0].failures["1"]
    assert (run / "record.json").read_text() == "[]"
