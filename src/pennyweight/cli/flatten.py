"""Let a command take frozen dataclasses whose fields become its arguments and options."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable
from typing import Any, get_type_hints

__all__ = ["flatten_options"]


def flatten_options(command: Callable[..., None]) -> Callable[..., None]:
    """Return a command with one parameter for each field of its dataclass parameters.

    Typer wants one parameter per option. Here related options are grouped in a dataclass, which
    several commands can share:

        @dataclass(frozen=True)
        class RecipeOptions:
            recipe: Annotated[str, typer.Argument()]
            overrides: Annotated[list[str] | None, typer.Option("--set")] = None

        @flatten_options
        def command(recipe: RecipeOptions, as_json: Annotated[bool, typer.Option()] = False): ...

    Typer sees the parameters `recipe`, `overrides` and `as_json`, and the command receives an
    instance of `RecipeOptions`. Required options come first in the help.

    Raises:
        TypeError: two parameters of the flattened command have the same name.
    """
    groups: dict[str, tuple[type, list[str]]] = {}
    flat: list[inspect.Parameter] = []
    hints = get_type_hints(command, include_extras=True)
    for name, parameter in inspect.signature(command).parameters.items():
        if dataclasses.is_dataclass(hints[name]):
            fields = _fields(hints[name])
            groups[name] = (hints[name], [field.name for field in fields])
            flat.extend(fields)
        else:
            flat.append(_keyword(name, hints[name], parameter.default))
    flat.sort(key=lambda parameter: parameter.default is not inspect.Parameter.empty)
    names = [parameter.name for parameter in flat]
    if len(set(names)) != len(names):
        raise TypeError(f"{command.__module__}: two options of the same name: {', '.join(names)}")

    @functools.wraps(command)
    def flattened(**values: Any) -> None:
        grouped = {
            name: group(**{field: values.pop(field) for field in fields})
            for name, (group, fields) in groups.items()
        }
        command(**grouped, **values)

    flattened.__signature__ = inspect.Signature(flat)  # type: ignore[attr-defined]
    flattened.__annotations__ = {parameter.name: parameter.annotation for parameter in flat}
    return flattened


def _fields(group: type) -> list[inspect.Parameter]:
    hints = get_type_hints(group, include_extras=True)
    return [
        _keyword(
            field.name,
            hints[field.name],
            inspect.Parameter.empty if field.default is dataclasses.MISSING else field.default,
        )
        for field in dataclasses.fields(group)
    ]


def _keyword(name: str, annotation: object, default: object) -> inspect.Parameter:
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation
    )
