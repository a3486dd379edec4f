"""A recipe becomes plain values at one door, and only there."""

from __future__ import annotations

import ast
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pydantic
import pytest

import pennyweight
from pennyweight.defaults import complete
from pennyweight.errors import RecipeError
from pennyweight.recipe import Recipe, load_recipe, resolve_recipe, shipped_recipes
from pennyweight.settings.assemble import settings_of

SOURCE = Path(pennyweight.__file__).parent
# Where a whole recipe, or a section of one, may be a parameter.
MAY_TAKE_RECIPES = (
    "recipe/",
    "defaults/",
    "settings/",
    "cli/",
    "training/combine.py",
    "training/estimator.py",
    "training/train.py",
    "training/job.py",
    "training/data_lab.py",
    "inference/classifier.py",
    "runs/record.py",
    "runs/resume.py",
    "search/",
    "report/",
)
MODULES = sorted(str(path.relative_to(SOURCE)) for path in SOURCE.rglob("*.py"))


def _recipe_types(tree: ast.Module) -> set[str]:
    """Return the names that a module imports from `pennyweight.recipe` or a module of it."""
    return {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and f"{node.module}.".startswith("pennyweight.recipe.")
        for alias in node.names
    }


def _annotations(tree: ast.Module) -> Iterator[tuple[str, ast.expr]]:
    """Yield each function's name with the annotation of each of its parameters."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            arguments = node.args
            every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
            every += [one for one in (arguments.vararg, arguments.kwarg) if one is not None]
            for argument in every:
                if argument.annotation is not None:
                    yield node.name, argument.annotation


def _takes_recipe(tree: ast.Module) -> list[str]:
    types = _recipe_types(tree) | {"Recipe"}
    return [
        name
        for name, annotation in _annotations(tree)
        if types & {node.id for node in ast.walk(annotation) if isinstance(node, ast.Name)}
    ]


@pytest.mark.parametrize("module", [m for m in MODULES if not m.startswith(MAY_TAKE_RECIPES)])
def test_no_function_behind_the_door_takes_a_recipe(module: str) -> None:
    tree = ast.parse((SOURCE / module).read_text(encoding="utf-8"))
    assert _takes_recipe(tree) == []


def test_the_check_of_the_door_sees_recipes_and_their_sections() -> None:
    code = """
from pennyweight.recipe.train import Train as TrainSection
def one(recipe: Recipe | None): ...
def two(*, train: list[TrainSection]): ...
def three(rows: int): ...
"""
    assert _takes_recipe(ast.parse(code)) == ["one", "two"]


def test_every_exception_to_the_door_exists() -> None:
    for place in MAY_TAKE_RECIPES:
        assert (SOURCE / place).exists(), place


def _values(value: Any) -> Iterator[Any]:
    """Yield a value and everything inside it."""
    yield value
    if dataclasses.is_dataclass(value):
        inside: Any = [getattr(value, field.name) for field in dataclasses.fields(value)]
    elif isinstance(value, dict):
        inside = [*value, *value.values()]
    elif isinstance(value, tuple | list | set | frozenset):
        inside = value
    else:
        inside = ()
    for one in inside:
        yield from _values(one)


def _recipe(**sections: Any) -> Recipe:
    values: dict[str, Any] = {
        "name": "example",
        "base": {"name": "embedded"},
        "data": {"train": "train.csv", "labels": ["a", "b"], "target": "target.csv"},
        "optimizer": {"learning_rate": 0.01},
        **sections,
    }
    return resolve_recipe(values)


FULL = {
    "distillation": {"teachers": ["teacher"], "hidden": 1.0},
    "generate": {"model": "gpt2"},
    "transduction": {
        "prior": {"method": "em"},
        "self_training": {"method": "confident", "teachers": ["teacher"]},
        "density_ratio": {},
        "consistency": 0.5,
    },
}


@pytest.mark.parametrize("name", shipped_recipes())
def test_the_settings_of_a_shipped_recipe_hold_no_part_of_it(name: str) -> None:
    files = ["data.train=sample:train"]
    if load_recipe(name).data.target is not None:
        files.append("data.target=sample:shifted")
    recipe = load_recipe(name, overrides=files)
    for value in _values(settings_of(complete(recipe).recipe)):
        assert not isinstance(value, pydantic.BaseModel)


def test_a_recipe_that_is_not_complete_is_refused_by_its_key() -> None:
    with pytest.raises(RecipeError, match=r'train\.epochs: "auto" has not been settled'):
        settings_of(_recipe(train={"epochs": "auto"}))


def test_the_settings_of_a_recipe_with_every_section_hold_no_part_of_it() -> None:
    settings = settings_of(_recipe(**FULL))
    for value in _values(settings):
        assert not isinstance(value, pydantic.BaseModel)
    assert settings.distillation is not None
    assert settings.rows.generation is not None
    assert settings.rows.self_training is not None
    assert settings.rows.density_ratio is not None
    assert settings.prior is not None
    assert settings.rows.consistency_rows is None


def test_absent_sections_become_none() -> None:
    settings = settings_of(_recipe())
    assert settings.distillation is settings.prior is settings.rows.generation is None
    assert settings.rows.self_training is settings.rows.density_ratio is None
    assert settings.rows.consistency_rows == 0
    assert settings.fit.average is None


def test_settings_are_frozen() -> None:
    for value in _values(settings_of(_recipe(**FULL))):
        if dataclasses.is_dataclass(value):
            assert value.__dataclass_params__.frozen, type(value)


def test_values_of_the_recipe_arrive_under_their_own_names() -> None:
    recipe = _recipe(
        seed=7,
        train={"epochs": 3, "batch_rows": 9, "average": 0.5, "max_gradient_norm": "off"},
        evaluate={"test": "test.csv", "also": {"shifted": "shifted.csv"}},
    )
    settings = settings_of(recipe)
    assert (settings.labels, settings.seed) == (("a", "b"), 7)
    assert (settings.fit.options.epochs, settings.fit.options.batch_rows) == (3, 9)
    assert settings.fit.options.seed == settings.data.split.seed == 7
    assert settings.fit.options.max_gradient_norm is None
    assert settings.fit.average == 0.5
    assert settings.fit.optimizer.learning_rate == 0.01
    assert list(settings.data.sources.held_out) == ["test", "shifted"]
    assert settings.data.sources.target is not None


def test_a_recipe_without_training_rows_has_no_settings() -> None:
    recipe = _recipe()
    without = recipe.model_copy(update={"data": recipe.data.model_copy(update={"train": None})})
    with pytest.raises(RecipeError, match=r"data\.train: missing; .*--set data\.train=train\.csv"):
        settings_of(without)
