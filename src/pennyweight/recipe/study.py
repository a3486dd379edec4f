"""Studies: variations of one recipe over several seeds, from one TOML file."""

from __future__ import annotations

import itertools
import json
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import Field, NonNegativeInt, ValidationError

from pennyweight.errors import RecipeError
from pennyweight.recipe.load import load_recipe
from pennyweight.recipe.problems import describe
from pennyweight.recipe.schema import Recipe
from pennyweight.recipe.section import Section

__all__ = ["Row", "Study", "StudyTable", "Variation", "load_study", "shipped_studies"]


class Row(Section):
    """`[[rows]]`: one variation."""

    name: str = Field(min_length=1, description="what the table calls it")
    recipe: str | None = Field(None, description="another recipe than the study's")
    set: tuple[str, ...] = Field(
        (),
        strict=False,
        description='overrides, each as "key.path=value"; {seed} stands for the run\'s seed',
    )


class StudyTable(Section):
    """A study's file."""

    summary: str = Field("", description="one line about it")
    recipe: str = Field(min_length=1, description="a shipped recipe's name, or a file")
    seeds: tuple[NonNegativeInt, ...] = Field(
        (1, 2, 3), min_length=1, strict=False, description="every row is trained with each"
    )
    set: tuple[str, ...] = Field((), strict=False, description="overrides of all rows")
    rows: tuple[Row, ...] = Field((), strict=False, description="variations by name")
    grid: dict[str, list[Any]] = Field(
        default_factory=dict, description="values of keys, of which every combination is a row"
    )


@dataclass(frozen=True, slots=True)
class Variation:
    """One row of a study: its recipes, one per seed."""

    name: str
    recipes: tuple[Recipe, ...]


@dataclass(frozen=True, slots=True)
class Study:
    """A study, resolved: every recipe of every row is valid."""

    name: str
    summary: str
    seeds: tuple[int, ...]
    variations: tuple[Variation, ...]


def shipped_studies() -> dict[str, str]:
    """Names of the studies that come with the package, and one line about each."""
    files = sorted(_folder().iterdir(), key=lambda file: file.name)
    return {
        file.name.removesuffix(".toml"): str(tomllib.loads(file.read_text())["summary"])
        for file in files
        if file.name.endswith(".toml")
    }


def load_study(study: str | Path, *, overrides: Sequence[str] = ()) -> Study:
    """The study of that name or in that file.

    Args:
        study: a shipped study's name, or a TOML file.
        overrides: laid over the study's own, for all rows.

    Raises:
        RecipeError: it cannot be found or read, or a row is no valid recipe.
    """
    name, text = _find(str(study))
    try:
        table = StudyTable.model_validate(tomllib.loads(text))
    except ValidationError as error:
        raise RecipeError(
            describe(error, model=StudyTable, origin=lambda _: f"study {study}")
        ) from None
    except (ValueError, RecursionError) as error:
        raise RecipeError(f"study {study}: not valid TOML: {error}") from None
    rows = [*table.rows, *_combinations(table.grid)]
    names = [row.name for row in rows]
    if not rows or len(set(names)) != len(names):
        raise RecipeError(f"study {study}: rows: give at least one row, each with its own name")
    variations = []
    for row in rows:
        recipes = []
        for seed in table.seeds:
            given = [
                *table.set,
                *overrides,
                *row.set,
                f"seed={seed}",
                f"name={json.dumps(row.name)}",
            ]
            given = [override.replace("{seed}", str(seed)) for override in given]
            recipes.append(load_recipe(row.recipe or table.recipe, overrides=given))
        variations.append(Variation(row.name, tuple(recipes)))
    return Study(name, table.summary, table.seeds, tuple(variations))


def _combinations(grid: dict[str, list[Any]]) -> list[Row]:
    if not grid:
        return []
    found = []
    for values in itertools.product(*grid.values()):
        overrides = [f"{key}={_toml(value)}" for key, value in zip(grid, values, strict=True)]
        found.append(Row(name=", ".join(overrides), set=tuple(overrides)))
    return found


def _toml(value: object) -> str:
    return str(value) if isinstance(value, str) else json.dumps(value)


def _folder() -> Any:
    return resources.files("pennyweight.recipe") / "studies"


def _find(study: str) -> tuple[str, str]:
    if study in shipped_studies():
        return study, (_folder() / f"{study}.toml").read_text(encoding="utf-8")
    path = Path(study)
    try:
        return path.stem, path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError, ValueError):
        known = ", ".join(shipped_studies())
        raise RecipeError(
            f"study {study}: neither a shipped study nor a file that can be read; "
            f"shipped studies: {known}"
        ) from None
