"""LoKr: the Kronecker product of two small matrices (LyCORIS, arXiv:2309.14859)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, PositiveInt

from pennyweight.budget.layout import Layout, WeightMatrix
from pennyweight.budget.methods.dial import Dial
from pennyweight.budget.methods.method import Choice, Method, Support, Tensors, peft_options
from pennyweight.budget.methods.sections import Alpha, DropoutSection, Size

if TYPE_CHECKING:
    from peft import LoKrConfig

__all__ = ["METHODS", "LokrAdapter"]


class LokrAdapter(DropoutSection):
    """`[adapter]`: W + (alpha / r) C (x) D, the Kronecker product of a small and a larger matrix.

    D has rank r, or is trained in full where this costs less. `dropout` drops whole rows.
    """

    method: Literal["lokr"] = "lokr"
    rank: Size = Field(8, description="the rank of D")
    alpha: Alpha = Field(8.0, description='the alpha of every target; "auto" is twice the rank')
    factor: PositiveInt | Literal["auto"] = Field(
        "auto",
        description='the most rows and columns of C; "auto" makes C and D of similar sizes',
        json_schema_extra={"allowed": 'a whole number from 1, or "auto"'},
    )
    decompose_both: bool = Field(False, description="whether C has a low rank too")


def _parameters(matrix: WeightMatrix, rank: int, options: Mapping[str, Any]) -> int:
    return _size(matrix.rows, matrix.columns, rank, _factor(options), options["decompose_both"])


@cache
def _size(rows: int, columns: int, rank: int, factor: int, decompose_both: bool) -> int:
    """Return the sizes of C and D together, by PEFT's own rules for their shapes."""
    from peft.tuners.lokr.layer import factorization

    columns_c, columns_d = factorization(columns, factor)
    rows_c, rows_d = factorization(rows, factor)
    splits_c = decompose_both and rank < max(rows_c, columns_c) / 2
    splits_d = rank < max(rows_d, columns_d) / 2
    c = rank * (rows_c + columns_c) if splits_c else rows_c * columns_c
    d = rank * (rows_d + columns_d) if splits_d else rows_d * columns_d
    return int(c + d)


def _factor(options: Mapping[str, Any]) -> int:
    return -1 if options["factor"] == "auto" else options["factor"]


def _by_cost(matrices: Sequence[WeightMatrix], options: Mapping[str, Any]) -> Sequence[int]:
    ranks = range(1, min(matrix.largest_rank for matrix in matrices) + 1)
    return sorted(ranks, key=lambda rank: sum(_parameters(m, rank, options) for m in matrices))


def _config(layout: Layout, choice: Choice) -> LoKrConfig:
    from peft import LoKrConfig

    return LoKrConfig(
        **peft_options(layout, choice),
        r=choice.adapted[0].rank,
        alpha=choice.adapted[0].alpha,
        rank_dropout=choice.dropout,
        decompose_both=choice.options["decompose_both"],
        decompose_factor=_factor(choice.options),
    )


METHODS: tuple[Method, ...] = (
    Method(
        name="lokr",
        summary="W + (alpha / r) times the Kronecker product of two small matrices",
        formula="r (rows + columns) of the larger matrix, or its size, + the size of the smaller",
        paper="Yeh et al. 2023, LyCORIS, arXiv:2309.14859",
        section=LokrAdapter,
        parameters=_parameters,
        config=_config,
        tensors=Tensors(peft_type="LOKR", prefix="lokr_"),
        dial=Dial(values=_by_cost),
        support=Support(rank_per_matrix=False, low_rank_head=False, quantizations=("none",)),
    ),
)
