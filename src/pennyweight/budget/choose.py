"""From the keys of `[adapter]` to a rank and an alpha for every matrix, counted by formula."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pennyweight.budget import patterns
from pennyweight.budget.allocate.even import fill
from pennyweight.budget.allocate.pool import allocation_refusal, make_problem
from pennyweight.budget.formula import count_by_formula
from pennyweight.budget.layout import Layout, WeightMatrix
from pennyweight.budget.methods import AdaptedMatrix, Choice, Dial, Method
from pennyweight.budget.spending import (
    AUTO_SCALING,
    Alpha,
    Spending,
    head_adapter,
    select_targets,
)
from pennyweight.errors import BudgetError, RecipeError

__all__ = ["choose", "smallest_size"]

# Allowed values that a message lists at most.
_MOST_SHOWN = 12


def choose(layout: Layout, spending: Spending, *, budget: int) -> Choice:
    """Return rank and alpha of every adapted matrix: patterns looked up, "fill" solved.

    Raises:
        RecipeError: a pattern matches nothing, or a rank does not fit its matrix or method.
        BudgetError: "fill" leaves no room for the smallest adapters.
    """
    targets = select_targets(layout, spending)
    head = head_adapter(layout, spending)
    _check_patterns(spending, targets, head)

    def at_rank(rank: int | Mapping[str, int]) -> Choice:
        adapted = [_adapt(matrix, rank, spending.alpha) for matrix in targets]
        return Choice(
            adapted=(*(matrix for matrix in adapted if matrix.rank > 0), *head),
            dropout=spending.dropout,
            bias=spending.bias,
            head=spending.head,
            options=spending.options,
        )

    dial = spending.row.dial
    if dial is None:
        return at_rank(1)
    if spending.rank != "fill":
        choice = at_rank(1 if spending.rank is None else spending.rank)
    elif allocation_refusal(spending, targets) is None:
        choice = at_rank(_filled(layout, spending, budget))
    else:
        rank = _largest(
            dial,
            _values(dial, targets, spending.options),
            lambda r: count_by_formula(layout, at_rank(r), method=spending.row),
            budget=budget,
        )
        choice = at_rank(rank)
    if not choice.adapted:
        raise RecipeError("adapter.rank: every target has rank 0, so there is nothing to adapt")
    _check_ranks(choice, head, spending.row)
    return choice


def smallest_size(layout: Layout, spending: Spending) -> int | None:
    """Return the least costly value of the method's dial for these targets; None without a dial.

    Raises:
        RecipeError: a pattern of the targets matches nothing.
    """
    dial = spending.row.dial
    if dial is None:
        return None
    return _values(dial, select_targets(layout, spending), spending.options)[0]


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


def _check_ranks(choice: Choice, head: Sequence[AdaptedMatrix], method: Method) -> None:
    """Refuse ranks that do not fit their matrix, or one rank that does not fit all matrices."""
    dial = method.dial
    if dial is None or not dial.is_limit:
        return
    for adapted in choice.adapted:
        values = _values(dial, (adapted.matrix,), choice.options)
        if adapted.rank not in values:
            key = "adapter.head_rank" if adapted in head else f"adapter.{dial.key}"
            raise RecipeError(
                f"{key}: {adapted.matrix.name}: given {adapted.rank}; allowed: "
                f"{_shown(values)}, {dial.allowed}"
            )


def _values(
    dial: Dial, matrices: Sequence[WeightMatrix], options: Mapping[str, Any]
) -> Sequence[int]:
    """Return the dial's values for some matrices.

    Raises:
        RecipeError: there is none.
    """
    if values := dial.values(matrices, options):
        return values
    raise RecipeError(
        f"adapter.{dial.key}: no value fits {matrices[0].name}; allowed: {dial.allowed}; change "
        "adapter.targets or the method's other keys"
    )


def _shown(values: Sequence[int]) -> str:
    """Return the allowed values in a few words."""
    if isinstance(values, range) and values.step == 1:
        first = "up" if values[0] == 1 else f"{values[0]}"
        return f"{first} to {values[-1]}"
    ordered = sorted(values)
    if ordered == list(range(1, len(ordered) + 1)):
        return f"up to {ordered[-1]}"
    if len(ordered) <= _MOST_SHOWN:
        return ", ".join(map(str, ordered))
    return f"{', '.join(map(str, ordered[: _MOST_SHOWN - 1]))}, ... {ordered[-1]}"


def _largest(dial: Dial, values: Sequence[int], count: Callable[[int], int], *, budget: int) -> int:
    """Return the most costly of the dial's values whose plan fits."""
    fitting = bisect_right(values, budget, key=count)
    if fitting == 0:
        raise BudgetError(
            f'adapter.{dial.key}: "fill" has no room: the smallest adapters, with {dial.key} = '
            f"{values[0]}, make {count(values[0]):,} trainable parameters in all, but the budget "
            f"is {budget:,}"
        )
    return values[fitting - 1]
