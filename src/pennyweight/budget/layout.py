"""The weight matrices of a base model, its classification head, and the layers they belong to."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pennyweight.budget.usual_names import usual_name
from pennyweight.errors import BaseModelError

if TYPE_CHECKING:
    from torch import nn

__all__ = ["Layout", "WeightMatrix", "layer_of", "layout_of", "role_of"]

# The first of the two layers of a pooled head with a low rank.
_DOWN = "down"


def layer_of(name: str) -> int | None:
    """Return the layer number in a module's or parameter's name, or None outside the layers.

    The layer number is the first part of the dotted name that is a number.
    """
    return next((int(part) for part in name.split(".") if part.isdigit()), None)


def role_of(name: str) -> str:
    """Return the part of a name after the layer number, or the whole name outside the layers.

    For example "attention.self.query" for "roberta.encoder.layer.3.attention.self.query".
    """
    parts = name.split(".")
    numbers = [position for position, part in enumerate(parts[:-1]) if part.isdigit()]
    return ".".join(parts[numbers[0] + 1 :]) if numbers else name


@dataclass(frozen=True, slots=True)
class WeightMatrix:
    """The weight of a linear layer, `[rows, columns]`, which torch stores as outputs by inputs.

    Attributes:
        name: of the layer in the model.
        rows: number of outputs.
        columns: number of inputs.
        usual_name: its name in BERT and RoBERTa, where the architecture has another for it.
        has_bias: whether the layer adds a bias to its outputs.
    """

    name: str
    rows: int
    columns: int
    usual_name: str | None = None
    has_bias: bool = True

    @property
    def names(self) -> tuple[str, ...]:
        """The names that a pattern may match."""
        return (self.name,) if self.usual_name is None else (self.name, self.usual_name)

    @property
    def layer(self) -> int | None:
        """The number of the transformer layer, or None for a matrix outside the layers."""
        return layer_of(self.name)

    @property
    def role(self) -> str:
        """The name inside the layer, such as "attention.self.query"."""
        return role_of(self.name)

    @property
    def largest_rank(self) -> int:
        """The largest rank that the matrix itself can have."""
        return min(self.rows, self.columns)

    def low_rank_parameters(self, rank: int) -> int:
        """Return the size of B `[rows, rank]` and A `[rank, columns]` (arXiv:2106.09685, 4.1)."""
        return rank * (self.rows + self.columns)


@dataclass(frozen=True, slots=True)
class Layout:
    """The trainable parts of a base model.

    Attributes:
        encoder: the linear layers outside the head, in the model's order.
        head_output: the layer that produces the logits.
        head_dense: the square layer before it, if there is one (RoBERTa's `classifier.dense`,
            BERT's `bert.pooler.dense`).
        head_down: the layer before it in a pooled head whose weights have a low rank.
        head_module: the top-level module that holds the output layer, which PEFT trains in full
            for a sequence classifier.
        sizes: number of elements of every parameter, by name.
        is_pooled: whether the head is one linear map of pooled hidden states.
        norms: the normalization layers outside the head. As matrices, they have a row for each
            number that they normalize, and as columns their weight and, if there is one, their
            bias.
        head_parts: how the names of the head's parameters begin.
    """

    encoder: tuple[WeightMatrix, ...]
    head_output: WeightMatrix
    head_dense: WeightMatrix | None
    head_module: str
    sizes: Mapping[str, int]
    head_down: WeightMatrix | None = None
    is_pooled: bool = False
    norms: tuple[WeightMatrix, ...] = ()
    head_parts: tuple[str, ...] = ()

    @property
    def layers(self) -> int:
        """Number of the encoder's layers; layers that share their weights count as one."""
        numbers = [matrix.layer for matrix in self.encoder if matrix.layer is not None]
        return max(numbers, default=-1) + 1

    @property
    def head_modules(self) -> tuple[str, ...]:
        """The modules that PEFT trains as the head: those whose names end with `head_module`."""
        dense = self.head_dense
        # DistilBERT's `pre_classifier` before `classifier`.
        if dense is None or not dense.name.endswith(self.head_module):
            return (self.head_module,)
        return (dense.name, self.head_module)

    def is_in_head(self, parameter: str) -> bool:
        """Return whether a parameter of this name belongs to the head, its norms included."""
        return parameter.startswith(self.head_parts)

    def elements_in(self, module: str) -> dict[str, int]:
        """Return the sizes of the parameters inside a module, by name."""
        return {name: size for name, size in self.sizes.items() if name.startswith(f"{module}.")}

    def with_head_rank(self, rank: int | None) -> Layout:
        """Return the layout with a pooled head of this rank, or of one layer for None.

        A native head stays as it is.
        """
        if not self.is_pooled:
            return self
        head, labels = self.head_module, self.head_output.rows
        hidden = (self.head_down or self.head_output).columns
        if rank is None:
            down, output = None, WeightMatrix(head, labels, hidden)
        else:
            down = WeightMatrix(f"{head}.{_DOWN}", rank, hidden, has_bias=False)
            output = WeightMatrix(f"{head}.out", labels, rank)
        sizes = {n: size for n, size in self.sizes.items() if n not in self.elements_in(head)}
        for matrix in (down, output):
            if matrix is not None:
                sizes[f"{matrix.name}.weight"] = matrix.rows * matrix.columns
        sizes[f"{output.name}.bias"] = labels
        return replace(self, head_output=output, head_down=down, sizes=sizes)


def layout_of(model: nn.Module, *, labels: int) -> Layout:
    """Return the layout of a model, which may be on the meta device.

    The head is found by shape: the last linear layer outside the numbered layers that has one
    output per label, and the square layer right before it.

    Raises:
        BaseModelError: the model has no such output layer.
    """
    from torch import nn

    from pennyweight.base.pooled import PooledClassifier

    architecture = getattr(getattr(model, "config", None), "model_type", None)
    linear = [
        WeightMatrix(
            name,
            module.out_features,
            module.in_features,
            usual_name(name, architecture),
            module.bias is not None,
        )
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear)
    ]
    outside = [matrix for matrix in linear if matrix.layer is None]
    outputs = [matrix for matrix in outside if matrix.rows == labels]
    if not outputs:
        raise BaseModelError(
            f"base.name: the model has no linear layer with {labels} outputs after its encoder; "
            "choose an encoder with a sequence-classification head"
        )
    output = outputs[-1]
    head_module = output.name.split(".")[0]
    before = outside[: outside.index(output)]
    last = before[-1] if before else None
    down = last if last is not None and last.name == f"{head_module}.{_DOWN}" else None
    dense = last if last is not None and _is_square_input(last, output) and down is None else None
    encoder = tuple(matrix for matrix in linear if matrix not in (output, dense, down))
    head_parts = _parts_of_head(head_module, dense, encoder)
    return Layout(
        encoder=encoder,
        head_output=output,
        head_dense=dense,
        head_module=head_module,
        sizes={name: parameter.numel() for name, parameter in model.named_parameters()},
        head_down=down,
        is_pooled=isinstance(model, PooledClassifier),
        norms=_norms(model, outside=head_parts),
        head_parts=head_parts,
    )


def _parts_of_head(
    head_module: str, dense: WeightMatrix | None, encoder: tuple[WeightMatrix, ...]
) -> tuple[str, ...]:
    """Return the beginnings of the names of what belongs to the head, such as ModernBERT's norm."""
    around = f"{dense.name.rpartition('.')[0]}." if dense else "."
    holds_encoder = any(matrix.name.startswith(around) for matrix in encoder)
    beside = () if around == "." or holds_encoder else (around,)
    return (f"{head_module}.", *([f"{dense.name}."] if dense else []), *beside)


def _norms(model: nn.Module, *, outside: tuple[str, ...]) -> tuple[WeightMatrix, ...]:
    """Return the normalization layers that train something, without those of these parts."""
    from torch import nn

    return tuple(
        WeightMatrix(name, math.prod(module.normalized_shape), len(list(module.parameters())))
        for name, module in model.named_modules()
        if isinstance(module, nn.LayerNorm | nn.RMSNorm)
        and list(module.parameters())
        and not name.startswith(outside)
    )


def _is_square_input(dense: WeightMatrix, output: WeightMatrix) -> bool:
    return dense.rows == dense.columns == output.columns
