"""An exponential moving average of the trained parameters (Polyak & Juditsky 1992).

The average is evaluated and saved in the place of the weights; training continues with the
weights themselves.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from pennyweight.errors import RunError

__all__ = ["MovingAverage"]


class MovingAverage:
    """An average of a model's trained parameters, updated after every optimizer step.

    Args:
        model: parameters that require gradients are averaged.
        optimizer: the average is updated after each of its steps.
        decay: weight of the old average. In the first steps it is min(decay, (1 + step) /
            (10 + step)), so that the initial weights are soon forgotten.
    """

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer, *, decay: float) -> None:
        # AveragedModel copies the whole module, so it gets one without the frozen base.
        self._trained = nn.ParameterList(p for p in model.parameters() if p.requires_grad)
        self._decay = decay
        self._steps = 0
        self._averaged = AveragedModel(self._trained, multi_avg_fn=self._lerp)
        # The first update copies the weights; the average starts from those before training.
        self._averaged.update_parameters(self._trained)
        optimizer.register_step_post_hook(lambda *_: self._update())

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Put the average into the model, and restore the model's own weights on exit."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def state_dict(self) -> dict[str, Any]:
        """Return the state for a checkpoint."""
        state: dict[str, Any] = self._averaged.state_dict()
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a state that `state_dict` returned.

        Raises:
            RunError: an older version saved it, or it belongs to another model.
        """
        if "n_averaged" not in state:
            raise RunError("the moving average was saved by an older version of Pennyweight")
        try:
            self._averaged.load_state_dict(state)
        except RuntimeError:
            raise RunError("the moving average belongs to a model of another shape") from None
        self._steps = int(state["n_averaged"]) - 1

    def _update(self) -> None:
        self._steps += 1
        self._averaged.update_parameters(self._trained)

    def _lerp(self, averages: Any, weights: Any, _: Any) -> None:
        # AveragedModel's own count is a tensor: reading it would make a GPU wait at every step.
        decay = min(self._decay, (1 + self._steps) / (10 + self._steps))
        torch._foreach_lerp_(list(averages), list(weights), 1.0 - decay)

    @torch.no_grad()
    def _swap(self) -> None:
        averages = self._averaged.module.parameters()
        for parameter, average in zip(self._trained, averages, strict=True):
            weights = parameter.detach().clone()
            parameter.copy_(average)
            average.copy_(weights)
