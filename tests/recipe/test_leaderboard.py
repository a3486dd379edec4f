"""The shipped leaderboard: every row fits its budget, and data sets are read as it expects."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import pytest

from pennyweight.data.ingest import read_rows
from pennyweight.defaults import plan
from pennyweight.recipe.study import Study, load_study
from pennyweight.settings.assemble import settings_of

SHARED = Path(__file__).parents[2] / ".." / "shared" / "data"
_SATURATED = {"road", "vera", "bitfit", "ln-tuning", "ia3"}


@pytest.fixture(scope="module")
def leaderboard() -> Study:
    return load_study("leaderboard")


def test_every_row_is_planned_without_its_rows_and_uses_most_of_its_budget(
    leaderboard: Study,
) -> None:
    # Of all data sets, the first has the most classes, and with them the largest head.
    rows = [each for each in leaderboard.variations if each.dataset == "trec6"]
    for row in rows:
        recipe = row.recipes[0]
        budget = recipe.budget.trainable_parameters
        count = plan(recipe).trainable_parameters
        assert count <= budget, row.name
        method = recipe.adapter.method
        assert method in _SATURATED or count > 0.63 * budget, (row.name, count)


def test_enough_methods_have_a_row_at_each_of_three_budgets_and_the_same_number_of_trials(
    leaderboard: Study,
) -> None:
    budgets = defaultdict(set)
    for row in leaderboard.variations:
        recipe = row.recipes[0]
        budgets[recipe.adapter.method].add(recipe.budget.trainable_parameters)
        assert row.choose is not None
        assert row.choose.trials == 4
        assert list(row.choose.ranges) == ["optimizer.learning_rate"]
    complete = [m for m, each in budgets.items() if each >= {1_000_000, 100_000, 30_000}]
    assert len(complete) >= 12
    assert len({each.dataset for each in leaderboard.variations}) == 5


@pytest.mark.skipif(not SHARED.is_dir(), reason="the data sets are not beside the repository")
def test_the_data_sets_have_the_labels_and_columns_that_the_study_names(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Paths are relative to the working directory.
    monkeypatch.chdir(SHARED)
    firsts = [each for each in load_study("leaderboard").variations if each.number == 1]
    for row in firsts:
        data = settings_of(row.recipes[0]).data
        for name, source in data.sources.labelled.items():
            if (row.dataset, name) == ("ag-news", "train"):
                continue  # 67,284 rows take too long
            rows = read_rows(name, source, data.read)
            assert set(rows.table.unique("label")) == set(range(len(data.read.labels)))
            assert ("text_pair" in rows.table.column_names) == (row.dataset == "mrpc")
            if name == "train":
                # 2,000 rows to train on, and about 500 for validation.
                assert 400 < rows.read * data.split.validation_fraction < 560
                assert rows.read > 2_600
