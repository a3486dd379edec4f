"""Optimizers, learners and contexts for tests of training."""

from __future__ import annotations

from typing import Any

from accelerate import Accelerator
from torch import nn

from pennyweight.engine.batches.batcher import Batcher
from pennyweight.engine.train.objective import Objective
from pennyweight.engine.train.optimizer import (
    OptimizerOptions,
    ScheduleOptions,
    make_optimizer,
    make_scheduler,
)
from pennyweight.engine.train.progress import TrainOptions
from pennyweight.engine.train.step import Learner, TrainContext

ADAMW = {"betas": (0.9, 0.999), "epsilon": 1e-8}


def adamw(learning_rate: float = 0.01, **changes: Any) -> OptimizerOptions:
    return OptimizerOptions("adamw", learning_rate, 0.01, extra=ADAMW, **changes)


def learner(
    model: nn.Module, *, steps: int, rate: float = 0.01, objective: Objective | None = None
) -> Learner:
    """AdamW with a learning rate that decays linearly to 0 within `steps` steps."""
    optimizer = make_optimizer(model, adamw(rate))
    scheduler = make_scheduler(optimizer, ScheduleOptions("linear"), total_steps=steps)
    return Learner(model, optimizer, scheduler, objective or Objective())


def context(batcher: Batcher, options: TrainOptions) -> TrainContext:
    return TrainContext(batcher, options, Accelerator(cpu=True, mixed_precision="no"))
