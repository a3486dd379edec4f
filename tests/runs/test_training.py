"""Training into a run directory: what it writes, that it resumes, that it keeps the best."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from pennyweight.engine import loop
from pennyweight.engine.loop import Step
from pennyweight.errors import DataError, NonFiniteLossError, RecipeError, RunError
from pennyweight.recipe import Recipe, load_recipe
from pennyweight.runs import run
from pennyweight.runs.record import RunRecord, load_record
from pennyweight.runs.setup import Watcher
from pennyweight.runs.training import train
from pennyweight.runs.using import evaluate
from runs.tiny import news, tiny_recipe, write_news


def _interrupt_at(number: int) -> Watcher:
    def on_step(step: Step) -> None:
        if step.step == number:
            raise KeyboardInterrupt

    return Watcher(on_step=on_step)


def _losses(record: RunRecord) -> list[float]:
    return [entry["loss"] for entry in record.history]


def _same_weights(one: Path, other: Path) -> bool:
    first, second = (load_file(run / "adapter_model.safetensors") for run in (one, other))
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


@pytest.fixture(scope="module")
def finished(
    roberta: Path, sets: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Recipe, Path, RunRecord]:
    recipe = tiny_recipe(roberta, sets, train={"trackers": ["tensorboard"]})
    out = tmp_path_factory.mktemp("finished") / "run"
    return recipe, out, train(recipe, out=out)


def test_a_run_leaves_recipe_record_curves_checkpoint_and_adapter(
    finished: tuple[Recipe, Path, RunRecord],
) -> None:
    recipe, out, record = finished
    assert load_recipe(out) == recipe
    assert load_record(out).model_dump(mode="json") == record.model_dump(mode="json")
    assert record.status == "complete"
    assert record.failure is None
    assert {"validation", "test"} == set(record.metrics)
    assert [entry["step"] for entry in record.history] == [1, 2, 3, 4, 5, 6]
    assert record.data["sets"]["train"]["rows"] == 48
    assert json.loads((out / "adapter" / "labels.json").read_text())[3] == "Sci/Tech"
    assert list((out / "logs").rglob("events.out.tfevents.*"))
    assert (out / "checkpoints" / "last" / "training_state.pt").is_file()
    assert not [file for file in out.rglob(".*") if file.name != ".gitignore"]


def test_choosing_on_the_test_is_marked_in_every_output(
    roberta: Path, sets: Path, tmp_path: Path
) -> None:
    test = str(sets / "test.csv")
    recipe = tiny_recipe(roberta, sets, data={"validation": test}, train={"max_steps": 1})
    said: list[str] = []
    record = train(recipe, out=tmp_path / "run", watcher=Watcher(say=said.append))
    (leak,) = record.leaks
    assert leak.startswith("12 rows of validation stand in test")
    assert f"LEAKS: {leak}" in said


def test_planned_trained_and_saved_parameters_are_equally_many(
    finished: tuple[Recipe, Path, RunRecord],
) -> None:
    _, out, record = finished
    # Four matrices of 32 by 32 at rank 2, and the head: 32 x 32 + 32, and 32 x 4 + 4.
    assert record.parameters == {
        "planned": 4 * 2 * 64 + 1056 + 132,
        "model": 1700,
        "file": 1700,
        "budget": 1_000_000,
    }
    tensors = load_file(out / "adapter" / "adapter_model.safetensors")
    assert sum(tensor.numel() for tensor in tensors.values()) == 1700


def test_evaluating_a_run_gives_what_its_record_says(
    finished: tuple[Recipe, Path, RunRecord], sets: Path
) -> None:
    _, out, record = finished
    found = json.loads(json.dumps(evaluate(out, str(sets / "test.csv")).to_json()))
    expected = record.model_dump(mode="json")["metrics"]["test"]
    assert found["confusion"] == json.loads(json.dumps(expected))["confusion"]
    assert found["nll"] == pytest.approx(expected["nll"], abs=1e-5)


def test_training_again_from_the_runs_own_recipe_gives_the_same(
    finished: tuple[Recipe, Path, RunRecord], tmp_path: Path
) -> None:
    _, out, record = finished
    again = train(load_recipe(out, overrides=["train.trackers=[]"]), out=tmp_path / "again")
    assert _losses(again) == _losses(record)
    assert again.metrics == record.metrics
    assert _same_weights(tmp_path / "again" / "adapter", out / "adapter")


def test_a_directory_that_is_not_empty_is_left_alone(
    finished: tuple[Recipe, Path, RunRecord], tmp_path: Path
) -> None:
    recipe, out, _ = finished
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(RunError, match="not empty"):
        train(recipe, out=tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["notes.txt"]
    with pytest.raises(RunError, match="complete already"):
        train(recipe, out=out, resume=True)
    with pytest.raises(RunError, match="not a run"):
        train(recipe, out=tmp_path / "nothing", resume=True)


def test_a_recipe_without_training_rows_is_refused(bert: Path, sets: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(bert, sets)
    without = recipe.model_copy(update={"data": recipe.data.model_copy(update={"train": None})})
    with pytest.raises(RecipeError, match=r"data\.train: missing"):
        train(without, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("interrupted_at", [1, 5, 6])
def test_a_resumed_run_ends_with_the_weights_of_one_never_interrupted(
    bert: Path, sets: Path, tmp_path: Path, interrupted_at: int
) -> None:
    # The base's own dropout is on: what is drawn must not depend on the interruption either.
    recipe = tiny_recipe(bert, sets, train={"evaluate_every": 2}, adapter={"dropout": 0.1})
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    expected = train(recipe, out=whole)
    with pytest.raises(KeyboardInterrupt):
        train(recipe, out=parts, watcher=_interrupt_at(interrupted_at))
    assert load_record(parts).status == "interrupted"

    said: list[str] = []
    found = train(recipe, out=parts, resume=True, watcher=Watcher(say=said.append))

    assert ("resumed after step 4" in said) == (interrupted_at > 1)
    assert _same_weights(parts / "checkpoints" / "last", whole / "checkpoints" / "last")
    assert _same_weights(parts / "adapter", whole / "adapter")
    assert _losses(found) == _losses(expected)
    assert found.metrics == expected.metrics
    assert found.best == expected.best


def test_a_run_interrupted_after_its_last_step_is_finished_by_resuming(
    bert: Path, sets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, out = tiny_recipe(bert, sets, train={"max_steps": 2}), tmp_path / "run"
    with monkeypatch.context() as patched:
        patched.setattr(run.Run, "_measure_saved", _raise(KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            train(recipe, out=out)
    best = load_record(out).best
    assert best["step"] == 2
    record = train(recipe, out=out, resume=True)
    assert (record.status, record.best) == ("complete", best)
    assert len(record.history) == 2


def _raise(error: BaseException) -> Callable[..., Any]:
    def function(*_: object, **__: object) -> None:
        raise error

    return function


def test_a_run_is_not_resumed_with_another_recipe(bert: Path, sets: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        train(tiny_recipe(bert, sets), out=out, watcher=_interrupt_at(1))
    other = tiny_recipe(bert, sets, optimizer={"learning_rate": 0.02})
    with pytest.raises(RunError, match="differs from the one this run was begun with"):
        train(other, out=out, resume=True)
    assert load_record(out).status == "interrupted"


def test_a_broken_checkpoint_is_an_error_that_names_it(
    bert: Path, sets: Path, tmp_path: Path
) -> None:
    recipe, out = tiny_recipe(bert, sets, train={"evaluate_every": 1}), tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        train(recipe, out=out, watcher=_interrupt_at(2))
    (out / "checkpoints" / "last" / "training_state.pt").write_bytes(b"no")
    with pytest.raises(RunError, match=r"checkpoints/last: the checkpoint cannot be read"):
        train(recipe, out=out, resume=True)


def test_a_loss_that_is_not_finite_names_step_rows_and_the_last_good_checkpoint(
    bert: Path, sets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = loop._loss_sum, []

    def broken_at_step_3(*given: Any) -> torch.Tensor:
        calls.append(given)
        return real(*given) * (math.nan if len(calls) == 3 else 1.0)

    monkeypatch.setattr(loop, "_loss_sum", broken_at_step_3)
    out = tmp_path / "run"
    with pytest.raises(NonFiniteLossError) as caught:
        train(tiny_recipe(bert, sets, train={"evaluate_every": 2}), out=out)
    message = str(caught.value)
    assert message.startswith("step 3: the loss is nan; rows of the batch: ")
    assert f"the last good checkpoint is {out / 'checkpoints' / 'last'}" in message
    record = load_record(out)
    assert (record.status, record.failure) == ("failed", message)
    assert record.history[-1]["step"] == 2


@pytest.mark.parametrize("evaluate_every", [1, 100])
def test_weights_that_blow_up_fail_the_run_in_one_line(
    bert: Path, sets: Path, tmp_path: Path, evaluate_every: int
) -> None:
    recipe = tiny_recipe(
        bert,
        sets,
        optimizer={"learning_rate": 1e38},
        train={"evaluate_every": evaluate_every, "max_gradient_norm": "off"},
    )
    with pytest.raises(NonFiniteLossError, match=r"no checkpoint yet; try a lower .*rate") as error:
        train(recipe, out=tmp_path / "run")
    assert str(error.value).startswith(
        "step 1, validation: the model's logits are NaN or infinite for 16 of 16 rows"
        if evaluate_every == 1
        else "step 2: the loss is "
    )
    assert load_record(tmp_path / "run").status == "failed"


def test_the_best_adapter_is_kept_and_not_the_last(bert: Path, sets: Path, tmp_path: Path) -> None:
    # From step 3 on the learning rate ruins what was learned before.
    recipe = tiny_recipe(
        bert,
        sets,
        train={"evaluate_every": 1, "keep_best": "nll", "epochs": 2, "max_steps": 12},
        optimizer={"learning_rate": 0.5, "schedule": {"method": "linear", "warmup_steps": 12}},
    )
    out = tmp_path / "run"
    record = train(recipe, out=out)
    nlls = {entry["step"]: entry["evaluation"]["nll"] for entry in record.history}
    best = min(nlls, key=lambda step: nlls[step])
    assert record.best == {"step": best, "nll": nlls[best]}
    assert best < 12
    assert record.metrics["validation"]["nll"] == pytest.approx(nlls[best], abs=1e-6)
    assert not _same_weights(out / "adapter", out / "checkpoints" / "last")


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
    said: list[str] = []
    record = train(recipe, out=tmp_path / "run", watcher=Watcher(say=said.append))
    assert record.status == "complete"
    assert [entry["step"] for entry in record.history] == [1, 2, 3]
    assert record.history[-1]["stop"] == "accuracy has not improved for 2 evaluations"
    assert any(line.startswith("stopped after step 3") for line in said)


def test_training_rows_that_stand_in_the_test_are_removed_and_counted(
    bert: Path, sets: Path, tmp_path: Path
) -> None:
    rows = news(40, seed=5)
    write_news(tmp_path / "leaky.csv", rows)
    write_news(tmp_path / "test.csv", [*rows[3:7], *news(50, seed=6)[40:]])
    recipe = tiny_recipe(
        bert,
        sets,
        data={"train": str(tmp_path / "leaky.csv")},
        evaluate={"test": str(tmp_path / "test.csv")},
        train={"max_steps": 1},
    )
    record = train(recipe, out=tmp_path / "run")
    assert record.data["removed_from_train"] == 4
    assert record.data["sets"]["train"]["rows"] == 36
    exact = {(o["rows_of"], o["found_in"]): o["exact"] for o in record.data["overlaps"]}
    assert exact["train", "test"] == 4
    refusing = tiny_recipe(
        bert,
        sets,
        data={"train": str(tmp_path / "leaky.csv"), "overlap": "refuse"},
        evaluate={"test": str(tmp_path / "test.csv")},
    )
    with pytest.raises(DataError, match=r"data\.overlap"):
        train(refusing, out=tmp_path / "refused")


def test_bad_rows_stop_a_run_or_are_set_aside_in_it(bert: Path, sets: Path, tmp_path: Path) -> None:
    rows = [*news(20, seed=7), (9, "a label that is not there")]
    data = {"train": str(write_news(tmp_path / "bad.csv", rows))}
    with pytest.raises(DataError, match="row 21"):
        train(tiny_recipe(bert, sets, data=data), out=tmp_path / "stopped")
    assert load_record(tmp_path / "stopped").status == "failed"

    recipe = tiny_recipe(
        bert, sets, data={**data, "on_bad_row": "set-aside"}, train={"max_steps": 1}
    )
    record = train(recipe, out=tmp_path / "run")
    facts = record.data["sets"]["train"]
    aside = tmp_path / "run" / "bad_rows" / "train.jsonl"
    assert (facts["rows"], facts["rows_set_aside"]) == (20, 1)
    assert facts["bad_rows_file"] == str(aside)
    assert [json.loads(line)["row"] for line in aside.read_text().splitlines()] == [21]
