"""Load a recipe from a name or file with `--set` overrides, and write it back as TOML."""

from __future__ import annotations

import difflib
import json
import re
import shlex
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import tomli_w
from pydantic import ValidationError

from pennyweight.documents import DocumentError, parse_toml, read_text
from pennyweight.errors import RecipeError
from pennyweight.recipe.fields import KeyPath, keys_of_method, known_keys
from pennyweight.recipe.paths import with_absolute_paths
from pennyweight.recipe.problems import describe, unknown_key
from pennyweight.recipe.schema import Recipe

__all__ = [
    "as_recipe",
    "change_recipe",
    "dump_recipe",
    "load_recipe",
    "resolve_recipe",
    "shipped_recipes",
    "with_overrides",
]

Table = dict[str, Any]
_RUN_RECIPE = "recipe.toml"
# Written before the recipe, which it holds as well.
_RUN_RECORD = "record.json"
# A word without quotes as an element of a list, or as a value in a table.
_BARE_WORD = re.compile(r"(?<=[\[,=])(\s*)([^\W\d][^\[\]{},=\"']*)(?=[,\]}])")


@dataclass(frozen=True, slots=True)
class _Layer:
    """A recipe's own keys, without those of the recipe it extends."""

    origin: str
    table: Table


@dataclass(frozen=True, slots=True)
class _Override:
    """One `--set KEY=VALUE`."""

    text: str
    path: tuple[str, ...]
    value: Any


def shipped_recipes() -> dict[str, str]:
    """Return the names of the recipes that ship with the package, with a summary of each."""
    files = sorted(_shipped_folder().iterdir(), key=lambda file: file.name)
    return {
        file.name.removesuffix(".toml"): str(tomllib.loads(file.read_text())["summary"])
        for file in files
        if file.name.endswith(".toml")
    }


def load_recipe(recipe: str | Path, *, overrides: Sequence[str] = ()) -> Recipe:
    """Load a recipe and validate it.

    Args:
        recipe: the name of a shipped recipe, a TOML file, or a run directory.
        overrides: `"key.path=value"` each; a value that is not valid TOML is taken as a string.
            Paths in overrides and in shipped recipes are relative to the working directory, paths
            in a file to its folder.

    Raises:
        RecipeError: the recipe does not exist, cannot be read, or is not valid; the message names
            the file, the key, the given value and what is allowed.
    """
    layers = list(_layers(str(recipe)))
    layers[0].table.setdefault("name", Path(str(recipe)).stem)
    layers[0].table.setdefault("summary", "")
    values: Table = {}
    origins: dict[KeyPath, str] = {}
    for layer in reversed(layers):
        values = _merged(values, layer.table)
        origins.update(dict.fromkeys(_paths(layer.table), layer.origin))
    return _overridden(values, origins, overrides, default_origin=layers[0].origin)


def with_overrides(recipe: Recipe, overrides: Sequence[str]) -> Recipe:
    """Return a recipe with `--set` overrides.

    Raises:
        RecipeError: as for `load_recipe`.
    """
    values = recipe.model_dump(exclude_none=True, mode="json")
    return _overridden(values, {}, overrides, default_origin=f"recipe {recipe.name}")


def _overridden(
    values: Table, origins: dict[KeyPath, str], overrides: Sequence[str], *, default_origin: str
) -> Recipe:
    for override in map(_parse_override, overrides):
        values = _with_override(values, override)
        depth = len(override.path)
        origins = {path: o for path, o in origins.items() if path[:depth] != override.path}
        origins[override.path] = f"--set {override.text.split('=')[0].strip()}"
    return _validate(values, origins=origins, default_origin=default_origin)


def as_recipe(recipe: Recipe | str | Path) -> Recipe:
    """Return a recipe as it is, or load the one that is given by its name or path.

    Raises:
        RecipeError: as for `load_recipe`.
    """
    return recipe if isinstance(recipe, Recipe) else load_recipe(recipe)


def resolve_recipe(values: Mapping[str, Any]) -> Recipe:
    """Validate a recipe given as plain values, such as those of a saved recipe.

    Raises:
        RecipeError: as for `load_recipe`.
    """
    return _validate(dict(values), origins={}, default_origin="recipe")


