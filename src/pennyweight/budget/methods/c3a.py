"""C3A: an update of circulant blocks (arXiv:2407.19342)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from pennyweight.budget.layout import Layout, WeightMatrix
from pennyweight.budget.methods.dial import Dial, common_divisors
from pennyweight.budget.methods.method import Choice, Method, Support, Tensors, peft_options
from pennyweight.budget.methods.sections import Size, TargetedSection

if TYPE_CHECKING:
    from peft import C3AConfig

__all__ = ["METHODS", "C3aAdapter"]


class C3aAdapter(TargetedSection):
    """`[adapter]`: W + a matrix of circulant blocks, each of which has one trained row."""

    method: Literal["c3a"] = "c3a"
    block_size: Size = Field(
        128,
        description="rows and columns of a block, a divisor of all rows and columns; smaller "
        "blocks cost more",
    )


def _divisors(matrices: Sequence[WeightMatrix], options: Mapping[str, Any]) -> Sequence[int]:
    del options
    return common_divisors(*(size for m in matrices for size in (m.rows, m.columns)))[::-1]


def _config(layout: Layout, choice: Choice) -> C3AConfig:
    from peft import C3AConfig

    return C3AConfig(**peft_options(layout, choice), block_size=choice.adapted[0].rank)


METHODS: tuple[Method, ...] = (
    Method(
        name="c3a",
        summary="W + a matrix of circulant blocks with one trained row each",
        formula="rows * columns / block_size",
        paper="Chen et al. 2024, C3A, arXiv:2407.19342",
        section=C3aAdapter,
        parameters=lambda matrix, size, options: matrix.rows * matrix.columns // size,
        config=_config,
        tensors=Tensors(peft_type="C3A", prefix="c3a_"),
        dial=Dial(
            key="block_size", values=_divisors, allowed="the divisors of all rows and columns"
        ),
        support=Support(rank_per_matrix=False, low_rank_head=False, quantizations=("none",)),
    ),
)
