"""GLoRA: W and its bias are scaled and shifted, with low-rank matrices (arXiv:2306.07967)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from pennyweight.budget.layout import Layout, WeightMatrix
from pennyweight.budget.methods.method import (
    Choice,
    Method,
    Support,
    Tensors,
    layers_with_bias,
    peft_options,
)
from pennyweight.budget.methods.sections import Size, TargetedSection

if TYPE_CHECKING:
    from peft import GloraConfig

__all__ = ["METHODS", "GloraAdapter"]


class GloraAdapter(TargetedSection):
    """`[adapter]`: W + W * A + B, and the bias b + b * d + e + W c.

    A, B and c have rank r; d and e are numbers. Layers without a bias are not adapted.
    """

    method: Literal["glora"] = "glora"
    rank: Size = Field(8, description="the rank of A, B and c")


def _parameters(matrix: WeightMatrix, rank: int, options: Mapping[str, Any]) -> int:
    del options
    return 2 * matrix.low_rank_parameters(rank) + rank * (matrix.columns + 1) + 2


def _config(layout: Layout, choice: Choice) -> GloraConfig:
    from peft import GloraConfig

    return GloraConfig(**peft_options(layout, choice), r=choice.adapted[0].rank)


METHODS: tuple[Method, ...] = (
    Method(
        name="glora",
        summary="W and its bias are scaled and shifted, with matrices of rank r",
        formula="2 r (rows + columns) + r (columns + 1) + 2",
        paper="Chavan et al. 2023, GLoRA, arXiv:2306.07967",
        section=GloraAdapter,
        parameters=_parameters,
        config=_config,
        # PEFT saves the parameters of the bias where there is none, too.
        targets=layers_with_bias,
        tensors=Tensors(peft_type="GLORA", prefix="glora_"),
        support=Support(rank_per_matrix=False, low_rank_head=False, quantizations=("none",)),
    ),
)
