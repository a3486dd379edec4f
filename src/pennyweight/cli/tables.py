"""Tables for the terminal."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from pennyweight.budget import Plan

__all__ = ["headline", "metrics_table", "plan_table"]

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
