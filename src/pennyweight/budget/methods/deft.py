"""DEFT: a low-rank subspace of W is removed and replaced (arXiv:2509.22793)."""

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
    from peft import DeftConfig

__all__ = ["METHODS", "DeftAdapter"]


class DeftAdapter(DropoutSection):
    """`[adapter]`: (1 - P P') W + P R, where P spans the subspace that is replaced."""

    method: Literal["deft"] = "deft"
    rank: Size = Field(8, description="the rank of P and R")
    projection: Literal["relu", "qr"] = Field(
        "relu",
        description='how W is projected: with P relu(P)\' ("relu"), or with P made orthonormal '
        '("qr")',
    )


def _config(layout: Layout, choice: Choice) -> DeftConfig:
    from peft import DeftConfig

    return DeftConfig(
        **peft_options(layout, choice),
        r=choice.adapted[0].rank,
        decomposition_method=choice.options["projection"],
        deft_dropout=choice.dropout,
    )


METHODS: tuple[Method, ...] = (
    Method(
        name="deft",
        summary="(1 - P P') W + P R, with a trained P and R",
        formula="r (rows + columns)",
        paper="Kumar et al. 2025, DEFT, arXiv:2509.22793",
        section=DeftAdapter,
        parameters=low_rank_parameters,
        config=_config,
        tensors=Tensors(peft_type="DEFT", prefix="deft_"),
        support=Support(rank_per_matrix=False, low_rank_head=False, quantizations=("none",)),
    ),
)
