"""Exact integer allocation: the ranks and the head of the largest total gain that fit the budget.

This is a multiple-choice knapsack problem: one of the ranks 0, 1, 2, ... for each matrix, and one
kind of head. Most choices are ruled out by a bound on the optimum (Dyer, Kayal & Walker 1984, "A
branch and bound algorithm for solving the multiple-choice knapsack problem"); HiGHS solves what is
left.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pennyweight.budget.allocate.even import most_useful_first, spend_rest
from pennyweight.budget.allocate.problem import Allocation, Problem

__all__ = ["knapsack"]

# Far below what a measure on a few hundred rows can tell apart.
_TOLERANCE = 1e-7


@dataclass(frozen=True, slots=True)
class _Group:
    """The choices of one matrix, or of the head: exactly one of them is taken.

    Attributes:
        costs: int `[choices]`.
        gains: float `[choices]`.
    """

    costs: np.ndarray
    gains: np.ndarray

    def best(self, price: float) -> int:
        """Return the choice with the largest gain minus price times cost."""
        return int((self.gains - price * self.costs).argmax())


def knapsack(problem: Problem, options: Mapping[str, Any]) -> Allocation:
    """Return the allocation of the largest total gain within the budget.

    What is left because no further rank gains anything is spent in the order of
    `most_useful_first`, so that the budget is used up.

    Args:
        problem: with gains that do not increase from rank to rank.
        options: not used.

    Raises:
        BudgetError: the budget leaves no room for a single rank.
    """
    del options
    problem.refuse_head(min(problem.heads, key=lambda head: head.cost))
    # A head that leaves no room for an adapter is no choice: such a plan cannot be built.
    heads = [head for head in problem.heads if head.cost + problem.cheapest <= problem.budget]
    # One problem for each kind of head: between kinds the gain makes a jump, which would leave
    # much more to be solved.
    best = max(
        (
            _best(replace(problem, heads=tuple(head for head in heads if head.kind == kind)))
            for kind in dict.fromkeys(head.kind for head in heads)
        ),
        key=lambda each: each[1],
    )
    return spend_rest(problem, best[0], most_useful_first(problem.targets))


def _best(problem: Problem) -> tuple[Allocation, float]:
    """Return the best allocation for heads of one kind, and its total gain."""
    groups = [_head_group(problem), *_rank_groups(problem)]
    head, *ranks = chosen = _solve(groups, problem.budget)
    named = {t.name: rank for t, rank in zip(problem.targets, ranks, strict=True) if rank}
    return Allocation(named, problem.heads[head]), _total(groups, chosen)


def _head_group(problem: Problem) -> _Group:
    heads = problem.heads
    return _Group(np.array([h.cost for h in heads]), np.array([h.gain for h in heads], dtype=float))


def _rank_groups(problem: Problem) -> list[_Group]:
    groups = []
    for target in problem.targets:
        gains = np.asarray(problem.gains[target.name], dtype=float)
        affordable = (problem.budget - target.start) // target.per_rank
        ranks = max(0, min(target.largest, len(gains), affordable))
        costs = np.array([target.cost(rank) for rank in range(ranks + 1)])
        groups.append(_Group(costs, np.concatenate([[0.0], np.cumsum(gains[:ranks])])))
    return groups


def _solve(groups: Sequence[_Group], budget: int) -> list[int]:
    """Return the choice of each group with the largest total gain within the budget."""
    scale = max(float(np.abs(group.gains).max()) for group in groups) or 1.0
    groups = [_Group(group.costs, group.gains / scale) for group in groups]
    price = _price(groups, budget)
    bound = price * budget + sum(
        float((group.gains - price * group.costs).max()) for group in groups
    )
    start = _feasible(groups, budget, price)
    reached = _total(groups, start)
    gap = bound - reached
    if gap <= _TOLERANCE * max(1.0, abs(reached)):
        return start
    # A choice that loses more than the gap at this price is in no better solution.
    kept = []
    for group in groups:
        reduced = group.gains - price * group.costs
        kept.append(np.flatnonzero(reduced.max() - reduced <= gap + 1e-12))
    return _solve_core(groups, kept, budget, start)


def _price(groups: Sequence[_Group], budget: int) -> float:
    """Return the smallest price per parameter at which the best choices fit the budget."""

    def cost(price: float) -> int:
        return sum(int(group.costs[group.best(price)]) for group in groups)

    if cost(0.0) <= budget:
        return 0.0
    low, high = 0.0, 1.0
    while cost(high) > budget:
        high *= 2.0
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if cost(middle) > budget else (low, middle)
    return high


def _feasible(groups: Sequence[_Group], budget: int, price: float) -> list[int]:
    """Return choices within the budget: the best ones at the price, improved one by one."""
    chosen = [group.best(price) for group in groups]
    room = budget - sum(int(g.costs[choice]) for g, choice in zip(groups, chosen, strict=True))
    while True:
        best, gained = None, 0.0
        for number, group in enumerate(groups):
            fits = np.flatnonzero(group.costs - group.costs[chosen[number]] <= room)
            choice = int(fits[group.gains[fits].argmax()])
            gain = float(group.gains[choice] - group.gains[chosen[number]])
            if gain > gained:
                best, gained = (number, choice), gain
        if best is None:
            return chosen
        number, choice = best
        room -= int(groups[number].costs[choice] - groups[number].costs[chosen[number]])
        chosen[number] = choice


def _solve_core(
    groups: Sequence[_Group], kept: Sequence[np.ndarray], budget: int, start: list[int]
) -> list[int]:
    """Solve the problem with only some choices of each group; `start` if that finds no better."""
    # Imported here, because every recipe imports the table of strategies.
    from scipy.optimize import Bounds, LinearConstraint, milp
    from scipy.sparse import csr_matrix

    sizes = [len(choices) for choices in kept]
    ends = np.cumsum(sizes)
    costs = np.concatenate(
        [group.costs[choices] for group, choices in zip(groups, kept, strict=True)]
    )
    gains = np.concatenate(
        [group.gains[choices] for group, choices in zip(groups, kept, strict=True)]
    )
    unit = int(np.gcd.reduce(costs)) or 1
    owners = np.repeat(np.arange(len(groups)), sizes)
    one_each = csr_matrix((np.ones(len(costs)), (owners, np.arange(len(costs)))))
    result = milp(
        -gains,
        integrality=np.ones(len(costs)),
        bounds=Bounds(0, 1),
        constraints=[
            LinearConstraint(csr_matrix((costs // unit)[None, :].astype(float)), ub=budget // unit),
            LinearConstraint(one_each, lb=1, ub=1),
        ],
        options={"mip_rel_gap": _TOLERANCE},
    )
    if result.x is None:
        return start
    parts = np.split(result.x, ends[:-1])
    chosen = [int(choices[part.argmax()]) for choices, part in zip(kept, parts, strict=True)]

    fits = sum(int(g.costs[c]) for g, c in zip(groups, chosen, strict=True)) <= budget
    return chosen if fits and _total(groups, chosen) >= _total(groups, start) else start


def _total(groups: Sequence[_Group], chosen: Sequence[int]) -> float:
    return sum(float(g.gains[choice]) for g, choice in zip(groups, chosen, strict=True))
