"""Types of recipe keys in words."""

from __future__ import annotations

import json
from collections.abc import Iterable
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic.fields import FieldInfo

from pennyweight.recipe.data import SourceTable
from pennyweight.recipe.fields import models_in

__all__ = ["type_of", "without_none"]


def type_of(field: FieldInfo) -> str:
    """Return the type of a key, with its limits."""
    extra = field.json_schema_extra
    if isinstance(extra, dict) and "allowed" in extra:
        return str(extra["allowed"])
    return _type_in_words(without_none(field.annotation), tuple(field.metadata))


def _type_in_words(annotation: Any, metadata: tuple[Any, ...] = ()) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _type_in_words(arguments[0], (*arguments[1:], *metadata))
    if origin is Literal:
        *values, last = (f"`{json.dumps(value)}`" for value in arguments)
        return f"{', '.join(values)} or {last}" if values else last
    if origin is dict:
        return f"table of names and {_plural(arguments[1])}"
    if origin is tuple:
        return (
            f"list of {_plural(arguments[0])}"
            if arguments[-1] is ...
            else (f"list of {len(arguments)} {_plural(arguments[0])}")
        )
    if origin is list:
        return "list"
    if SourceTable in models_in(annotation) or annotation is SourceTable:
        return "[source](#sources-of-rows)"
    if models_in(annotation):
        return "table"
    names = {bool: "boolean", int: "integer", float: "number", str: "string"}
    return names.get(annotation, "any value") + _bounds(metadata)


def _bounds(metadata: Iterable[Any]) -> str:
    """Return the limits of a number in words."""
    bounds: list[Any] = []
    for entry in metadata:
        # The limits of an annotation such as `Fraction` are inside its own `Field`.
        bounds.extend(entry.metadata if isinstance(entry, FieldInfo) else [entry])
    words = []
    for bound in bounds:
        match bound:
            case Gt(gt):
                words.append(f"above {gt:g}")
            case Ge(ge):
                words.append(f"at least {ge:g}")
            case Lt(lt):
                words.append(f"below {lt:g}")
            case Le(le):
                words.append(f"at most {le:g}")
    return f", {' and '.join(words)}" if words else ""


def _plural(annotation: Any) -> str:
    singular = _type_in_words(annotation)
    noun, comma, bounds = singular.partition(",")
    if noun == "[source](#sources-of-rows)":
        return "[sources](#sources-of-rows)"
    if noun.startswith("list"):
        return f"lists{noun.removeprefix('list')}"
    return f"{noun}s{comma}{bounds}" if noun != "any value" else "values"


def without_none(annotation: Any) -> Any:
    """Return an annotation such as `str | None` without the None."""
    if get_origin(annotation) in (Union, UnionType):
        members = [member for member in get_args(annotation) if member is not type(None)]
        return members[0] if len(members) == 1 else annotation
    return annotation
