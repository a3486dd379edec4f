"""Pairs of texts: a run trains and is evaluated on them, and says what it cannot do with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pennyweight.errors import PennyweightError
from pennyweight.recipe import Recipe
from pennyweight.training.train import train
from pennyweight.training.watcher import Watcher
from tiny import tiny_recipe, write_pairs


@pytest.fixture
def recipe_of(bert: Path, tmp_path: Path) -> Any:
    """Write sets of pairs, and return recipes that train on them."""
    write_pairs(tmp_path)

    def recipe(**data: Any) -> Recipe:
        return tiny_recipe(bert, tmp_path, data={"max_tokens": 20, **data}, train={"max_steps": 2})

    return recipe


def test_a_run_on_pairs_is_complete(recipe_of: Any, tmp_path: Path) -> None:
    lines: list[str] = []

    record = train(recipe_of(), out=tmp_path / "run", watcher=Watcher(log=lines.append))

    assert record.status == "complete"
    assert record.metrics["test"].rows == 8
    assert record.pair_columns == ("premise", "hypothesis")
    assert all(mistake.text_pair for mistake in record.mistakes["test"])
    assert any("of the training rows are longer than 20 tokens" in line for line in lines)


def test_a_step_for_single_texts_is_refused(recipe_of: Any, tmp_path: Path) -> None:
    recipe = recipe_of(augmentations=[{"method": "swap"}])

    with pytest.raises(PennyweightError, match=r"data\.augmentations: not available for pairs"):
        train(recipe, out=tmp_path / "run")
