"""Messages about values that the shell or another method has made invalid."""

from __future__ import annotations

import shlex

import pytest

from pennyweight.errors import RecipeError
from pennyweight.recipe import load_recipe


@pytest.mark.parametrize(
    ("override", "correct"),
    [
        ("data.labels=[a,b]", 'data.labels=["a","b"]'),
        ("data.labels=[World,Sci/Tech,3]", 'data.labels=["World","Sci/Tech",3]'),
        (
            "data.augmentations=[{method=swap,copies=2}]",
            'data.augmentations=[{method="swap",copies=2}]',
        ),
        ("train.early_stopping={ patience = many }", None),
        # Cut off by the shell at a space, or not a list at all.
        ("data.labels=[My", None),
        ("data.labels=[a,,b]", None),
    ],
)
def test_an_override_that_lost_its_quotes_is_shown_with_them(
    override: str, correct: str | None
) -> None:
    with pytest.raises(RecipeError) as caught:
        load_recipe("quickstart", overrides=[override])
    message = str(caught.value)
    assert message.startswith(f"--set {override}: ")
    suggestion = shlex.split(message.rpartition(": --set ")[2] or "x")[0]
    if correct is not None:
        assert suggestion == correct
    # What is suggested can be parsed, whatever was given.
    with pytest.raises(RecipeError) as caught:
        load_recipe("quickstart", overrides=[suggestion, "adapter.rnak=1"])
    assert "not valid TOML" not in str(caught.value)


def test_a_value_of_another_methods_key_is_explained_by_the_method_that_was_chosen() -> None:
    overrides = ["adapter.method=vera", "adapter.rank={query=4}"]
    with pytest.raises(RecipeError) as caught:
        load_recipe("quickstart", overrides=overrides)
    message = 'adapter.rank: given {"query": 4}; allowed: a whole number from 1, or "fill"'
    assert str(caught.value).endswith(message)
