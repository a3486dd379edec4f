"""Tables for the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from pennyweight.budget.summary import PlanSummary
    from pennyweight.evaluation.metrics import AnyMetrics, LabelMetrics, Metrics, MultiLabelMetrics
    from pennyweight.search.studies import StudyRow

__all__ = ["headline", "show_metrics", "show_plan", "show_study", "show_table"]


def show_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a plain table."""
    table = Table(*header, box=None)
    for row in rows:
        table.add_row(*row)
    _print(table)


def show_plan(plan: PlanSummary) -> None:
    """Print the planned parameters, grouped by the role of their matrices, and the total."""
    groups: dict[tuple[str, str, int | None, float | None], list[int]] = {}
    for matrix in plan.matrices:
        key = (matrix.role, matrix.kind, matrix.rank, matrix.alpha)
        groups.setdefault(key, []).append(matrix.parameters)
    show_table(
        ("matrices", "kind", "rank", "alpha", "number", "parameters"),
        [
            (
                role,
                kind,
                "" if rank is None else str(rank),
                "" if alpha is None else f"{alpha:g}",
                str(len(parameters)),
                f"{sum(parameters):,}",
            )
            for (role, kind, rank, alpha), parameters in groups.items()
        ],
    )
    share = plan.trainable_parameters / plan.budget
    _print(
        f"trainable {plan.trainable_parameters:,} of {plan.budget:,} allowed ({share:.1%}); "
        f"total {plan.total_parameters:,}"
    )
    if not plan.within_budget:
        _print("over budget: it can serve as a teacher or a baseline, but cannot be submitted")


def show_study(rows: Sequence[StudyRow]) -> None:
    """Print one line for each row and set, with the accuracy and its interval over seeds.

    The sets of a row are listed below each other, because side by side they do not fit a terminal.
    """
    lines: list[tuple[str, ...]] = []
    for row in rows:
        marks = [mark for mark in ("leaks", "transductive") if getattr(row, mark)]
        name = f"{row.name} ({', '.join(marks)})" if marks else row.name
        first, *others = [_accuracy(row, name_of_set) for name_of_set in row.mean] or [
            ("", "failed", "")
        ]
        costs = (f"{row.parameters:,}", f"{row.seconds:.0f}")
        lines.append((name, str(len(row.seeds)), *first, *costs))
        lines.extend(("", "", *other, "", "") for other in others)
    header = ("row", "seeds", "set", "accuracy (95%)", "p", "parameters", "s")
    show_table(header, lines)
    for row in rows:
        for seed, reason in row.failures.items():
            _print(f"{row.name}, seed {seed}: failed: {reason}")


def _accuracy(row: StudyRow, name_of_set: str) -> tuple[str, str, str]:
    """Return the set, the mean accuracy with its interval, and p against the first row."""
    accuracy = f"{100 * row.mean[name_of_set]:.2f}"
    if interval := row.interval.get(name_of_set):
        accuracy += f" ({100 * interval[0]:.1f} to {100 * interval[1]:.1f})"
    p = row.p.get(name_of_set)
    return name_of_set, accuracy, "" if p is None else f"{p:.3f}"


def headline(name: str, metrics: AnyMetrics) -> str:
    """Return accuracy or macro-F1 on a set with its interval, as one line; see `Headline`.

    Where macro-F1 comes first, accuracy follows.
    """
    first = metrics.headline
    title = {"accuracy": "accuracy", "macro_f1": "macro F1"}[first.metric]
    details = [f"{metrics.rows:,} rows"]
    if first.interval is not None:
        low, high = first.interval
        details.insert(0, f"95% interval {low:.2%} to {high:.2%}")
    line = f"{name} {title} {first.value:.2%} ({', '.join(details)})"
    return line if first.metric == "accuracy" else f"{line}, accuracy {metrics.accuracy:.2%}"


def show_metrics(metrics: AnyMetrics) -> None:
    """Print the metrics of each class, and the overall metrics."""
    from pennyweight.evaluation.metrics import Metrics

    if isinstance(metrics, Metrics):
        _show_single_label(metrics)
    else:
        _show_multi_label(metrics)


def _show_multi_label(metrics: MultiLabelMetrics) -> None:
    def cells(entry: LabelMetrics) -> tuple[str, ...]:
        area = entry.average_precision
        scores = (entry.precision, entry.recall, entry.f1)
        numbers = (*(f"{value:.3f}" for value in scores), "" if area is None else f"{area:.3f}")
        return (entry.label, *numbers, f"{entry.threshold:.3f}", str(entry.rows))

    header = ("class", "precision", "recall", "F1", "AP", "threshold", "rows")
    show_table(header, map(cells, metrics.classes))
    _print(
        f"micro F1 {metrics.micro_f1:.4f}, mean average precision "
        f"{metrics.mean_average_precision:.4f}, NLL {metrics.nll:.4f}, Brier {metrics.brier:.4f}, "
        f"ECE {metrics.ece:.4f}"
    )


def _show_single_label(metrics: Metrics) -> None:
    """Print the metrics of each class with the confusion matrix, and the overall metrics."""
    classes = metrics.classes
    header = ("class", "precision", "recall", "F1", "rows", *(entry.label for entry in classes))
    show_table(
        header,
        [
            (
                entry.label,
                f"{entry.precision:.3f}",
                f"{entry.recall:.3f}",
                f"{entry.f1:.3f}",
                str(entry.rows),
                *map(str, predicted),
            )
            for entry, predicted in zip(classes, metrics.confusion, strict=True)
        ],
    )
    _print(
        f"macro F1 {metrics.macro_f1:.4f}, NLL {metrics.nll:.4f}, Brier {metrics.brier:.4f}, "
        f"ECE {metrics.ece:.4f}"
    )


def _print(line: str | Table) -> None:
    Console(highlight=False).print(line)
