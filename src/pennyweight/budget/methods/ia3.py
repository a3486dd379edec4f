"""IA3: trained factors of the outputs, or of the inputs, of some matrices (arXiv:2205.05638)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from pennyweight.budget import patterns
from pennyweight.budget.layout import Layout, WeightMatrix
from pennyweight.budget.methods.method import Choice, Method, Support, Tensors, peft_options
from pennyweight.budget.methods.sections import FixedSizeSection

if TYPE_CHECKING:
    from peft import IA3Config

__all__ = ["METHODS", "Ia3Adapter"]


class Ia3Adapter(FixedSizeSection):
    """`[adapter]`: every output of W is multiplied by a trained number, or every input.

    The paper scales keys, values, and the inputs of the feed-forward network's second matrix.
    """

    method: Literal["ia3"] = "ia3"
    targets: tuple[str, ...] = Field(
        ("key", "value", "output.dense"),
        min_length=1,
        strict=False,
        description="name patterns of the weight matrices that get an adapter",
    )
    scale_inputs: tuple[str, ...] = Field(
        ("output.dense",),
        strict=False,
        description="name patterns of the targets whose inputs are scaled instead of the outputs",
    )


def _scales_inputs(matrix: WeightMatrix, options: Mapping[str, Any]) -> bool:
    return any(patterns.matches_end(one, *matrix.names) for one in options["scale_inputs"])


def _parameters(matrix: WeightMatrix, rank: int, options: Mapping[str, Any]) -> int:
    del rank
    return matrix.columns if _scales_inputs(matrix, options) else matrix.rows


def _config(layout: Layout, choice: Choice) -> IA3Config:
    from peft import IA3Config

    matrices = [adapted.matrix for adapted in choice.adapted]
    return IA3Config(
        **peft_options(layout, choice),
        feedforward_modules=sorted(m.name for m in matrices if _scales_inputs(m, choice.options)),
    )


METHODS: tuple[Method, ...] = (
    Method(
        name="ia3",
        summary="every output of W, or every input, is multiplied by a trained number",
        formula="rows, or columns where inputs are scaled",
        paper="Liu et al. 2022, IA3, arXiv:2205.05638",
        section=Ia3Adapter,
        parameters=_parameters,
        config=_config,
        tensors=Tensors(peft_type="IA3", prefix="ia3_"),
        dial=None,
        support=Support(rank_per_matrix=False, low_rank_head=False),
    ),
)
