"""The state of a search, read from the trials in its storage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import optuna
from optuna.trial import FrozenTrial, TrialState

from pennyweight.search.job import SearchJob
from pennyweight.search.results import SearchResult, TrialRow, TrialStatus, best_of

__all__ = ["read_result"]

# Importances of fewer trials say nothing.
_FEWEST_FOR_IMPORTANCES = 5
_STATES: Mapping[TrialState, TrialStatus] = MappingProxyType(
    {
        TrialState.WAITING: "waiting",
        TrialState.RUNNING: "running",
        TrialState.COMPLETE: "complete",
        TrialState.PRUNED: "pruned",
        TrialState.FAIL: "failed",
    }
)


def read_result(job: SearchJob, study: optuna.Study, trials: Sequence[FrozenTrial]) -> SearchResult:
    """Return the state of a search, without held-out sets."""
    rows = [_row(job, one) for one in trials if "run" in one.user_attrs]
    return SearchResult(
        name=job.recipe.name,
        metric=job.metric,
        is_lower_better=job.is_lower_better,
        trials=job.trials,
        sampler=job.search.sampler,
        pruning=job.search.pruning,
        seed=job.search.seed,
        keys=[axis.key for axis in job.space.axes],
        rows=rows,
        best=best_of(rows, is_lower_better=job.is_lower_better),
        importances=_importances(study, rows),
    )


def _row(job: SearchJob, trial: FrozenTrial) -> TrialRow:
    attributes = trial.user_attrs
    values = attributes["values"]
    return TrialRow(
        run=attributes["run"],
        is_default=not values,
        status=_STATES[trial.state],
        values=values or dict(job.space.default),
        value=trial.value,
        seconds=attributes.get("seconds"),
        reason=attributes.get("failure") or attributes.get("reason"),
    )


def _importances(study: optuna.Study, rows: Sequence[TrialRow]) -> dict[str, float]:
    """Return the share of each key, largest first; empty if the trials do not allow to say."""
    complete = [row for row in rows if row.status == "complete"]
    if len(complete) < _FEWEST_FOR_IMPORTANCES or len({row.value for row in complete}) < 2:
        return {}
    return {
        key: float(share) for key, share in optuna.importance.get_param_importances(study).items()
    }
