"""Input and output of an allocation strategy.

A strategy sees matrices with a cost per rank, the kinds of head that it may choose between, and a
number of parameters. It sees neither model nor rows: whatever was measured on them arrives as
`gains`, one array of numbers for each matrix.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from pennyweight.budget.layout import WeightMatrix
from pennyweight.errors import BudgetError

if TYPE_CHECKING:
    from pennyweight.budget.methods.sections import Head

__all__ = ["Allocation", "Gains", "HeadOption", "Problem", "Target"]

# For each matrix, what every further rank gains: float `[ranks]`, the first rank first. Only ratios
# matter.
Gains = Mapping[str, np.ndarray]


@dataclass(frozen=True, slots=True)
class Target:
    """A matrix that may get an adapter, and what its ranks cost.

    Attributes:
        matrix: the frozen matrix.
        per_rank: parameters of each rank.
        start: further parameters of the first rank, such as DoRA's magnitudes.
        largest: the largest rank allowed.
    """

    matrix: WeightMatrix
    per_rank: int
    start: int
    largest: int

    @property
    def name(self) -> str:
        """The name of the matrix."""
        return self.matrix.name

    def cost(self, rank: int) -> int:
        """Return the number of parameters of an adapter of this rank; 0 for rank 0."""
        return self.start + rank * self.per_rank if rank else 0

    def next_cost(self, rank: int) -> int:
        """Return the number of parameters that one more rank adds to this rank."""
        return self.cost(rank + 1) - self.cost(rank)


@dataclass(frozen=True, slots=True)
class HeadOption:
    """One way to train the classification head.

    Attributes:
        kind: the value of `adapter.head`.
        rank: the value of `adapter.head_rank`; None for kinds that have none.
        cost: number of parameters of the head, and of biases outside the matrices.
        gain: what it gains, in the unit of the matrices' gains; 0 if nothing was measured.
    """

    kind: Head
    rank: int | None
    cost: int
    gain: float = 0.0


@dataclass(frozen=True, slots=True)
class Problem:
    """Matrices and kinds of head that compete for a number of parameters.

    Attributes:
        targets: the matrices that may get an adapter, in the model's order.
        heads: the kinds of head to choose from; a single one where the recipe names it.
        budget: number of parameters for adapters and head together.
        gains: what each rank of each matrix gains; empty if nothing was measured.
    """

    targets: tuple[Target, ...]
    heads: tuple[HeadOption, ...]
    budget: int
    gains: Gains = field(default_factory=dict)

    def cost(self, ranks: Mapping[str, int], head: HeadOption) -> int:
        """Return the number of parameters of some ranks and a head."""
        return head.cost + sum(target.cost(ranks.get(target.name, 0)) for target in self.targets)

    @property
    def cheapest(self) -> int:
        """Number of parameters of the smallest adapter."""
        return min(target.cost(1) for target in self.targets)

    def settled_head(self) -> HeadOption:
        """Return the head of a strategy that has no measure to choose it by.

        It is the most complete head that takes at most half of the budget and leaves room for an
        adapter, or else the smallest.
        """
        most = min(self.budget // 2, self.budget - self.cheapest)
        within = [head for head in self.heads if head.cost <= most]
        if within:
            return max(within, key=lambda head: head.cost)
        return min(self.heads, key=lambda head: head.cost)

    def refuse_head(self, head: HeadOption) -> None:
        """Refuse a head after which no rank fits.

        Raises:
            BudgetError: it leaves less than the cheapest rank costs.
        """
        if head.cost + self.cheapest > self.budget:
            raise BudgetError(
                f"has no room: {head.cost:,} parameters are trained without adapters and the "
                f"smallest adapter costs {self.cheapest:,}, but the budget is {self.budget:,}"
            )


@dataclass(frozen=True, slots=True)
class Allocation:
    """The result of a strategy.

    Attributes:
        ranks: rank of every matrix that gets an adapter, 1 or more, by its name.
        head: how the head is trained.
    """

    ranks: Mapping[str, int]
    head: HeadOption
