"""The short options of `train` and `plan` are overrides of recipe keys."""

from __future__ import annotations

from pathlib import Path

import pytest

from pennyweight.cli.options import RecipeOptions, parse_count
from pennyweight.errors import RecipeError


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("100k", 100_000),
        ("1M", 1_000_000),
        ("1.5m", 1_500_000),
        ("250_000", 250_000),
        ("7", 7),
        ("250,000", 250_000),
        ("1,000,000", 1_000_000),
    ],
)
def test_a_budget_may_have_a_unit(text: str, number: int) -> None:
    assert parse_count(text) == number


@pytest.mark.parametrize("text", ["", "many", "-5", "1 000 x", "k", "1,5M", "100,5k", "1,50"])
def test_a_budget_that_is_no_number_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(RecipeError, match="expected a number of parameters, such as 100k"):
        parse_count(text)


def test_options_set_keys_of_the_default_recipe(tmp_path: Path) -> None:
    file = tmp_path / 'my "tickets", 1.csv'
    recipe = RecipeOptions(
        data=str(file),
        test="sample:test",
        text_columns=["subject", "body"],
        label_column="queue",
        base="embedded",
        budget="100k",
        seed=7,
        skip_bad_rows=True,
        overrides=["train.epochs=4"],
    ).load()
    assert recipe.name == "quickstart"
    assert (recipe.seed, recipe.data.on_bad_row) == (7, "set-aside")
    assert recipe.data.train is not None
    assert recipe.data.train.location == str(file)
    assert recipe.data.train.text_columns == ("subject", "body")
    assert recipe.data.train.label_column == "queue"
    assert recipe.evaluate.test is not None
    assert recipe.evaluate.test.location == "sample:test"
    assert recipe.budget.trainable_parameters == 100_000
    assert recipe.train.epochs == 4


def test_options_change_a_named_recipe() -> None:
    recipe = RecipeOptions(recipe="spar-lora", data="sample:train").load()
    assert recipe.name == "spar-lora"
    assert recipe.data.train is not None
    assert recipe.data.train.location == "sample:train"


def test_neither_rows_nor_a_recipe_is_an_error_that_says_what_to_give() -> None:
    with pytest.raises(RecipeError, match="name labelled rows with --data FILE, or a recipe"):
        RecipeOptions().load()


def test_names_with_any_characters_reach_the_recipe_as_they_are() -> None:
    options = RecipeOptions(data='a "b" 😀.csv', label_column="Étiquette\\1", text_columns=["😀"])
    train = options.load().data.train
    assert train is not None
    assert Path(train.location).name == 'a "b" 😀.csv'
    assert (train.label_column, train.text_columns) == ("Étiquette\\1", ("😀",))
