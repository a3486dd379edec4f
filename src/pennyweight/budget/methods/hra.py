"""HRA: a chain of trained Householder reflections before W (arXiv:2405.17484)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from pennyweight.budget.layout import Layout, WeightMatrix
from pennyweight.budget.methods.dial import Dial
from pennyweight.budget.methods.method import Choice, Method, Support, Tensors, peft_options
from pennyweight.budget.methods.sections import Size, TargetedSection

if TYPE_CHECKING:
    from peft import HRAConfig

__all__ = ["METHODS", "HraAdapter"]


class HraAdapter(TargetedSection):
    """`[adapter]`: W multiplied by a chain of r Householder reflections."""

    method: Literal["hra"] = "hra"
    rank: Size = Field(8, description="the number of reflections, which must be even")
    orthonormal: bool = Field(
        False, description="whether the vectors of the reflections are made orthonormal"
    )


def _even(matrices: Sequence[WeightMatrix], options: Mapping[str, Any]) -> Sequence[int]:
    del options
    # In equal pairs, the reflections cancel at the start of training.
    return range(2, min(matrix.columns for matrix in matrices) + 1, 2)


def _config(layout: Layout, choice: Choice) -> HRAConfig:
    from peft import HRAConfig

    return HRAConfig(
        **peft_options(layout, choice),
        r=choice.adapted[0].rank,
        apply_GS=choice.options["orthonormal"],
    )


METHODS: tuple[Method, ...] = (
    Method(
        name="hra",
        summary="W times a chain of r trained Householder reflections",
        formula="r * columns",
        paper="Yuan et al. 2024, HRA, arXiv:2405.17484",
        section=HraAdapter,
        parameters=lambda matrix, rank, options: rank * matrix.columns,
        config=_config,
        tensors=Tensors(peft_type="HRA", prefix="hra_u"),
        dial=Dial(values=_even, allowed="the even numbers up to the number of columns"),
        support=Support(rank_per_matrix=False, low_rank_head=False, quantizations=("none",)),
    ),
)
