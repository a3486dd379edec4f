"""Interrupt a training, and compare what two trainings leave behind."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file

from pennyweight.engine.train.progress import Step
from pennyweight.runs.record import RunRecord
from pennyweight.training.watcher import Watcher


def interrupt_at(number: int) -> Watcher:
    """Return a watcher that presses Ctrl-C at a step, before the step is recorded."""

    def on_step(step: Step) -> None:
        if step.step == number:
            raise KeyboardInterrupt

    return Watcher(on_step=on_step)


def losses(record: RunRecord) -> list[float]:
    """Return the loss of every recorded step."""
    return [step.loss for step in record.history]


def weights_are_equal(one: Path, other: Path) -> bool:
    """Return whether two artifacts hold the same tensors, bit for bit."""
    first, second = (load_file(path / "adapter_model.safetensors") for path in (one, other))
    return first.keys() == second.keys() and all(
        torch.equal(weight, second[name]) for name, weight in first.items()
    )
