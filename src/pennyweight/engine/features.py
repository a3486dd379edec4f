"""The input of a classifier's output layer: observed, or mixed between the rows of a batch.

Mixing is mixup on sentence embeddings (Zhang et al. 2018, arXiv:1710.09412; "senMixup" of Guo et
al. 2019, arXiv:1905.08941), because packed texts have no common positions whose tokens could be
mixed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from pennyweight.engine.kernels.families import unwrap
from pennyweight.errors import BaseModelError

__all__ = ["Features", "Mix", "draw_mix", "output_layer_of"]


@dataclass(frozen=True, slots=True)
class Mix:
    """A mixture of each row of a batch with another row.

    Attributes:
        share: weight of the row itself, 0 to 1; its partner has the rest.
        partners: int64 `[rows]`, the index of each row's partner.
    """

    share: float
    partners: torch.Tensor

    def of(self, values: torch.Tensor) -> torch.Tensor:
        """Return the mixture of values, `[rows, ...]`."""
        partners = self.partners.to(values.device)
        return self.share * values + (1.0 - self.share) * values[partners]


def draw_mix(rows: int, *, strength: float, draw: np.random.Generator) -> Mix:
    """Draw a share from Beta(strength, strength), and a random partner for each row."""
    return Mix(float(draw.beta(strength, strength)), torch.from_numpy(draw.permutation(rows)))


class Features:
    """The inputs of a model's output layer during training.

    Args:
        model: a sequence classifier, with PEFT's layers or without.
        output_layer: name of the layer that returns the logits, in the base without PEFT.

    Attributes:
        seen: the layer's inputs `[rows, hidden]`, one of each forward pass since `begin`.
        mix: how rows are mixed; None if they are not.
    """

    def __init__(self, model: nn.Module, output_layer: str) -> None:
        self.seen: list[torch.Tensor] = []
        self.mix: Mix | None = None
        output_layer_of(model, output_layer).register_forward_pre_hook(self._observe)

    def begin(self, mix: Mix | None) -> None:
        """Start a batch: forget earlier inputs, and mix the rows of this one."""
        self.seen.clear()
        self.mix = mix

    def _observe(self, layer: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        if not layer.training:
            return None
        features: torch.Tensor = args[0]
        if self.mix is not None:
            features = self.mix.of(features)
        self.seen.append(features)
        return (features, *args[1:])


def output_layer_of(model: nn.Module, name: str) -> nn.Linear:
    """Return the layer that computes the logits: PEFT's trained copy, if there is one.

    Args:
        model: a sequence classifier, with PEFT's layers or without.
        name: the layer's name in the base without PEFT.

    Raises:
        BaseModelError: the model has no linear layer of that name.
    """
    for path, module in unwrap(model).named_modules():
        if path.replace(".modules_to_save.default", "") == name and isinstance(module, nn.Linear):
            return module
    raise BaseModelError(f"the model has no output layer {name}")
