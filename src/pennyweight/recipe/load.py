"""From a name, a file and `--set` overrides to one validated `Recipe`, and back to TOML."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import tomli_w
from pydantic import ValidationError

from pennyweight.errors import RecipeError
from pennyweight.recipe.problems import describe, keys_of_method, known_keys, unknown_key
from pennyweight.recipe.schema import Recipe

__all__ = ["dump_recipe", "load_recipe", "resolve_recipe", "shipped_recipes"]

Table = dict[str, Any]
_RUN_RECIPE = "recipe.toml"
# Keys whose value may be a path; in a file they are relative to that file.
_MODEL_KEYS = (("base", "name"), ("base", "tokenizer"))
_SOURCE_KEYS = (("data", "train"), ("data", "validation"), ("evaluate", "test"))


def shipped_recipes() -> dict[str, str]:
    """Names of the recipes that come with the package, and one line about each."""
    found = {}
    for file in sorted(_shipped_folder().iterdir(), key=lambda file: file.name):
        if file.name.endswith(".toml"):
            found[file.name.removesuffix(".toml")] = str(tomllib.loads(file.read_text())["summary"])
    return found


def load_recipe(recipe: str | Path, *, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe of that name or in that file, with `overrides` applied.

    Args:
        recipe: a shipped recipe's name, a TOML file, or a run directory.
        overrides: `"key.path=value"` each; the value is TOML, or else taken as a string. Paths in
            them are relative to the working directory, those in a file to the file's folder.

    Raises:
        RecipeError: the recipe cannot be found or read, or says something that is not allowed;
            the text names file, key, what was given and what is allowed.
    """
    layers = list(_layers(str(recipe)))
    layers[0][1].setdefault("name", Path(str(recipe)).stem)
    layers[0][1].setdefault("summary", "")
    merged: Table = {}
    origins: dict[tuple[str, ...], str] = {}
    for origin, table in reversed(layers):
        _merge(merged, table)
        origins.update(dict.fromkeys(_paths(table), origin))
    for text in overrides:
        path, value = _override(text)
        _assign(merged, path, value, text=text)
        origins[path] = f"--set {text.split('=')[0].strip()}"
    return _validate(merged, origins=origins, default_origin=layers[0][0])


def resolve_recipe(values: Mapping[str, Any], *, origin: str = "recipe") -> Recipe:
    """A recipe from plain values, as a resolved recipe was saved.

    Raises:
        RecipeError: as for `load_recipe`.
    """
    return _validate(dict(values), origins={}, default_origin=origin)


def dump_recipe(recipe: Recipe) -> str:
    """The recipe complete, every default written out, as TOML that `load_recipe` reads back."""
    return tomli_w.dumps(recipe.model_dump(exclude_none=True, mode="json"))


def _validate(values: Table, *, origins: dict[tuple[str, ...], str], default_origin: str) -> Recipe:
    def origin(path: tuple[str | int, ...]) -> str:
        keys = tuple(map(str, path))
        below = [given for given in origins if given[: len(keys)] == keys and given != keys]
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


def _layers(name: str, *, relative_to: Path | None = None) -> Iterator[tuple[str, Table]]:
    """The recipe's own table, then the one it extends, and so on."""
    seen: list[str] = []
    while True:
        origin, folder, text = _find(name, relative_to=relative_to)
        if origin in seen:
            raise RecipeError(f"{origin}: extends: a recipe cannot extend itself")
        seen.append(origin)
        try:
            table = tomllib.loads(text)
        except (ValueError, RecursionError) as error:
            raise RecipeError(f"{origin}: not valid TOML: {error}") from None
        parent = table.pop("extends", None)
        yield origin, _with_absolute_paths(table, folder) if folder else table
        if parent is None:
            return
        if not isinstance(parent, str):
            raise RecipeError(
                f"{origin}: extends: given {parent!r}; allowed: a recipe's name or file"
            )
        name, relative_to = parent, folder


def _find(name: str, *, relative_to: Path | None) -> tuple[str, Path | None, str]:
    """Where a recipe comes from in words, the folder its paths are relative to, and its text."""
    shipped = _shipped_folder() / f"{name}.toml"
    if "\0" in name:
        raise RecipeError(f"recipe {name!r}: not a file's name")
    if name in shipped_recipes():
        return f"recipe {name}", None, shipped.read_text(encoding="utf-8")
    path = (relative_to or Path()) / name
    try:
        if path.is_dir() and (path / _RUN_RECIPE).is_file():
            path = path / _RUN_RECIPE
        return f"recipe {path}", path.resolve().parent, path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        if not isinstance(error, FileNotFoundError):
            raise RecipeError(f"recipe {path}: cannot be read: {error}") from None
    known = list(shipped_recipes())
    near = difflib.get_close_matches(name, known, n=1)
    hint = f'did you mean "{near[0]}"?' if near else f"shipped recipes: {', '.join(known)}"
    raise RecipeError(f"recipe {name}: neither a shipped recipe nor a file; {hint}")


