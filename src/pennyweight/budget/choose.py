"""From the keys of `[adapter]` to a rank and an alpha for every matrix, counted by formula."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pennyweight.budget import patterns
from pennyweight.budget.allocate.even import fill
from pennyweight.budget.allocate.pool import make_problem
from pennyweight.budget.layout import Layout, WeightMatrix
from pennyweight.budget.methods import AdaptedMatrix, Choice
from pennyweight.budget.spending import (
    AUTO_SCALING,
    Alpha,
    Spending,
    head_adapter,
    select_targets,
)
from pennyweight.errors import BudgetError, RecipeError

__all__ = ["choose"]


def choose(layout: Layout, spending: Spending, *, budget: int) -> Choice:
    """Return rank and alpha of every adapted matrix: patterns looked up, "fill" solved.

    Raises:
        RecipeError: a pattern matches nothing, or a rank does not fit its matrix or method.
        BudgetError: "fill" leaves no room for a rank of 1.
    """
    targets = select_targets(layout, spending.targets)
    head = head_adapter(layout, spending)
    _check_patterns(spending, targets, head)
    rank = _filled(layout, spending, budget) if spending.rank == "fill" else spending.rank
    adapted = [_adapt(matrix, rank, spending.alpha) for matrix in targets]
    choice = Choice(
        adapted=(*(matrix for matrix in adapted if matrix.rank > 0), *head),
        dropout=spending.dropout,
        bias=spending.bias,
        head=spending.head,
        options=spending.options,
    )
    if not choice.adapted:
        raise RecipeError("adapter.rank: every target has rank 0, so there is nothing to adapt")
    if not spending.row.support.rank_above_matrix:
        _check_ranks(choice, head)
    return choice


def _filled(layout: Layout, spending: Spending, budget: int) -> Mapping[str, int]:
    """Return the rank of every target with "fill": 0 for those that the budget leaves out."""
    problem = make_problem(layout, spending, budget=budget)
    try:
        ranks = fill(problem, {}).ranks
    except BudgetError as error:
        raise BudgetError(f'adapter.rank: "fill" {error}') from None
    return {target.name: ranks.get(target.name, 0) for target in problem.targets}


def _check_patterns(
    spending: Spending, targets: Sequence[WeightMatrix], head: Sequence[AdaptedMatrix]
) -> None:
    names = [name for matrix in targets for name in matrix.names]
    if isinstance(spending.rank, Mapping) and not spending.row.support.rank_per_matrix:
        raise RecipeError(
            f"adapter.rank: given a table, but {spending.method} has one rank for all targets; "
            "give a whole number"
        )
    for key, table, known in (
        ("rank", spending.rank, names),
        ("alpha", spending.alpha, [*names, *(name for a in head for name in a.matrix.names)]),
    ):
        if isinstance(table, Mapping) and (unmatched := patterns.unmatched(table, known)):
            raise RecipeError(
                f'adapter.{key}: "{unmatched[0]}" matches none of the targets, such as '
                f"{names[0]}; a pattern consists of parts of such names"
            )


def _adapt(
    matrix: WeightMatrix, rank: int | Mapping[str, int], alpha: Alpha | None
) -> AdaptedMatrix:
    own_rank = patterns.lookup(rank, *matrix.names) if isinstance(rank, Mapping) else rank
    own_alpha = patterns.lookup(alpha, *matrix.names) if isinstance(alpha, Mapping) else alpha
    if own_alpha == "auto":
        own_alpha = None if own_rank is None else AUTO_SCALING * own_rank
    if own_rank is None:
        raise _uncovered("rank", matrix)
    if own_alpha is None and alpha is not None:
        raise _uncovered("alpha", matrix)
    return AdaptedMatrix(matrix, own_rank, own_alpha)


def _uncovered(key: str, matrix: WeightMatrix) -> RecipeError:
    return RecipeError(
        f"adapter.{key}: no pattern covers {matrix.name}; start the table with "
        f'"*" = the {key} of all other matrices'
    )


def _check_ranks(choice: Choice, head: Sequence[AdaptedMatrix]) -> None:
    for adapted in choice.adapted:
        largest = adapted.matrix.largest_rank
        if adapted.rank > largest:
            key = "adapter.head_rank" if adapted in head else "adapter.rank"
            raise RecipeError(
                f"{key}: {adapted.matrix.name}: given {adapted.rank}; allowed: up to "
                f"{largest}, the rank of the matrix itself"
            )
