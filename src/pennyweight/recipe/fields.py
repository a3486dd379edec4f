"""Lookups in the recipe's schema that follow a path of keys, through unions of methods too."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

__all__ = [
    "KeyPath",
    "fields_of",
    "is_keyed_table",
    "keys_of_method",
    "known_keys",
    "literals_of",
    "marked",
    "models_in",
]

KeyPath = tuple[str | int, ...]


def models_in(annotation: object) -> list[type[BaseModel]]:
    """Return the sections that an annotation contains, however deep; several for a union."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in get_args(annotation) for model in models_in(argument)]


def fields_of(models: Sequence[type[BaseModel]], key: object) -> list[FieldInfo]:
    """Return the fields called `key` of several sections."""
    return [model.model_fields[key] for model in models if key in model.model_fields]


def known_keys(model: type[BaseModel], path: KeyPath) -> list[str]:
    """Return the keys of the section at `path`, sorted; for a union, those of all its members."""
    models, fields = [model], list[FieldInfo]()
    for key in path:
        is_chosen_by_user = any(map(is_keyed_table, fields))
        fields = fields_of(models, key)
        if not is_chosen_by_user:
            models = [member for field in fields for member in models_in(field.annotation)]
    return sorted({name for model in models for name in model.model_fields})


def keys_of_method(model: type[BaseModel], section: str, method: object) -> list[str]:
    """Return the keys of a section that selects `method`, sorted; none for an unknown method."""
    for field in fields_of([model], section):
        for member in models_in(field.annotation):
            choice = member.model_fields.get("method")
            if choice is not None and method in literals_of(choice.annotation):
                return sorted(member.model_fields)
    return []


def literals_of(annotation: object) -> tuple[object, ...]:
    """Return the values of a `Literal`, or nothing for any other annotation."""
    return get_args(annotation) if get_origin(annotation) is Literal else ()


def is_keyed_table(field: FieldInfo) -> bool:
    """Return whether users choose the keys of this table, as in `[evaluate.also]`."""
    return get_origin(field.annotation) is dict


def marked(field: FieldInfo, name: str) -> Any:
    """Return the entry called `name` in the `json_schema_extra` of a field, or None.

    For an annotation such as `Source | None`, the entry may be that of the annotated type inside.
    """
    for info in (field, *_infos_in(field.annotation)):
        if isinstance(info.json_schema_extra, dict) and name in info.json_schema_extra:
            return info.json_schema_extra[name]
    return None


def _infos_in(annotation: object) -> Iterator[FieldInfo]:
    for argument in get_args(annotation):
        if isinstance(argument, FieldInfo):
            yield argument
        else:
            yield from _infos_in(argument)
