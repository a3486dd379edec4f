"""GraLoRA: a LoRA adapter for every block of W (arXiv:2505.20355)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, PositiveInt

from pennyweight.budget.layout import Layout, WeightMatrix
from pennyweight.budget.methods.dial import Dial, common_divisors
from pennyweight.budget.methods.method import (
    Choice,
    Method,
    Support,
    Tensors,
    low_rank_parameters,
    peft_options,
)
from pennyweight.budget.methods.sections import Alpha, DropoutSection, Size
from pennyweight.errors import RecipeError

if TYPE_CHECKING:
    from peft import GraloraConfig

__all__ = ["METHODS", "GraloraAdapter"]


class GraloraAdapter(DropoutSection):
    """`[adapter]`: W, cut into k by k blocks, plus LoRA of rank r / k on each block.

    The scaling is alpha / r.
    """

    method: Literal["gralora"] = "gralora"
    rank: Size = Field(32, description="the rank of every target, a multiple of adapter.blocks")
    alpha: Alpha = Field(64.0, description='the alpha of every target; "auto" is twice the rank')
    blocks: PositiveInt = Field(
        2, description="the number k of blocks along the rows, and along the columns"
    )


def _multiples(matrices: Sequence[WeightMatrix], options: Mapping[str, Any]) -> Sequence[int]:
    blocks = options["blocks"]
    return range(blocks, min(matrix.largest_rank for matrix in matrices) + 1, blocks)


def _config(layout: Layout, choice: Choice) -> GraloraConfig:
    from peft import GraloraConfig

    blocks = choice.options["blocks"]
    matrices = [adapted.matrix for adapted in choice.adapted]
    divisors = common_divisors(*(size for m in matrices for size in (m.rows, m.columns)))
    if blocks not in divisors:
        raise RecipeError(
            f"adapter.blocks: given {blocks}; allowed: a divisor of the rows and columns of all "
            f"targets: {', '.join(map(str, divisors))}"
        )
    return GraloraConfig(
        **peft_options(layout, choice),
        r=choice.adapted[0].rank,
        alpha=choice.adapted[0].alpha,
        gralora_k=blocks,
        gralora_dropout=choice.dropout,
    )


METHODS: tuple[Method, ...] = (
    Method(
        name="gralora",
        summary="LoRA on each of the k by k blocks of W",
        formula="r (rows + columns)",
        paper="Jung et al. 2025, GraLoRA, arXiv:2505.20355",
        section=GraloraAdapter,
        parameters=low_rank_parameters,
        config=_config,
        tensors=Tensors(peft_type="GRALORA", prefix="gralora_"),
        dial=Dial(values=_multiples, allowed="the multiples of adapter.blocks"),
        support=Support(rank_per_matrix=False, low_rank_head=False, quantizations=("none",)),
    ),
)
