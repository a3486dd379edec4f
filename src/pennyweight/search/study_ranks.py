"""Rank the rows of a study over its data sets, those with the same budget among each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pennyweight.evaluation.ranks import compare_ranks
from pennyweight.runs.results import in_order

if TYPE_CHECKING:
    from pennyweight.search.studies import StudyRow

__all__ = ["RankedRow", "StudyRanks", "describe_ranks", "rank_rows"]


@dataclass(frozen=True, slots=True)
class RankedRow:
    """A row among the others of its budget.

    Attributes:
        name: of the row.
        mean_rank: mean of its ranks; 1 is the best.
        ranks: on each data set; rows that are equally good share the mean of their ranks.
        mean: mean of its results over the data sets.
        parameters: largest number of trained parameters on any data set.
    """

    name: str
    mean_rank: float
    ranks: dict[str, float]
    mean: float
    parameters: int


@dataclass(frozen=True, slots=True)
class StudyRanks:
    """The rows of one budget, the best first; see `pennyweight.evaluation.ranks`.

    Attributes:
        budget: largest number of trainable parameters allowed.
        set: whose results are ranked: the test, if there is one.
        rows: those with a result on every data set.
        left_out: names of the others.
        critical_difference: rows whose mean ranks differ by at least this much differ
            significantly.
        chi_square: Friedman's statistic; None where there is none.
        friedman_p: its p-value.
        p: the p-value of Iman and Davenport's F.
    """

    budget: int
    set: str
    rows: list[RankedRow]
    left_out: list[str]
    critical_difference: float
    chi_square: float | None
    friedman_p: float | None
    p: float | None


def rank_rows(rows: Sequence[StudyRow]) -> list[StudyRanks]:
    """Return the ranks of each budget, in the order of the rows.

    A result is a row's mean over its seeds. There are no ranks with fewer than two data sets or,
    for a budget, two rows that have a result on each of them.
    """
    datasets = list(dict.fromkeys(row.dataset for row in rows))
    if len(datasets) < 2:
        return []
    budgets: dict[int, dict[str, dict[str, StudyRow]]] = {}
    for row in rows:
        budgets.setdefault(row.budget, {}).setdefault(row.name, {})[row.dataset] = row
    ranked = (_rank(budget, table, datasets) for budget, table in budgets.items())
    return [each for each in ranked if each is not None]


def _rank(
    budget: int, table: dict[str, dict[str, StudyRow]], datasets: Sequence[str]
) -> StudyRanks | None:
    sets = in_order({of for row in table.values() for each in row.values() for of in each.mean})
    if not sets:
        return None
    name = sets[0]
    complete = {
        row_name: [row[dataset] for dataset in datasets]
        for row_name, row in table.items()
        if all(dataset in row and name in row[dataset].mean for dataset in datasets)
    }
    if len(complete) < 2:
        return None
    values = [[each.mean[name] for each in row] for row in complete.values()]
    test = compare_ranks(values)
    ranked = [
        RankedRow(
            name=row_name,
            mean_rank=mean_rank,
            ranks=dict(zip(datasets, ranks, strict=True)),
            mean=float(np.mean(own)),
            parameters=max(each.parameters for each in row),
        )
        for (row_name, row), own, ranks, mean_rank in zip(
            complete.items(), values, test.ranks, test.mean_ranks, strict=True
        )
    ]
    return StudyRanks(
        budget=budget,
        set=name,
        rows=sorted(ranked, key=lambda row: row.mean_rank),
        left_out=[row_name for row_name in table if row_name not in complete],
        critical_difference=test.critical_difference,
        chi_square=test.chi_square,
        friedman_p=test.friedman_p,
        p=test.p,
    )


def describe_ranks(ranks: StudyRanks) -> str:
    """Return a sentence about which mean ranks differ significantly."""
    best = ranks.rows[0]
    worse = [
        row.name
        for row in ranks.rows
        if row.mean_rank - best.mean_rank >= ranks.critical_difference
    ]
    text = f"critical difference {ranks.critical_difference:.2f} (Nemenyi, 5%): "
    if worse:
        text += f"{best.name} is significantly better than {', '.join(worse)}"
    else:
        text += f"no row is significantly worse than {best.name}"
    if ranks.p is None or ranks.friedman_p is None:
        return text
    return (
        f"{text}; all rows together: Friedman's test p = {ranks.friedman_p:.3f}, Iman and "
        f"Davenport's p = {ranks.p:.3f}"
    )
