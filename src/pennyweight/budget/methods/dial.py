"""The key of `[adapter]` that sets the size of a method's adapters, and the values it can have."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pennyweight.budget.layout import WeightMatrix
from pennyweight.errors import RecipeError

__all__ = ["Dial", "common_divisors", "refuse_high_rank"]


def common_divisors(*sizes: int) -> list[int]:
    """Return the numbers that divide all sizes, in ascending order."""
    largest = math.gcd(*sizes)
    return [number for number in range(1, largest + 1) if largest % number == 0]


def _up_to_rank_of_matrix(
    matrices: Sequence[WeightMatrix], options: Mapping[str, Any]
) -> Sequence[int]:
    del options
    return range(1, min(matrix.largest_rank for matrix in matrices) + 1)


@dataclass(frozen=True, slots=True)
class Dial:
    """The key of `[adapter]` that sets the size of a method's adapters.

    Attributes:
        key: the key's name.
        values: returns the values that fit all the given matrices, in the order of growing cost,
            from the matrices and the method's own keys. "fill" chooses among them.
        allowed: which values these are, for messages.
        is_limit: whether other values are refused.
    """

    key: str = "rank"
    values: Callable[[Sequence[WeightMatrix], Mapping[str, Any]], Sequence[int]] = (
        _up_to_rank_of_matrix
    )
    allowed: str = "the rank of the matrix itself"
    is_limit: bool = True


def refuse_high_rank(rank: int, matrices: Sequence[WeightMatrix]) -> None:
    """Check `adapter.inner_rank`, the rank of a method that has another dial.

    Raises:
        RecipeError: it exceeds the rank of one of the matrices.
    """
    for matrix in matrices:
        if rank > matrix.largest_rank:
            raise RecipeError(
                f"adapter.inner_rank: {matrix.name}: given {rank}; allowed: up to "
                f"{matrix.largest_rank}, the rank of the matrix itself"
            )
