"""Files saved while a run trains: the best adapter, checkpoints, the reason of a failure."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from pennyweight.engine.train.step import OptimizerStep
from pennyweight.errors import NonFiniteLogitsError, NonFiniteLossError, PennyweightError
from pennyweight.runs.record import Best, load_record
from pennyweight.training.train import train
from tiny import tiny_recipe
from training.outcomes import weights_are_equal


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
    nlls = {step.step: step.evaluation["nll"] for step in record.history if step.evaluation}
    best = min(nlls, key=lambda step: nlls[step])
    assert len(nlls) == 12
    assert record.best == Best(step=best, metric="nll", value=nlls[best])
    assert best < 12
    # The record's own metrics are of calibrated probabilities.
    calibration = record.calibration
    assert calibration is not None
    assert calibration.nll_without["validation"] == pytest.approx(nlls[best], abs=1e-6)
    assert not weights_are_equal(out / "adapter", out / "checkpoints" / "last")


def test_a_loss_that_is_not_finite_names_step_rows_and_the_last_good_checkpoint(
    bert: Path, sets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compute_losses, calls = OptimizerStep._losses, []

    def broken_at_step_3(self: OptimizerStep, *arguments: Any) -> torch.Tensor:
        calls.append(arguments)
        return compute_losses(self, *arguments) * (math.nan if len(calls) == 3 else 1.0)

    monkeypatch.setattr(OptimizerStep, "_losses", broken_at_step_3)
    out = tmp_path / "run"
    with pytest.raises(NonFiniteLossError) as caught:
        train(tiny_recipe(bert, sets, train={"evaluate_every": 2}), out=out)
    message = str(caught.value)
    assert message.startswith("step 3: the loss is nan; rows of the batch: ")
    assert f"the last good checkpoint is {out / 'checkpoints' / 'last'}" in message
    assert "\n" not in message
    record = load_record(out)
    assert (record.status, record.failure) == ("failed", message)
    assert record.history[-1].step == 2


@pytest.mark.parametrize(
    ("evaluate_every", "error", "beginning"),
    [
        (
            1,
            NonFiniteLogitsError,
            "step 1, validation: the model's logits are NaN or infinite for 16 of 16 rows",
        ),
        (100, NonFiniteLossError, "step 2: the loss is "),
    ],
)
def test_weights_that_blow_up_fail_the_run_in_one_line(
    bert: Path,
    sets: Path,
    tmp_path: Path,
    evaluate_every: int,
    error: type[PennyweightError],
    beginning: str,
) -> None:
    recipe = tiny_recipe(
        bert,
        sets,
        optimizer={"learning_rate": 1e38},
        train={"evaluate_every": evaluate_every, "max_gradient_norm": "off"},
    )
    with pytest.raises(error) as caught:
        train(recipe, out=tmp_path / "run")
    message = str(caught.value)
    assert message.startswith(beginning)
    assert message.endswith("there is no checkpoint; try a lower optimizer.learning_rate")
    assert "\n" not in message
    assert load_record(tmp_path / "run").status == "failed"
