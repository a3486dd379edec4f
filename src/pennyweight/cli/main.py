"""The application; every error of Pennyweight becomes one line and exit code 2."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from pennyweight.cli import (
    adapt,
    combine,
    compare,
    data,
    demo,
    doctor,
    evaluate,
    inspect,
    merge,
    methods,
    plan,
    predict,
    recipes,
    report,
    search,
    serve,
    study,
    submit,
    train,
    ui,
)
from pennyweight.errors import PennyweightError

__all__ = ["app", "main"]

_SUMMARY = "Train text classifiers under a hard budget of trainable parameters."

app = typer.Typer(
    name="pennyweight",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for module in (
    demo,
    plan,
    train,
    adapt,
    evaluate,
    predict,
    submit,
    merge,
    combine,
    inspect,
    study,
    compare,
    search,
    report,
    serve,
    ui,
    recipes,
    methods,
    doctor,
):
    app.command(name=module.__name__.rpartition(".")[2])(module.command)
app.add_typer(data.app, name="data")


def _print_version(requested: bool) -> None:
    if requested:
        from importlib.metadata import version

        typer.echo(f"pennyweight {version('pennyweight')}")
        raise typer.Exit


@app.callback(help=_SUMMARY)
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            help="Print the version and exit.",
            is_eager=True,
            callback=_print_version,
        ),
    ] = False,
) -> None:
    """Accept the options that precede a command."""


def main() -> None:
    """Run the command line."""
    try:
        app()
    except PennyweightError as error:
        print(f"pennyweight: {error}", file=sys.stderr)  # noqa: T201
        sys.exit(2)
    except KeyboardInterrupt:
        print("pennyweight: interrupted", file=sys.stderr)  # noqa: T201
        sys.exit(130)
    except BrokenPipeError:
        sys.exit(141)
