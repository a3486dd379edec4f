"""VeRA: trained vectors around random matrices that all layers share (arXiv:2310.11454)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field, PositiveFloat, PositiveInt

from pennyweight.budget.layout import Layout
from pennyweight.budget.methods.method import (
    Choice,
    Method,
    Support,
    TargetedSection,
    Tensors,
    peft_options,
)

if TYPE_CHECKING:
    from peft import VeraConfig

__all__ = ["METHODS", "VeraAdapter"]


class VeraAdapter(TargetedSection):
    """`[adapter]`: W + diag(b) B diag(d) A; A and B are random, frozen and shared by all layers."""

    method: Literal["vera"] = "vera"
    rank: PositiveInt = Field(
        256,
        description="the rank of the shared random matrices",
        json_schema_extra={"allowed": "a whole number of at least 1, the same for all targets"},
    )
    d_initial: PositiveFloat = Field(0.1, description="the initial value of d")


def _config(layout: Layout, choice: Choice) -> VeraConfig:
    from peft import VeraConfig

    return VeraConfig(
        **peft_options(layout, choice),
        r=choice.adapted[0].rank,
        vera_dropout=choice.dropout,
        d_initial=choice.options["d_initial"],
        bias="vera_only" if choice.bias == "lora_only" else choice.bias,
        save_projection=True,
    )


METHODS: tuple[Method, ...] = (
    Method(
        name="vera",
        summary="W + diag(b) B diag(d) A; A and B are random, frozen and shared by all layers",
        formula="rows + r",
        paper="Kopiczko et al. 2023, VeRA, arXiv:2310.11454",
        section=VeraAdapter,
        parameters=lambda matrix, rank: matrix.rows + rank,
        config=_config,
        tensors=Tensors(peft_type="VERA", prefix="vera_", frozen=(".vera_A", ".vera_B")),
        # The random matrices may have any rank.
        support=Support(rank_per_matrix=False, low_rank_head=False, rank_above_matrix=True),
    ),
)