def change_recipe(recipe: Recipe, values: Mapping[str, Any], *, origin: str = "recipe") -> Recipe:
    """Return a recipe with other values of some keys, given by their dotted names.

    As with `--set`, a value replaces that of its key as a whole, and where another method is
    selected for a section, the keys that this method does not have are dropped.

    Args:
        recipe: the recipe to change.
        values: the new values.
        origin: where they come from, for messages.

    Raises:
        RecipeError: a key does not exist, or the result is not valid.
    """
    table = recipe.model_dump(mode="json", exclude_none=True)
    for key, value in sorted(values.items(), key=lambda item: not item[0].endswith(".method")):
        table = _with_override(table, _Override(f"{key}={value}", tuple(key.split(".")), value))
    return _validate(table, origins={}, default_origin=origin)


def dump_recipe(recipe: Recipe) -> str:
    """Return the complete recipe, defaults included, as TOML that `load_recipe` can read."""
    return tomli_w.dumps(recipe.model_dump(exclude_none=True, mode="json"))


def _validate(values: Table, *, origins: Mapping[KeyPath, str], default_origin: str) -> Recipe:
    def origin(path: KeyPath) -> str:
        keys = tuple(map(str, path))
        below = [known for known in origins if known[: len(keys)] == keys and known != keys]
        if below:
            return origins[below[-1]]
        for length in range(len(keys), 0, -1):
            if keys[:length] in origins:
                return origins[keys[:length]]
        return default_origin

    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        raise RecipeError(describe(error, model=Recipe, origin=origin)) from None


def _shipped_folder() -> Any:
    return resources.files("pennyweight.recipe") / "shipped"


def _layers(name: str) -> Iterator[_Layer]:
    """Yield the recipe's own layer, then that of the recipe it extends, and so on."""
    seen: list[str] = []
    relative_to: Path | None = None
    while True:
        origin, folder, text = _read(name, relative_to=relative_to)
        if origin in seen:
            raise RecipeError(f"{origin}: extends: a recipe cannot extend itself")
        seen.append(origin)
        try:
            table = parse_toml(text)
        except DocumentError as error:
            raise RecipeError(f"{origin}: {error}") from None
        parent = table.pop("extends", None)
        yield _Layer(origin, with_absolute_paths(table, folder or Path.cwd(), models=[Recipe]))
        if parent is None:
            return
        if not isinstance(parent, str):
            raise RecipeError(
                f"{origin}: extends: given {parent!r}; allowed: the name or file of a recipe"
            )
        name, relative_to = parent, folder


def _read(name: str, *, relative_to: Path | None) -> tuple[str, Path | None, str]:
    """Return a recipe's origin for messages, its folder (None if shipped), and its text."""
    if "\0" in name:
        raise RecipeError(f"recipe {name!r}: not a valid file name")
    if name in shipped_recipes():
        file = _shipped_folder() / f"{name}.toml"
        return f"recipe {name}", None, file.read_text(encoding="utf-8")
    path = (relative_to or Path()) / name
    try:
        if path.is_dir() and (path / _RUN_RECIPE).is_file():
            path = path / _RUN_RECIPE
        elif (path / _RUN_RECORD).is_file():
            return _recorded(path / _RUN_RECORD)
        return f"recipe {path}", path.resolve().parent, read_text(path)
    except (OSError, DocumentError) as error:
        if not isinstance(error, FileNotFoundError):
            raise RecipeError(f"recipe {path}: cannot be read: {error}") from None
    known = list(shipped_recipes())
    matches = difflib.get_close_matches(name, known, n=1)
    hint = f'did you mean "{matches[0]}"?' if matches else f"shipped recipes: {', '.join(known)}"
    raise RecipeError(f"recipe {name}: neither a shipped recipe nor a file; {hint}")


def _recorded(path: Path) -> tuple[str, Path, str]:
    """Return the recipe in the record of a run that was killed before its recipe was written."""
    try:
        recipe = dump_recipe(Recipe.model_validate(json.loads(path.read_bytes())["recipe"]))
    except (ValueError, RecursionError, KeyError, TypeError):
        raise RecipeError(f"recipe {path}: the record is damaged; name a TOML file") from None
    return f"recipe {path}", path.resolve().parent, recipe


