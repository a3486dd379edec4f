"""The rows of a study are ranked over its data sets, within each budget."""

from __future__ import annotations

from typing import Any

import pytest

from pennyweight.search.studies import StudyRow
from pennyweight.search.study_ranks import describe_ranks, rank_rows


def _row(name: str, dataset: str, value: float | None, budget: int = 100) -> StudyRow:
    by_set = ("values", "deviation", "interval", "p", "predicted_shares", "failures")
    values: dict[str, Any] = {key: {} for key in by_set}
    values["mean"] = {} if value is None else {"validation": 1.0 - value, "test": value}
    values |= {"seeds": [1], "metric": "accuracy", "parameters": int(100 * len(name))}
    values |= {"seconds": 1.0, "peak_memory_bytes": 1, "leaks": [], "transductive": []}
    return StudyRow(name=name, dataset=dataset, budget=budget, **values)


def _rows(**results: tuple[float | None, ...]) -> list[StudyRow]:
    sets = len(next(iter(results.values())))
    return [
        _row(name, f"set-{number}", values[number], budget=10 if name.startswith("small") else 100)
        for number in range(sets)
        for name, values in results.items()
    ]


def test_rows_of_the_same_budget_are_ranked_by_their_results_on_the_test() -> None:
    rows = _rows(
        a=(0.5, 0.6, 0.7), bb=(0.6, 0.6, 0.9), small1=(0.1, 0.2, 0.3), small2=(0.1, 0.1, 0.1)
    )
    large, small = rank_rows(rows)
    assert (large.budget, large.set) == (100, "test")
    assert [row.name for row in large.rows] == ["bb", "a"]
    best = large.rows[0]
    assert best.ranks == {"set-0": 1.0, "set-1": 1.5, "set-2": 1.0}
    assert best.mean_rank == pytest.approx(3.5 / 3)
    assert best.mean == pytest.approx(0.7)
    assert best.parameters == 200
    assert small.budget == 10
    assert [row.mean_rank for row in small.rows] == [pytest.approx(3.5 / 3), pytest.approx(5.5 / 3)]


def test_a_row_without_a_result_on_every_data_set_is_left_out_and_named() -> None:
    (ranks,) = rank_rows(_rows(a=(0.5, 0.6), b=(0.6, 0.7), c=(0.9, None)))
    assert [row.name for row in ranks.rows] == ["b", "a"]
    assert ranks.left_out == ["c"]
    assert rank_rows(_rows(a=(0.5, 0.6), c=(0.9, None))) == []


def test_one_data_set_has_no_ranks() -> None:
    assert rank_rows(_rows(a=(0.5,), b=(0.6,))) == []


def test_only_differences_of_at_least_the_critical_one_are_called_significant() -> None:
    same = rank_rows(_rows(a=(0.5, 0.6), b=(0.6, 0.7)))[0]
    assert "no row is significantly worse than b" in describe_ranks(same)
    sets = 10
    clear = rank_rows(_rows(a=(0.5,) * sets, b=(0.6,) * sets, c=(0.7,) * sets))[0]
    assert clear.critical_difference == pytest.approx(1.048, abs=1e-3)
    text = describe_ranks(clear)
    assert "c is significantly better than a;" in text
    assert "Friedman's test p = 0.000" in text
