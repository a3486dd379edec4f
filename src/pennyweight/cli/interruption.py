"""Messages of a command that a signal stops."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

import typer

from pennyweight.cli.output import log_to_stderr
from pennyweight.errors import TerminatedError
from pennyweight.signals import terminable

__all__ = ["continuable"]


@contextmanager
def continuable(how: str) -> Iterator[None]:
    """Say how to go on if a signal stops the block, and exit with 128 + the signal's number.

    Args:
        how: the end of the line, such as "the same command continues".
    """
    number = 0
    try:
        with terminable():
            yield
    except KeyboardInterrupt as error:
        number = error.number if isinstance(error, TerminatedError) else int(signal.SIGINT)
    if number:
        log_to_stderr(f"pennyweight: stopped by {signal.Signals(number).name}; {how}")
        # `main` would print the signal again if it had led to the exit.
        raise typer.Exit(128 + number) from None
