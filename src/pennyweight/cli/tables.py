"""Tables for the terminal."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from pennyweight.budget import Plan
    from pennyweight.runs.studies import StudyRow

__all__ = ["headline", "metrics_table", "plan_table", "show_table", "study_table"]

_LAYER = re.compile(r"\.\d+\.")


def plan_table(plan: Plan) -> None:
    """The spending by kind of matrix, and in total."""
    groups: dict[tuple[str, str, object, object], list[int]] = {}
    for matrix in plan.matrices:
        kind = _LAYER.split(matrix.name)[-1]
        key = (matrix.kind, kind, matrix.rank, matrix.alpha)
        groups.setdefault(key, []).append(matrix.parameters)
    table = Table("matrices", "kind", "rank", "alpha", "number", "parameters", box=None)
    for (kind, name, rank, alpha), sizes in groups.items():
        table.add_row(
            name,
            kind,
            "" if rank is None else str(rank),
            "" if alpha is None else f"{alpha:g}",
            str(len(sizes)),
            f"{sum(sizes):,}",
        )
    console = Console(highlight=False)
    console.print(table)
    share = plan.trainable_parameters / plan.budget
    console.print(
        f"trainable {plan.trainable_parameters:,} of {plan.budget:,} allowed ({share:.1%}); "
        f"total {plan.total_parameters:,}"
    )
    if not plan.within_budget:
        console.print("over budget, as full fine-tuning is: a teacher or baseline, no submission")


def show_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A plain table of texts."""
    table = Table(*header, box=None)
    for row in rows:
        table.add_row(*row)
    Console(highlight=False).print(table)


def study_table(rows: Sequence[StudyRow]) -> None:
    """A line per row and set: accuracy with its interval over seeds; and what the row cost.

    One set below the other, because side by side they do not fit a terminal.
    """
    shown = []
    for row in rows:
        said = [word for word in ("leaks", "transductive") if getattr(row, word)]
        name = f"{row.name} ({', '.join(said)})" if said else row.name
        cost = [f"{row.parameters:,}", f"{row.seconds:.0f}"]
        first, *more = [_measured(row, of_set) for of_set in row.mean] or [["", "failed", ""]]
        shown.append([name, str(len(row.seeds)), *first, *cost])
        shown += [["", "", *measured, "", ""] for measured in more]
    show_table(["row", "seeds", "set", "accuracy (95 %)", "p", "parameters", "s"], shown)
    for row in rows:
        for seed, reason in row.failures.items():
            Console(highlight=False).print(f"{row.name}, seed {seed}: failed: {reason}")


def _measured(row: StudyRow, of_set: str) -> list[str]:
    """Set, mean accuracy with its interval, and p against the study's first row."""
    told = f"{100 * row.mean[of_set]:.2f}"
    if interval := row.interval.get(of_set):
        told += f" ({100 * interval[0]:.1f} to {100 * interval[1]:.1f})"
    p = row.p.get(of_set)
    return [of_set, told, "" if p is None else f"{p:.3f}"]


def headline(name: str, metrics: Mapping[str, Any], parameters: Mapping[str, int] | None) -> str:
    """A set's accuracy with its interval, in one line."""
    low, high = metrics["accuracy_interval"]
    line = (
        f"{name} accuracy {metrics['accuracy']:.2%} "
        f"(95 % interval {low:.2%} to {high:.2%}, {metrics['rows']:,} rows)"
    )
    if parameters:
        line += f", {parameters['file']:,} trainable parameters"
    return line


def metrics_table(metrics: Mapping[str, Any]) -> None:
    """Per class, the confusion matrix, and the scalars."""
    labels = [entry["label"] for entry in metrics["classes"]]
    table = Table("class", "precision", "recall", "F1", "rows", *labels, box=None)
    for entry, row in zip(metrics["classes"], metrics["confusion"], strict=True):
        scores = [f"{entry[key]:.3f}" for key in ("precision", "recall", "f1")]
        table.add_row(entry["label"], *scores, str(entry["rows"]), *map(str, row))
    console = Console(highlight=False)
    console.print(table)
    console.print(
        "macro F1 {macro_f1:.4f}, NLL {nll:.4f}, Brier {brier:.4f}, ECE {ece:.4f}".format(**metrics)
    )
