"""The `[search]` section: what is accepted, and what is refused with a message."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from pennyweight.errors import RecipeError
from pennyweight.recipe import change_recipe, dump_recipe, load_recipe
from pennyweight.recipe.search import Interval, Search


def _load(folder: Path, text: str) -> Search:
    file = folder / "spam.toml"
    file.write_text(f'extends = "demo"\n{text}', encoding="utf-8")
    search = load_recipe(file).search
    assert search is not None
    return search


@pytest.mark.parametrize(
    ("ranges", "message"),
    [
        ('"optimizer.learning_rat" = [1]', 'learning_rat: unknown key, did you mean "learning_r'),
        ('"optimiser.learning_rate" = [1]', 'optimiser: unknown key, did you mean "optimizer"?'),
        ("optimizer = [1]", '"optimizer" is a section; name one of its keys'),
        ('"evaluate.test" = ["a.csv"]', "nothing about the test may influence the choice"),
        ('"evaluate.also.x" = ["a.csv"]', "nothing about the test may influence the choice"),
        ('"data.overlap" = ["keep"]', "rows of the test must not influence the choice"),
        ('"data.validation.location" = ["a"]', "compared on the same validation rows"),
        ("seed = [1, 2]", "use a study to compare over seeds"),
        ('"train.keep_best" = ["nll"]', "search.metric compares the trials"),
        ('"search.trials" = [1]', "a search cannot search itself"),
        ('"adapter.rank" = 3', "given 3; allowed: a list of at least one value, or a table"),
        ('"adapter.rank" = []', "given []; allowed: a list of at least one value, or a table"),
        ('"adapter.rank" = { low = 3 }', "search.ranges.adapter.rank.high: missing"),
        ('"adapter.rank" = { low = 1, hihg = 3 }', 'hihg: unknown key, did you mean "high"?'),
        ('"adapter.rank" = { low = "a", high = 3 }', 'low: given "a"; allowed: a number'),
        ('"adapter.rank" = { low = 3, high = 3 }', "low = 3 must be below high = 3"),
        ('"adapter.alpha" = { low = 0, high = 3, log = true }', "above 0 on a log scale"),
        ('"adapter.alpha" = { low = 1, high = 3, log = true, step = 1 }', "leave out log or step"),
        ('"adapter.alpha" = { low = 1, high = 3, step = 4 }', "at most high - low = 2"),
    ],
)
def test_a_range_that_cannot_be_searched_is_refused(
    ranges: str, message: str, tmp_path: Path
) -> None:
    with pytest.raises(RecipeError) as caught:
        _load(tmp_path, f"[search.ranges]\n{ranges}")
    assert message in str(caught.value)
    assert str(caught.value).startswith(f"recipe {tmp_path}/spam.toml: ")


def test_a_key_may_be_written_with_or_without_quotes(tmp_path: Path) -> None:
    quoted = _load(tmp_path, '[search.ranges]\n"adapter.rank" = [1, 2]\n"train.epochs" = [3]')
    bare = _load(tmp_path, "[search.ranges]\nadapter.rank = [1, 2]\ntrain.epochs = [3]")
    assert quoted == bare
    assert quoted.ranges == {"adapter.rank": (1, 2), "train.epochs": (3,)}
    overrides = ["search.ranges.adapter.rank=[1,2]", "search.ranges.train.epochs=[3]"]
    assert load_recipe("demo", overrides=overrides).search == quoted


def test_a_key_inside_a_table_of_patterns_may_be_searched(tmp_path: Path) -> None:
    search = _load(tmp_path, '[search.ranges]\n"adapter.rank.query" = [1, 2]')
    assert list(search.ranges) == ["adapter.rank.query"]


def test_a_recipe_with_a_search_is_written_and_read_again(tmp_path: Path) -> None:
    overrides = [
        "search.trials=7",
        'search.ranges."adapter.targets"=[["query"],["key"]]',
        "search.ranges.optimizer.learning_rate={low=1e-5, high=1e-3, log=true}",
    ]
    recipe = load_recipe("demo", overrides=overrides)
    (tmp_path / "again.toml").write_text(dump_recipe(recipe))
    assert load_recipe(tmp_path / "again.toml") == recipe


_NUMBERS = st.integers(-50, 50) | st.floats(-50, 50)


@given(low=_NUMBERS, high=_NUMBERS, log=st.booleans(), step=st.none() | _NUMBERS)
def test_an_interval_is_accepted_exactly_if_it_makes_sense(
    low: float, high: float, log: bool, step: float | None
) -> None:
    values: dict[str, Any] = {"low": low, "high": high, "log": log, "step": step}
    makes_sense = low < high
    if log:
        makes_sense = makes_sense and low > 0 and step is None
    if step is not None:
        makes_sense = makes_sense and 0 < step <= (high - low) * (1 + 1e-9)
    try:
        interval = Interval.model_validate(values)
    except ValidationError:
        assert not makes_sense
        return
    assert makes_sense
    assert interval.is_whole == all(isinstance(v, int) for v in (low, high, step) if v is not None)


def test_changed_values_replace_keys_and_keep_what_another_method_has_too() -> None:
    recipe = load_recipe("demo")
    changed = change_recipe(recipe, {"adapter.rank": 3, "adapter.method": "dora"})
    assert (changed.adapter.method, changed.adapter.rank) == ("dora", 3)
    assert changed.optimizer == recipe.optimizer
    # The method is set first, although it comes last.
    changed = change_recipe(recipe, {"optimizer.momentum": 0.5, "optimizer.method": "sgd"})
    assert changed.optimizer.model_dump()["momentum"] == 0.5
    with pytest.raises(RecipeError, match=r"^trial-3: adapter\.rank: given 0; allowed: "):
        change_recipe(recipe, {"adapter.rank": 0}, origin="trial-3")
