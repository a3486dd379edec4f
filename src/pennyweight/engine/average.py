"""An exponential moving average of what is trained (Polyak & Juditsky 1992).

It is kept beside the weights, measured in their place, and saved in their place; training goes on
with the weights themselves.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

__all__ = ["MovingAverage"]


class MovingAverage:
    """The average of a model's trained parameters, brought forward after every optimizer step.

    Args:
        model: with its trained parameters marked.
        optimizer: after whose steps the average moves.
        decay: weight of the old average; in the first steps less, so that the beginning is
            forgotten: min(decay, (1 + step) / (10 + step)).
    """

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer, *, decay: float) -> None:
        self._parameters: list[torch.Tensor] = [p for p in model.parameters() if p.requires_grad]
        self._average = [p.detach().clone() for p in self._parameters]
        self._decay = decay
        self._steps = 0
        optimizer.register_step_post_hook(lambda *_: self._move())

    @torch.no_grad()
    def _move(self) -> None:
        self._steps += 1
        decay = min(self._decay, (1 + self._steps) / (10 + self._steps))
        torch._foreach_lerp_(self._average, self._parameters, 1.0 - decay)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The model holds the average, and afterwards its own weights again."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for parameter, average in zip(self._parameters, self._average, strict=True):
            held = parameter.detach().clone()
            parameter.copy_(average)
            average.copy_(held)

    def state_dict(self) -> dict[str, object]:
        """For a checkpoint."""
        return {"average": self._average, "steps": self._steps}

    def load_state_dict(self, state: dict[str, object]) -> None:
        """Restore what `state_dict` gave."""
        saved = state["average"]
        assert isinstance(saved, list)  # noqa: S101 - as state_dict wrote it
        for average, value in zip(self._average, saved, strict=True):
            average.copy_(value)
        self._steps = int(str(state["steps"]))
