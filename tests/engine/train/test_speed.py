"""The speed that a time limit is planned with is that of the training step itself."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch

from engine.families import TRAIN_OPTIONS as OPTIONS
from engine.families import adapted, rows_of
from engine.train.setups import adamw
from pennyweight.engine.batches.batcher import Batcher
from pennyweight.engine.batches.rows import TokenizedRows
from pennyweight.engine.device import Compute
from pennyweight.engine.kernels.attention import PACKED
from pennyweight.engine.kernels.prepare import prepare_model
from pennyweight.engine.train import speed
from pennyweight.engine.train.objective import Objective, ObjectiveOptions
from pennyweight.engine.train.optimizer import make_optimizer
from pennyweight.engine.train.progress import TrainOptions
from pennyweight.engine.train.speed import Speed, measure_speed
from pennyweight.engine.train.step import TrainContext

ROWS = rows_of(40)


class _Clock:
    """Time that passes only when something is computed: a second for each forward pass."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now

    def tick(self, *_: Any) -> None:
        self.now += 1.0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> _Clock:
    clock = _Clock()
    monkeypatch.setattr(speed, "time", clock)
    return clock


def _model() -> tuple[Any, Batcher]:
    model = adapted("bert", attention=PACKED, targets=["query", "value"], dropout=0.1)
    return model, prepare_model(model, Compute("cpu", "fp32", PACKED, ""), max_tokens=8192)


def _measure(
    clock: _Clock,
    *,
    objective: Objective | None = None,
    rows: TokenizedRows = ROWS,
    predict: Callable[[TokenizedRows], object] | None = None,
    options: TrainOptions = OPTIONS,
) -> Speed:
    model, batcher = _model()
    model.register_forward_pre_hook(clock.tick)
    return measure_speed(
        model,
        make_optimizer(model, adamw()),
        objective or Objective(),
        rows,
        context=TrainContext(batcher, options),
        predict=predict or clock.tick,
    )


@pytest.mark.parametrize(
    ("weights", "passes"), [({}, 1), ({"r_drop": 1.0}, 2), ({"consistency": 1.0}, 2)]
)
def test_every_forward_pass_of_a_step_takes_its_time(
    clock: _Clock, weights: dict[str, float], passes: int
) -> None:
    measured = _measure(clock, objective=Objective(ObjectiveOptions(**weights)))
    # 10 steps in two epochs, of which the first two are not timed.
    tokens = 2 * int(ROWS.lengths.sum()) - _tokens_of_first(2)
    assert measured.training == tokens / (8 * passes)


def _tokens_of_first(steps: int) -> int:
    batches = speed.batches_of(ROWS, OPTIONS, start=0, end=steps)
    return sum(int(ROWS.lengths[batch].sum()) for batch in batches)


def test_parts_of_a_batch_are_timed_as_they_are_trained(clock: _Clock) -> None:
    whole = _measure(clock)
    parts = _measure(clock, options=dataclasses.replace(OPTIONS, accumulation_steps=4))
    assert parts.training == whole.training / 4


def test_a_step_runs_in_the_precision_of_training(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    model, batcher = _model()
    context = TrainContext(batcher, OPTIONS)
    monkeypatch.setattr(
        TrainContext, "autocast", lambda _: torch.autocast("cpu", dtype=torch.bfloat16)
    )
    model.register_forward_pre_hook(lambda *_: seen.append(torch.is_autocast_enabled("cpu")))
    measure_speed(
        *(model, make_optimizer(model, adamw()), Objective(), ROWS),
        context=context,
        predict=lambda _: None,
    )
    assert seen == [True] * 10


def test_no_weight_and_no_gradient_is_left_behind() -> None:
    model, batcher = _model()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    # Gradients that are infinite, as scaled ones can be in fp16, would spoil every weight.
    handles = [
        parameter.register_hook(lambda gradient: gradient * torch.inf)
        for parameter in model.parameters()
        if parameter.requires_grad
    ]
    with pytest.raises(Exception, match="the loss is nan"):
        measure_speed(
            *(model, make_optimizer(model, adamw(1e9)), Objective(), ROWS),
            context=TrainContext(batcher, OPTIONS),
            predict=lambda _: None,
        )
    for handle in handles:
        handle.remove()
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_predictions_are_timed_on_the_rows_of_the_timed_steps(clock: _Clock) -> None:
    predicted: list[TokenizedRows] = []

    def predict(rows: TokenizedRows) -> None:
        predicted.append(rows)
        clock.now += 4.0

    measured = _measure(clock, predict=predict)
    (rows,) = predicted
    assert int(rows.lengths.sum()) == 2 * int(ROWS.lengths.sum()) - _tokens_of_first(2)
    assert measured.prediction == int(rows.lengths.sum()) / 4.0
    assert measured.whole_prediction is None


def test_of_fewer_steps_than_are_warmed_up_with_all_are_timed(clock: _Clock) -> None:
    options = dataclasses.replace(OPTIONS, epochs=1, batch_rows=40)
    assert _measure(clock, options=options).training == int(ROWS.lengths.sum())
