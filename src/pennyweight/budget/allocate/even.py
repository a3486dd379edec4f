"""Strategies that need no measurement: equal ranks, and ranks in given ratios."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pennyweight.budget import patterns
from pennyweight.budget.allocate.problem import Allocation, Problem, Target
from pennyweight.errors import RecipeError

__all__ = ["by_ratio", "by_type", "fill", "most_useful_first", "spend_rest", "uniform"]

# In the order in which a small budget keeps them: with few parameters, adapting query and value is
# better than adapting other matrices, and value better than query (Hu et al. 2021, table 5).
# ModernBERT holds query, key and value in one matrix.
_FIRST = ("value", "query", "Wqkv")


def fill(problem: Problem, options: Mapping[str, Any]) -> Allocation:
    """Give every adapted matrix the largest rank that fits, the same for all of them.

    If not even rank 1 fits for all targets, only those of the types query and value get an adapter,
    of the largest rank that fits. If that is not possible either, they get rank 1 in as many of the
    top layers as the budget allows, value before query. If no query or value matrix is a target,
    all targets are treated like them.

    Raises:
        BudgetError: the budget leaves no room for a single rank.
    """
    del options
    head = problem.settled_head()
    problem.refuse_head(head)
    room = problem.budget - head.cost
    first = [target for target in problem.targets if _is_first(target)] or problem.targets
    for targets in (problem.targets, first):
        if (rank := _equal_rank(targets, room)) > 0:
            return Allocation(dict.fromkeys((t.name for t in targets), rank), head)
    ranks: dict[str, int] = {}
    for target in most_useful_first(first):
        if target.cost(1) <= room:
            ranks[target.name] = 1
            room -= target.cost(1)
    # Only a matrix of another type fits.
    return Allocation(ranks or _first_that_fits(problem, room), head)


def _equal_rank(targets: Sequence[Target], room: int) -> int:
    start = sum(target.start for target in targets)
    rank = (room - start) // sum(target.per_rank for target in targets)
    return min(rank, *(target.largest for target in targets))


def _first_that_fits(problem: Problem, room: int) -> dict[str, int]:
    fitting = (t for t in most_useful_first(problem.targets) if t.cost(1) <= room)
    return {next(fitting).name: 1}


def uniform(problem: Problem, options: Mapping[str, Any]) -> Allocation:
    """Spread the whole budget over all targets, as equally as it allows.

    Raises:
        BudgetError: the budget leaves no room for a single rank.
    """
    del options
    return by_ratio(problem, dict.fromkeys((t.name for t in problem.targets), 1.0))


def by_type(problem: Problem, options: Mapping[str, Any]) -> Allocation:
    """Spread the whole budget so that ranks have the ratios of a table of patterns.

    Raises:
        RecipeError: a pattern matches no target, a target has no ratio, or all ratios are 0.
        BudgetError: the budget leaves no room for a single rank.
    """
    table: Mapping[str, float] = options["ratios"]
    names = [name for target in problem.targets for name in target.matrix.names]
    if missing := patterns.unmatched(table, names):
        raise RecipeError(
            f'adapter.allocate.ratios: "{missing[0]}" matches none of the targets, such as '
            f"{names[0]}; a pattern consists of parts of such names"
        )
    ratios = {t.name: patterns.lookup(table, *t.matrix.names) for t in problem.targets}
    for name, ratio in ratios.items():
        if ratio is None:
            raise RecipeError(
                f"adapter.allocate.ratios: no pattern covers {name}; start the table with "
                '"*" = the ratio of all other matrices'
            )
    if not any(ratios.values()):
        raise RecipeError("adapter.allocate.ratios: all are 0, so there is nothing to adapt")
    return by_ratio(problem, {name: ratio or 0.0 for name, ratio in ratios.items()})


def by_ratio(problem: Problem, ratios: Mapping[str, float]) -> Allocation:
    """Return ranks in these ratios, rounded so that the budget is used up.

    All ranks are the ratios times one number, rounded down. What is left goes to the matrices that
    lost most by rounding, and among equal ones to those that `most_useful_first` names first.

    Args:
        problem: matrices, heads and budget.
        ratios: not negative and not all 0, by the name of the matrix; 0 leaves a matrix out.

    Raises:
        BudgetError: the budget leaves no room for a single rank.
    """
    targets = tuple(t for t in problem.targets if ratios[t.name] > 0.0)
    problem = Problem(targets, problem.heads, problem.budget, problem.gains)
    head = problem.settled_head()
    problem.refuse_head(head)
    room = problem.budget - head.cost
    weights = np.array([ratios[target.name] for target in targets])
    largest = np.array([target.largest for target in targets])

    def ranks_at(scale: float) -> np.ndarray:
        return np.minimum(np.floor(scale * weights + 1e-9), largest).astype(int)

    def cost_at(scale: float) -> int:
        ranks = ranks_at(scale)
        return sum(t.cost(int(rank)) for t, rank in zip(targets, ranks, strict=True))

    low, high = 0.0, float((largest / weights).max()) + 1.0
    if cost_at(high) <= room:
        low = high
    # Bisection: the cost grows with the scale, in steps.
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if cost_at(middle) <= room else (low, middle)
    ranks = {t.name: int(rank) for t, rank in zip(targets, ranks_at(low), strict=True)}
    lost = {t.name: low * ratios[t.name] - ranks[t.name] for t in targets}
    order = sorted(most_useful_first(targets), key=lambda t: -round(lost[t.name], 6))
    return spend_rest(problem, Allocation(ranks, head), order)


def spend_rest(problem: Problem, allocation: Allocation, order: Sequence[Target]) -> Allocation:
    """Return the allocation with what is left of the budget spent, one rank at a time.

    Args:
        problem: matrices, heads and budget.
        allocation: within the budget.
        order: in which matrices get one more rank; repeated until none fits.
    """
    ranks = dict(allocation.ranks)
    room = problem.budget - problem.cost(ranks, allocation.head)
    is_spending = True
    while is_spending:
        is_spending = False
        for target in order:
            rank = ranks.get(target.name, 0)
            if rank < target.largest and target.next_cost(rank) <= room:
                ranks[target.name] = rank + 1
                room -= target.next_cost(rank)
                is_spending = True
    return Allocation({name: rank for name, rank in ranks.items() if rank}, allocation.head)


def most_useful_first(targets: Sequence[Target]) -> list[Target]:
    """Return matrices in the order in which a small budget keeps them.

    Value and query come before all others, and higher layers before lower ones.
    """

    def position(target: Target) -> tuple[bool, int, int]:
        layer = -1 if target.matrix.layer is None else target.matrix.layer
        kinds = [n for n, end in enumerate(_FIRST) if _ends_with(target, end)]
        return (not kinds, -layer, kinds[0] if kinds else len(_FIRST))

    return sorted(targets, key=position)


def _is_first(target: Target) -> bool:
    return any(_ends_with(target, end) for end in _FIRST)


def _ends_with(target: Target, end: str) -> bool:
    return patterns.matches_end(end, *target.matrix.names)
