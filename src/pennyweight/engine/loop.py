"""The training loop: a generator of steps that touches neither disk nor screen.

It yields a `Step` after every optimizer step; its caller saves and shows. Whatever is random in a
step is drawn from seed, step and process, so a resumed run goes on exactly as if it had not
stopped, and the loss of a global batch is its mean over rows however the rows are shared out.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import nn

from pennyweight.engine.batch import Order, Tokens, epoch_batches, share, targets
from pennyweight.engine.feed import Feed
from pennyweight.engine.objective import Objective
from pennyweight.errors import NonFiniteLossError

__all__ = [
    "Progress",
    "Settings",
    "Step",
    "batches_of",
    "judge",
    "seed_step",
    "total_steps",
    "train",
]

# Metrics of which less is better.
_FALLING = frozenset({"nll", "brier", "ece"})


@dataclass(frozen=True, slots=True)
class Settings:
    """The loop's plain values; see the recipe's `[train]` for what each means."""

    epochs: int
    max_steps: int | None
    batch_rows: int
    accumulation_steps: int
    batch_order: Order
    max_gradient_norm: float | None
    evaluate_every: int | None
    keep_best: str
    patience: int | None
    threshold: float
    seed: int


@dataclass(slots=True)
class Progress:
    """How far a run has come; saved in checkpoints, so that it can go on from there."""

    step: int = 0
    best: float | None = None
    best_step: int = 0
    without_improvement: int = 0
    seconds: float = 0.0
    rows: int = 0


@dataclass(frozen=True, slots=True)
class Step:
    """One optimizer step.

    Attributes:
        step: from 1.
        epoch: passes over the rows so far, with the fraction of the current one.
        loss: mean cross-entropy over the step's rows.
        learning_rate: that was used.
        gradient_norm: before clipping.
        rows_per_second: since training began, evaluations left out.
        seconds: of training so far.
        evaluation: metrics on validation, where this step ends with one.
        is_best: whether that evaluation is the best so far.
        stop: why training ends with this step; None if it goes on.
    """

    step: int
    epoch: float
    loss: float
    learning_rate: float
    gradient_norm: float
    rows_per_second: float
    seconds: float
    evaluation: Mapping[str, float] | None = None
    is_best: bool = False
    stop: str | None = field(default=None)


def total_steps(rows: int, settings: Settings) -> int:
    """Optimizer steps that a full run takes."""
    steps = settings.epochs * math.ceil(rows / settings.batch_rows)
    return min(steps, settings.max_steps) if settings.max_steps else steps


def train(
    model: nn.Module,
    tokens: Tokens,
    *,
    feed: Feed,
    optimizer: torch.optim.Optimizer,
    scheduler: torch.optim.lr_scheduler.LRScheduler,
    accelerator: Accelerator,
    settings: Settings,
    evaluate: Callable[[], Mapping[str, float]],
    progress: Progress,
    objective: Objective | None = None,
) -> Iterator[Step]:
    """Train from `progress` on, yielding every step.

    Raises:
        NonFiniteLossError: a loss is NaN or infinite; the text names step and rows.
    """
    objective = objective or Objective()
    steps_per_epoch = math.ceil(len(tokens) / settings.batch_rows)
    last = total_steps(len(tokens), settings)
    every = settings.evaluate_every or steps_per_epoch
    if _patience_is_out(progress, settings):
        return
    model.train()
    waiting: _Launched | None = None
    mark = time.perf_counter()
    for batch in batches_of(tokens, settings, start=progress.step, end=last):
        progress.step += 1
        learning_rate = float(scheduler.get_last_lr()[0])
        loss, norm = _optimize(
            model, tokens, batch, feed, optimizer, accelerator, settings, objective, progress.step
        )
        scheduler.step()
        launched = _Launched(progress.step, batch, learning_rate, loss, norm)
        is_due = progress.step == last or progress.step % every == 0
        if _runs_ahead(feed) and not is_due:
            ready, waiting = [waiting], launched
        else:
            ready, waiting = [waiting, launched], None
        for step in filter(None, ready):
            loss_found, norm_found = step.read()
            progress.seconds += time.perf_counter() - mark
            progress.rows += len(step.batch)
            evaluation = evaluate() if is_due and step is launched else None
            is_best, stop = judge(progress, evaluation, settings)
            yield step.finished(
                progress,
                loss=loss_found,
                gradient_norm=norm_found,
                epoch=step.number / steps_per_epoch,
                evaluation=evaluation,
                is_best=is_best,
                stop="all steps done" if step.number == last else stop,
            )
            mark = time.perf_counter()
            if stop is not None:
                return


def _runs_ahead(feed: Feed) -> bool:
    """Whether a step is looked at only when the next is under way, so that a GPU never waits."""
    return feed.device.startswith("cuda")


class _Launched:
    """A step whose loss and gradient norm are still on their way from the device."""

    def __init__(
        self,
        number: int,
        batch: np.ndarray,
        learning_rate: float,
        loss: torch.Tensor,
        norm: torch.Tensor,
    ) -> None:
        self.number = number
        self.batch = batch
        self.learning_rate = learning_rate
        found = torch.stack([loss.float(), norm.float()])
        self._event: torch.cuda.Event | None = None
        if found.is_cuda:
            self._values = torch.empty(2, pin_memory=True).copy_(found, non_blocking=True)
            self._event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._event.record()
        else:
            self._values = found

    def read(self) -> tuple[float, float]:
        """Mean loss and gradient norm.

        Raises:
            NonFiniteLossError: the loss is NaN or infinite.
        """
        if self._event is not None:
            self._event.synchronize()
        loss, norm = self._values.tolist()
        _refuse_non_finite(loss, self.number, self.batch)
        return loss, norm

    def finished(self, progress: Progress, **found: Any) -> Step:
        """The step with what was found out about it."""
        return Step(
            step=self.number,
            learning_rate=self.learning_rate,
            rows_per_second=progress.rows / progress.seconds,
            seconds=progress.seconds,
            **found,
        )


def _refuse_non_finite(loss: float, step: int, batch: np.ndarray) -> None:
    if not math.isfinite(loss):
        raise NonFiniteLossError(
            f"step {step}: the loss is {loss}; rows of the batch: {', '.join(map(str, batch))}"
        )


def batches_of(tokens: Tokens, settings: Settings, *, start: int, end: int) -> Iterator[np.ndarray]:
    """The batches of steps `start` + 1 to `end`."""
    step = 0
    for epoch in range(settings.epochs):
        batches = epoch_batches(
            tokens.lengths,
            batch_rows=settings.batch_rows,
            order=settings.batch_order,
            seed=settings.seed,
            epoch=epoch,
        )
        for batch in batches:
            if step >= end:
                return
            if step >= start:
                yield batch
            step += 1


def _optimize(
    model: nn.Module,
    tokens: Tokens,
    batch: np.ndarray,
    feed: Feed,
    optimizer: torch.optim.Optimizer,
    accelerator: Accelerator,
    settings: Settings,
    objective: Objective,
    step: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """One optimizer step on the rows of `batch`; their mean loss and the gradient's norm.

    Nothing in it waits for a GPU: there, whether the loss is finite is seen when it is read.

    Raises:
        NonFiniteLossError: the loss is NaN or infinite; elsewhere the weights are then untouched.
    """
    processes, process = accelerator.num_processes, accelerator.process_index
    seed_step(feed, settings.seed, step, process)
    shares = share(batch, parts=settings.accumulation_steps, process=process, processes=processes)
    pieces = [piece for rows in shares for piece in feed.pieces(tokens, rows)]
    total = torch.zeros((), device=accelerator.device)
    for index, piece in enumerate(pieces):
        is_last = index == len(pieces) - 1
        with nullcontext() if is_last else accelerator.no_sync(model):
            # Gradients are averaged over the processes, so each scales its sum up by their number.
            objective.begin(max(len(piece), 1), seed=(settings.seed, step, process, index))
            loss = _loss_sum(model, tokens, piece, batch, feed, accelerator, objective) / len(batch)
            total += loss.detach()
            if is_last:
                loss = loss + objective.penalty() / processes
            accelerator.backward(loss * processes)
    mean = accelerator.reduce(total, reduction="sum")
    if not _runs_ahead(feed):
        _refuse_non_finite(float(mean), step, batch)
    limit = settings.max_gradient_norm or math.inf
    norm = accelerator.clip_grad_norm_([p for p in model.parameters() if p.requires_grad], limit)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return mean, norm


def _loss_sum(
    model: nn.Module,
    tokens: Tokens,
    piece: np.ndarray,
    batch: np.ndarray,
    feed: Feed,
    accelerator: Accelerator,
    objective: Objective,
) -> torch.Tensor:
    """Summed cross-entropy of a piece; of an empty one 0, through the model all the same."""
    inputs, rows = feed.inputs(tokens, piece if len(piece) else batch[:1])
    wanted = targets(tokens, rows, accelerator.device)
    with accelerator.autocast():
        logits = [model(**inputs).logits for _ in range(objective.passes)]
    loss = objective.of_rows(logits, wanted)
    return loss if len(piece) else loss * 0.0


def seed_step(feed: Feed, seed: int, step: int, process: int = 0) -> None:
    """Settle what is random in a step."""
    mixed = np.random.SeedSequence((seed, step, process)).generate_state(1, np.uint64)[0]
    torch.manual_seed(int(mixed >> 1))
    if feed.masks is not None:
        feed.masks.begin_step(seed=seed, step=step, process=process)


def judge(
    progress: Progress, evaluation: Mapping[str, float] | None, settings: Settings
) -> tuple[bool, str | None]:
    """Whether an evaluation is the best so far, and whether patience has run out with it."""
    if evaluation is None:
        return False, None
    value = evaluation[settings.keep_best]
    sign = -1.0 if settings.keep_best in _FALLING else 1.0
    gain = math.inf if progress.best is None else sign * (value - progress.best)
    progress.without_improvement = (
        0 if gain > settings.threshold else progress.without_improvement + 1
    )
    is_best = gain > 0
    if is_best:
        progress.best, progress.best_step = value, progress.step
    if _patience_is_out(progress, settings):
        return is_best, (
            f"{settings.keep_best} has not improved for {settings.patience} evaluations"
        )
    return is_best, None


def _patience_is_out(progress: Progress, settings: Settings) -> bool:
    return settings.patience is not None and progress.without_improvement >= settings.patience
