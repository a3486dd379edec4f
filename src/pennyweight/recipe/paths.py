"""Make the paths in a recipe absolute, so that a run can be repeated from any directory.

The schema marks the keys whose value may be a path with `json_schema_extra={"path": KIND}`:

- `"path"`: always a path;
- `"file"`: a path, or the name of something that ships with the package;
- `"model"`: a directory, or a model's id on the hub;
- `"source"`: a file or directory, `hub:NAME[:SPLIT]` or `sample:SPLIT`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from pennyweight.recipe.fields import fields_of, is_keyed_table, marked, models_in

__all__ = ["with_absolute_paths"]


def with_absolute_paths(
    table: dict[str, Any], folder: Path, *, models: Sequence[type[BaseModel]]
) -> dict[str, Any]:
    """Return a table of a recipe with its relative paths resolved against `folder`.

    Args:
        table: as parsed from TOML; it has not been validated.
        folder: the directory that relative paths start from.
        models: the section that describes the table; several for a union.
    """
    return {
        key: _resolve(value, fields_of(models, key), folder=folder) for key, value in table.items()
    }


def _resolve(value: object, fields: Sequence[FieldInfo], *, folder: Path) -> object:
    if isinstance(value, list):
        return [_resolve(item, fields, folder=folder) for item in value]
    if isinstance(value, dict):
        models = [model for field in fields for model in models_in(field.annotation)]
        if not any(map(is_keyed_table, fields)):
            return with_absolute_paths(value, folder, models=models)
        return {
            name: with_absolute_paths(entry, folder, models=models)
            if isinstance(entry, dict)
            else _resolve(entry, fields, folder=folder)
            for name, entry in value.items()
        }
    kinds = [kind for field in fields if (kind := marked(field, "path"))]
    return _absolute(value, folder, kind=kinds[0]) if kinds and isinstance(value, str) else value


def _absolute(value: str, folder: Path, *, kind: str) -> str:
    if kind == "source" and value.startswith(("hub:", "sample:")):
        return value
    try:
        path = folder / Path(value).expanduser()
        if kind == "source" and ":" in value and not path.exists():
            # PATH:SPLIT of a saved DatasetDict.
            directory, _, split = value.rpartition(":")
            if (folder / Path(directory).expanduser()).is_dir():
                return f"{_absolute(directory, folder, kind='path')}:{split}"
        return str(path.resolve()) if _is_path(value, path, kind=kind) else value
    except (OSError, RuntimeError, ValueError):  # no file can have this name, or no such user
        return value


def _is_path(value: str, path: Path, *, kind: str) -> bool:
    if kind == "path" or value.startswith((".", "~", "/")):
        return True
    has_suffix = kind in ("source", "file") and bool(Path(value).suffix)
    return has_suffix or (kind != "file" and path.exists())
