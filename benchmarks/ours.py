"""Pennyweight's own engine on the workload of the benchmark."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator

from pennyweight.engine.adapter_bank import AdapterBank, Member, train_together
from pennyweight.engine.batches.batcher import Batcher
from pennyweight.engine.batches.prefix import PrefixCache, cache_prefix
from pennyweight.engine.batches.rows import TokenizedRows
from pennyweight.engine.device import Compute, Products, choose_compute
from pennyweight.engine.kernels.compiled import choose_compile
from pennyweight.engine.kernels.families import unwrap
from pennyweight.engine.kernels.prepare import prepare_model
from pennyweight.engine.predictor import Predictor, TorchBackend
from pennyweight.engine.train.loop import batches_of
from pennyweight.engine.train.loop import train as train_steps
from pennyweight.engine.train.optimizer import (
    OptimizerOptions,
    ScheduleOptions,
    make_optimizer,
    make_scheduler,
)
from pennyweight.engine.train.progress import Progress, TrainOptions
from pennyweight.engine.train.step import Learner, TrainContext
from workload import MAX_TOKENS, Workload

# Called with a function that returns the accuracy on some rows (or None), and the rows and tokens
# of a step; returns whether to stop.
OnStep = Callable[[Any, int, int], bool]


def prepare(
    model: Any, *, products: Products = "float", rows: TokenizedRows | None = None
) -> tuple[Batcher, Compute]:
    """Prepare a model as `pennyweight train` does before its first step; int8 needs some rows."""
    # On a GPU, whole batches go through at once (train.batch_tokens).
    max_tokens = 131_072 if torch.cuda.is_available() else 8192
    compute = choose_compute(
        precision="auto", attention="auto", products=products, config=unwrap(model).config
    )
    model.to(compute.device)
    compiled, _ = choose_compile("auto", device=compute.device)
    return prepare_model(
        model, compute, max_tokens=max_tokens, compiled=compiled, calibration=rows
    ), compute


@contextmanager
def _prefix_states(
    model: Any, rows: TokenizedRows, batcher: Batcher, *, prefix: bool
) -> Iterator[TokenizedRows]:
    """Yield the rows, with cached hidden states if `prefix` is true."""
    with tempfile.TemporaryDirectory() as folder:
        if not prefix:
            yield rows
        else:
            cache = PrefixCache("disk", Path(folder), log=lambda _: None)
            yield cache_prefix(model, rows, batcher=batcher, cache=cache)


def _learner(model: Any, learning_rate: float = 5e-4) -> Learner:
    """Return the model with AdamW, without weight decay, at a constant learning rate."""
    adamw = {"betas": (0.9, 0.999), "epsilon": 1e-8}
    options = OptimizerOptions("adamw", learning_rate, weight_decay=0.0, extra=adamw)
    optimizer = make_optimizer(model, options)
    schedule = ScheduleOptions("constant")
    return Learner(model, optimizer, make_scheduler(optimizer, schedule, total_steps=100_000))


def _options(batch: int) -> TrainOptions:
    return TrainOptions(
        epochs=1_000,
        max_steps=None,
        batch_rows=batch,
        accumulation_steps=1,
        batch_order="grouped",
        max_gradient_norm=1.0,
        evaluate_every=10**9,
        keep_best="accuracy",
        patience=None,
        threshold=0.0,
        seed=1,
    )


def _sizes(
    rows: TokenizedRows, options: TrainOptions, *, times: int = 1
) -> Iterator[tuple[int, int]]:
    """Yield the rows and tokens of every step, each `times` times."""
    for batch in batches_of(rows, options, start=0, end=10**9):
        yield from [(len(batch), int(rows.lengths[batch].sum()))] * times


def train(
    workload: Workload,
    rows: TokenizedRows,
    *,
    batch: int,
    prefix: bool,
    on_step: OnStep,
    products: Products = "float",
    learning_rate: float = 5e-4,
) -> None:
    """Train until `on_step` returns true."""
    model = workload.adapted(attention="pennyweight_packed")
    batcher, compute = prepare(model, products=products, rows=rows.take(np.arange(24)))
    learner, options = _learner(model, learning_rate), _options(batch)
    context = TrainContext(batcher, options, Accelerator(cpu=compute.device == "cpu"))
    backend = TorchBackend(model, batcher, compute, batch_rows=128, output_layer="classifier")

    def accuracy(held_out: TokenizedRows) -> float:
        logits = backend.predict(held_out).logits
        return float((logits.argmax(1) == held_out.labels).mean())

    with _prefix_states(model, rows, batcher, prefix=prefix) as states:
        steps = train_steps(learner, states, context=context, evaluate=dict, progress=Progress())
        for _, (count, tokens) in zip(steps, _sizes(rows, options), strict=False):
            if on_step(accuracy, count, tokens):
                break


def train_copies(
    workload: Workload, rows: TokenizedRows, *, batch: int, copies: int, on_step: OnStep
) -> None:
    """Train several adapters at once; rows count once for each."""
    models = [workload.adapted(attention="pennyweight_packed") for _ in range(copies)]
    batchers = [prepare(model)[0] for model in models]
    members = [Member(_learner(model), dict, Progress()) for model in models]
    options = _options(batch)
    bank = AdapterBank(models, batchers[0])
    steps = train_together(bank, members, rows, options=options)
    for _, (count, tokens) in zip(steps, _sizes(rows, options, times=copies), strict=False):
        if on_step(None, count, tokens):
            break


def classify(
    workload: Workload, texts: list[str], tokenizer: Any, *, seconds: float
) -> tuple[int, float]:
    """Return rows and seconds of what `pennyweight predict` does, tokenization included."""
    model = workload.base(attention="pennyweight_packed").requires_grad_(False).eval()
    batcher, compute = prepare(model)
    backend = TorchBackend(model, batcher, compute, batch_rows=128, output_layer="classifier")
    predictor = Predictor(backend, tokenizer=tokenizer, max_tokens=MAX_TOKENS)
    predictor.texts(texts[-1024:])
    done, started = 0, time.perf_counter()
    while time.perf_counter() - started < seconds and done < len(texts):
        done += len(predictor.texts(texts[done : done + 1024]))
    return done, time.perf_counter() - started


def synchronize() -> None:
    """Wait for the GPU, if there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
