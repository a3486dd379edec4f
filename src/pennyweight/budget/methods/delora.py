"""DeLoRA: the strength of a low-rank update is trained apart from its angles (arXiv:2503.18225)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field, PositiveFloat

from pennyweight.budget.layout import Layout
from pennyweight.budget.methods.method import Choice, Method, Support, Tensors, peft_options
from pennyweight.budget.methods.sections import DropoutSection, Size

if TYPE_CHECKING:
    from peft import DeloraConfig

__all__ = ["METHODS", "DeloraAdapter"]


class DeloraAdapter(DropoutSection):
    """`[adapter]`: W + (l |W| / r) B X A, where X normalizes each of the r products.

    `dropout` leaves out the whole update of a target.
    """

    method: Literal["delora"] = "delora"
    rank: Size = Field(8, description="the rank of every target")
    bound: PositiveFloat = Field(
        15.0, description="the initial bound l of the update, which is trained"
    )


def _config(layout: Layout, choice: Choice) -> DeloraConfig:
    from peft import DeloraConfig

    return DeloraConfig(
        **peft_options(layout, choice),
        r=choice.adapted[0].rank,
        delora_lambda=choice.options["bound"],
        module_dropout=choice.dropout,
    )


METHODS: tuple[Method, ...] = (
    Method(
        name="delora",
        summary="W + a normalized B A, times a trained bound",
        formula="r (rows + columns) + 1",
        paper="Bini et al. 2025, DeLoRA, arXiv:2503.18225",
        section=DeloraAdapter,
        parameters=lambda matrix, rank, options: matrix.low_rank_parameters(rank) + 1,
        config=_config,
        tensors=Tensors(peft_type="DELORA", prefix="delora_", frozen=(".delora_w_norm",)),
        support=Support(rank_per_matrix=False, low_rank_head=False, quantizations=("none",)),
    ),
)
