"""The candidates for a budget: the matrices that a recipe targets, and the kinds of head."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from pennyweight.budget.allocate.problem import Gains, HeadOption, Problem, Target
from pennyweight.budget.formula import count_by_formula
from pennyweight.budget.layout import Layout, WeightMatrix
from pennyweight.budget.methods.method import Choice, trained_head_modules
from pennyweight.budget.methods.sections import DEFAULT_HEAD_RANK, Head
from pennyweight.budget.spending import Spending, head_adapter, select_targets
from pennyweight.errors import RecipeError

__all__ = ["allocation_refusal", "make_problem", "measured_matrices"]


def allocation_refusal(spending: Spending, targets: Sequence[WeightMatrix]) -> str | None:
    """Return why the matrices cannot have ranks of their own, or None if they can.

    A strategy adds up what ranks cost: the method must allow different ranks, and each further rank
    of a matrix must cost the same.
    """
    row = spending.row
    if refusal := row.allocation_refusal:
        return refusal
    # Matrices of one shape cost the same.
    for matrix in {(m.rows, m.columns, m.has_bias): m for m in targets}.values():
        costs = [row.parameters(matrix, r, spending.options) for r in _ranks(matrix, spending)]
        if np.unique(np.diff(costs)).size > 1:
            return f"the cost of {row.name} does not grow by the same number with each rank"
    return None


def make_problem(
    layout: Layout,
    spending: Spending,
    *,
    budget: int,
    gains: Gains | None = None,
    plans_head: bool = False,
) -> Problem:
    """Return what a recipe's targets and its head cost, and what they gain.

    Args:
        layout: of the base.
        spending: the values of the recipe's `[adapter]` section; its rank and alpha are not read.
        budget: the largest number of trainable parameters allowed.
        gains: measured on the matrices of `measured_matrices`; None without a measurement.
        plans_head: whether all kinds of head compete, instead of `spending.head` alone.

    Raises:
        RecipeError: a pattern matches nothing, the base does not allow the head, or the method does
            not allow different ranks.
    """
    matrices = select_targets(layout, spending)
    if refusal := allocation_refusal(spending, matrices):
        raise RecipeError(f"adapter.rank: cannot be allocated, because {refusal}")
    targets = tuple(_target(layout, matrix, spending) for matrix in matrices)
    if not plans_head:
        return Problem(targets, (_option(layout, spending, gains),), budget, gains or {})
    options = list(_head_options(layout, spending, budget, gains))
    affordable = [option for option in options if option.cost <= budget]
    heads = affordable or [min(options, key=lambda option: option.cost)]
    return Problem(targets, tuple(heads), budget, gains or {})


def measured_matrices(layout: Layout, spending: Spending) -> tuple[WeightMatrix, ...]:
    """Return the matrices that a measure is needed for: the targets, and those of the head."""
    dense = () if layout.head_dense is None else (layout.head_dense,)
    full = layout.with_head_rank(None)
    return (*select_targets(layout, spending), *dense, full.head_output)


def _target(layout: Layout, matrix: WeightMatrix, spending: Spending) -> Target:
    ranks, count = _ranks(matrix, spending), spending.row.parameters
    first, last = (count(matrix, ranks[end], spending.options) for end in (0, -1))
    per_rank = (last - first) // (len(ranks) - 1) if len(ranks) > 1 else first
    bias = layout.sizes.get(f"{matrix.name}.bias", 0) if spending.bias == "lora_only" else 0
    return Target(matrix, per_rank, first - per_rank + bias, len(ranks))


def _ranks(matrix: WeightMatrix, spending: Spending) -> range:
    """Return the ranks that a matrix may have."""
    dial = spending.row.dial
    values = dial.values((matrix,), spending.options) if dial else ()
    return range(1, max(values, default=0) + 1)


def _head_options(
    layout: Layout, spending: Spending, budget: int, gains: Gains | None
) -> Iterator[HeadOption]:
    full = _option(layout, replace(spending, head="full"), gains)
    yield full
    cheaper: tuple[Head, ...] = ("output-only", "low-rank")
    for kind in cheaper:
        try:
            yield from _cheaper_heads(layout, replace(spending, head=kind), gains, full=full)
        except RecipeError:
            # The base or the method does not have this kind.
            continue


def _cheaper_heads(
    layout: Layout, spending: Spending, gains: Gains | None, *, full: HeadOption
) -> Iterator[HeadOption]:
    """Yield the heads of one kind: all ranks of a low-rank head that is worth having.

    Without a measure, a rank above the default is not known to be worth its cost.
    """
    if spending.head == "output-only":
        option = _option(layout, spending, gains)
        if option.cost < full.cost:
            yield option
        return
    rank = 1
    while gains or rank <= DEFAULT_HEAD_RANK:
        option = _option(layout, replace(spending, head_rank=rank), gains)
        gained = option.gain > full.gain if layout.head_dense is not None else False
        if rank > _largest_head_rank(layout) or not (option.cost < full.cost or gained):
            return
        yield option
        rank += 1


def _largest_head_rank(layout: Layout) -> int:
    return (layout.head_dense or layout.head_output).largest_rank


def _option(layout: Layout, spending: Spending, gains: Gains | None) -> HeadOption:
    """Return the cost and the gain of the head that some values name.

    Raises:
        RecipeError: the base or the method does not allow it.
    """
    has_rank = spending.head == "low-rank"
    built = layout.with_head_rank(spending.head_rank if has_rank else None)
    choice = Choice(
        adapted=head_adapter(built, spending),
        dropout=0.0,
        bias=spending.bias,
        head=spending.head,
        options=spending.options,
    )
    return HeadOption(
        spending.head,
        spending.head_rank if has_rank else None,
        count_by_formula(built, choice, method=spending.row),
        _gain(layout, spending, gains),
    )


def _gain(layout: Layout, spending: Spending, gains: Gains | None) -> float:
    """Return what a head gains: all of what it trains in full, and the first ranks of the rest."""
    if not gains or spending.head == "frozen":
        return 0.0
    output = np.asarray(gains[layout.with_head_rank(None).head_output.name])
    rank = spending.head_rank if spending.head == "low-rank" else None
    if layout.is_pooled:
        return float(output[:rank].sum())
    dense = layout.head_dense
    if dense is None:
        return float(output.sum())
    in_full = tuple(f"{module}." for module in trained_head_modules(layout, spending.head))
    trained = len(gains[dense.name]) if f"{dense.name}.".startswith(in_full) else (rank or 0)
    return float(output.sum() + np.asarray(gains[dense.name])[:trained].sum())
