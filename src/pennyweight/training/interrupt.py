"""Signals that stop a process: Ctrl-C, SIGTERM and SIGHUP end it in order, and lose nothing."""

from __future__ import annotations

import os
import signal
import stat
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

from pennyweight.errors import TerminatedError

__all__ = ["Interrupt", "deferred_interrupt", "terminable"]

_TERMINATING = tuple(
    getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)
)


@dataclass(slots=True)
class Interrupt:
    """The signal that asked the process to stop, if there was one."""

    number: int | None = None

    def check(self) -> None:
        """Raise what ends the run, if a signal has asked for that.

        Raises:
            KeyboardInterrupt: after Ctrl-C.
            TerminatedError: after another signal.
        """
        if self.number is not None:
            raise _error(self.number)


@contextmanager
def terminable() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end the block with `TerminatedError`, as Ctrl-C ends it.

    A signal that is ignored, as `nohup` ignores SIGHUP, stays ignored.
    """
    interrupt = Interrupt()

    def stop(number: int, frame: FrameType | None) -> None:
        del frame
        _leave_closed_terminal(number)
        interrupt.number = number
        interrupt.check()

    with _handling(_TERMINATING, stop):
        try:
            yield
        except TerminatedError:
            raise
        except KeyboardInterrupt:
            # Ray replaces the error of any signal by that of Ctrl-C.
            interrupt.check()
            raise


@contextmanager
def deferred_interrupt(log: Callable[[str], None]) -> Iterator[Interrupt]:
    """Yield an `Interrupt` that the first signal only marks; the second one interrupts at once.

    Outside the main thread, where Python handles no signals, nothing is changed.

    Args:
        log: receives a line that says that the step under way is finished first.
    """
    interrupt = Interrupt()

    def mark(number: int, frame: FrameType | None) -> None:
        del frame
        _leave_closed_terminal(number)
        interrupt.number = number
        restore()
        if number == signal.SIGINT:
            log("interrupting after this step; press Ctrl-C again to stop at once")
        else:
            log(f"{signal.Signals(number).name}: stopping after this step")

    with _handling((signal.SIGINT, *_TERMINATING), mark) as restore:
        yield interrupt


@contextmanager
def _handling(
    numbers: Sequence[int], handler: Callable[[int, FrameType | None], None]
) -> Iterator[Callable[[], None]]:
    """Handle signals in the block; yield a function that restores the handlers earlier."""
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return
    previous = {number: signal.getsignal(number) for number in numbers}
    # None is a handler that was not installed from Python.
    previous = {n: old for n, old in previous.items() if old not in (signal.SIG_IGN, None)}

    def restore() -> None:
        for number, old in previous.items():
            signal.signal(number, old)

    for number in previous:
        signal.signal(number, handler)
    try:
        yield restore
    finally:
        restore()


def _error(number: int) -> KeyboardInterrupt:
    return KeyboardInterrupt() if number == signal.SIGINT else TerminatedError(number)


def _leave_closed_terminal(number: int) -> None:
    """After a hangup, write to nowhere: writing to the closed terminal is an error."""
    if number != getattr(signal, "SIGHUP", None):
        return
    for descriptor in (1, 2):
        try:
            is_terminal = stat.S_ISCHR(os.fstat(descriptor).st_mode)
            if is_terminal and not os.isatty(descriptor):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, descriptor)
                os.close(nowhere)
        except OSError:
            continue