def _merge(into: Table, table: Table) -> None:
    """Lay `table` over `into`, section by section.

    Within a section the later value of a key wins whole. Where a section names another method,
    the keys that the new method does not have are left behind.
    """
    for name, value in table.items():
        old = into.get(name)
        if isinstance(value, dict) and isinstance(old, dict):
            into[name] = {**_kept(name, old, value.get("method")), **value}
        else:
            into[name] = value


def _kept(section: str, old: Table, method: object) -> Table:
    """What of a section still means something once its method is another."""
    if method is None or method == old.get("method"):
        return old
    keys = keys_of_method(Recipe, section, method)
    return {key: value for key, value in old.items() if key in keys}


def _paths(table: Table, prefix: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for key, value in table.items():
        yield (*prefix, key)
        if isinstance(value, dict):
            yield from _paths(value, (*prefix, key))


def _override(text: str) -> tuple[tuple[str, ...], Any]:
    """The path and value of one `--set`; TOML itself parses both."""
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise RecipeError(f'--set {text}: expected KEY=VALUE, for example "adapter.rank=8"')
    try:
        path = _path_of(tomllib.loads(f"{key} = 0"))
    except (ValueError, RecursionError):
        raise RecipeError(
            f"--set {text}: the key cannot be read; quote parts that hold dots"
        ) from None
    found: Any = _value_of(value)
    for part in reversed(path):
        found = {part: found}
    found = _with_absolute_paths(found, Path.cwd())
    for part in path:
        found = found[part]
    return path, found


def _value_of(text: str) -> object:
    """The value that TOML reads in the text, or else the text itself."""
    try:
        table = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):  # int() and the nesting have limits of their own
        return text
    # More than one key came out of a line break in the text, which is no single TOML value.
    return table["value"] if set(table) == {"value"} else text


def _path_of(table: Table) -> tuple[str, ...]:
    """The keys down to the one value of a table that holds a single value."""
    path: list[str] = []
    found: Any = table
    while isinstance(found, dict):
        if len(found) != 1:
            raise ValueError("not one key")
        ((part, found),) = found.items()
        path.append(part)
    return tuple(path)


def _assign(values: Table, path: tuple[str, ...], value: object, *, text: str) -> None:
    at = values
    for depth, part in enumerate(path[:-1]):
        if depth == 0 and part not in Recipe.model_fields:
            known = known_keys(Recipe, ())
            raise RecipeError(f"--set {text}: {part}: {unknown_key(part, known)}")
        child = at.get(part)
        # A copy: the tables of a layer are not ours to change; a plain value gives way.
        at[part] = dict(child) if isinstance(child, dict) else {}
        at = at[part]
    if len(path) == 2 and path[1] == "method":
        at = values[path[0]] = _kept(path[0], at, value)
    at[path[-1]] = value


def _with_absolute_paths(table: Table, folder: Path) -> Table:
    """The table with its relative paths made absolute, so that a run can be repeated anywhere."""
    for section, key in (*_MODEL_KEYS, *_SOURCE_KEYS):
        values = table.get(section)
        if isinstance(values, dict) and key in values:
            is_file = (section, key) in _SOURCE_KEYS
            values[key] = _absolute(values[key], folder, is_file=is_file)
    distillation = table.get("distillation")
    if isinstance(distillation, dict) and isinstance(distillation.get("teachers"), list):
        given = distillation["teachers"]
        distillation["teachers"] = [_absolute(one, folder, is_file=False) for one in given]
    evaluate = table.get("evaluate")
    also = evaluate.get("also") if isinstance(evaluate, dict) else None
    if isinstance(also, dict):
        also.update({name: _absolute(value, folder, is_file=True) for name, value in also.items()})
    return table


def _absolute(value: object, folder: Path, *, is_file: bool) -> object:
    """A path made absolute, where the text is one: hub ids and the like stay as they are."""
    if isinstance(value, dict):
        if "location" not in value:
            return value
        return {**value, "location": _absolute(value["location"], folder, is_file=is_file)}
    if not isinstance(value, str) or value.startswith(("hub:", "sample:")):
        return value
    is_path = value.startswith((".", "~", "/")) or (is_file and Path(value).suffix)
    try:
        path = folder / Path(value).expanduser()
        return str(path.resolve()) if is_path or path.exists() else value
    except (OSError, RuntimeError, ValueError):  # no file can have that name, no user that home
        return value
