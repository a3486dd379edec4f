"""Checkpoints: adapter weights, and the state of optimizer, schedule, average and progress."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import peft
import torch
from safetensors.torch import load_model

from pennyweight.engine.train.average import MovingAverage
from pennyweight.engine.train.progress import Progress
from pennyweight.errors import RunError, first_line

__all__ = ["load_state", "load_weights", "save_state"]

_STATE = "training_state.pt"


def save_state(
    directory: Path,
    *,
    optimizer: torch.optim.Optimizer,
    scheduler: torch.optim.lr_scheduler.LRScheduler,
    progress: Progress,
    average: MovingAverage | None = None,
) -> None:
    """Write everything that resuming a run needs, except the weights."""
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
    """Restore a state that `save_state` wrote, and return the progress in it.

    Raises:
        RunError: the state cannot be read, or belongs to another model.
    """
    try:
        state = torch.load(directory / _STATE, map_location="cpu", weights_only=True)
        optimizer.load_state_dict(state["optimizer"])
        scheduler.load_state_dict(state["scheduler"])
        if average is not None:
            average.load_state_dict(state["average"])
        return Progress(**state["progress"])
    except Exception as error:  # noqa: BLE001 - torch raises many kinds for a broken file
        raise RunError(
            f"{directory}: the checkpoint cannot be read: {first_line(error)}; "
            "train again into a new directory"
        ) from None


def load_weights(model: Any, directory: Path) -> None:
    """Load a checkpoint's adapter, or its whole model, into a model of the same shape."""
    if not isinstance(model, peft.PeftModel):
        load_model(model, directory / "model.safetensors", strict=False)
        return
    weights = peft.load_peft_weights(str(directory), device="cpu")
    peft.set_peft_model_state_dict(model, weights)
