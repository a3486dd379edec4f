"""The application and its door: every error of ours becomes one line and exit code 2."""

from __future__ import annotations

import sys

import typer

from pennyweight.cli import (
    data,
    doctor,
    evaluate,
    inspect,
    merge,
    methods,
    plan,
    predict,
    recipes,
    report,
    study,
    submit,
    train,
    ui,
)
from pennyweight.errors import PennyweightError

__all__ = ["app", "main"]

app = typer.Typer(
    name="pennyweight",
    help="The most accuracy out of a text classifier under a hard budget of trainable parameters.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for verb in (
    plan,
    train,
    evaluate,
    predict,
    submit,
    merge,
    inspect,
    study,
    report,
    ui,
    recipes,
    methods,
    doctor,
):
    app.command(name=verb.__name__.rpartition(".")[2])(verb.command)
app.add_typer(data.app, name="data")


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
