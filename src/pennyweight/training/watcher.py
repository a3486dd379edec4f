"""Events of a training, for those who watch it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pennyweight.engine.train.progress import Step

__all__ = ["Watcher", "is_warning"]


@dataclass(frozen=True, slots=True)
class Watcher:
    """Callbacks that a training calls; each may do nothing.

    All but `prune` are called in the main process only.

    Attributes:
        log: gets one line about what happens.
        on_start: gets the number of steps done already and of the last step.
        on_step: gets every step.
        prune: gets every step that ends with an evaluation, after it has been saved, and returns
            why the run is to end there, or None to go on. It is called in every process, and all
            must answer alike. Runs that are trained together are never pruned.
    """

    log: Callable[[str], None] = lambda _: None
    on_start: Callable[[int, int], None] = lambda _first, _last: None
    on_step: Callable[[Step], None] = lambda _: None
    prune: Callable[[Step], str | None] = lambda _: None


def is_warning(line: str) -> bool:
    """Return whether a line belongs beside those of other runs that are trained meanwhile."""
    return line.startswith(("LEAKS", "TRANSDUCTIVE", "warning"))
