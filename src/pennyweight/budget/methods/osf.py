"""OSF: the last singular directions of W are trained, the others are kept (arXiv:2504.07097)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from pennyweight.budget.layout import Layout, WeightMatrix
from pennyweight.budget.methods.dial import Dial
from pennyweight.budget.methods.method import Choice, Method, Support, Tensors, peft_options
from pennyweight.budget.methods.sections import Size, TargetedSection

if TYPE_CHECKING:
    from peft import OSFConfig

__all__ = ["METHODS", "OsfAdapter"]


class OsfAdapter(TargetedSection):
    """`[adapter]`: the last r singular directions of W are trained, orthogonal to the others."""

    method: Literal["osf"] = "osf"
    rank: Size = Field(8, description="the number of singular directions that are trained")


def _all_but_one(matrices: Sequence[WeightMatrix], options: Mapping[str, Any]) -> Sequence[int]:
    del options
    return range(1, min(matrix.largest_rank for matrix in matrices))


def _config(layout: Layout, choice: Choice) -> OSFConfig:
    from peft import OSFConfig

    kept = {a.matrix.name: a.matrix.largest_rank - a.rank for a in choice.adapted}
    usual = next(iter(kept.values()))
    return OSFConfig(
        **peft_options(layout, choice),
        effective_rank=usual,
        # PEFT reads the keys as regular expressions.
        rank_pattern={re.escape(name): rank for name, rank in kept.items() if rank != usual},
    )


METHODS: tuple[Method, ...] = (
    Method(
        name="osf",
        summary="the last r singular directions of W are trained",
        formula="r (rows + columns + 1)",
        paper="Nayak et al. 2025, OSF, arXiv:2504.07097",
        section=OsfAdapter,
        parameters=lambda matrix, rank, options: matrix.low_rank_parameters(rank) + rank,
        config=_config,
        tensors=Tensors(peft_type="OSF", prefix="osf_"),
        dial=Dial(values=_all_but_one, allowed="less than the rank of the matrix itself"),
        support=Support(rank_per_matrix=False, low_rank_head=False, quantizations=("none",)),
    ),
)
