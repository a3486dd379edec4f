"""One optimizer step, of one model or of several that share their batches.

A step accumulates gradients over its pieces, clips them, and steps optimizer and schedule. Losses
of several models are summed before the backward pass; they share no trained parameter, so each
model learns as it would alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from accelerate import Accelerator
from torch import nn

from pennyweight.engine.batches.batcher import Batcher
from pennyweight.engine.batches.order import share
from pennyweight.engine.batches.rows import TokenizedRows, targets
from pennyweight.engine.device import out_of_memory_named
from pennyweight.engine.train.objective import Objective
from pennyweight.engine.train.progress import StepOutcome, TrainOptions
from pennyweight.errors import NonFiniteLossError

__all__ = [
    "Forward",
    "Learner",
    "OptimizerStep",
    "PendingStep",
    "TrainContext",
    "seed_step",
    "single_model",
]


@dataclass(frozen=True, slots=True)
class Learner:
    """A model and what its training needs.

    Attributes:
        model: the model, wrapped by the accelerator where there are several processes.
        optimizer: over the model's trained parameters.
        scheduler: of the optimizer's learning rate.
        objective: the loss.
        name: name of the model in an error message; empty where there is only one.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    scheduler: torch.optim.lr_scheduler.LRScheduler
    objective: Objective = field(default_factory=Objective)
    name: str = ""


@dataclass(frozen=True, slots=True)
class TrainContext:
    """The parts of a run that stay the same in every step.

    Attributes:
        batcher: turns rows into model inputs.
        options: options of the loop.
        accelerator: processes and mixed precision; None for one process without the latter.
    """

    batcher: Batcher
    options: TrainOptions
    accelerator: Accelerator | None = None

    @property
    def runs_ahead(self) -> bool:
        """Whether a step is read only when the next one is launched, so that a GPU never waits."""
        return self.batcher.device.startswith("cuda")

    @property
    def processes(self) -> int:
        """Number of processes."""
        return 1 if self.accelerator is None else self.accelerator.num_processes

    @property
    def process(self) -> int:
        """Number of this process, from 0."""
        return 0 if self.accelerator is None else self.accelerator.process_index

    def accumulating(self, model: nn.Module) -> AbstractContextManager[Any]:
        """Return a context in which gradients are not exchanged between processes."""
        return nullcontext() if self.accelerator is None else self.accelerator.no_sync(model)

    def autocast(self) -> AbstractContextManager[Any]:
        """Return the context of the forward pass."""
        return nullcontext() if self.accelerator is None else self.accelerator.autocast()

    def backward(self, loss: torch.Tensor) -> None:
        """Add the gradients of a loss, scaled in fp16."""
        if self.accelerator is None:
            torch.autograd.backward(loss)
        else:
            self.accelerator.backward(loss)

    def sum_over_processes(self, values: torch.Tensor) -> torch.Tensor:
        """Return the sum of every process's values."""
        if self.accelerator is None:
            return values
        total: torch.Tensor = self.accelerator.reduce(values, reduction="sum")
        return total

    def clip_gradients(self, model: nn.Module) -> torch.Tensor:
        """Clip the gradients of a model and return their norm before that."""
        parameters = [p for p in model.parameters() if p.requires_grad]
        limit = self.options.max_gradient_norm or math.inf
        clip = nn.utils.clip_grad_norm_
        if self.accelerator is not None:
            clip = self.accelerator.clip_grad_norm_
        norm: torch.Tensor = clip(parameters, limit)
        return norm


class Forward(Protocol):
    """Runs all models of a step over the same rows."""

    def __call__(
        self, rows: TokenizedRows, indices: np.ndarray, passes: int, /
    ) -> tuple[list[list[torch.Tensor]], np.ndarray]:
        """Return logits by pass and model, each `[rows, classes]`, and the indices in their order.

        Args:
            rows: tokenized rows.
            indices: int64, which of them to run.
            passes: number of forward passes, each with its own dropout masks.
        """
        ...


def single_model(model: nn.Module, context: TrainContext) -> Forward:
    """Return the forward pass of one model."""

    def forward(
        rows: TokenizedRows, indices: np.ndarray, passes: int, /
    ) -> tuple[list[list[torch.Tensor]], np.ndarray]:
        inputs, order = context.batcher.inputs(rows, indices)
        with context.autocast():
            return [[model(**inputs).logits] for _ in range(passes)], order

    return forward


class PendingStep:
    """A step whose losses and gradient norms may still be on their way from the device.

    Args:
        learners: the models.
        batch: indices of the step's rows.
        step: number of the step.
        rates: learning rate of each model.
        values: float32 `[2, models]`, losses and gradient norms.
    """

    def __init__(
        self,
        learners: Sequence[Learner],
        batch: np.ndarray,
        step: int,
        rates: Sequence[float],
        values: torch.Tensor,
    ) -> None:
        self.batch = batch
        self.step = step
        self._learners = learners
        self._rates = rates
        self._event: torch.cuda.Event | None = None
        if values.is_cuda:
            host = torch.empty(values.shape, pin_memory=True)
            self._values = host.copy_(values, non_blocking=True)
            self._event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._event.record()
        else:
            self._values = values

    def read(self) -> list[StepOutcome]:
        """Return the outcome for each model, once the device has finished the step.

        Raises:
            NonFiniteLossError: a loss is NaN or infinite.
        """
        if self._event is not None:
            self._event.synchronize()
        losses, norms = self._values.tolist()
        _refuse_non_finite(losses, self._learners, self.batch, self.step)
        return [
            StepOutcome(self.step, loss, rate, norm)
            for loss, rate, norm in zip(losses, self._rates, norms, strict=True)
        ]


