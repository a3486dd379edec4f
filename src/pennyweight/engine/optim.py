"""Optimizer and learning-rate schedule from plain values."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import torch
from torch import nn
from transformers import get_scheduler

__all__ = ["adamw", "schedule"]


def adamw(
    parameters: Iterable[nn.Parameter],
    *,
    learning_rate: float,
    weight_decay: float,
    betas: tuple[float, float],
    epsilon: float,
) -> torch.optim.AdamW:
    """Fused AdamW (arXiv:1711.05101) over two groups: matrices decay, biases and norms do not."""
    trained = [p for p in parameters if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    return torch.optim.AdamW(groups, lr=learning_rate, betas=betas, eps=epsilon, fused=True)


def schedule(
    optimizer: torch.optim.Optimizer,
    *,
    method: Literal["linear", "cosine", "constant"],
    warmup_steps: int,
    warmup_ratio: float,
    total_steps: int,
) -> torch.optim.lr_scheduler.LRScheduler:
    """Transformers' schedule of that name, stepped once per optimizer step."""
    warmup = warmup_steps or round(warmup_ratio * total_steps)
    name = "constant_with_warmup" if method == "constant" else method
    made: torch.optim.lr_scheduler.LRScheduler = get_scheduler(
        name, optimizer, num_warmup_steps=warmup, num_training_steps=total_steps
    )
    return made
