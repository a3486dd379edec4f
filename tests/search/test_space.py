"""The space of a search: values that the recipe can have, and what Optuna is told."""

from __future__ import annotations

import math
from typing import Any

import optuna
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from pennyweight.errors import RecipeError
from pennyweight.recipe import Recipe, change_recipe, load_recipe
from pennyweight.recipe.search import Search
from pennyweight.search.space import LEARNING_RATE, Axis, Space, space_of
from runs.records import example_recipe

RECIPE = example_recipe(adapter={"rank": 2}, train={"epochs": 3})


def _space(ranges: dict[str, Any], *, recipe: Recipe = RECIPE, **options: Any) -> Space:
    return space_of(recipe, recipe, Search.model_validate({"ranges": ranges, **options}))


def test_without_ranges_the_learning_rate_is_searched_around_that_of_the_recipe() -> None:
    (axis,) = _space({}).axes
    assert (axis.key, axis.log, axis.step) == (LEARNING_RATE, True, None)
    assert math.sqrt(axis.low * axis.high) == pytest.approx(0.01)
    assert axis.high / axis.low == pytest.approx(100)
    assert isinstance(axis.distribution(), optuna.distributions.FloatDistribution)


def test_the_learning_rate_that_is_derived_is_in_the_middle() -> None:
    recipe = example_recipe(optimizer={"learning_rate": "auto"})
    derived = example_recipe(optimizer={"learning_rate": 5e-4})
    space = space_of(recipe, derived, Search())
    assert space.default == {LEARNING_RATE: 5e-4}
    assert space.axes[0].low == pytest.approx(5e-5)


def test_whole_numbers_are_whole_only_where_the_key_needs_them() -> None:
    epochs, decay = _space(
        {
            "train.epochs": {"low": 1, "high": 4},
            "optimizer.weight_decay": {"low": 0, "high": 1},
        }
    ).axes
    assert epochs.values() == [1, 2, 3, 4]
    assert all(isinstance(value, int) for value in epochs.values())
    assert decay.size is None
    assert isinstance(decay.distribution(), optuna.distributions.FloatDistribution)


@pytest.mark.parametrize(
    ("ranges", "message"),
    [
        ({"adapter.rank": [2, 0]}, r"search\.ranges: adapter\.rank: given 0; allowed: "),
        ({"train.epochs": {"low": 0, "high": 2}}, r"search\.ranges: train\.epochs: given 0"),
        ({"train.epochs": {"low": 1, "high": 2, "step": 0.5}}, r"train\.epochs: given 1\.5"),
        ({"optimizer.momentum": [0.5]}, r"search\.ranges: optimizer\.momentum: unknown key"),
        ({"adapter.head": ["full", "hlaf"]}, r'adapter\.head: given "hlaf"; allowed: '),
        ({"adapter.rank": [2, 4, 2]}, r'"adapter\.rank": 2 is given twice'),
    ],
)
def test_a_value_that_the_recipe_cannot_have_is_refused(
    ranges: dict[str, Any], message: str
) -> None:
    with pytest.raises(RecipeError, match=message):
        _space(ranges)


def test_a_grid_needs_values_that_can_be_counted() -> None:
    with pytest.raises(RecipeError, match='a grid needs a list of values or a step for "optim'):
        _space({}, sampler="grid")
    ranges = {"optimizer.weight_decay": {"low": 0.0, "high": 1.0, "step": 1e-6}}
    with pytest.raises(RecipeError, match=r"the grid has 1,000,001 points; at most 100,000"):
        _space(ranges, sampler="grid")


def test_the_number_of_different_trials_counts_the_recipe_itself() -> None:
    on_grid = _space({"adapter.rank": [1, 2, 4], "train.epochs": [3, 4]})
    off_grid = _space({"adapter.rank": [1, 4], "train.epochs": [3, 4]})
    assert (on_grid.size, on_grid.trials) == (6, 6)
    assert (off_grid.size, off_grid.trials) == (4, 5)
    assert len(list(on_grid.points())) == 6
    assert _space({}).trials is None
    assert list(_space({}).points()) == []


def test_lists_are_stored_as_text_and_come_back() -> None:
    (axis,) = _space({"adapter.targets": [["query"], ["query", "value"]]}).axes
    distribution = axis.distribution()
    assert isinstance(distribution, optuna.distributions.CategoricalDistribution)
    assert distribution.choices == ('["query"]', '["query", "value"]')
    assert [axis.decode(one) for one in distribution.choices] == [["query"], ["query", "value"]]
    assert axis.contains(("query", "value"))
    assert not axis.contains(["value"])


@given(
    low=st.floats(1e-3, 5.0),
    width=st.floats(1e-3, 5.0),
    step=st.none() | st.floats(1e-3, 1.0),
    log=st.booleans(),
)
def test_whatever_optuna_draws_is_on_the_axis_and_in_the_recipe(
    low: float, width: float, step: float | None, log: bool
) -> None:
    assume(step is None or (step <= 0.99 * width and not log))
    values = {"low": low, "high": low + width, "log": log, "step": step}
    (axis,) = _space({"optimizer.weight_decay": values}).axes
    distribution = axis.distribution()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    value = axis.decode(study.ask({"x": distribution}).params["x"])
    assert axis.contains(value)
    assert low <= value <= low + width + 1e-9
    changed = change_recipe(RECIPE, {"optimizer.weight_decay": value})
    assert changed.optimizer.weight_decay == pytest.approx(value)


def test_fractional_steps_end_where_they_should() -> None:
    (axis,) = _space({"optimizer.weight_decay": {"low": 0.1, "high": 0.7, "step": 0.2}}).axes
    assert axis.values() == [0.1, 0.3, 0.5, 0.7]
    (axis,) = _space({"optimizer.weight_decay": {"low": 0.1, "high": 0.3, "step": 0.2}}).axes
    assert axis.values() == [0.1, 0.3]


@given(low=st.integers(1, 20), count=st.integers(1, 12), step=st.integers(1, 5))
def test_every_step_of_whole_numbers_is_a_value(low: int, count: int, step: int) -> None:
    high = low + count * step + (step - 1)
    (axis,) = _space({"train.epochs": {"low": low, "high": high, "step": step}}).axes
    assert axis.values() == [low + index * step for index in range(count + 1)]
    assert all(map(axis.contains, axis.values()))
    assert not axis.contains(low - 1)
    assert not axis.contains(True)


def test_a_shipped_recipe_has_a_space_with_auto_keys() -> None:
    recipe = load_recipe("quickstart", overrides=["data.train=x.csv"])
    completed = change_recipe(recipe, {"optimizer.learning_rate": 5e-4, "train.epochs": 4})
    search = Search.model_validate({"ranges": {"train.epochs": [2, 8]}})
    assert space_of(recipe, completed, search) == Space(
        (Axis("train.epochs", choices=(2, 8)),), {"train.epochs": 4}
    )


def test_listed_values_are_those_of_a_complete_recipe() -> None:
    space = _space({"optimizer.weight_decay": [0, 0.01], "train.label_smoothing": [0, 0.1]})
    assert [axis.choices for axis in space.axes] == [(0.0, 0.01), (0.0, 0.1)]
    assert all(isinstance(value, float) for axis in space.axes for value in axis.choices)
    with pytest.raises(RecipeError, match=r"0\.0 is given twice"):
        _space({"optimizer.weight_decay": [0, 0.0]})
