"""Weights between those that training started from and the trained ones (WiSE-FT).

Training on one kind of text moves a classifier away from what its encoder knows of others. Going
part of the way back costs little on the first kind and often gains much on the others (Wortsman et
al. 2022, arXiv:2109.01903).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

__all__ = ["copy_trained_weights", "interpolate_weights"]


def copy_trained_weights(model: Any) -> dict[str, torch.Tensor]:
    """Return a copy of each parameter that is trained, by its name."""
    return {
        name: parameter.detach().clone()
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }


@torch.no_grad()
def interpolate_weights(model: Any, start: Mapping[str, torch.Tensor], *, share: float) -> None:
    """Replace each trained parameter by `start + share * (parameter - start)`.

    Args:
        model: with the trained weights.
        start: of `copy_trained_weights`, before training.
        share: of the way from the start to the trained weights.
    """
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            parameter.lerp_(start[name].to(parameter), 1.0 - share)
