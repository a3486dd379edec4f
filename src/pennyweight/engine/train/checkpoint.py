"""Checkpoints: adapter weights, and the state of optimizer, schedule, average and progress.

The manifest of a checkpoint holds the SHA-256 of its files. It is written last.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import peft
import torch
from safetensors.torch import load_model

from pennyweight.engine.train.average import MovingAverage
from pennyweight.engine.train.progress import Progress
from pennyweight.errors import RunError, first_line
from pennyweight.files import hash_file

__all__ = ["check_manifest", "load_state", "load_weights", "save_state", "write_manifest"]

_STATE = "training_state.pt"
_MANIFEST = "manifest.json"


def save_state(
    directory: Path,
    *,
    optimizer: torch.optim.Optimizer,
    scheduler: torch.optim.lr_scheduler.LRScheduler,
    progress: Progress,
    average: MovingAverage | None = None,
    scaler: torch.amp.GradScaler | None = None,
) -> None:
    """Write everything that resuming a run needs, except the weights.

    Args:
        directory: where it is written.
        optimizer: of the adapters.
        scheduler: of the learning rate.
        progress: of the training.
        average: of the weights, if there is one.
        scaler: of the loss, in fp16.
    """
    state = {
        "optimizer": optimizer.state_dict(),
        "scheduler": scheduler.state_dict(),
        "progress": asdict(progress),
    }
    if average is not None:
        state["average"] = average.state_dict()
    if scaler is not None:
        state["scaler"] = scaler.state_dict()
    # Into an open file, whose errors name what the system said; torch's own do not.
    with (directory / _STATE).open("wb") as file:
        torch.save(state, file)


def write_manifest(directory: Path) -> None:
    """Write the SHA-256 of every file of a checkpoint that is complete otherwise."""
    files = sorted(file for file in directory.iterdir() if file.is_file())
    hashes = {file.name: hash_file(file) for file in files}
    text = json.dumps({"sha256": hashes}, indent=1)
    (directory / _MANIFEST).write_text(f"{text}\n", encoding="utf-8")


def check_manifest(directory: Path) -> None:
    """Check that every file of a checkpoint is as it was written.

    Checkpoints of older versions have no manifest and are not checked.

    Raises:
        RunError: a file is missing, was changed, or cannot be read; the message names it.
    """
    manifest = directory / _MANIFEST
    if not manifest.is_file():
        return
    try:
        hashes = json.loads(manifest.read_text(encoding="utf-8"))["sha256"]
        files = {directory / name: digest for name, digest in hashes.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise RunError(f"{manifest}: damaged") from None
    for file, digest in files.items():
        if not file.is_file():
            raise RunError(f"{file}: missing, though {_MANIFEST} lists it")
        try:
            actual = hash_file(file)
        except OSError as error:
            raise RunError(f"{file}: cannot be read: {error.strerror}") from None
        if actual != digest:
            raise RunError(f"{file}: damaged: its SHA-256 differs from the one in {_MANIFEST}")


def load_state(
    directory: Path,
    *,
    optimizer: torch.optim.Optimizer,
    scheduler: torch.optim.lr_scheduler.LRScheduler,
    average: MovingAverage | None = None,
    scaler: torch.amp.GradScaler | None = None,
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
        # Checkpoints of older versions have none.
        if scaler is not None and "scaler" in state:
            scaler.load_state_dict(state["scaler"])
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
