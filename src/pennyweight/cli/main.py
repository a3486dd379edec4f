"""The application; every error of Pennyweight becomes one line and exit code 2."""

from __future__ import annotations

import errno
import sys
from typing import Annotated, NoReturn

import typer

from pennyweight.cli import (
    adapt,
    combine,
    compare,
    data,
    demo,
    doctor,
    drift,
    evaluate,
    export,
    inspect,
    merge,
    methods,
    plan,
    predict,
    publish,
    recipes,
    report,
    search,
    serve,
    study,
    submit,
    train,
    ui,
)
from pennyweight.cli.output import exit_quickly, share_cores
from pennyweight.documents import printable
from pennyweight.errors import PennyweightError, TerminatedError
from pennyweight.signals import terminable

__all__ = ["app", "main"]

# Errors that say something about the machine and nothing about the program.
_OF_THE_MACHINE = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM),
    *(errno.EIO, errno.EFBIG, errno.ENOMEM, errno.EMFILE, errno.ENFILE),
)
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
    drift,
    submit,
    merge,
    export,
    publish,
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
    share_cores()
    exit_quickly()
    try:
        with terminable():
            app()
    except PennyweightError as error:
        # Names in foreign files may hold escape sequences; a message may have several lines.
        _fail("\n".join(map(printable, str(error).split("\n"))))
    except KeyboardInterrupt:
        print("pennyweight: interrupted", file=sys.stderr)  # noqa: T201
        sys.exit(130)
    except BrokenPipeError:
        sys.exit(141)
    except MemoryError:
        _fail("out of memory; close other programs, or give smaller batches of rows")
    except OSError as error:
        if error.errno not in _OF_THE_MACHINE:
            raise
        name = f"{error.filename}: " if error.filename else ""
        _fail(f"{name}{error.strerror}")
    except SystemExit as error:
        # typer ends with 130 whatever interrupted it, and says nothing.
        interruption = _interruption(error)
        if interruption is None:
            raise
        print(f"pennyweight: {str(interruption) or 'interrupted'}", file=sys.stderr)  # noqa: T201
        sys.exit(128 + interruption.number if isinstance(interruption, TerminatedError) else 130)


def _fail(message: str) -> NoReturn:
    print(f"pennyweight: {message}", file=sys.stderr)  # noqa: T201
    sys.exit(2)


def _interruption(error: BaseException | None) -> KeyboardInterrupt | None:
    """Return the interruption that led to an exception."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return error
