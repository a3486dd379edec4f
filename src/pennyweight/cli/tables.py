"""Tables for the terminal."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar

from rich.cells import cell_len
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

if TYPE_CHECKING:
    from pennyweight.evaluation.metrics import (
        AnyMetrics,
        ClassMetrics,
        LabelMetrics,
        Metrics,
        MultiLabelMetrics,
    )
    from pennyweight.runs.record import RunRecord
    from pennyweight.search.compare import RunComparison
    from pennyweight.search.results import SearchResult

__all__ = [
    "TITLES",
    "baseline_line",
    "baselines_line",
    "headline",
    "print_line",
    "show_comparison",
    "show_metrics",
    "show_search",
    "show_table",
]


_Entry = TypeVar("_Entry", "ClassMetrics", "LabelMetrics")
# Classes and confusions that are printed at most, unless all are requested.
_CLASSES = 20
_CONFUSIONS = 10
_WIDEST = 10_000
TITLES = {"accuracy": "accuracy", "macro_f1": "macro F1"}


def show_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a plain table."""
    # Long words continue on the next line; by default, they would be cut off.
    columns = (Column(name, overflow="fold") for name in header)
    table = Table(*columns, box=None)
    for row in rows:
        table.add_row(*map(Text, row))
    print_line(table)


def show_comparison(comparison: RunComparison) -> None:
    """Print a table for each set, what can be concluded from it, and remarks on all of them."""
    from pennyweight.report.comparison import (
        comparison_table,
        conclusions,
        remarks,
        set_title,
    )

    for compared in comparison.sets:
        print_line(set_title(compared))
        show_table(*comparison_table(comparison, compared))
        for line in conclusions(comparison, compared):
            print_line(line)
        print_line("")
    for line in remarks(comparison):
        print_line(line)


def show_search(result: SearchResult) -> None:
    """Print one line for each trial, the best one marked, and the comparison on held-out sets."""
    from pennyweight.search.results import describe_held_out, shown

    lines = [
        (
            row.run + " (recipe)" * row.is_default + " (best)" * (row.run == result.best),
            *(shown(row.values.get(key)) for key in result.keys),
            "" if row.value is None else f"{row.value:.4f}",
            row.status,
            "" if row.seconds is None else f"{row.seconds:.0f}",
        )
        for row in result.rows
    ]
    show_table(("trial", *result.keys, f"validation {result.metric}", "status", "s"), lines)
    for row in result.rows:
        if row.status == "failed":
            print_line(f"{row.run}: {row.reason}")
    for name, each in result.held_out.items():
        print_line(describe_held_out(name, each))
    for mark in result.marks:
        print_line(mark)


def headline(name: str, metrics: AnyMetrics) -> str:
    """Return accuracy or macro-F1 on a set with its interval, as one line; see `Headline`.

    Where macro-F1 comes first, accuracy follows.
    """
    first = metrics.headline
    title = TITLES[first.metric]
    details = [f"{metrics.rows:,} rows"]
    if first.interval is not None:
        low, high = first.interval
        details.insert(0, f"95% interval {low:.2%} to {high:.2%}")
    line = f"{name} {title} {first.value:.2%} ({', '.join(details)})"
    return line if first.metric == "accuracy" else f"{line}, accuracy {metrics.accuracy:.2%}"


def baseline_line(name: str, record: RunRecord) -> str | None:
    """Return what the run's baselines reach on a set, as one line; None if it has none.

    The metric is that of the run's own headline.
    """
    from pennyweight.runs.results import baseline_headlines

    values = {each: one.value for each, one in baseline_headlines(record, name).items()}
    return baselines_line(name, values) if values else None


def baselines_line(name: str, values: Mapping[str, float]) -> str:
    """Return what baselines reach on a set, by the baseline's name, as one line."""
    from pennyweight.runs.results import BASELINES

    shown = (f"{BASELINES[each].short} {value:.1%}" for each, value in values.items())
    return f"baselines on {name}: {', '.join(shown)}"


def show_metrics(metrics: AnyMetrics, *, all_classes: bool = False) -> None:
    """Print the metrics of each class, and the overall metrics.

    Where every class has one label per row, the confusion matrix is printed if it fits the
    terminal, and otherwise the largest confusions. Of many classes, those with the lowest F1 are
    printed.

    Args:
        metrics: of a classifier on one set.
        all_classes: whether every class is printed, however many there are.
    """
    from pennyweight.evaluation.metrics import Metrics

    if isinstance(metrics, Metrics):
        _show_single_label(metrics, all_classes=all_classes)
    else:
        _show_multi_label(metrics, all_classes=all_classes)


