"""The training loop, compared with the same steps written with torch and PEFT alone."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import peft
import pyarrow as pa
import pytest
import torch
from transformers import AutoModelForSequenceClassification

from engine.families import TRAIN_OPTIONS as OPTIONS
from engine.train.setups import context, learner
from pennyweight.engine.batches.order import epoch_batches
from pennyweight.engine.batches.rows import TokenizedRows, TokenStore, collate
from pennyweight.engine.device import Compute
from pennyweight.engine.kernels.attention import PACKED
from pennyweight.engine.kernels.prepare import prepare_model
from pennyweight.engine.train import loop, objective
from pennyweight.engine.train.loop import Progress, Step
from pennyweight.errors import NonFiniteLossError

ROWS = 40
Evaluate = Callable[[], Mapping[str, float]]


@pytest.fixture
def tokens() -> TokenizedRows:
    draw = np.random.default_rng(0)
    ids = [[2, *draw.integers(5, 30, size=draw.integers(2, 12)).tolist(), 3] for _ in range(ROWS)]
    return TokenizedRows(
        TokenStore(pa.chunked_array([pa.array(ids)])),
        np.array([len(row) for row in ids]),
        draw.integers(0, 4, size=ROWS),
        padding=1,
    )


@pytest.fixture(params=["bert-eager", "roberta-eager", f"bert-{PACKED}", f"roberta-{PACKED}"])
def adapted(request: pytest.FixtureRequest) -> Callable[..., peft.PeftModel]:
    """Return a function that builds the same untrained model on every call, without dropout.

    It uses the attention under test, or transformers' own with `plain=True`.
    """
    family, tested = request.param.split("-")
    folder = request.getfixturevalue(family)

    def make(*, plain: bool = False) -> peft.PeftModel:
        torch.manual_seed(0)
        base = AutoModelForSequenceClassification.from_pretrained(
            folder,
            num_labels=4,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
            attn_implementation="eager" if plain else tested,
        )
        config = peft.LoraConfig(task_type="SEQ_CLS", r=2, target_modules=["query", "value"])
        return peft.get_peft_model(base, config)

    return make


def _steps(
    model: peft.PeftModel,
    tokens: TokenizedRows,
    *,
    evaluate: Evaluate = lambda: {"accuracy": 0.5},
    progress: Progress | None = None,
    **changes: Any,
) -> Iterator[Step]:
    options = dataclasses.replace(OPTIONS, **changes)
    attention = model.get_base_model().config._attn_implementation
    batcher = prepare_model(model, Compute("cpu", "fp32", attention, ""), max_tokens=8192)
    return loop.train(
        learner(model, steps=loop.total_steps(len(tokens), options)),
        tokens,
        context=context(batcher, options),
        evaluate=evaluate,
        progress=progress or Progress(),
    )


def _epoch_batches(tokens: TokenizedRows) -> list[np.ndarray]:
    """Return the batches of the first epoch with `OPTIONS`."""
    return list(epoch_batches(tokens.lengths, batch_rows=8, order="grouped", seed=3, epoch=0))


def _trained(model: peft.PeftModel) -> dict[str, torch.Tensor]:
    return {n: p for n, p in model.named_parameters() if p.requires_grad}


def test_losses_norms_and_weights_are_those_of_plain_torch_and_peft(
    adapted: Callable[..., peft.PeftModel], tokens: TokenizedRows
) -> None:
    ours, plain = adapted(), adapted(plain=True)
    steps = list(_steps(ours, tokens, epochs=1))

    matrices = [p for p in _trained(plain).values() if p.ndim > 1]
    vectors = [p for p in _trained(plain).values() if p.ndim <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": 0.01}, {"params": vectors, "weight_decay": 0.0}],
        lr=0.01,
    )
    batches = _epoch_batches(tokens)
    plain.train()
    assert len(steps) == len(batches) == 5
    for number, (step, batch) in enumerate(zip(steps, batches, strict=True)):
        rate = 0.01 * (1 - number / 5)
        for group in optimizer.param_groups:
            group["lr"] = rate
        labels = torch.from_numpy(tokens.labels[batch])
        loss = plain(**collate(tokens, batch), labels=labels).loss
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(matrices + vectors, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        assert step.loss == pytest.approx(loss.item(), abs=1e-5)
        assert step.gradient_norm == pytest.approx(norm.item(), rel=1e-4)
        assert step.learning_rate == pytest.approx(rate)
    for name, value in _trained(ours).items():
        torch.testing.assert_close(value, _trained(plain)[name], atol=1e-5, rtol=1e-4)


def test_gradients_of_one_step_are_those_of_the_plain_loss(
    adapted: Callable[..., peft.PeftModel], tokens: TokenizedRows, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, plain = adapted(), adapted(plain=True)
    seen: dict[str, torch.Tensor] = {}
    monkeypatch.setattr(
        torch.optim.AdamW,
        "step",
        lambda *_: seen.update({n: p.grad.clone() for n, p in _trained(ours).items()}),
    )
    list(_steps(ours, tokens, max_steps=1, max_gradient_norm=None, accumulation_steps=3))

    batch = _epoch_batches(tokens)[0]
    plain(**collate(tokens, batch), labels=torch.from_numpy(tokens.labels[batch])).loss.backward()
    assert seen.keys() == _trained(plain).keys()
    for name, gradient in seen.items():
        torch.testing.assert_close(gradient, _trained(plain)[name].grad, atol=1e-6, rtol=1e-4)


def test_accumulation_does_not_change_the_losses(
    adapted: Callable[..., peft.PeftModel], tokens: TokenizedRows
) -> None:
    # Batches of 7 leave pieces of unequal size, and 5 rows in the last batch.
    one, four = (
        [s.loss for s in _steps(adapted(), tokens, batch_rows=7, accumulation_steps=parts)]
        for parts in (1, 4)
    )
    assert len(one) == 12
    assert four == pytest.approx(one, abs=1e-5)


def test_more_accumulation_steps_than_rows_change_nothing_either(
    adapted: Callable[..., peft.PeftModel], tokens: TokenizedRows
) -> None:
    one, many = (
        [s.loss for s in _steps(adapted(), tokens, max_steps=2, batch_rows=3, **extra)]
        for extra in ({}, {"accumulation_steps": 5})
    )
    assert many == pytest.approx(one, abs=1e-5)


def test_training_stops_early_when_the_metric_no_longer_improves(
    adapted: Callable[..., peft.PeftModel], tokens: TokenizedRows
) -> None:
    values = iter([0.5, 0.6, 0.6, 0.605, 0.9])
    progress = Progress()
    steps = list(
        _steps(
            adapted(),
            tokens,
            evaluate=lambda: {"accuracy": next(values)},
            progress=progress,
            evaluate_every=1,
            patience=2,
            threshold=0.01,
        )
    )
    # Of equally good checkpoints the later one is kept, which does not count as an improvement.
    assert [step.is_best for step in steps] == [True, True, True, True]
    assert steps[-1].stop == "accuracy has not improved for 2 evaluations"
    assert (progress.best, progress.best_step) == (0.605, 4)


def test_without_validation_rows_the_last_step_is_the_best(
    adapted: Callable[..., peft.PeftModel], tokens: TokenizedRows
) -> None:
    progress = Progress()
    options = {"evaluate_every": 2, "max_steps": 5}
    steps = list(_steps(adapted(), tokens, evaluate=dict, progress=progress, **options))
    assert [step.step for step in steps if step.is_best] == [2, 4, 5]
    assert [step.evaluation for step in steps] == [None, {}, None, {}, {}]
    assert (progress.best, progress.best_step) == (None, 5)


def test_balanced_sampling_draws_as_many_rows_of_each_class(
    adapted: Callable[..., peft.PeftModel], tokens: TokenizedRows
) -> None:
    labels = np.array([0] * 30 + [1] * 6 + [2] * 2 + [3] * 2)
    rows = dataclasses.replace(tokens, labels=labels)
    options = dataclasses.replace(OPTIONS, sampling="balanced")
    batches = list(loop.batches_of(rows, options, start=0, end=10))
    assert np.bincount(labels[np.concatenate(batches)]).tolist() == [20, 20, 20, 20]
    resumed = list(loop.batches_of(rows, options, start=4, end=10))
    assert [batch.tolist() for batch in resumed] == [batch.tolist() for batch in batches[4:]]
    assert len(list(_steps(adapted(), rows, sampling="balanced", epochs=1))) == 5


def test_a_run_that_had_stopped_early_stays_stopped_when_it_is_resumed(
    adapted: Callable[..., peft.PeftModel], tokens: TokenizedRows
) -> None:
    progress = Progress(step=4, best=0.6, best_step=2, without_improvement=2)
    assert list(_steps(adapted(), tokens, progress=progress, patience=2)) == []


def test_of_a_loss_like_metric_less_is_better(
    adapted: Callable[..., peft.PeftModel], tokens: TokenizedRows
) -> None:
    values = iter([0.9, 0.7, 0.8])
    steps = _steps(
        adapted(),
        tokens,
        evaluate=lambda: {"nll": next(values)},
        keep_best="nll",
        evaluate_every=1,
        max_steps=3,
    )
    assert [step.is_best for step in steps] == [True, True, False]


def test_evaluations_come_as_often_as_asked_and_after_the_last_step(
    adapted: Callable[..., peft.PeftModel], tokens: TokenizedRows
) -> None:
    steps = list(_steps(adapted(), tokens, evaluate_every=3, max_steps=7))
    assert [step.step for step in steps if step.evaluation] == [3, 6, 7]
    assert [step.stop for step in steps] == [None] * 6 + ["all steps done"]
    assert steps[-1].epoch == pytest.approx(7 / 5)


def test_a_loss_that_is_not_a_number_stops_before_the_weights_change(
    adapted: Callable[..., peft.PeftModel], tokens: TokenizedRows, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = adapted()
    steps = _steps(model, tokens)
    next(steps)
    before = {n: p.detach().clone() for n, p in _trained(model).items()}
    monkeypatch.setattr(objective.functional, "cross_entropy", lambda *_, **__: _nan(model))
    batch = _epoch_batches(tokens)[1]
    with pytest.raises(NonFiniteLossError) as caught:
        next(steps)
    rows = ", ".join(map(str, batch))
    assert str(caught.value) == f"step 2: the loss is nan; rows of the batch: {rows}"
    assert all(torch.equal(before[n], p) for n, p in _trained(model).items())


def test_running_ahead_of_the_device_changes_no_step(
    adapted: Callable[..., peft.PeftModel], tokens: TokenizedRows, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = []
    for runs_ahead in (False, True):
        monkeypatch.setattr(loop.TrainContext, "runs_ahead", runs_ahead)
        progress = Progress()
        launched, steps = [], []
        for step in _steps(adapted(), tokens, progress=progress, evaluate_every=3, max_steps=8):
            launched.append(progress.step)
            steps.append(dataclasses.replace(step, seconds=0.0, rows_per_second=0.0))
        runs.append((launched, steps, progress.rows))
    (launched, steps, rows), (launched_ahead, steps_ahead, rows_ahead) = runs
    assert launched == [1, 2, 3, 4, 5, 6, 7, 8]
    # A step is read once the next is launched, except before an evaluation.
    assert launched_ahead == [2, 3, 3, 5, 6, 6, 8, 8]
    assert steps_ahead == steps
    assert rows_ahead == rows


def _nan(model: peft.PeftModel) -> torch.Tensor:
    return next(iter(_trained(model).values())).sum() * math.nan
