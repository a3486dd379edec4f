"""MiSS: one trained block is added to all blocks of columns of W (arXiv:2409.15371)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from pennyweight.budget.layout import Layout, WeightMatrix
from pennyweight.budget.methods.dial import Dial
from pennyweight.budget.methods.method import Choice, Method, Support, Tensors, peft_options
from pennyweight.budget.methods.sections import DropoutSection, Size

if TYPE_CHECKING:
    from peft import MissConfig

__all__ = ["METHODS", "MissAdapter"]


class MissAdapter(DropoutSection):
    """`[adapter]`: W + D, whose columns repeat r trained columns."""

    method: Literal["miss"] = "miss"
    rank: Size = Field(64, description="the number of trained columns")


def _up_to_columns(matrices: Sequence[WeightMatrix], options: Mapping[str, Any]) -> Sequence[int]:
    del options
    return range(1, min(matrix.columns for matrix in matrices) + 1)


def _config(layout: Layout, choice: Choice) -> MissConfig:
    from peft import MissConfig

    return MissConfig(
        **peft_options(layout, choice), r=choice.adapted[0].rank, miss_dropout=choice.dropout
    )


METHODS: tuple[Method, ...] = (
    Method(
        name="miss",
        summary="W + a matrix whose columns repeat r trained columns",
        formula="r * rows",
        paper="Kang & Yin 2024, MiSS, arXiv:2409.15371",
        section=MissAdapter,
        parameters=lambda matrix, rank, options: rank * matrix.rows,
        config=_config,
        tensors=Tensors(peft_type="MISS", prefix="miss_"),
        dial=Dial(values=_up_to_columns, allowed="the number of columns"),
        support=Support(rank_per_matrix=False, low_rank_head=False),
    ),
)