def _hardest(
    classes: Sequence[_Entry], *, all_classes: bool
) -> tuple[Sequence[_Entry], str | None]:
    """Return the classes to show, and a line that says so if others are left out."""
    if len(classes) <= _CLASSES or all_classes:
        return classes, None
    shown = sorted(classes, key=lambda entry: entry.f1)[:_CLASSES]
    return shown, (
        f"({len(classes)} classes; these are the {len(shown)} with the lowest F1; "
        "--all-classes shows all)"
    )


def _show_multi_label(metrics: MultiLabelMetrics, *, all_classes: bool) -> None:
    classes, note = _hardest(metrics.classes, all_classes=all_classes)

    def cells(entry: LabelMetrics) -> tuple[str, ...]:
        area = entry.average_precision
        scores = (entry.precision, entry.recall, entry.f1)
        numbers = (*(f"{value:.3f}" for value in scores), "" if area is None else f"{area:.3f}")
        return (entry.label, *numbers, f"{entry.threshold:.3f}", str(entry.rows))

    header = ("class", "precision", "recall", "F1", "AP", "threshold", "rows")
    show_table(header, map(cells, classes))
    if note is not None:
        print_line(note)
    print_line(
        f"micro F1 {metrics.micro_f1:.4f}, mean average precision "
        f"{metrics.mean_average_precision:.4f}, NLL {metrics.nll:.4f}, Brier {metrics.brier:.4f}, "
        f"ECE {metrics.ece:.4f}"
    )


def _show_single_label(metrics: Metrics, *, all_classes: bool) -> None:
    """Print the metrics of each class with its confusions, and the overall metrics."""
    classes, note = _hardest(metrics.classes, all_classes=all_classes)
    header = ["class", "precision", "recall", "F1", "rows"]
    lines = [
        [
            entry.label,
            *(f"{x:.3f}" for x in (entry.precision, entry.recall, entry.f1)),
            f"{entry.rows:,}",
        ]
        for entry in classes
    ]
    matrix = _with_matrix(header, lines, metrics) if note is None else None
    show_table(*(matrix or (header, lines)))
    if note is not None:
        print_line(note)
    if not matrix:
        _show_confusions(metrics)
    print_line(
        f"macro F1 {metrics.macro_f1:.4f}, NLL {metrics.nll:.4f}, Brier {metrics.brier:.4f}, "
        f"ECE {metrics.ece:.4f}"
    )


def _with_matrix(
    header: Sequence[str], lines: Sequence[Sequence[str]], metrics: Metrics
) -> tuple[list[str], list[list[str]]] | None:
    """Return a table with a column for each predicted class; None if the terminal is too narrow."""
    wide = [*header, *(entry.label for entry in metrics.classes)]
    rows = [
        [*line, *map(str, counts)] for line, counts in zip(lines, metrics.confusion, strict=True)
    ]
    # A column is as wide as its longest cell, with a space on each side.
    width = sum(max(map(cell_len, column)) + 2 for column in zip(wide, *rows, strict=True))
    return (wide, rows) if width <= Console().width else None


def _show_confusions(metrics: Metrics) -> None:
    """Print the largest confusions, one per line."""
    from pennyweight.evaluation.confusions import largest_confusions

    confusions = largest_confusions(metrics, limit=_CONFUSIONS)
    if not confusions:
        return
    print_line("Largest confusions, with their share of the rows of the class:")
    show_table(
        ("class", "predicted", "rows", "share"),
        [
            (each.label, each.predicted, f"{each.rows:,}", f"{each.share:.1%}")
            for each in confusions
        ],
    )


def print_line(line: str | Table) -> None:
    """Print a line or a table as it is."""
    # A pipe has no width at which words would have to be broken. The output may be redirected
    # inside the program on its way to a terminal.
    terminal = sys.__stdout__
    has_width = "COLUMNS" in os.environ or (terminal is not None and terminal.isatty())
    # Markup is off, since texts and labels may hold square brackets.
    console = Console(
        highlight=False, markup=False, emoji=False, width=None if has_width else _WIDEST
    )
    console.print(line)
