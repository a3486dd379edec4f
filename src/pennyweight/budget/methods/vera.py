"""Trained vectors around random matrices that all layers share: VeRA (arXiv:2310.11454), PVeRA."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field, PositiveFloat

from pennyweight.budget.layout import Layout
from pennyweight.budget.methods.dial import Dial
from pennyweight.budget.methods.method import Choice, Method, Support, Tensors, peft_options
from pennyweight.budget.methods.sections import DropoutSection, LowRankSection, Size

if TYPE_CHECKING:
    from peft import PveraConfig, VeraConfig

__all__ = ["METHODS", "PveraAdapter", "VeraAdapter"]


class VeraAdapter(LowRankSection):
    """`[adapter]`: W + diag(b) B diag(d) A; A and B are random, frozen and shared by all layers."""

    method: Literal["vera"] = "vera"
    rank: Size = Field(256, description="the rank of the shared random matrices")
    d_initial: PositiveFloat = Field(0.1, description="the initial value of d")


class PveraAdapter(DropoutSection):
    """`[adapter]`: VeRA with random d: in training, A's outputs are drawn around their means."""

    method: Literal["pvera"] = "pvera"
    rank: Size = Field(256, description="the rank of the shared random matrices")
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


def _pvera_config(layout: Layout, choice: Choice) -> PveraConfig:
    from peft import PveraConfig

    return PveraConfig(
        **peft_options(layout, choice),
        r=choice.adapted[0].rank,
        pvera_dropout=choice.dropout,
        d_initial=choice.options["d_initial"],
        save_projection=True,
    )


METHODS: tuple[Method, ...] = (
    Method(
        name="vera",
        summary="W + diag(b) B diag(d) A; A and B are random, frozen and shared by all layers",
        formula="rows + r",
        paper="Kopiczko et al. 2023, VeRA, arXiv:2310.11454",
        section=VeraAdapter,
        parameters=lambda matrix, rank, options: matrix.rows + rank,
        config=_config,
        tensors=Tensors(peft_type="VERA", prefix="vera_", frozen=(".vera_A", ".vera_B")),
        # The random matrices may have any rank.
        dial=Dial(is_limit=False),
        support=Support(rank_per_matrix=False, low_rank_head=False),
    ),
    Method(
        name="pvera",
        summary="VeRA whose inner values are drawn around trained means in training",
        formula="rows + 2 r",
        paper="Fillioux et al. 2025, PVeRA, arXiv:2512.07703",
        section=PveraAdapter,
        parameters=lambda matrix, rank, options: matrix.rows + 2 * rank,
        config=_pvera_config,
        tensors=Tensors(peft_type="PVERA", prefix="pvera_", frozen=(".pvera_A", ".pvera_B")),
        dial=Dial(is_limit=False),
        support=Support(rank_per_matrix=False, low_rank_head=False),
    ),
)
