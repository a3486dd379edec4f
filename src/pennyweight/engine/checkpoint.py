"""Checkpoints: adapter, optimizer, schedule and progress, replaced whole or not at all."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import peft
import torch
from safetensors.torch import load_model

from pennyweight.engine.average import MovingAverage
from pennyweight.engine.loop import Progress
from pennyweight.errors import RunError

__all__ = ["load_state", "load_weights", "replace_directory", "save_state"]

_STATE = "training_state.pt"


def replace_directory(directory: Path, write: Callable[[Path], None]) -> None:
    """Fill a new directory with `write`, then put it in the place of the old one."""
    new = directory.with_name(f".{directory.name}.new")
    old = directory.with_name(f".{directory.name}.old")
    for left in (new, old):
        shutil.rmtree(left, ignore_errors=True)
    new.mkdir(parents=True)
    write(new)
    if directory.exists():
        directory.rename(old)
    new.rename(directory)
    shutil.rmtree(old, ignore_errors=True)


def save_state(
    directory: Path,
    *,
    optimizer: torch.optim.Optimizer,
    scheduler: torch.optim.lr_scheduler.LRScheduler,
    progress: Progress,
    average: MovingAverage | None = None,
) -> None:
    """Write everything but the weights that training needs to go on."""
    state = {
        "optimizer": optimizer.state_dict(),
        "scheduler": scheduler.state_dict(),
        "progress": asdict(progress),
    }
    if average is not None:
        state["average"] = average.state_dict()
    torch.save(state, directory / _STATE)


def load_state(
    directory: Path,
    *,
    optimizer: torch.optim.Optimizer,
    scheduler: torch.optim.lr_scheduler.LRScheduler,
    average: MovingAverage | None = None,
) -> Progress:
    """Restore what `save_state` wrote.

    Raises:
        RunError: it cannot be read, or belongs to another model.
    """
    try:
        state = torch.load(directory / _STATE, map_location="cpu", weights_only=True)
        optimizer.load_state_dict(state["optimizer"])
        scheduler.load_state_dict(state["scheduler"])
        if average is not None:
            average.load_state_dict(state["average"])
        return Progress(**state["progress"])
    except Exception as error:  # noqa: BLE001 - torch raises many kinds for a broken file
        raise RunError(f"{directory}: the checkpoint cannot be read: {error}") from None


def load_weights(model: Any, directory: Path) -> None:
    """Load a checkpoint's adapter, or whole model, into a model of the same shape."""
    if not isinstance(model, peft.PeftModel):
        load_model(model, directory / "model.safetensors", strict=False)
        return
    weights = peft.load_peft_weights(str(directory), device="cpu")
    peft.set_peft_model_state_dict(model, weights)
