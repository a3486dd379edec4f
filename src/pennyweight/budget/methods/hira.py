"""HiRA: an update that is W times B A, elementwise (Huang et al. 2025, ICLR)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from pennyweight.budget.layout import Layout
from pennyweight.budget.methods.method import (
    Choice,
    Method,
    Support,
    Tensors,
    low_rank_parameters,
    peft_options,
)
from pennyweight.budget.methods.sections import DropoutSection, Size

if TYPE_CHECKING:
    from peft import HiraConfig

__all__ = ["METHODS", "HiraAdapter"]


class HiraAdapter(DropoutSection):
    """`[adapter]`: W + W * (B A), multiplied elementwise, so that the update has a high rank."""

    method: Literal["hira"] = "hira"
    rank: Size = Field(32, description="the rank of B A")


def _config(layout: Layout, choice: Choice) -> HiraConfig:
    from peft import HiraConfig

    return HiraConfig(
        **peft_options(layout, choice), r=choice.adapted[0].rank, hira_dropout=choice.dropout
    )


METHODS: tuple[Method, ...] = (
    Method(
        name="hira",
        summary="W + W * (B A), multiplied elementwise",
        formula="r (rows + columns)",
        paper="Huang et al. 2025, HiRA, openreview.net/forum?id=TwJrTz9cRS",
        section=HiraAdapter,
        parameters=low_rank_parameters,
        config=_config,
        tensors=Tensors(peft_type="HIRA", prefix="hira_"),
        support=Support(rank_per_matrix=False, low_rank_head=False),
    ),
)
