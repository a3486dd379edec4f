"""How a recipe spends its budget: the keys of `[adapter]`, its targets, and its head."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from pennyweight.budget import patterns
from pennyweight.budget.layout import Layout, WeightMatrix
from pennyweight.budget.methods import METHODS, AdaptedMatrix, Bias, Head, Method
from pennyweight.errors import RecipeError

__all__ = ["AUTO_SCALING", "Alpha", "Spending", "head_adapter", "select_targets"]

Rank = int | Literal["fill"] | Mapping[str, int]
Alpha = float | Literal["auto"] | Mapping[str, float]

# Alpha over rank with "auto": the same scaling of the adapter whatever rank the budget allows.
AUTO_SCALING = 2.0


@dataclass(frozen=True, slots=True)
class Spending:
    """How the budget is to be spent: the plain values of a recipe's `[adapter]` section.

    Attributes:
        method: the adapter method's name.
        targets: patterns of the matrices that get an adapter.
        rank: one for all targets, one per pattern, or "fill" for the largest that fits.
        alpha: one for all targets, one per pattern, or "auto" for twice the rank; None if the
            method has none.
        dropout: dropout probability on the adapters' input.
        bias: which biases are trained.
        head: how much of the classification head is trained.
        head_rank: with a low-rank head, rank of the adapter on the head's dense layer, or of a
            pooled head's weights.
        options: the method's own keys.
    """

    method: str
    targets: tuple[str, ...]
    rank: Rank
    alpha: Alpha | None
    dropout: float
    bias: Bias
    head: Head
    head_rank: int
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def row(self) -> Method:
        """The method's row in the table."""
        return METHODS[self.method]


def select_targets(layout: Layout, targets: Sequence[str]) -> list[WeightMatrix]:
    """Return the matrices of the encoder that the patterns of `adapter.targets` match.

    Raises:
        RecipeError: a pattern matches nothing.
    """
    for pattern in targets:
        if not any(patterns.matches_end(pattern, *matrix.names) for matrix in layout.encoder):
            roles = sorted({matrix.role for matrix in layout.encoder})
            raise RecipeError(
                f'adapter.targets: "{pattern}" matches no weight matrix of the encoder; '
                f"its matrices are {', '.join(roles)}"
            )
    return [
        matrix
        for matrix in layout.encoder
        if any(patterns.matches_end(pattern, *matrix.names) for pattern in targets)
    ]


def _check_head(layout: Layout, head: Head) -> None:
    if head in ("output-only", "low-rank") and len(layout.head_modules) > 1:
        dense, output = layout.head_modules
        raise RecipeError(
            f'adapter.head: given "{head}", but with this base PEFT trains {dense} whenever it '
            f'trains {output}; allowed here: "full", "frozen"; or set base.pooling'
        )


def head_adapter(layout: Layout, spending: Spending) -> tuple[AdaptedMatrix, ...]:
    """Return the adapter of the dense layer of a low-rank head; empty for other heads.

    Raises:
        RecipeError: the base or the method does not allow this head.
    """
    _check_head(layout, spending.head)
    if spending.head != "low-rank":
        return ()
    if layout.head_down is not None:
        _check_head_rank(layout, layout.head_down)
        return ()
    if not spending.row.support.low_rank_head:
        raise RecipeError(
            f'adapter.head: given "low-rank", which {spending.method} does not support; '
            'allowed with it: "full", "output-only", "frozen"'
        )
    dense = layout.head_dense
    if dense is None:
        raise RecipeError(
            'adapter.head: given "low-rank", but this base has no dense layer before its output '
            'layer; allowed here: "full", "output-only", "frozen"; or set base.pooling'
        )
    alpha = spending.alpha
    if isinstance(alpha, Mapping):
        own_alpha = patterns.lookup(alpha, *dense.names)
        alpha = own_alpha if own_alpha is not None else float(spending.head_rank)
    if alpha == "auto":
        alpha = AUTO_SCALING * spending.head_rank
    return (AdaptedMatrix(dense, spending.head_rank, alpha),)


def _check_head_rank(layout: Layout, down: WeightMatrix) -> None:
    """Refuse a pooled head of a low rank that costs no less than a full matrix."""
    rows, columns, rank = layout.head_output.rows, down.columns, down.rows
    largest = (rows * columns - 1) // (rows + columns)
    if rank > largest:
        raise RecipeError(
            f'adapter.head_rank: given {rank}; with {rows} classes, adapter.head = "low-rank" '
            f"saves parameters up to {largest}; "
            + ("use a smaller rank" if largest else 'use adapter.head = "full"')
        )
