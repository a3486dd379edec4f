"""Ctrl-C during training: the step under way is finished, so that nothing of it is lost."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

__all__ = ["Interrupt", "deferred_interrupt"]


@dataclass(slots=True)
class Interrupt:
    """Whether Ctrl-C was pressed."""

    requested: bool = False


@contextmanager
def deferred_interrupt(log: Callable[[str], None]) -> Iterator[Interrupt]:
    """Yield an `Interrupt` that the first Ctrl-C only marks; the second one interrupts at once.

    Outside the main thread, where Python handles no signals, nothing is changed.

    Args:
        log: is told that the step under way is finished first.
    """
    interrupt = Interrupt()
    if threading.current_thread() is not threading.main_thread():
        yield interrupt
        return
    previous = signal.getsignal(signal.SIGINT)

    def mark(number: int, frame: FrameType | None) -> None:
        del number, frame
        interrupt.requested = True
        signal.signal(signal.SIGINT, previous)
        log("interrupting after this step; press Ctrl-C again to stop at once")

    signal.signal(signal.SIGINT, mark)
    try:
        yield interrupt
    finally:
        signal.signal(signal.SIGINT, previous)
