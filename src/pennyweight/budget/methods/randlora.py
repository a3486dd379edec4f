"""RandLoRA: a full-rank sum of random products, scaled by trained diagonals (arXiv:2502.00987)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, PositiveFloat

from pennyweight.budget.layout import Layout, WeightMatrix
from pennyweight.budget.methods.dial import Dial
from pennyweight.budget.methods.method import Choice, Method, Support, Tensors, peft_options
from pennyweight.budget.methods.sections import DropoutSection, Size

if TYPE_CHECKING:
    from peft import RandLoraConfig

__all__ = ["METHODS", "RandLoraAdapter"]


class RandLoraAdapter(DropoutSection):
    """`[adapter]`: W + scaling * (B1 L1 A1 G1 + ... + Bn Ln An Gn), with trained diagonals L and G.

    A and B are random, frozen, and shared by all layers. n is the smaller number of rows and
    columns, divided by the rank and rounded up: a lower rank trains more parameters.
    """

    method: Literal["randlora"] = "randlora"
    rank: Size = Field(32, description="the rank of the random products; a lower one costs more")
    scaling: PositiveFloat = Field(20.0, description="the factor of the update")


def _parameters(matrix: WeightMatrix, rank: int, options: Mapping[str, Any]) -> int:
    del options
    products = -(-matrix.largest_rank // rank)
    return products * (rank + matrix.largest_rank)


def _by_cost(matrices: Sequence[WeightMatrix], options: Mapping[str, Any]) -> Sequence[int]:
    ranks = range(min(matrix.largest_rank for matrix in matrices), 0, -1)
    return sorted(ranks, key=lambda rank: sum(_parameters(m, rank, options) for m in matrices))


def _config(layout: Layout, choice: Choice) -> RandLoraConfig:
    from peft import RandLoraConfig

    rank = choice.adapted[0].rank
    return RandLoraConfig(
        **peft_options(layout, choice),
        r=rank,
        randlora_alpha=choice.options["scaling"] * rank,
        randlora_dropout=choice.dropout,
        save_projection=True,
    )


METHODS: tuple[Method, ...] = (
    Method(
        name="randlora",
        summary="W + a full-rank sum of n random products, scaled by trained diagonals",
        formula="n (r + d), where d is the smaller of rows and columns, and n is d / r, rounded up",
        paper="Albert et al. 2025, RandLoRA, arXiv:2502.00987",
        section=RandLoraAdapter,
        parameters=_parameters,
        config=_config,
        tensors=Tensors(
            peft_type="RANDLORA", prefix="randlora_", frozen=(".randlora_A", ".randlora_B")
        ),
        dial=Dial(values=_by_cost),
        support=Support(rank_per_matrix=False, low_rank_head=False),
    ),
)
