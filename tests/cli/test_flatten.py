"""A command's dataclasses become its options."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from pennyweight.cli.flatten import flatten_options


@dataclass(frozen=True)
class Sizes:
    width: Annotated[int, typer.Option("--width", help="The width.")] = 3
    names: Annotated[list[str] | None, typer.Option("--name", help="A name.")] = None


@dataclass(frozen=True, kw_only=True)
class Place:
    folder: Annotated[str, typer.Argument(metavar="FOLDER", help="A folder.")]


def test_fields_become_options_and_the_command_gets_dataclasses() -> None:
    app = typer.Typer(add_completion=False)

    @app.command()
    @flatten_options
    def command(
        sizes: Sizes, place: Place, loud: Annotated[bool, typer.Option("--loud")] = False
    ) -> None:
        """Do something."""
        typer.echo(f"{sizes} {place} {loud}")

    def output(*arguments: str) -> str:
        return CliRunner().invoke(app, list(arguments)).output

    assert output("here") == "Sizes(width=3, names=None) Place(folder='here') False\n"
    assert (
        output("here", "--name", "a", "--width", "7", "--name", "b", "--loud")
        == "Sizes(width=7, names=['a', 'b']) Place(folder='here') True\n"
    )
    assert "Missing argument" in output()
    assert "Do something." in output("--help")


def test_two_options_of_one_name_are_refused() -> None:
    def command(sizes: Sizes, width: Annotated[int, typer.Option("--other")] = 1) -> None: ...

    with pytest.raises(TypeError, match="two options of the same name: width, names, width"):
        flatten_options(command)
