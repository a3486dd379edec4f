"""How fast a long piece of work goes, and how long the rest of it takes."""

from __future__ import annotations

import time
from collections.abc import Callable

__all__ = ["Pace"]


class Pace:
    """Speed and remaining time of work that may have begun in an earlier process.

    Args:
        total: units of work, such as steps or texts.
        done: units that were finished before.
        clock: returns seconds.
    """

    def __init__(
        self, total: int, *, done: int = 0, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self._total, self._before, self._clock = total, done, clock
        self._began = clock()

    def rate(self, done: int) -> float:
        """Return the units per second since the beginning, once `done` are finished."""
        return (done - self._before) / max(self._clock() - self._began, 1e-9)

    def seconds_left(self, done: int) -> float:
        """Return how long the remaining units take at this speed."""
        return (self._total - done) / max(self.rate(done), 1e-9)
