"""The part of a record about the runs that were combined into this one."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

__all__ = ["CombinationRecord", "CombinedRun"]


class CombinedRun(BaseModel):
    """A run that was combined with others.

    Attributes:
        run: its directory.
        name: of its recipe.
        seed: of its recipe.
        share: its weight in the combination; 0 if it was tried and left out.
        sha256: of its adapter's weights.
        score: of "greedy": the validation metric with this run added.
        results: its own result on each set that the combined run was evaluated on, in the metric
            that the combined run leads with there; without sets of other rows.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    run: str
    name: str
    seed: int
    share: float
    sha256: str
    score: float | None = None
    results: dict[str, float] = {}


class CombinationRecord(BaseModel):
    """How a run was made from the adapters of other runs, instead of being trained.

    Attributes:
        method: a name in the table of combinations.
        space: "factors" if A and B were averaged, "deltas" if the products B A were and the result
            was brought back to its ranks, "ranks" if the ranks of the runs add up.
        reason: why this space was used.
        head: "average", or "first" for the head of the first run that is used.
        runs: in the order in which they were combined.
        toward: of "interpolate": 0 is the start, and 1 the end.
        density: the share of the entries of each delta that was kept.
        seed: of the entries that were dropped.
        error: the relative error of all matrices that were brought back to a rank, from 0 to 1.
        largest_error: that of the matrix with the largest.
        largest_error_in: the name of that matrix.
        notes: what was not taken over from the runs.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: str
    space: str
    reason: str
    head: str
    runs: tuple[CombinedRun, ...]
    toward: float | None = None
    density: float | None = None
    seed: int | None = None
    error: float | None = None
    largest_error: float | None = None
    largest_error_in: str | None = None
    notes: tuple[str, ...] = ()
