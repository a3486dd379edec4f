"""The reference of the command line, from the annotations that Typer reads."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import EnumType
from typing import Any, get_args, get_origin

import typer

from pennyweight.cli.main import app
from reference_pages.markdown import GENERATED, anchor, code, table

__all__ = ["Parameter", "command_line_page"]


@dataclass(frozen=True, slots=True)
class Parameter:
    """An argument or option of a command.

    Attributes:
        names: its names, such as `--out`; none for an argument.
        value: the metavariable of its value; empty for a flag.
        help: what it does, with its default.
        is_required: whether it must be given.
        is_repeated: whether several values may follow each other.
    """

    names: tuple[str, ...]
    value: str
    help: str
    is_required: bool
    is_repeated: bool

    @property
    def usage(self) -> str:
        """The parameter as one types it."""
        value = f"{self.value}..." if self.is_repeated and not self.names else self.value
        return " ".join(filter(None, (*self.names[:1], value)))


def command_line_page() -> str:
    """Return the reference of every command."""
    intro = """\
    # Command line

    `pennyweight COMMAND --help` prints the same information. Errors are one line on standard error
    with exit code 2; Ctrl-C exits with 130, and another signal with 128 and its number.
    """
    commands = list(_commands(app))
    blocks = [
        GENERATED + textwrap.dedent(intro).rstrip(),
        table(
            ("Command", "Description"),
            [
                (f"[`{name}`](#{anchor(name)})", _paragraphs(function)[0])
                for name, function in commands
            ],
        ),
    ]
    for name, function in commands:
        parameters = [
            _parameter(p) for p in inspect.signature(function, eval_str=True).parameters.values()
        ]
        arguments = [p for p in parameters if not p.names]
        options = [p for p in parameters if p.names]
        blocks += [f"## {name}", code(_usage(name, arguments, options)), *_paragraphs(function)]
        for title, group in (("Argument", arguments), ("Option", options)):
            if group:
                rows = [(f"`{parameter.usage}`", parameter.help) for parameter in group]
                blocks.append(table((title, "Description"), rows))
    return "\n\n".join(blocks) + "\n"


def _commands(group: typer.Typer, prefix: str = "") -> Iterator[tuple[str, Callable[..., Any]]]:
    for command in group.registered_commands:
        if command.callback is not None:
            yield prefix + (command.name or command.callback.__name__), command.callback
    for inner in group.registered_groups:
        if inner.typer_instance is not None:
            yield from _commands(inner.typer_instance, f"{prefix}{inner.name} ")


def _parameter(parameter: inspect.Parameter) -> Parameter:
    annotation, info = get_args(parameter.annotation)
    is_required = parameter.default is inspect.Parameter.empty
    names = tuple(
        name for name in (info.default, *(info.param_decls or ())) if isinstance(name, str)
    )
    types = (annotation, *get_args(annotation))
    members = [name for kind in types if isinstance(kind, EnumType) for name in map(str, kind)]
    help_text = str(info.help)
    if members and not names:
        help_text += " Allowed: " + ", ".join(f"`{member}`" for member in members) + "."
    if is_required and names:
        help_text += " *Required.*"
    elif not is_required and parameter.default is not None and annotation is not bool:
        help_text += f" Default: `{parameter.default}`."
    value = info.metavar or ("|".join(members) if members and names else parameter.name.upper())
    return Parameter(
        names,
        "" if annotation is bool else value,
        help_text,
        is_required,
        get_origin(annotation) is list,
    )


def _usage(name: str, arguments: Sequence[Parameter], options: Sequence[Parameter]) -> str:
    words = [f"pennyweight {name}"]
    words += [p.usage if p.is_required else f"[{p.usage}]" for p in arguments]
    words += [p.usage for p in options if p.is_required]
    return " ".join([*words, "[OPTIONS]"] if not all(p.is_required for p in options) else words)


def _paragraphs(function: Callable[..., Any]) -> list[str]:
    return [" ".join(part.split()) for part in str(function.__doc__).split("\n\n")]
