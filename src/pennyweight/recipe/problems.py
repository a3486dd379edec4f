"""Says what is wrong with a recipe: file, key, what was given, what is allowed."""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Mapping
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

__all__ = ["describe", "keys_of_method", "known_keys", "unknown_key"]

Path = tuple[str | int, ...]


def describe(
    error: ValidationError, *, model: type[BaseModel], origin: Callable[[Path], str]
) -> str:
    """One line per problem of a pydantic validation.

    Args:
        error: what pydantic raised.
        model: the model that was validated.
        origin: tells from a key's path where its value was given ("recipe spam.toml", "--set").
    """
    lines: dict[str, str] = {}
    for problem in error.errors(include_url=False):
        path, info = _key(problem, model)
        if problem["type"] == "union_tag_invalid":
            path = (*path, problem["ctx"]["discriminator"].strip("'"))
        where = f"{origin(path)}: {'.'.join(map(str, path)) or 'recipe'}"
        # A union reports every member it tried; one line for the key says it all.
        lines.setdefault(where, f"{where}: {_explain(problem, path, info, model)}")
    return "\n".join(lines.values())


def unknown_key(key: str, known: list[str]) -> str:
    """What to say of a key that does not exist, with the nearest one that does."""
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    hint = f'did you mean "{near[0]}"?' if near else f"known keys: {', '.join(sorted(known))}"
    return f"unknown key, {hint}"


def known_keys(model: type[BaseModel], path: Path) -> list[str]:
    """The keys of the section at `path`; of a union, those of all its members."""
    models = [model]
    for part in path:
        fields = [m.model_fields[part] for m in models if part in m.model_fields]
        models = [found for field in fields for found in _models_in(field.annotation)]
    return sorted({name for found in models for name in found.model_fields})


def keys_of_method(model: type[BaseModel], section: str, method: object) -> list[str]:
    """The keys of a section with that method; none if there is no such method."""
    field = model.model_fields.get(section)
    for found in _models_in(field.annotation) if field else []:
        choice = found.model_fields.get("method")
        if choice is not None and method in get_args(choice.annotation):
            return sorted(found.model_fields)
    return []


def _models_in(annotation: object) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [found for argument in get_args(annotation) for found in _models_in(argument)]


def _key(problem: Mapping[str, Any], model: type[BaseModel]) -> tuple[Path, FieldInfo | None]:
    """The part of pydantic's location that is keys, and the field that the last one names.

    Pydantic's location also holds list indices, the union members it tried and the tags that
    told them apart; none of those is a key of the recipe.
    """
    location = problem["loc"]
    models, keys, info = [model], list[str | int](), None
    for part in location:
        fields = [m.model_fields[part] for m in models if part in m.model_fields]
        if fields:
            info = fields[0]
            models = [found for field in fields for found in _models_in(field.annotation)]
        elif not (_is_table_entry(info) or _is_unknown(problem, part)):
            continue
        keys.append(part)
        if info is not None and _allowed(info):
            break
    return tuple(keys), info


def _is_unknown(problem: Mapping[str, Any], part: str | int) -> bool:
    return bool(problem["type"] == "extra_forbidden" and part == problem["loc"][-1])


def _is_table_entry(info: FieldInfo | None) -> bool:
    """Whether the next part is a key of the user's own, as in `evaluate.also`."""
    return info is not None and get_origin(info.annotation) is dict


def _allowed(info: FieldInfo) -> str | None:
    extra = info.json_schema_extra
    return str(extra["allowed"]) if isinstance(extra, Mapping) and "allowed" in extra else None


def _explain(
    problem: Mapping[str, Any], path: Path, info: FieldInfo | None, model: type[BaseModel]
) -> str:
    if problem["type"] == "extra_forbidden":
        return unknown_key(str(path[-1]), known_keys(model, path[:-1]))
    if problem["type"] == "missing":
        return "missing; it has no default"
    if problem["type"] == "value_error":
        return str(problem["ctx"]["error"])
    given = problem["input"]
    if problem["type"] == "union_tag_invalid":
        given = problem["ctx"]["tag"]
    return f"given {_shown(given)}; allowed: {_what_is_allowed(problem, info)}"


def _what_is_allowed(problem: Mapping[str, Any], info: FieldInfo | None) -> str:
    allowed = _allowed(info) if info else None
    if allowed is not None:
        return allowed
    context = problem.get("ctx", {})
    match problem["type"]:
        case "too_short":
            return f"at least {context['min_length']} items"
        case "union_tag_invalid":
            return str(context["expected_tags"])
        case "union_tag_not_found":
            return "a table with a method"
        case "model_type" | "dict_type" | "model_attributes_type":
            return "a table"
        case "tuple_type":
            return "a list"
    message = str(problem["msg"])
    return message.removeprefix("Input should be ").replace("Input should ", "must ")


def _shown(value: object) -> str:
    text = json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."
