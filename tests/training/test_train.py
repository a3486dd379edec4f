"""Training into a run directory: what a run leaves there, and what its record says."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file

from pennyweight.defaults import is_completion, plan
from pennyweight.errors import DataError, RecipeError
from pennyweight.files import hash_file
from pennyweight.inference.evaluate import evaluate
from pennyweight.recipe import Recipe, dump_recipe, load_recipe
from pennyweight.runs.record import ParameterCounts, RunRecord, load_record
from pennyweight.training.train import train
from pennyweight.training.watcher import Watcher
from tiny import news, tiny_recipe, write_news
from training.outcomes import losses, weights_are_equal

Finished = tuple[Recipe, Path, RunRecord]


@pytest.fixture(scope="module")
def finished(roberta: Path, sets: Path, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    recipe = tiny_recipe(roberta, sets, train={"trackers": ["tensorboard"]})
    out = tmp_path_factory.mktemp("finished") / "run"
    return recipe, out, train(recipe, out=out)


def test_a_run_leaves_recipe_record_curves_checkpoint_and_adapter(finished: Finished) -> None:
    recipe, out, record = finished
    assert load_recipe(out) == record.recipe
    assert is_completion(record.recipe, recipe)
    assert load_record(out) == record
    assert record.status == "complete"
    assert record.failure is None
    assert set(record.metrics) == {"validation", "test"}
    assert [step.step for step in record.history] == [1, 2, 3, 4, 5, 6]
    assert record.data is not None
    assert record.data.sets["train"].rows == 48
    facts = json.loads((out / "adapter" / "pennyweight.json").read_text())
    assert facts["labels"][3] == "Sci/Tech"
    assert facts["method"] == "lora"
    assert list((out / "logs").rglob("events.out.tfevents.*"))
    assert (out / "checkpoints" / "last" / "training_state.pt").is_file()
    hidden = [file.name for file in out.rglob(".*") if file.name != ".gitignore"]
    assert hidden == [".lock"]


def test_the_record_holds_the_hash_of_every_file_of_the_artifact(finished: Finished) -> None:
    _, out, record = finished
    assert record.artifact is not None
    assert record.artifact.directory == "adapter"
    assert record.artifact.files == {
        file.name: hash_file(file) for file in (out / "adapter").iterdir()
    }
    assert {"adapter_model.safetensors", "pennyweight.json", "tokenizer.json"} <= set(
        record.artifact.files
    )


def test_the_record_names_the_process_the_base_and_the_machine(finished: Finished) -> None:
    recipe, _, record = finished
    assert record.process_id == os.getpid()
    assert record.base is not None
    assert (record.base.name, record.base.origin) == (recipe.base.name, "directory")
    assert record.compute is not None
    assert (record.compute.device, record.compute.precision) == ("cpu", "fp32")
    assert record.compute.frozen_bytes is not None
    assert record.compute.frozen_bytes > 0
    assert record.environment is not None
    assert record.environment.packages["torch"] != "not installed"
    assert record.seconds > 0
    assert record.peak_memory_bytes > 0
    assert record.plan.within_budget


def test_every_rows_prediction_is_stored(finished: Finished) -> None:
    _, out, record = finished
    with np.load(out / "predictions.npz") as arrays:
        assert set(arrays) == {"validation", "validation.labels", "test", "test.labels"}
        accuracy = (arrays["test"] == arrays["test.labels"]).mean()
    assert accuracy == pytest.approx(record.metrics["test"].accuracy)


def test_the_most_confident_mistakes_are_recorded_in_order(finished: Finished) -> None:
    _, _, record = finished
    mistakes, metrics = record.mistakes["test"], record.metrics["test"]
    assert len(mistakes) == round((1 - metrics.accuracy) * metrics.rows) > 0
    confidences = [mistake.confidence for mistake in mistakes]
    assert confidences == sorted(confidences, reverse=True)
    assert all(mistake.label != mistake.predicted for mistake in mistakes)


def test_planned_trained_and_saved_parameters_are_equally_many(finished: Finished) -> None:
    _, out, record = finished
    # Four matrices of 32 by 32 at rank 2, and the head: 32 x 32 + 32, and 32 x 4 + 4.
    assert record.parameters == ParameterCounts(
        planned=4 * 2 * 64 + 1056 + 132, model=1700, file=1700, budget=1_000_000
    )
    tensors = load_file(out / "adapter" / "adapter_model.safetensors")
    assert sum(tensor.numel() for tensor in tensors.values()) == 1700


def test_choosing_on_the_test_is_marked_in_every_output(
    roberta: Path, sets: Path, tmp_path: Path
) -> None:
    test = str(sets / "test.csv")
    recipe = tiny_recipe(roberta, sets, data={"validation": test}, train={"max_steps": 1})
    lines: list[str] = []
    record = train(recipe, out=tmp_path / "run", watcher=Watcher(log=lines.append))
    (leak,) = record.leaks
    assert leak.startswith("12 rows of validation are also in test")
    assert f"LEAKS: {leak}" in lines
    assert f"LEAKS: {leak}" in record.marks


def test_evaluating_a_run_gives_the_metrics_of_its_record(finished: Finished, sets: Path) -> None:
    _, out, record = finished
    metrics, expected = evaluate(out, str(sets / "test.csv")), record.metrics["test"]
    assert metrics.confusion == expected.confusion
    assert metrics.nll == pytest.approx(expected.nll, abs=1e-5)


def test_training_again_from_the_runs_own_recipe_gives_the_same(
    finished: Finished, tmp_path: Path
) -> None:
    _, out, record = finished
    again = train(load_recipe(out, overrides=["train.trackers=[]"]), out=tmp_path / "again")
    assert losses(again) == losses(record)
    assert again.metrics == record.metrics
    assert weights_are_equal(tmp_path / "again" / "adapter", out / "adapter")


def test_a_recipe_can_be_given_by_its_path_and_left_open(
    bert: Path, sets: Path, tmp_path: Path
) -> None:
    recipe = tiny_recipe(bert, sets, train={"max_steps": 1}, data={"labels": None})
    (tmp_path / "mine.toml").write_text(dump_recipe(recipe), encoding="utf-8")
    assert plan(tmp_path / "mine.toml").trainable_parameters == plan(recipe).trainable_parameters
    record = train(str(tmp_path / "mine.toml"), out=tmp_path / "run")
    assert record.plan.trainable_parameters == plan(recipe).trainable_parameters
    assert record.recipe.data.label_names == ("0", "1", "2", "3")
    with pytest.raises(RecipeError, match="recipe mine: neither a shipped recipe nor a file"):
        train("mine", out=tmp_path / "other")


def test_early_stopping_ends_a_run_before_its_last_epoch(
    bert: Path, sets: Path, tmp_path: Path
) -> None:
    recipe = tiny_recipe(
        bert,
        sets,
        train={
            "evaluate_every": 1,
            "epochs": 3,
            "early_stopping": {"patience": 2, "threshold": 1.0},
        },
    )
    lines: list[str] = []
    record = train(recipe, out=tmp_path / "run", watcher=Watcher(log=lines.append))
    assert record.status == "complete"
    assert [step.step for step in record.history] == [1, 2, 3]
    assert record.history[-1].stop == "accuracy has not improved for 2 evaluations"
    assert any(line.startswith("stopped after step 3") for line in lines)


def test_the_watcher_gets_the_number_of_steps_and_every_step(
    bert: Path, sets: Path, tmp_path: Path
) -> None:
    starts: list[tuple[int, int]] = []
    steps: list[int] = []
    watcher = Watcher(
        on_start=lambda first, last: starts.append((first, last)),
        on_step=lambda step: steps.append(step.step),
    )
    recipe = tiny_recipe(bert, sets, train={"max_steps": 3, "log_every": 2})
    record = train(recipe, out=tmp_path / "run", watcher=watcher)
    assert starts == [(0, 3)]
    assert steps == [1, 2, 3]
    assert [step.step for step in record.history] == [2, 3]


def test_training_rows_that_are_also_in_the_test_are_removed_and_counted(
    bert: Path, sets: Path, tmp_path: Path
) -> None:
    rows = news(40, seed=5)
    write_news(tmp_path / "leaky.csv", rows)
    write_news(tmp_path / "test.csv", [*rows[3:7], *news(50, seed=6)[40:]])
    leaky = {"train": str(tmp_path / "leaky.csv")}
    test = {"test": str(tmp_path / "test.csv")}
    recipe = tiny_recipe(bert, sets, data=leaky, evaluate=test, train={"max_steps": 1})
    record = train(recipe, out=tmp_path / "run")
    assert record.data is not None
    assert record.data.removed_from_train == 4
    assert record.data.sets["train"].rows == 36
    exact = {(o.rows_of, o.found_in): o.exact for o in record.data.overlaps}
    assert exact["train", "test"] == 4
    refusing = tiny_recipe(bert, sets, data={**leaky, "overlap": "refuse"}, evaluate=test)
    with pytest.raises(DataError, match=r"data\.overlap"):
        train(refusing, out=tmp_path / "refused")


def test_bad_rows_stop_a_run_or_are_set_aside_in_it(bert: Path, sets: Path, tmp_path: Path) -> None:
    rows = [*news(20, seed=7), (9, "the label of this row is unknown")]
    data = {"train": str(write_news(tmp_path / "bad.csv", rows))}
    with pytest.raises(DataError, match="row 21"):
        train(tiny_recipe(bert, sets, data=data), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()

    recipe = tiny_recipe(
        bert, sets, data={**data, "on_bad_row": "set-aside"}, train={"max_steps": 1}
    )
    lines: list[str] = []
    record = train(recipe, out=tmp_path / "run", watcher=Watcher(log=lines.append))
    assert record.data is not None
    facts = record.data.sets["train"]
    bad_rows = tmp_path / "run" / "bad_rows" / "train.jsonl"
    assert (facts.rows, facts.rows_set_aside) == (20, 1)
    assert facts.bad_rows_file == str(bad_rows)
    assert [json.loads(line)["row"] for line in bad_rows.read_text().splitlines()] == [21]
    assert f"train: 1 bad rows in {bad_rows}" in lines


@pytest.mark.parametrize("split_off", [False, True])
def test_the_bad_rows_of_every_file_are_reported_once(
    bert: Path, sets: Path, tmp_path: Path, split_off: bool
) -> None:
    rows = [*news(40, seed=7), (9, "the label of this row is unknown")]
    path = str(write_news(tmp_path / "bad.csv", rows))
    data = (
        {"train": path, "validation": None}
        if split_off
        else {"validation": path, "train": str(sets / "train.csv")}
    )
    recipe = tiny_recipe(
        bert, sets, data={**data, "on_bad_row": "set-aside"}, train={"max_steps": 1}
    )
    lines: list[str] = []
    train(recipe, out=tmp_path / "run", watcher=Watcher(log=lines.append))
    name = "train" if split_off else "validation"
    file = tmp_path / "run" / "bad_rows" / f"{name}.jsonl"
    assert [line for line in lines if "bad rows" in line] == [f"{name}: 1 bad rows in {file}"]
