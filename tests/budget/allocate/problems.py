"""Random allocation problems."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

from pennyweight.budget.allocate.problem import Allocation, HeadOption, Problem, Target
from pennyweight.budget.layout import WeightMatrix

__all__ = ["OPTIONS", "next_costs", "problems", "total_gain"]

# The keys of each strategy that has some.
OPTIONS: dict[str, dict[str, Any]] = {"by-type": {"ratios": {"*": 1.0, "layer.0": 2.0}}}
_ROLES = ("attention.self.query", "attention.self.value", "intermediate.dense", "output.dense")


@st.composite
def problems(draw: st.DrawFn, *, layers: int = 3, largest: int = 12) -> Problem:
    """Draw matrices of several sizes, heads, gains that fall from rank to rank, and a budget."""
    hidden, inner = draw(st.integers(2, 40)), draw(st.integers(2, 90))
    roles = draw(st.lists(st.sampled_from(_ROLES), min_size=1, max_size=4, unique=True))
    start = draw(st.sampled_from([0, 0, hidden]))
    targets = tuple(
        _target(f"encoder.layer.{layer}.{role}", hidden, inner, start, largest)
        for layer in range(draw(st.integers(1, layers)))
        for role in roles
    )
    generator = np.random.default_rng(draw(st.integers(0, 2**16)))
    gains = {
        t.name: np.sort(generator.exponential(size=t.largest) ** 2)[::-1] * generator.integers(0, 5)
        for t in targets
    }
    low_rank = [
        HeadOption("low-rank", rank, 5 + 2 * hidden * rank, float(rank**0.5))
        for rank in range(1, 4)
    ]
    heads = (HeadOption("full", None, 5 + hidden * hidden, 3.0), *low_rank)
    heads = (*heads, HeadOption("output-only", None, 5))
    heads = tuple(draw(st.lists(st.sampled_from(heads), min_size=1, unique=True)))
    room = sum(target.cost(target.largest) for target in targets)
    least = min(h.cost for h in heads) + min(t.cost(1) for t in targets)
    return Problem(targets, heads, least + draw(st.integers(0, room)), gains)


def _target(name: str, hidden: int, inner: int, start: int, largest: int) -> Target:
    rows, columns = hidden, hidden
    if "attention" not in name:
        rows, columns = (inner, hidden) if "intermediate" in name else (hidden, inner)
    return Target(WeightMatrix(name, rows, columns), rows + columns, start, min(largest, hidden))


def next_costs(problem: Problem, allocation: Allocation) -> list[int]:
    """Return what one more rank costs, for each matrix that may have one more."""
    ranks = {t.name: allocation.ranks.get(t.name, 0) for t in problem.targets}
    return [t.next_cost(ranks[t.name]) for t in problem.targets if ranks[t.name] < t.largest]


def total_gain(problem: Problem, allocation: Allocation) -> float:
    """Return what an allocation gains."""
    ranks = allocation.ranks
    gains = (float(problem.gains[name][:rank].sum()) for name, rank in ranks.items())
    return allocation.head.gain + sum(gains)
