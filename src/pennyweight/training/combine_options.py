"""How runs are combined: the options of `pennyweight combine`, and what is allowed."""

from __future__ import annotations

import math
from dataclasses import dataclass

from pennyweight.errors import RunError
from pennyweight.model.combinations import COMBINATIONS, Combination, HeadSource, Space

__all__ = ["DEFAULT_DENSITY", "CombineOptions"]

DEFAULT_DENSITY = 0.5
_ROWS = tuple(COMBINATIONS.values())


@dataclass(frozen=True, slots=True)
class CombineOptions:
    """How runs are combined.

    Attributes:
        method: a name in `COMBINATIONS`.
        weights: of the runs, in their order; None for equal ones. They are divided by their sum.
        density: the share of entries that "ties" and "dare" keep; None for 0.5.
        toward: of "interpolate": 0 gives the start, 1 the end.
        head: whether the heads are averaged, or that of the first run is kept.
        space: "factors" or "deltas"; None for the rule of `choose_space`.
        seed: of what "dare" drops; None for that of the first run.
    """

    method: str = "average"
    weights: tuple[float, ...] | None = None
    density: float | None = None
    toward: float | None = None
    head: HeadSource = "average"
    space: Space | None = None
    seed: int | None = None

    @property
    def kept_share(self) -> float:
        """The share of entries that is kept."""
        return DEFAULT_DENSITY if self.density is None else self.density

    def check(self, number: int) -> Combination:
        """Return the method's row.

        Args:
            number: of runs.

        Raises:
            RunError: the method is unknown, or an option is missing, does not belong to it, or has
                a value that is not allowed.
        """
        row = COMBINATIONS.get(self.method)
        if row is None:
            known = ", ".join(COMBINATIONS)
            raise RunError(f"--method {self.method}: unknown; the methods are {known}")
        for name in ("weights", "density", "toward", "seed"):
            value = getattr(self, name)
            if value is not None and name not in row.options:
                users = ", ".join(each.name for each in _ROWS if name in each.options)
                raise RunError(f"--{name}: {row.name} does not use it; leave it out ({users} do)")
            if value is None and name in row.needs:
                raise RunError(f"--{name}: missing; {row.name} needs it")
        if self.weights is not None and len(self.weights) != number:
            raise RunError(
                f"--weights: given {len(self.weights)} for {number} runs; give one for each run"
            )
        if self.weights is not None and not (
            all(math.isfinite(w) and w >= 0.0 for w in self.weights) and sum(self.weights) > 0.0
        ):
            raise RunError("--weights: expected numbers from 0, not all of them 0")
        if self.density is not None and not 0.0 < self.density <= 1.0:
            raise RunError(f"--density: given {self.density:g}; expected above 0 and at most 1")
        if self.toward is not None and not 0.0 <= self.toward <= 1.0:
            raise RunError(f"--toward: given {self.toward:g}; expected from 0 to 1")
        return row