def _merged(lower: Table, upper: Table) -> Table:
    """Return `lower` overlaid with `upper`, section by section.

    Within a section, the value of a key is replaced as a whole. Where `upper` selects another
    method for a section, the keys that this method does not have are dropped.
    """
    merged = dict(lower)
    for name, value in upper.items():
        section = merged.get(name)
        if isinstance(value, dict) and isinstance(section, dict):
            merged[name] = {**_keys_that_fit(name, section, value.get("method")), **value}
        else:
            merged[name] = value
    return merged


def _keys_that_fit(section: str, values: Table, method: object) -> Table:
    """Return the values of a section that remain valid once it selects `method`."""
    if method is None or method == values.get("method"):
        return values
    keys = keys_of_method(Recipe, section, method)
    return {key: value for key, value in values.items() if key in keys}


def _paths(table: Table, prefix: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for key, value in table.items():
        yield (*prefix, key)
        if isinstance(value, dict):
            yield from _paths(value, (*prefix, key))


def _parse_override(text: str) -> _Override:
    """Parse one `--set`; both the key and the value are parsed as TOML."""
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise RecipeError(f'--set {text}: expected KEY=VALUE, for example "adapter.rank=8"')
    try:
        path = _key_path(parse_toml(f"{key} = 0"))
    except ValueError:
        raise RecipeError(
            f"--set {text}: the key is not valid; put parts that contain dots in quotes"
        ) from None
    try:
        nested: Any = _parse_value(value)
    except ValueError:
        raise RecipeError(_unquoted(text, key, value)) from None
    for part in reversed(path):
        nested = {part: nested}
    nested = with_absolute_paths(nested, Path.cwd(), models=[Recipe])
    for part in path:
        nested = nested[part]
    return _Override(text, path, nested)


def _unquoted(text: str, key: str, value: str) -> str:
    """Return the message for a list or table that is not valid TOML, with the right quoting."""
    quoted = _BARE_WORD.sub(lambda match: f"{match[1]}{json.dumps(match[2].strip())}", value)
    try:
        parse_toml(f"value = {quoted}")
    except DocumentError:
        key, quoted = "data.labels", '["a", "b"]'
    override = shlex.quote(f"{key.strip()}={quoted}")
    return (
        f"--set {text}: the value is not valid TOML; strings in a list or table need double "
        "quotes, and the shell removes them unless the whole override is in single quotes: "
        f"--set {override}"
    )


def _parse_value(text: str) -> object:
    """Return the text parsed as a TOML value, or the text itself if it is not one.

    Raises:
        ValueError: the text begins like a list or a table, and is not valid TOML.
    """
    try:
        table = parse_toml(f"value = {text}")
    except DocumentError:
        if text.lstrip().startswith(("[", "{")):
            raise ValueError(text) from None
        return text
    # A line break in the text can start further keys; then it is not a single TOML value.
    return table["value"] if set(table) == {"value"} else text


def _key_path(table: Table) -> tuple[str, ...]:
    """Return the keys that lead to the only value of a nested table."""
    path: list[str] = []
    value: Any = table
    while isinstance(value, dict):
        if len(value) != 1:
            raise ValueError("not a single key")
        ((part, value),) = value.items()
        path.append(part)
    return tuple(path)


def _with_override(values: Table, override: _Override) -> Table:
    """Return the values with one override applied; tables on its path are copied."""
    section, *inner = override.path
    if inner and section not in Recipe.model_fields:
        known = known_keys(Recipe, ())
        raise RecipeError(f"--set {override.text}: {section}: {unknown_key(section, known)}")
    table = values
    if inner == ["method"] and isinstance(values.get(section), dict):
        table = {**values, section: _keys_that_fit(section, values[section], override.value)}
    return _assigned(table, override.path, override.value)


def _assigned(table: Table, path: Sequence[str], value: object) -> Table:
    key, *rest = path
    if not rest:
        return {**table, key: value}
    inner = table.get(key)
    return {**table, key: _assigned(inner if isinstance(inner, dict) else {}, rest, value)}
