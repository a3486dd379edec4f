"""Allocation strategies: one table of functions from costs and gains to ranks.

A strategy gets a `Problem`: the matrices of a base with the cost of each rank, the kinds of head,
the budget and, where it needs them, the gains that a measure found for each rank (see
`pennyweight.engine.sensitivity`). It returns an `Allocation` that never exceeds the budget. A new
strategy is a row in `STRATEGIES` and, where it has keys of its own, a section in `sections.py`.
Importing it loads neither torch nor PEFT.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

from pennyweight.budget.allocate.even import by_type, fill, uniform
from pennyweight.budget.allocate.knapsack import knapsack
from pennyweight.budget.allocate.problem import Allocation, Problem

__all__ = ["STRATEGIES", "Strategy"]


@dataclass(frozen=True, slots=True)
class Strategy:
    """One allocation strategy.

    Attributes:
        name: the value of `adapter.allocate.method`.
        summary: what the strategy does, in a few words.
        paper: the paper that it follows; empty where it needs none.
        needs: what has to be measured before it: nothing, the model's answer to training rows, or
            its weights after a short training on them.
        allocate: returns the ranks and the head for a problem and the strategy's own keys.
        uses_all: whether it leaves less of the budget than the cheapest further rank costs.
    """

    name: str
    summary: str
    paper: str
    needs: Literal["nothing", "model and rows", "a short training"]
    allocate: Callable[[Problem, Mapping[str, Any]], Allocation]
    uses_all: bool = True


_ROWS: tuple[Strategy, ...] = (
    Strategy(
        name="uniform",
        summary="equal ranks; what is left goes to value and query, and to the top layers first",
        paper="Hu et al. 2021, LoRA, arXiv:2106.09685",
        needs="nothing",
        allocate=uniform,
    ),
    Strategy(
        name="fill",
        summary='what `adapter.rank = "fill"` does: the largest equal rank that fits',
        paper="Hu et al. 2021, LoRA, arXiv:2106.09685",
        needs="nothing",
        allocate=fill,
        uses_all=False,
    ),
    Strategy(
        name="by-type",
        summary="ranks in the ratios of a table of patterns",
        paper="Hu et al. 2021, LoRA, arXiv:2106.09685",
        needs="nothing",
        allocate=by_type,
    ),
    Strategy(
        name="gradient",
        summary="the first-order drop of the loss that an update of each rank can reach",
        paper="Bernstein & Newhouse 2024, arXiv:2409.20325",
        needs="model and rows",
        allocate=knapsack,
    ),
    Strategy(
        name="activation",
        summary="the share of the variance of a matrix' inputs that each rank explains",
        paper="Paischer et al. 2024, EVA, arXiv:2410.07170",
        needs="model and rows",
        allocate=knapsack,
    ),
    Strategy(
        name="fisher",
        summary="the share of the empirical Fisher information that each rank holds",
        paper="Martens & Grosse 2015, arXiv:1503.05671",
        needs="model and rows",
        allocate=knapsack,
    ),
    Strategy(
        name="adalora",
        summary="the importance of each rank at the end of a short training with AdaLoRA",
        paper="Zhang et al. 2023, AdaLoRA, arXiv:2303.10512",
        needs="a short training",
        allocate=knapsack,
    ),
    Strategy(
        name="knapsack",
        summary="the mean of several of these measures, each scaled to the same mean",
        paper="Dyer, Kayal & Walker 1984",
        needs="model and rows",
        allocate=knapsack,
    ),
)
STRATEGIES: Mapping[str, Strategy] = MappingProxyType({row.name: row for row in _ROWS})
