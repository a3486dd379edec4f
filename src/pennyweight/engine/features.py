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

__all__ = ["Features", "Mix", "draw_mix", "output_layer_of", "set_head"]


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


def set_head(model: nn.Module, output_layer: str, weight: np.ndarray, bias: np.ndarray) -> None:
    """Give a linear head, or a pooled head of a low rank, the weights of a linear classifier.

    The two layers of a low-rank head get the first terms of the weights' singular value
    decomposition. A classifier of what the output layer reads sets that layer alone.

    Args:
        model: a sequence classifier, with PEFT's layers or without.
        output_layer: name of the layer that computes the logits, in the base without PEFT.
        weight: float `[classes, features]`.
        bias: float `[classes]`.

    Raises:
        BaseModelError: the model has no linear layer of that name.
    """
    layer = output_layer_of(model, output_layer)
    with torch.no_grad():
        if weight.shape[1] != layer.in_features:
            down = output_layer_of(model, output_layer.rpartition(".")[0] + ".down")
            left, values, right = np.linalg.svd(weight, full_matrices=False)
            rank, root = layer.in_features, np.sqrt(values[: layer.in_features])
            down.weight.copy_(torch.from_numpy(root[:, None] * right[:rank]))
            weight = left[:, :rank] * root
        layer.weight.copy_(torch.from_numpy(np.ascontiguousarray(weight)))
        layer.bias.copy_(torch.from_numpy(bias))


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
