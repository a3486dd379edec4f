"""What a training tells those who watch it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pennyweight.engine.train.progress import Step

__all__ = ["Watcher"]


@dataclass(frozen=True, slots=True)
class Watcher:
    """Callbacks that a training calls in the main process; each may do nothing.

    Attributes:
        log: gets one line about what happens.
        on_start: gets the number of steps done already and of the last step.
        on_step: gets every step.
    """

    log: Callable[[str], None] = lambda _: None
    on_start: Callable[[int, int], None] = lambda _first, _last: None
    on_step: Callable[[Step], None] = lambda _: None
