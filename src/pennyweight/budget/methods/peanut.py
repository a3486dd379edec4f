"""PEANuT: a small network computes the update of W from W itself (arXiv:2410.01870)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat

from pennyweight.budget.layout import Layout, WeightMatrix
from pennyweight.budget.methods.dial import Dial
from pennyweight.budget.methods.method import Choice, Method, Support, Tensors, peft_options
from pennyweight.budget.methods.sections import Size, TargetedSection

if TYPE_CHECKING:
    from peft import PeanutConfig

__all__ = ["METHODS", "PeanutAdapter"]


class PeanutAdapter(TargetedSection):
    """`[adapter]`: W + scaling * f(W), where f is a trained network with r hidden units."""

    method: Literal["peanut"] = "peanut"
    rank: Size = Field(32, description="the number of hidden units")
    depth: NonNegativeInt = Field(
        0, description="the number of pairs of hidden layers between the first layer and the last"
    )
    scaling: PositiveFloat = Field(1.0, description="the factor of the update")


def _parameters(matrix: WeightMatrix, rank: int, options: Mapping[str, Any]) -> int:
    return 2 * rank * matrix.rows + 2 * options["depth"] * rank * rank


def _up_to_rows(matrices: Sequence[WeightMatrix], options: Mapping[str, Any]) -> Sequence[int]:
    del options
    return range(1, min(matrix.rows for matrix in matrices) + 1)


def _config(layout: Layout, choice: Choice) -> PeanutConfig:
    from peft import PeanutConfig

    return PeanutConfig(
        **peft_options(layout, choice),
        r=choice.adapted[0].rank,
        depth=choice.options["depth"],
        scaling=choice.options["scaling"],
    )


METHODS: tuple[Method, ...] = (
    Method(
        name="peanut",
        summary="W + f(W), where f is a small trained network",
        formula="2 r rows + 2 depth r^2",
        paper="Zhong et al. 2024, PEANuT, arXiv:2410.01870",
        section=PeanutAdapter,
        parameters=_parameters,
        config=_config,
        tensors=Tensors(peft_type="PEANUT", prefix="peanut_"),
        dial=Dial(values=_up_to_rows, allowed="the number of rows"),
        support=Support(rank_per_matrix=False, low_rank_head=False, quantizations=("none",)),
    ),
)
