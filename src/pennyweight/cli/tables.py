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
    """A line per row: accuracy by set with its interval over seeds, and what it cost."""
    sets = list(dict.fromkeys(name for row in rows for name in row.mean))
    header = ["row", "seeds"]
    for name in sets:
        header += [name, "95 %", "p"]
    shown = []
    for row in rows:
        said = [word for word in ("leaks", "transductive") if getattr(row, word)]
        cells = [f"{row.name} ({', '.join(said)})" if said else row.name, str(len(row.seeds))]
        for name in sets:
            interval = row.interval.get(name)
            p = row.p.get(name)
            cells.append(f"{row.mean[name]:.2%}" if name in row.mean else "failed")
            cells.append(f"{interval[0]:.2%} to {interval[1]:.2%}" if interval else "")
            cells.append("" if p is None else f"{p:.3f}")
        shown.append([*cells, f"{row.parameters:,}", f"{row.seconds:.0f}"])
    show_table([*header, "parameters", "seconds"], shown)
    for row in rows:
        for seed, reason in row.failures.items():
            Console(highlight=False).print(f"{row.name}, seed {seed}: failed: {reason}")


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
