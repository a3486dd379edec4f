"""Recognizing a complete recipe as another one whose open keys were filled in."""

from __future__ import annotations

from typing import Any

import pytest

from pennyweight.defaults import is_completion
from pennyweight.recipe import Recipe
from runs.records import example_recipe

OPEN: dict[str, Any] = {"labels": None, "task": "auto", "max_tokens": "auto"}
FILLED: dict[str, Any] = {
    "train": {"location": "train.csv", "text_columns": ["text"], "label_column": "label"},
    "labels": ["a", "b"],
    "task": "single-label",
    "max_tokens": 64,
}


def _recipe(**data: Any) -> Recipe:
    return example_recipe(data=data)


def test_filled_keys_and_named_columns_are_a_completion() -> None:
    assert is_completion(_recipe(**FILLED), _recipe(**OPEN))
    assert is_completion(_recipe(**FILLED), _recipe(**FILLED))


@pytest.mark.parametrize(
    "changed",
    [
        {"max_tokens": 32},
        {"labels": ["b", "a"]},
        {"train": "other.csv"},
        {"train": {"location": "train.csv", "text_columns": ["title"]}},
        {"clean": ["whitespace"]},
    ],
)
def test_another_value_of_a_key_that_was_set_is_none(changed: dict[str, Any]) -> None:
    assert not is_completion(_recipe(**FILLED), _recipe(**{**OPEN, **changed}))
