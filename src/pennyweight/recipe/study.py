"""Studies: variations of a recipe, each over several seeds, described by one TOML file."""

from __future__ import annotations

import itertools
import json
import math
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from pennyweight.documents import DocumentError, parse_toml, read_text
from pennyweight.errors import RecipeError
from pennyweight.recipe.load import load_recipe
from pennyweight.recipe.problems import describe
from pennyweight.recipe.schema import Recipe
from pennyweight.section import Section, Seed

__all__ = ["Row", "Study", "StudyTable", "Variation", "load_study", "shipped_studies"]


# A small file can describe any number of combinations.
_MOST_RUNS = 10_000


class Row(Section):
    """One variation of the recipe: a row of the study's table."""

    name: str = Field(min_length=1, description="the name of the row in the table")
    recipe: str | None = Field(None, description="a recipe to use instead of that of the study")
    set: tuple[str, ...] = Field(
        (),
        strict=False,
        description='overrides, each as "key.path=value"; {seed} is replaced by the seed',
    )


class StudyTable(Section):
    """The contents of a study's file."""

    summary: str = Field("", description="a one-line description")
    recipe: str = Field(min_length=1, description="the name of a shipped recipe, or a recipe file")
    seeds: tuple[Seed, ...] = Field(
        (1, 2, 3),
        min_length=1,
        strict=False,
        description="the seeds; each row is trained once with every seed",
    )
    set: tuple[str, ...] = Field(
        (), strict=False, description="overrides that apply to all rows, before a row's own"
    )
    rows: tuple[Row, ...] = Field((), strict=False, description="the variations, with their names")
    grid: dict[str, list[Any]] = Field(
        default_factory=dict,
        description="a list of values for each key; every combination becomes a row",
    )


@dataclass(frozen=True, slots=True)
class Variation:
    """One row of a study, with a recipe for each seed."""

    name: str
    recipes: tuple[Recipe, ...]


@dataclass(frozen=True, slots=True)
class Study:
    """A resolved study; the recipes of all rows have been validated."""

    name: str
    summary: str
    seeds: tuple[int, ...]
    variations: tuple[Variation, ...]


def shipped_studies() -> dict[str, str]:
    """Return the names of the studies that ship with the package, with a summary of each."""
    files = sorted(_folder().iterdir(), key=lambda file: file.name)
    return {
        file.name.removesuffix(".toml"): str(tomllib.loads(file.read_text())["summary"])
        for file in files
        if file.name.endswith(".toml")
    }


def load_study(study: str | Path, *, overrides: Sequence[str] = ()) -> Study:
    """Load a study and resolve the recipe of every row and seed.

    Args:
        study: the name of a shipped study, or a TOML file.
        overrides: applied to all rows, after the study's own `set` and before that of a row.

    Raises:
        RecipeError: the study does not exist or cannot be read, or the recipe of a row is not
            valid.
    """
    name, text = _read(str(study))
    table = _parse(study, text)
    number = len(table.rows) + (math.prod(map(len, table.grid.values())) if table.grid else 0)
    if number * len(table.seeds) > _MOST_RUNS:
        raise RecipeError(
            f"study {study}: {number:,} rows with {len(table.seeds):,} seeds; allowed: "
            f"{_MOST_RUNS:,} runs in a study; leave out values of grid"
        )
    rows = [*table.rows, *_combinations(table.grid)]
    names = [row.name for row in rows]
    if not rows or len(set(names)) != len(names):
        raise RecipeError(f"study {study}: rows: give at least one row, each with its own name")
    variations = []
    for row in rows:
        row_overrides = [*table.set, *overrides, *row.set]
        recipes = tuple(
            _recipe_of(row, seed, recipe=row.recipe or table.recipe, overrides=row_overrides)
            for seed in table.seeds
        )
        variations.append(Variation(row.name, recipes))
    return Study(name, table.summary, table.seeds, tuple(variations))


def _parse(study: str | Path, text: str) -> StudyTable:
    try:
        return StudyTable.model_validate(parse_toml(text))
    except ValidationError as error:
        raise RecipeError(
            describe(error, model=StudyTable, origin=lambda _: f"study {study}")
        ) from None
    except DocumentError as error:
        raise RecipeError(f"study {study}: {error}") from None


def _recipe_of(row: Row, seed: int, *, recipe: str, overrides: Sequence[str]) -> Recipe:
    own = [f"seed={seed}", f"name={json.dumps(row.name)}"]
    return load_recipe(
        recipe, overrides=[text.replace("{seed}", str(seed)) for text in (*overrides, *own)]
    )


def _combinations(grid: dict[str, list[Any]]) -> list[Row]:
    if not grid:
        return []
    rows = []
    for values in itertools.product(*grid.values()):
        overrides = [f"{key}={_toml(value)}" for key, value in zip(grid, values, strict=True)]
        rows.append(Row(name=", ".join(overrides), set=tuple(overrides)))
    return rows


def _toml(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _folder() -> Any:
    return resources.files("pennyweight.recipe") / "studies"


def _read(study: str) -> tuple[str, str]:
    """Return the name and the text of a study."""
    if study in shipped_studies():
        return study, (_folder() / f"{study}.toml").read_text(encoding="utf-8")
    path = Path(study)
    try:
        return path.stem, read_text(path)
    except DocumentError as error:
        raise RecipeError(f"study {study}: cannot be read: {error}") from None
    except (OSError, ValueError):  # there is none, or no file can have this name
        known = ", ".join(shipped_studies())
        raise RecipeError(
            f"study {study}: neither a shipped study nor a readable file; shipped studies: {known}"
        ) from None
