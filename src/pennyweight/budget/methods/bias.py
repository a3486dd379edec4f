"""Training of biases alone: BEFT (arXiv:2509.15974) and BitFit (arXiv:2106.10199)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from pennyweight.budget.layout import Layout
from pennyweight.budget.methods.method import (
    Choice,
    Method,
    Support,
    Tensors,
    layers_with_bias,
    peft_options,
)
from pennyweight.budget.methods.sections import FixedSizeSection

if TYPE_CHECKING:
    from peft import BeftConfig

__all__ = ["METHODS", "BeftAdapter", "BitFitAdapter"]


class BeftAdapter(FixedSizeSection):
    """`[adapter]`: only the biases of the targets are trained; by default those of the values."""

    method: Literal["beft"] = "beft"
    targets: tuple[str, ...] = Field(
        ("value",),
        min_length=1,
        strict=False,
        description="name patterns of the linear layers whose biases are trained",
    )


class BitFitAdapter(FixedSizeSection):
    """`[adapter]`: only the biases of all linear layers are trained.

    The biases of normalization layers, which the paper trains as well, stay frozen, because PEFT's
    adapter of biases is for linear layers; "ln-tuning" trains those.
    """

    method: Literal["bitfit"] = "bitfit"
    targets: tuple[str, ...] = Field(
        ("*",),
        min_length=1,
        strict=False,
        description="name patterns of the linear layers whose biases are trained",
    )


def _config(layout: Layout, choice: Choice) -> BeftConfig:
    from peft import BeftConfig

    return BeftConfig(**peft_options(layout, choice))


# PEFT trains what is added to the bias, so a frozen matrix may have any form.
_SUPPORT = Support(rank_per_matrix=False, low_rank_head=False)
_TENSORS = Tensors(peft_type="BEFT", prefix="beft_")

METHODS: tuple[Method, ...] = (
    Method(
        name="beft",
        summary="only the biases of the targets are trained",
        formula="rows",
        paper="Huang et al. 2025, BEFT, arXiv:2509.15974",
        section=BeftAdapter,
        parameters=lambda matrix, rank, options: matrix.rows,
        config=_config,
        targets=layers_with_bias,
        tensors=_TENSORS,
        dial=None,
        support=_SUPPORT,
    ),
    Method(
        name="bitfit",
        summary="only the biases of all linear layers are trained",
        formula="rows",
        paper="Ben Zaken et al. 2021, BitFit, arXiv:2106.10199",
        section=BitFitAdapter,
        parameters=lambda matrix, rank, options: matrix.rows,
        config=_config,
        targets=layers_with_bias,
        tensors=_TENSORS,
        dial=None,
        support=_SUPPORT,
    ),
)
