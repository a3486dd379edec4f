"""Pennyweight's own engine on the same workload."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from accelerate import Accelerator

from pennyweight.engine.batch import Tokens, tokenize
from pennyweight.engine.compiled import choose_compile
from pennyweight.engine.device import Compute, choose_compute
from pennyweight.engine.feed import Feed, make_ready
from pennyweight.engine.loop import Progress, Settings, batches_of
from pennyweight.engine.loop import train as train_steps
from pennyweight.engine.objective import Objective
from pennyweight.engine.optim import make_optimizer, schedule
from pennyweight.engine.predict import predict_logits
from pennyweight.engine.prefix import with_states
from pennyweight.engine.together import Member, Together, train_together
from pennyweight.recipe.optimizers import AdamW
from workload import LABELS, MAX_TOKENS, Workload


def prepare(model: Any) -> tuple[Feed, Compute]:
    """What `pennyweight train` does to a model before its first step."""
    # On a GPU whole batches go through at once (train.batch_tokens).
    most_tokens = 131_072 if torch.cuda.is_available() else 8192
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    compute = choose_compute(precision="auto", attention="auto", config=inner.config)
    model.to(compute.device)
    compiled, _ = choose_compile("auto", device=compute.device)
    return make_ready(model, compute, most_tokens=most_tokens, compiled=compiled), compute


@contextmanager
def _states(model: Any, tokens: Tokens, feed: Feed, *, prefix: bool) -> Iterator[Tokens]:
    with tempfile.TemporaryDirectory() as folder:
        if not prefix:
            yield tokens
        else:
            yield with_states(
                model, tokens, feed=feed, where="disk", cache=Path(folder), say=lambda _: None
            )


def _optimizer(model: Any, learning_rate: float = 5e-4) -> torch.optim.Optimizer:
    options = AdamW(learning_rate=learning_rate, weight_decay=0.0).model_dump()
    return make_optimizer(model, options)


def _schedule(optimizer: torch.optim.Optimizer) -> torch.optim.lr_scheduler.LRScheduler:
    return schedule(
        optimizer, method="constant", warmup_steps=0, warmup_ratio=0.0, total_steps=100_000
    )


def _settings(batch: int) -> Settings:
    return Settings(
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


def _sizes(tokens: Tokens, settings: Settings, *, times: int = 1) -> Iterator[tuple[int, int]]:
    """Rows and tokens of every step, each that many times."""
    for batch in batches_of(tokens, settings, start=0, end=10**9):
        yield from [(len(batch), int(tokens.lengths[batch].sum()))] * times


def train(
    workload: Workload,
    tokens: Tokens,
    *,
    batch: int,
    prefix: bool,
    on_step: Callable[[Any, int, int], bool],
    learning_rate: float = 5e-4,
) -> None:
    """Train until `on_step(evaluate, rows, tokens)` says so."""
    model = workload.adapted(attention="pennyweight_packed")
    feed, compute = prepare(model)
    optimizer = _optimizer(model, learning_rate)
    scheduler = _schedule(optimizer)
    settings = _settings(batch)
    accelerator = Accelerator(cpu=compute.device == "cpu")

    def accuracy(rows: Tokens) -> float:
        logits = predict_logits(
            model, rows, feed=feed, compute=compute, batch_rows=128, classes=len(LABELS)
        )
        model.train()
        return float((logits.argmax(1) == rows.labels).mean())

    with _states(model, tokens, feed, prefix=prefix) as rows:
        steps = train_steps(
            model,
            rows,
            feed=feed,
            optimizer=optimizer,
            scheduler=scheduler,
            accelerator=accelerator,
            settings=settings,
            evaluate=dict,
            progress=Progress(),
        )
        for _, (taken, count) in zip(steps, _sizes(tokens, settings), strict=False):
            if on_step(accuracy, taken, count):
                break


def train_copies(
    workload: Workload,
    tokens: Tokens,
    *,
    batch: int,
    copies: int,
    on_step: Callable[[Any, int, int], bool],
) -> None:
    """Train that many adapters at once; rows count once for each."""
    models = [workload.adapted(attention="pennyweight_packed") for _ in range(copies)]
    feeds = [prepare(model)[0] for model in models]
    members = []
    for model in models:
        optimizer = _optimizer(model)
        members.append(
            Member(model, optimizer, _schedule(optimizer), Objective(), Progress(), dict)
        )
    settings = _settings(batch)
    steps = train_together(Together(models, feeds[0]), members, tokens, settings=settings)
    for _, (rows, count) in zip(steps, _sizes(tokens, settings, times=copies), strict=False):
        if on_step(None, rows, count):
            break


def classify(
    workload: Workload, texts: list[str], tokenizer: Any, *, seconds: float
) -> tuple[int, float]:
    """Rows and seconds of `pennyweight predict`'s path, tokenization included."""
    model = workload.base(attention="pennyweight_packed").requires_grad_(False).eval()
    feed, compute = prepare(model)
    done = 0

    def some(texts: list[str], folder: str) -> np.ndarray:
        table = datasets.Dataset.from_dict({"text": texts, "label": [-1] * len(texts)})
        tokens = tokenize(
            table,
            fingerprint=str(done),
            tokenizer=tokenizer,
            max_tokens=MAX_TOKENS,
            cache=Path(folder),
        )
        return predict_logits(
            model, tokens, feed=feed, compute=compute, batch_rows=128, classes=len(LABELS)
        )

    with tempfile.TemporaryDirectory() as folder:
        some(texts[-1024:], folder)
        began = time.perf_counter()
        while time.perf_counter() - began < seconds and done < len(texts):
            done += 1024
            some(texts[done - 1024 : done], folder)
        return done, time.perf_counter() - began


def synchronize() -> None:
    """Wait for the GPU, where there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