@dataclass(frozen=True, slots=True)
class OptimizerStep:
    """Takes one optimizer step per call.

    Attributes:
        learners: the models; of several, `context` has one process.
        forward: runs them over the same rows.
        context: what stays the same in every step.
    """

    learners: Sequence[Learner]
    forward: Forward
    context: TrainContext

    def __call__(self, rows: TokenizedRows, batch: np.ndarray, step: int) -> PendingStep:
        """Step every model on the rows `batch`; on a GPU, return without waiting for it.

        Args:
            rows: tokenized training rows.
            batch: int64, indices of the step's rows over all processes.
            step: number of the step, from 1.

        Raises:
            NonFiniteLossError: a loss is NaN or infinite, and no weight has been changed. On a GPU
                `PendingStep.read` raises it instead, after the step.
            OutOfMemoryError: the step needs more memory than there is.
        """
        with out_of_memory_named(_describe_batch(rows, batch, step)):
            losses = self.context.sum_over_processes(self._accumulate(rows, batch, step))
        if not self.context.runs_ahead:
            _refuse_non_finite(losses.tolist(), self.learners, batch, step)
        rates = [float(learner.scheduler.get_last_lr()[0]) for learner in self.learners]
        norms = torch.stack([self._update(learner) for learner in self.learners])
        values = torch.stack([losses.float(), norms.float()])
        return PendingStep(self.learners, batch, step, rates, values)

    def _update(self, learner: Learner) -> torch.Tensor:
        """Step optimizer and schedule, and return the gradient norm before clipping."""
        norm = self.context.clip_gradients(learner.model)
        learner.optimizer.step()
        learner.optimizer.zero_grad(set_to_none=True)
        learner.scheduler.step()
        return norm

    def _accumulate(self, rows: TokenizedRows, batch: np.ndarray, step: int) -> torch.Tensor:
        """Add up gradients over the pieces of a batch; return this process's part of the losses."""
        context, options = self.context, self.context.options
        process, processes = context.process, context.processes
        seed_step(context.batcher, options.seed, step, process)
        shares = share(
            batch, parts=options.accumulation_steps, process=process, processes=processes
        )
        pieces = [
            piece
            for part in shares
            for piece in context.batcher.pieces(rows, part, copies=len(self.learners))
        ]
        totals = torch.zeros(len(self.learners), device=context.batcher.device)
        for index, piece in enumerate(pieces):
            is_last = index == len(pieces) - 1
            with nullcontext() if is_last else context.accumulating(self.learners[0].model):
                for learner in self.learners:
                    learner.objective.begin(
                        max(len(piece), 1), seed=(options.seed, step, process, index)
                    )
                losses = self._losses(rows, piece, batch) / len(batch)
                totals += losses.detach()
                loss = losses.sum()
                if is_last:
                    penalties = [learner.objective.penalty() for learner in self.learners]
                    loss = loss + sum(penalties) / processes
                # Gradients are averaged over the processes, so each scales up by their number.
                context.backward(loss * processes)
        return totals

    def _losses(self, rows: TokenizedRows, piece: np.ndarray, batch: np.ndarray) -> torch.Tensor:
        """Return each model's loss summed over the rows of a piece.

        A process without rows of its own still runs the model, as the others wait for it; its loss
        is 0.
        """
        indices = piece if len(piece) else batch[:1]
        objectives = [learner.objective for learner in self.learners]
        passes, order = self.forward(rows, indices, max(each.passes for each in objectives))
        labels = targets(rows, order, self.context.batcher.device)
        losses = torch.stack(
            [
                objective.of_rows([logits[at] for logits in passes[: objective.passes]], labels)
                for at, objective in enumerate(objectives)
            ]
        )
        return losses if len(piece) else losses * 0.0


def _describe_batch(rows: TokenizedRows, batch: np.ndarray, step: int) -> str:
    lengths = rows.lengths[batch]
    return (
        f"step {step}: a batch of {len(batch)} rows with {lengths.sum():,} tokens, the longest of "
        f"{lengths.max():,}; lower train.batch_tokens, the tokens of a forward pass, or "
        "data.max_tokens"
    )


def seed_step(batcher: Batcher, seed: int, step: int, process: int = 0) -> None:
    """Seed everything that is random in a step, so that a resumed run repeats it exactly."""
    mixed = np.random.SeedSequence((seed, step, process)).generate_state(1, np.uint64)[0]
    torch.manual_seed(int(mixed >> 1))
    if batcher.masks is not None:
        batcher.masks.begin_step(seed=seed, step=step, process=process)


def _refuse_non_finite(
    losses: Sequence[float], learners: Sequence[Learner], batch: np.ndarray, step: int
) -> None:
    for loss, learner in zip(losses, learners, strict=True):
        if not math.isfinite(loss):
            of_model = f" of {learner.name}" if learner.name else ""
            raise NonFiniteLossError(
                f"step {step}: the loss{of_model} is {loss}; "
                f"rows of the batch: {', '.join(map(str, batch))}"
            )
