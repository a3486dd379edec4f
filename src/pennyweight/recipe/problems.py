"""Describe what is wrong with a recipe: the file, the key, the given value and what is allowed."""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Mapping
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from pennyweight.recipe.fields import (
    KeyPath,
    fields_of,
    is_keyed_table,
    known_keys,
    literals_of,
    marked,
    models_in,
)

__all__ = ["describe", "unknown_key"]

# Longer values are shortened in messages.
_SHOWN_LENGTH = 60
_OTHER_METHOD = "unknown key for the method that is set; leave it out, or set another method"


def describe(
    error: ValidationError, *, model: type[BaseModel], origin: Callable[[KeyPath], str]
) -> str:
    """Return one line for each problem that pydantic's validation found.

    Args:
        error: the error that pydantic raised.
        model: the model that was validated.
        origin: maps the path of a key to where its value comes from ("recipe spam.toml", "--set").
    """
    messages: dict[KeyPath, str] = {}
    for problem in error.errors(include_url=False):
        path, field = _key_of(problem, model)
        if problem["type"] == "union_tag_invalid":
            path = (*path, problem["ctx"]["discriminator"].strip("'"))
        # Pydantic reports every member of a union that it tried; one message per key is enough.
        messages.setdefault(path, _explain(problem, path, field, model))
    return "\n".join(
        f"{origin(path)}: {'.'.join(map(str, path)) or 'recipe'}: {message}"
        for path, message in messages.items()
        if not any(other[: len(path)] == path for other in messages if other != path)
    )


def _elsewhere(key: str, model: type[BaseModel]) -> str | None:
    """Return the path of a key with this name in another section; None if there is none."""
    sections = known_keys(model, ())
    if key in sections:
        return key
    paths = (f"{section}.{key}" for section in sections if key in known_keys(model, (section,)))
    return next(paths, None)


def unknown_key(key: str, known: list[str]) -> str:
    """Return the message for a key that does not exist, with the closest one that does."""
    matches = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    hint = f'did you mean "{matches[0]}"?' if matches else f"known keys: {', '.join(sorted(known))}"
    return f"unknown key, {hint}"


def _key_of(problem: Mapping[str, Any], model: type[BaseModel]) -> tuple[KeyPath, FieldInfo | None]:
    """Return the keys in pydantic's location, and the field of the last one.

    Pydantic's location also contains list indices, the members of a union that it tried, and the
    tags that select one; none of those is a key of the recipe.
    """
    models = [model]
    keys: list[str | int] = []
    field: FieldInfo | None = None
    is_name = False  # whether the next part is a name that the user chose
    for part in problem["loc"]:
        fields = fields_of(models, part)
        if fields:
            field = fields[0]
            models = [member for f in fields for member in models_in(f.annotation)]
            is_name = is_keyed_table(field)
        elif is_name:
            is_name = False
        elif not _is_unknown(problem, part):
            # A tag leaves the members of the union that it selects: their keys differ in type.
            models = [member for member in models if _has_method(member, part)] or models
            continue
        keys.append(part)
    return tuple(keys), field


def _has_method(model: type[BaseModel], name: object) -> bool:
    field = model.model_fields.get("method")
    return field is not None and name in literals_of(field.annotation)


def _is_unknown(problem: Mapping[str, Any], part: str | int) -> bool:
    return bool(problem["type"] == "extra_forbidden" and part == problem["loc"][-1])


def _explain(
    problem: Mapping[str, Any], path: KeyPath, field: FieldInfo | None, model: type[BaseModel]
) -> str:
    match problem["type"]:
        case "extra_forbidden":
            known = known_keys(model, path[:-1])
            # A union knows the keys of all its methods.
            if path[-1] in known:
                return _OTHER_METHOD
            if (other := _elsewhere(str(path[-1]), model)) is not None:
                return f'unknown key, did you mean "{other}"?'
            return unknown_key(str(path[-1]), known)
        case "missing":
            return "missing; it has no default"
        case "value_error":
            return str(problem["ctx"]["error"])
        case "union_tag_invalid":
            value = problem["ctx"]["tag"]
        case _:
            value = problem["input"]
    return f"given {_shown(value)}; allowed: {_allowed(problem, field)}"


def _allowed(problem: Mapping[str, Any], field: FieldInfo | None) -> str:
    is_wrong_table = problem["type"] == "dict_type" and field is not None and is_keyed_table(field)
    if not is_wrong_table and field is not None and (allowed := marked(field, "allowed")):
        return str(allowed)
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
    return text if len(text) <= _SHOWN_LENGTH else f"{text[: _SHOWN_LENGTH - 3]}..."
