"""Values as TOML on one line."""

from __future__ import annotations

import tomllib
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from pennyweight.recipe.toml_text import inline_toml

_TEXT = st.text(st.characters(exclude_categories=("Cs",)))
_VALUES: st.SearchStrategy[Any] = st.recursive(
    st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | _TEXT,
    lambda values: st.lists(values, max_size=4) | st.dictionaries(_TEXT, values, max_size=4),
    max_leaves=12,
)


@given(_VALUES)
def test_a_value_is_one_line_that_reads_back_as_itself(value: Any) -> None:
    text = inline_toml(value)
    assert "\n" not in text
    assert tomllib.loads(f"value = {text}") == {"value": value}
