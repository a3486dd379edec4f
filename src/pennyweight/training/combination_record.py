"""Record how a run was made from others, and their results beside its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pennyweight.evaluation.metrics import headline_in
from pennyweight.files import hash_file
from pennyweight.model.combinations import Combination, Combined, Space
from pennyweight.model.combine import Residual
from pennyweight.runs.combination import CombinationRecord, CombinedRun
from pennyweight.training.active_run import ActiveRun
from pennyweight.training.combine_options import CombineOptions
from pennyweight.training.combined_rows import same_rows_by_name
from pennyweight.training.combined_runs import CombinedMember

__all__ = ["CombineTask", "record_combination", "record_results"]

_WEIGHTS = "adapter_model.safetensors"


@dataclass(frozen=True, slots=True)
class CombineTask:
    """A combination that is settled, of which nothing has been written yet.

    Attributes:
        members: the runs, in the order in which they were given.
        row: the method.
        options: of the method.
        space: what is averaged.
        reason: why.
        notes: what is not taken over from the runs.
    """

    members: tuple[CombinedMember, ...]
    row: Combination
    options: CombineOptions
    space: Space
    reason: str
    notes: tuple[str, ...]


def record_combination(
    run: ActiveRun,
    task: CombineTask,
    combined: Combined,
    members: Sequence[CombinedMember],
) -> None:
    """Record how the run was made, and what it has from the others besides weights.

    Args:
        run: the run under way.
        task: the combination.
        combined: its result.
        members: in the order in which they were combined.
    """
    options, first, data = task.options, task.members[0].record, run.record.data
    worst = max(
        combined.residuals, key=lambda name: combined.residuals[name].relative, default=None
    )
    scores = {trial.member: abs(trial.score) for trial in combined.trials}
    combination = CombinationRecord(
        method=task.row.name,
        space=task.space,
        reason=task.reason,
        head=options.head,
        runs=tuple(
            CombinedRun(
                run=str(member.path),
                name=member.record.recipe.name,
                seed=member.record.recipe.seed,
                share=combined.shares[index],
                sha256=hash_file(member.artifact / _WEIGHTS),
                score=scores.get(index),
            )
            for index, member in enumerate(members)
        ),
        toward=options.toward,
        density=options.kept_share if "density" in task.row.options else None,
        seed=(run.job.settings.seed if options.seed is None else options.seed)
        if "seed" in task.row.options
        else None,
        error=sum(combined.residuals.values(), Residual()).relative if worst else None,
        largest_error=combined.residuals[worst].relative if worst else None,
        largest_error_in=worst,
        notes=task.notes,
    )
    assert data is not None  # noqa: S101 - recorded when the run was opened
    training = first.data.training if first.data is not None else None
    records = [member.record for member in task.members]
    run.writer.update(
        combination=combination,
        data=data.model_copy(update={"training": training}),
        leaks=tuple(dict.fromkeys((*run.record.leaks, *(x for r in records for x in r.leaks)))),
        transductive=tuple(dict.fromkeys(use for r in records for use in r.transductive)),
    )
    for line in _describe(combination, metric=run.job.settings.fit.options.keep_best):
        run.log(line)


def _describe(combination: CombinationRecord, *, metric: str) -> list[str]:
    lines = []
    for each in combination.runs:
        line = f"{each.run}: weight {each.share:.3g}"
        if each.score is not None:
            line += f"; validation {metric} {each.score:.4f} with it"
            line += "" if each.share > 0 else ", so it is left out"
        lines.append(line)
    if combination.error is not None:
        lines.append(
            f"truncated SVD: relative error {combination.error:.2%} of all deltas together, at "
            f"most {combination.largest_error:.2%} (in {combination.largest_error_in})"
        )
    return lines


def record_results(
    run: ActiveRun, members: Sequence[CombinedMember], *, first: CombinedMember
) -> None:
    """Record the results of the runs beside that of their combination, on the same rows.

    Args:
        run: the run, evaluated.
        members: in the order in which they were combined.
        first: the one whose recipe and baselines the run has.
    """
    record, combination = run.record, run.record.combination
    assert combination is not None  # noqa: S101 - recorded before
    results = [
        {
            name: headline_in(member.record.metrics[name], metrics.headline.metric).value
            for name, metrics in record.metrics.items()
            if name in member.record.metrics and same_rows_by_name(member, run.splits, name)
        }
        for member in members
    ]
    runs = tuple(
        each.model_copy(update={"results": result})
        for each, result in zip(combination.runs, results, strict=True)
    )
    has_same_rows = all(same_rows_by_name(first, run.splits, name) for name in record.metrics)
    run.writer.update(
        combination=combination.model_copy(update={"runs": runs}),
        baselines=first.record.baselines if has_same_rows else {},
    )
