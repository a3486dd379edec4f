"""LoHa: the elementwise product of two low-rank products (FedPara, arXiv:2108.06098)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from pennyweight.budget.layout import Layout
from pennyweight.budget.methods.method import Choice, Method, Support, Tensors, peft_options
from pennyweight.budget.methods.sections import Alpha, DropoutSection, Size

if TYPE_CHECKING:
    from peft import LoHaConfig

__all__ = ["METHODS", "LohaAdapter"]


class LohaAdapter(DropoutSection):
    """`[adapter]`: W + (alpha / r) (B1 A1) * (B2 A2), multiplied elementwise.

    `dropout` drops whole ranks.
    """

    method: Literal["loha"] = "loha"
    rank: Size = Field(4, description="the rank of each of the two products")
    alpha: Alpha = Field(4.0, description='the alpha of every target; "auto" is twice the rank')


def _config(layout: Layout, choice: Choice) -> LoHaConfig:
    from peft import LoHaConfig

    return LoHaConfig(
        **peft_options(layout, choice),
        r=choice.adapted[0].rank,
        alpha=choice.adapted[0].alpha,
        rank_dropout=choice.dropout,
    )


METHODS: tuple[Method, ...] = (
    Method(
        name="loha",
        summary="W + (alpha / r) (B1 A1) * (B2 A2), multiplied elementwise",
        formula="2 r (rows + columns)",
        paper="Hyeon-Woo et al. 2022, FedPara, arXiv:2108.06098",
        section=LohaAdapter,
        parameters=lambda matrix, rank, options: 2 * matrix.low_rank_parameters(rank),
        config=_config,
        tensors=Tensors(peft_type="LOHA", prefix="hada_"),
        # LoHa reads the shape of the weight, which bitsandbytes packs in 4 bits.
        support=Support(rank_per_matrix=False, low_rank_head=False, quantizations=("none", "int8")),
    ),
)
