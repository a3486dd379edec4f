"""Which weight matrices a base has, and which of them are its classification head."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from pennyweight.errors import BaseModelError

__all__ = ["Layout", "WeightMatrix", "layout_of"]


@dataclass(frozen=True, slots=True)
class WeightMatrix:
    """A linear layer's weight, `[rows, columns]` as torch stores it: outputs by inputs."""

    name: str
    rows: int
    columns: int

    def low_rank_parameters(self, rank: int) -> int:
        """Parameters of B `[rows, rank]` and A `[rank, columns]` (arXiv:2106.09685, 4.1)."""
        return rank * (self.rows + self.columns)


@dataclass(frozen=True, slots=True)
class Layout:
    """What can be trained in a base.

    Attributes:
        encoder: the linear layers outside the head, in the model's order.
        head_output: the layer that gives the logits.
        head_dense: the square layer before it, if there is one (RoBERTa's `classifier.dense`,
            BERT's `bert.pooler.dense`).
        head_module: the module that PEFT trains whole for a sequence classifier.
        sizes: number of elements of every parameter, by name.
    """

    encoder: tuple[WeightMatrix, ...]
    head_output: WeightMatrix
    head_dense: WeightMatrix | None
    head_module: str
    sizes: Mapping[str, int]

    def elements_in(self, module: str) -> dict[str, int]:
        """Sizes of the parameters inside the module of that name."""
        return {name: size for name, size in self.sizes.items() if name.startswith(f"{module}.")}


def layout_of(model: nn.Module, *, labels: int) -> Layout:
    """Read the layout off a model (on the meta device will do).

    The head is found by its shape: the last linear layer outside the numbered layers that has
    one output per label, and the square layer right before it.

    Raises:
        BaseModelError: the model has no such output layer.
    """
    linear = [
        WeightMatrix(name, module.out_features, module.in_features)
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear)
    ]
    outside = [m for m in linear if not any(part.isdigit() for part in m.name.split("."))]
    outputs = [m for m in outside if m.rows == labels]
    if not outputs:
        raise BaseModelError(
            f"base.name: no linear layer with {labels} outputs was found at the end of the model; "
            "choose an encoder with a sequence-classification head"
        )
    output = outputs[-1]
    before = outside[: outside.index(output)]
    dense = before[-1] if before and _feeds(before[-1], output) else None
    return Layout(
        encoder=tuple(m for m in linear if m not in (output, dense)),
        head_output=output,
        head_dense=dense,
        head_module=output.name.split(".")[0],
        sizes={name: parameter.numel() for name, parameter in model.named_parameters()},
    )


def _feeds(dense: WeightMatrix, output: WeightMatrix) -> bool:
    return dense.rows == dense.columns == output.columns
