"""Studies as files: rows, grids, and mistakes in them."""

from __future__ import annotations

from pathlib import Path

import pytest

from pennyweight.errors import RecipeError
from pennyweight.recipe.study import load_study, shipped_studies


def test_a_grid_is_every_combination(tmp_path: Path) -> None:
    path = tmp_path / "grid.toml"
    path.write_text(
        'recipe = "spar-lora"\n[grid]\n"adapter.rank" = [1, 2]\n"adapter.targets" = [["query"]]\n'
    )
    study = load_study(path)
    names = [variation.name for variation in study.variations]
    assert names == [f'adapter.rank={r}, adapter.targets=["query"]' for r in (1, 2)]
    assert study.variations[1].recipes[0].adapter.rank == 2


@pytest.mark.parametrize("name", shipped_studies())
def test_shipped_studies_are_valid(name: str) -> None:
    study = load_study(name)
    assert len(study.variations) > 1
    assert study.summary


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("summary = 1", "summary"),
        ('recipe = "spar-lora"', "at least one row"),
        ('recipe = "spar-lora"\n[[rows]]\nname = "a"\nsat = []', 'did you mean "set"'),
        ("rows = [", "not valid TOML"),
        ('recipe = "spar-lora"\n[[rows]]\nname = "a"\nset = ["adapter.rnk=2"]', "adapter.rnk"),
    ],
)
def test_a_mistake_in_a_study_is_named(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "study.toml"
    path.write_text(text)
    with pytest.raises(RecipeError) as caught:
        load_study(path)
    assert message in str(caught.value)
