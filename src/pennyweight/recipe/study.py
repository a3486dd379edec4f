"""Studies: variations of a recipe, each over several seeds, described by one TOML file."""

from __future__ import annotations

import itertools
import math
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError

from pennyweight.documents import DocumentError, parse_toml, read_text
from pennyweight.errors import RecipeError
from pennyweight.recipe.load import change_recipe, load_recipe
from pennyweight.recipe.problems import describe
from pennyweight.recipe.schema import Recipe
from pennyweight.recipe.search import Search, check_keys
from pennyweight.recipe.toml_text import inline_toml
from pennyweight.section import Section, Seed

__all__ = ["Row", "Study", "StudyTable", "Variation", "load_study", "shipped_studies"]

# The name of a data set is that of a directory as well.
_Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
_Overrides = Annotated[tuple[str, ...], Field(strict=False)]
_Values = Annotated[tuple[Any, ...], Field(min_length=1, strict=False)]


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
    choose: dict[str, _Values] | None = Field(
        None, description="lists of values to choose from, instead of those of the study"
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
    datasets: dict[_Name, _Overrides] = Field(
        default_factory=dict,
        description="data sets by name, each a list of overrides; every row is trained on each",
    )
    choose: dict[str, _Values] = Field(
        default_factory=dict,
        description="a list of values for each key; for each row and data set, the combination "
        "that is best on validation with the first seed is trained with all seeds",
    )


@dataclass(frozen=True, slots=True)
class Variation:
    """One row of a study on one of its data sets, with a recipe for each seed.

    Attributes:
        name: of the row.
        recipes: one for each seed; with the first value of each list to choose from.
        number: of the row, from 1.
        dataset: name of the data set; "" in a study without `[datasets]`.
        choose: the search for those values of the recipes that are chosen on validation; None if
            there are none.
    """

    name: str
    recipes: tuple[Recipe, ...]
    number: int
    dataset: str = ""
    choose: Search | None = None


@dataclass(frozen=True, slots=True)
class Study:
    """A resolved study; the recipes of all rows have been validated.

    `variations` has those of the first data set first, each in the order of the rows.
    """

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
        overrides: applied to all rows, after the study's own `set` and that of the data set, and
            before that of a row.

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
    if len(set(table.seeds)) != len(table.seeds):
        raise RecipeError(f"study {study}: seeds: {list(table.seeds)}; give each seed once")
    names = [row.name for row in rows]
    if not rows or len(set(names)) != len(names):
        raise RecipeError(f"study {study}: rows: give at least one row, each with its own name")
    datasets = table.datasets or {"": ()}
    variations = [
        _variation(table, row, number, dataset=dataset, overrides=overrides, study=study)
        for dataset in datasets
        for number, row in enumerate(rows, start=1)
    ]
    return Study(name, table.summary, table.seeds, tuple(variations))


def _variation(
    table: StudyTable,
    row: Row,
    number: int,
    *,
    dataset: str,
    overrides: Sequence[str],
    study: str | Path,
) -> Variation:
    """Return a row of the study on a data set.

    Raises:
        RecipeError: its recipe is not valid, or cannot have one of the values to choose from.
    """
    texts = [*table.set, *table.datasets.get(dataset, ()), *overrides, *row.set]
    recipes = tuple(_recipes_of(row, table, overrides=texts))
    choose = table.choose if row.choose is None else row.choose
    if not choose:
        return Variation(row.name, recipes, number, dataset)
    origin = f'study {study}: row "{row.name}": choose'
    lists = {key: _checked(recipes[0], key, choose[key], origin=origin) for key in choose}
    size = math.prod(map(len, choose.values()))
    search = Search(ranges={**lists}, sampler="grid", pruning="off", trials=size)
    try:
        check_keys(Recipe, search)
    except ValueError as error:
        raise RecipeError(f"{origin}: {str(error).removeprefix('search.ranges: ')}") from None
    # What is chosen replaces the first values, which no longer need to be derived from the rows.
    first = {key: values[0] for key, values in lists.items()}
    recipes = tuple(change_recipe(recipe, first, origin=origin) for recipe in recipes)
    return Variation(row.name, recipes, number, dataset, search)


def _checked(recipe: Recipe, key: str, values: Sequence[Any], *, origin: str) -> tuple[Any, ...]:
    """Return the values of a key as a complete recipe holds them.

    Raises:
        RecipeError: the recipe cannot have one of them, or one is given twice.
    """
    complete: list[Any] = []
    for value in values:
        if value == "auto":
            raise RecipeError(f'{origin}: "{key}": "auto" is derived from the rows; give a value')
        table: Any = change_recipe(recipe, {key: value}, origin=origin).model_dump(mode="json")
        for name in key.split("."):
            table = table[name]
        if table in complete:
            raise RecipeError(f'{origin}: "{key}": {value!r} is given twice')
        complete.append(table)
    return tuple(complete)


def _parse(study: str | Path, text: str) -> StudyTable:
    try:
        return StudyTable.model_validate(parse_toml(text))
    except ValidationError as error:
        raise RecipeError(
            describe(error, model=StudyTable, origin=lambda _: f"study {study}")
        ) from None
    except DocumentError as error:
        raise RecipeError(f"study {study}: {error}") from None


def _recipes_of(row: Row, table: StudyTable, *, overrides: Sequence[str]) -> Iterator[Recipe]:
    """Yield the recipe of a row for each seed."""
    name, texts = row.recipe or table.recipe, [*overrides, f"name={inline_toml(row.name)}"]
    depends_on_seed = any("{seed}" in text for text in texts)
    recipe: Recipe | None = None
    for seed in table.seeds:
        if recipe is None or depends_on_seed:
            own = [text.replace("{seed}", str(seed)) for text in texts]
            recipe = load_recipe(name, overrides=[*own, f"seed={seed}"])
        yield recipe.model_copy(update={"seed": seed})


def _combinations(grid: dict[str, list[Any]]) -> list[Row]:
    if not grid:
        return []
    rows = []
    for values in itertools.product(*grid.values()):
        overrides = [f"{key}={_toml(value)}" for key, value in zip(grid, values, strict=True)]
        rows.append(Row(name=", ".join(overrides), set=tuple(overrides)))
    return rows


def _toml(value: object) -> str:
    return value if isinstance(value, str) else inline_toml(value)


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
