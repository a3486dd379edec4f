"""Signals that stop a process: Ctrl-C, SIGTERM and SIGHUP end it in order, and lose nothing."""

from __future__ import annotations

import os
import signal
import stat
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import FrameType

from pennyweight.errors import TerminatedError

__all__ = ["Interrupt", "deferred_interrupt", "ended_processes", "terminable"]

_TERMINATING = tuple(
    getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)
)


@dataclass(slots=True)
class Interrupt:
    """The signal that asked the process to stop, if there was one.

    Attributes:
        number: of the signal.
        ended: the processes of this training that had ended when the signal came. A launcher
            stops all processes when one of them ends.
    """

    number: int | None = None
    ended: tuple[int, ...] = ()

    def mark(self, number: int) -> None:
        """Note that a signal has come."""
        self.number, self.ended = number, ended_processes()

    def check(self) -> None:
        """Raise what ends the run, if a signal has asked for that.

        Raises:
            KeyboardInterrupt: after Ctrl-C.
            TerminatedError: after another signal.
        """
        if self.number is not None:
            if self.number == signal.SIGINT:
                raise KeyboardInterrupt
            raise TerminatedError(self.number, self.ended)


def ended_processes() -> tuple[int, ...]:
    """Return the ranks of the processes of this training on this machine that have ended.

    They are known if torchrun, or a launcher that sets the same variables, has started them itself.
    """
    try:
        rank, place, count = (
            int(os.environ[name]) for name in ("RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
        )
    except (KeyError, ValueError):
        return ()
    import psutil

    alive = set()
    with suppress(psutil.Error):
        for process in psutil.Process(os.getppid()).children():
            with suppress(psutil.Error):
                if process.status() != psutil.STATUS_ZOMBIE:
                    alive.add(process.environ().get("RANK"))
    if str(rank) not in alive:  # something stands between the launcher and its processes
        return ()
    first = rank - place
    return tuple(other for other in range(first, first + count) if str(other) not in alive)


@contextmanager
def terminable() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end the block with `TerminatedError`, as Ctrl-C ends it.

    A signal that is ignored, as `nohup` ignores SIGHUP, stays ignored.
    """
    interrupt = Interrupt()

    def stop(number: int, frame: FrameType | None) -> None:
        del frame
        _leave_closed_terminal(number)
        interrupt.mark(number)
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
        interrupt.mark(number)
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
