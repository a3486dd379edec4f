"""RoAd: pairs of outputs are rotated and scaled (arXiv:2409.00119)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, PositiveInt

from pennyweight.budget.layout import Layout, WeightMatrix
from pennyweight.budget.methods.dial import Dial
from pennyweight.budget.methods.method import Choice, Method, Support, Tensors, peft_options
from pennyweight.budget.methods.sections import TargetedSection
from pennyweight.errors import RecipeError

if TYPE_CHECKING:
    from peft import RoadConfig

__all__ = ["METHODS", "RoadAdapter"]


class RoadAdapter(TargetedSection):
    """`[adapter]`: the outputs of W, in pairs, are rotated and scaled."""

    method: Literal["road"] = "road"
    variant: Literal[1, 2, 4, "fill"] = Field(
        1,
        description="the paper's variant: angles and scales of pairs (1), of single outputs (2), "
        "or two of each per output (4)",
        json_schema_extra={"allowed": '1, 2, 4, or "fill"'},
    )
    group_size: PositiveInt = Field(
        64,
        multiple_of=2,
        description="the number of adjacent outputs that are paired with each other; it must "
        "divide the number of rows",
    )


def _parameters(matrix: WeightMatrix, variant: int, options: Mapping[str, Any]) -> int:
    del options
    return variant * matrix.rows


def _config(layout: Layout, choice: Choice) -> RoadConfig:
    from peft import RoadConfig

    size = choice.options["group_size"]
    for adapted in choice.adapted:
        if adapted.matrix.rows % size:
            raise RecipeError(
                f"adapter.group_size: given {size}, which does not divide the "
                f"{adapted.matrix.rows} rows of {adapted.matrix.name}"
            )
    return RoadConfig(
        **peft_options(layout, choice),
        variant=f"road_{choice.adapted[0].rank}",
        group_size=size,
    )


METHODS: tuple[Method, ...] = (
    Method(
        name="road",
        summary="pairs of the outputs of W are rotated and scaled",
        formula="rows, 2 rows or 4 rows, by variant",
        paper="Liao & Monz 2024, RoAd, arXiv:2409.00119",
        section=RoadAdapter,
        parameters=_parameters,
        config=_config,
        tensors=Tensors(peft_type="ROAD", prefix="road_"),
        dial=Dial(
            key="variant",
            values=lambda matrices, options: (1, 2, 4),
            allowed="the variants of the paper",
        ),
        support=Support(rank_per_matrix=False, low_rank_head=False),
    ),
)
