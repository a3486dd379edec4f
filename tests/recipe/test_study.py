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


def test_tables_in_a_grid_and_any_characters_in_a_name(tmp_path: Path) -> None:
    path = tmp_path / "grid.toml"
    path.write_text(
        'recipe = "spar-lora"\n[[rows]]\nname = "rocket 🚀"\n'
        '[grid]\n"adapter.rank" = [{query = 4}, {query = 8, value = 2}]\n'
    )
    names = [variation.recipes[0].name for variation in load_study(path).variations]
    assert names[0] == "rocket 🚀"
    assert names[2] == "adapter.rank={ query = 8, value = 2 }"


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
        ('recipe = "spar-lora"\nseeds = [1, 1, 2]', "seeds: [1, 1, 2]; give each seed once"),
        ('recipe = "spar-lora"\n[[rows]]\nname = "a"\nset = ["adapter.rnk=2"]', "adapter.rnk"),
    ],
)
def test_a_mistake_in_a_study_is_named(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "study.toml"
    path.write_text(text)
    with pytest.raises(RecipeError) as caught:
        load_study(path)
    assert message in str(caught.value)


_DATASETS = """
recipe = "spar-lora"
seeds = [1, 2]
set = ["adapter.alpha=4", "data.train=a.csv"]
[[rows]]
name = "one"
set = ["adapter.rank=1"]
[[rows]]
name = "two"
choose = { "optimizer.learning_rate" = [1e-2] }
[datasets]
first = ["data.train=first-{seed}.csv", "adapter.alpha=8"]
second = []
[choose]
"optimizer.learning_rate" = [1e-4, 1e-3]
"train.label_smoothing" = [0, 0.1]
"""


def _study(text: str, folder: Path) -> Path:
    path = folder / "study.toml"
    path.write_text(text)
    return path


def test_every_row_is_in_every_data_set_with_its_overrides_before_those_of_the_command_line(
    tmp_path: Path,
) -> None:
    study = load_study(_study(_DATASETS, tmp_path), overrides=["adapter.alpha=16"])
    places = [(each.dataset, each.number, each.name) for each in study.variations]
    assert places == [
        *[("first", 1, "one"), ("first", 2, "two")],
        *[("second", 1, "one"), ("second", 2, "two")],
    ]
    first, *_, last = study.variations
    sources = [recipe.data.train for recipe in first.recipes]
    files = [Path(each.location).name for each in sources if each]
    assert files == ["first-1.csv", "first-2.csv"]
    assert [recipe.seed for recipe in last.recipes] == [1, 2]
    assert last.recipes[0].data.train is not None
    assert Path(last.recipes[0].data.train.location).name == "a.csv"
    assert {recipe.adapter.alpha for each in study.variations for recipe in each.recipes} == {16}


def test_values_to_choose_are_a_grid_and_a_row_can_have_its_own(tmp_path: Path) -> None:
    one, two, *_ = load_study(_study(_DATASETS, tmp_path)).variations
    assert one.choose is not None
    assert one.choose.ranges == {
        "optimizer.learning_rate": (1e-4, 1e-3),
        "train.label_smoothing": (0.0, 0.1),
    }
    assert (one.choose.sampler, one.choose.pruning, one.choose.trials) == ("grid", "off", 4)
    assert {recipe.optimizer.learning_rate for recipe in one.recipes} == {1e-4}
    assert two.choose is not None
    assert two.choose.ranges == {"optimizer.learning_rate": (1e-2,)}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ('"optimizer.learning_rat" = [1]', 'did you mean "learning_rate"'),
        ('"optimizer.learning_rate" = []', "choose"),
        ('"optimizer.learning_rate" = [1e-3, 0.001]', "0.001 is given twice"),
        ('"optimizer.learning_rate" = [1e-3, "auto"]', '"auto" is derived from the rows'),
        ('"optimizer.learning_rate" = [1e-3, -1]', "choose: optimizer"),
        ('"seed" = [1, 2]', 'row "one": choose: "seed" cannot be searched'),
    ],
)
def test_a_mistake_in_values_to_choose_is_named(values: str, message: str, tmp_path: Path) -> None:
    text = f'recipe = "spar-lora"\n[[rows]]\nname = "one"\n[choose]\n{values}\n'
    with pytest.raises(RecipeError) as caught:
        load_study(_study(text, tmp_path))
    assert message in str(caught.value)


def test_the_name_of_a_data_set_is_that_of_a_directory(tmp_path: Path) -> None:
    text = 'recipe = "spar-lora"\n[[rows]]\nname = "one"\n[datasets]\n"a/b" = []\n'
    with pytest.raises(RecipeError, match="datasets"):
        load_study(_study(text, tmp_path))
