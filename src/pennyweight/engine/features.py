"""What goes into a classifier's output layer: seen, or mixed between the rows of a batch.

Mixing is mixup on sentence embeddings (Zhang et al. 2018, arXiv:1710.09412; "senMixup" of Guo et
al. 2019, arXiv:1905.08941): packed texts have no common positions whose tokens could be mixed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from pennyweight.errors import BaseModelError

__all__ = ["Features", "Mix", "draw_mix", "output_layer_of"]


@dataclass(frozen=True, slots=True)
class Mix:
    """How each row of a batch is mixed with another one.

    Attributes:
        share: of the row itself, 0 to 1; the rest is its partner's.
        partners: int64 `[rows]`.
    """

    share: float
    partners: torch.Tensor

    def of(self, values: torch.Tensor) -> torch.Tensor:
        """The mixture of `[rows, ...]`."""
        partners = self.partners.to(values.device)
        return self.share * values + (1.0 - self.share) * values[partners]


def draw_mix(rows: int, *, strength: float, draw: np.random.Generator) -> Mix:
    """Shares from Beta(strength, strength), and a random partner for each row."""
    return Mix(float(draw.beta(strength, strength)), torch.from_numpy(draw.permutation(rows)))


class Features:
    """Watches the input of a model's output layer in training.

    Args:
        model: a sequence classifier, with PEFT's layers or without.
        output_layer: name of the layer that gives the logits, as the bare base calls it.

    Attributes:
        seen: the layer's input of each pass since `begin`.
        mix: how rows are mixed; None where they are not.
    """

    def __init__(self, model: nn.Module, output_layer: str) -> None:
        self.seen: list[torch.Tensor] = []
        self.mix: Mix | None = None
        output_layer_of(model, output_layer).register_forward_pre_hook(self._pass)

    def begin(self, mix: Mix | None) -> None:
        """Forget what was seen; until the next call, rows are mixed like this."""
        self.seen.clear()
        self.mix = mix

    def _pass(self, layer: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        if not layer.training:
            return None
        features: torch.Tensor = args[0]
        if self.mix is not None:
            features = self.mix.of(features)
        self.seen.append(features)
        return (features, *args[1:])


def output_layer_of(model: nn.Module, name: str) -> nn.Linear:
    """The layer that gives the logits, where PEFT keeps its trained copy if it has one.

    Raises:
        BaseModelError: there is none of that name.
    """
    bare: Any = model
    inner = bare.get_base_model() if hasattr(model, "get_base_model") else bare
    for path, module in inner.named_modules():
        if path.replace(".modules_to_save.default", "") == name and isinstance(module, nn.Linear):
            return module
    raise BaseModelError(f"the model has no output layer {name}")
