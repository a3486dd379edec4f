"""EVA ends: batches grow with the rank, and too few rows are an error."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from pennyweight.base import locate, skeleton
from pennyweight.budget import Spending, make_plan
from pennyweight.engine.batches.batcher import Batcher
from pennyweight.engine.batches.rows import TokenizedRows
from pennyweight.engine.batches.tokenize import tokenize_texts
from pennyweight.engine.device import choose_compute
from pennyweight.engine.kernels.prepare import prepare_model
from pennyweight.engine.train.eva import begin_with_eva
from pennyweight.errors import TrainingError
from pennyweight.model import BaseOptions, build_model, load_tokenizer
from tiny import LABELS, news


@contextmanager
def _within(seconds: float) -> Iterator[None]:
    """Fail instead of hanging."""

    def stop(*_: object) -> None:
        raise TimeoutError

    previous = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


def _setup(
    directory: Path, *, attention: str, texts: int, **changes: Any
) -> tuple[Any, TokenizedRows, Batcher]:
    """A tiny RoBERTa with LoRA on its output matrices, for EVA to initialize, and rows for it."""
    base = locate(str(directory), labels=LABELS)
    values: dict[str, Any] = {
        "method": "lora",
        "targets": ("output.dense",),
        "rank": 24,
        "alpha": 24.0,
        "dropout": 0.0,
        "bias": "none",
        "head": "full",
        "head_rank": 8,
        "options": {"initialization": "eva"},
    }
    spending = Spending(**{**values, **changes})
    plan = make_plan(skeleton(base), spending, labels=4, budget=1_000_000)
    compute = choose_compute(precision="fp32", attention=attention, config=base.config)
    model, _ = build_model(base, plan, BaseOptions(seed=0, attention=compute.attention))
    batcher = prepare_model(model.eval(), compute, max_tokens=512)
    tokenizer = load_tokenizer(base, tokenizer=None)
    rows = tokenize_texts(
        [text for _, text in news(texts, seed=3)], tokenizer=tokenizer, max_tokens=24
    )
    return model, rows, batcher


def _a(model: Any) -> list[torch.Tensor]:
    return [p.detach().clone() for name, p in model.named_parameters() if ".lora_A." in name]


def test_batches_smaller_than_the_rank_grow_until_the_last_layer_sees_enough(
    roberta: Path,
) -> None:
    model, rows, batcher = _setup(roberta, attention="packed", texts=60)
    before = _a(model)
    with _within(60):
        begin_with_eva(model, rows, batcher, batch_rows=8, seed=1)
    for old, new in zip(before, _a(model), strict=True):
        assert not torch.equal(old, new)
        # EVA's directions are orthonormal.
        torch.testing.assert_close(new @ new.T, torch.eye(24), atol=1e-4, rtol=0)


def test_the_heads_adapter_that_sees_one_example_per_text_gets_enough_in_padded_batches(
    roberta: Path,
) -> None:
    model, rows, batcher = _setup(
        roberta, attention="eager", texts=40, rank=2, head="low-rank", head_rank=20
    )
    with _within(60):
        begin_with_eva(model, rows, batcher, batch_rows=8, seed=1)
    head = model.get_base_model().classifier.dense.lora_A["default"].weight
    torch.testing.assert_close(head @ head.T, torch.eye(20), atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("attention", "changes", "message"),
    [
        (
            "packed",
            {},
            r'"eva" .* rank, 24, at \S*layer\.1\.\S*output\.dense.*lower adapter\.rank to 16',
        ),
        (
            "eager",
            {"rank": 2, "head": "low-rank", "head_rank": 20},
            r"rank, 20, at classifier\.dense, .* 16 training rows .*lower adapter\.head_rank to 16",
        ),
    ],
)
def test_fewer_rows_than_the_rank_are_an_error_that_names_the_layer_and_the_fix(
    roberta: Path, attention: str, changes: dict[str, Any], message: str
) -> None:
    model, rows, batcher = _setup(roberta, attention=attention, texts=16, **changes)
    with _within(60), pytest.raises(TrainingError, match=message):
        begin_with_eva(model, rows, batcher, batch_rows=8, seed=1)


def test_batches_that_are_large_enough_stay_as_they_are(
    roberta: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    sizes: list[int] = []
    model, rows, batcher = _setup(roberta, attention="packed", texts=42, rank=3)
    inputs = type(batcher).inputs

    def record(self: Any, rows: Any, indices: Any, **options: Any) -> Any:
        sizes.append(len(indices))
        return inputs(self, rows, indices, **options)

    monkeypatch.setattr(type(batcher), "inputs", record)
    with _within(60):
        begin_with_eva(model, rows, batcher, batch_rows=8, seed=1)
    # One batch to count examples, one to compare the layers' inputs, and then the batches in turn.
    assert sizes[:8] == [8, 8, 8, 8, 8, 8, 8, 2]
    # The last batch is skipped by PEFT for the last layer, silently.
    assert "skipping" not in capfd.readouterr().out
