"""The figures of a report."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pennyweight.evaluation.confusions import MATRIX_CLASSES, largest_confusions
from pennyweight.evaluation.metrics import Bin, Metrics, MultiLabelMetrics
from pennyweight.report.drawing import COLOURS, GREY, LINE_STYLES, MARKERS, WIDTH, draw_figure
from pennyweight.report.facts import Facts, RunFacts
from pennyweight.report.phrases import short_name, title

__all__ = ["FEW_ROWS", "FIGURES", "draw"]

# A bin with fewer rows says little about calibration; its marker is hollow.
FEW_ROWS = 10
_SHORT = {"accuracy": "acc.", "macro_f1": "macro F1"}
# Confusions that are drawn at most.
_CONFUSIONS = 10
# Width of a character beside an axis, in inches.
_CHARACTER = 0.06


def _curves(facts: Facts) -> Figure | None:
    """Draw loss and validation metric; a run that was combined from others has neither."""
    run = facts.main
    if not run.losses:
        return None
    figure, (left, right) = plt.subplots(1, 2, figsize=(WIDTH, 1.45))
    left.plot(*_columns(run.losses), color=COLOURS[0])
    left.set(xlabel="step", ylabel="training loss", ylim=(0, None))
    steps, values = _columns(run.evaluations(run.curve_metric))
    percentages = [100 * value for value in values]
    right.plot(steps, percentages, color=COLOURS[1], marker="s", markersize=3)
    right.set(xlabel="step", ylabel=f"validation {_SHORT[run.curve_metric]} (%)")
    for axes in (left, right):
        axes.set_xlim(0, None)
        axes.xaxis.set_major_locator(MaxNLocator(3, integer=True))
        axes.xaxis.set_major_formatter(_compact)
    return figure


def _columns(points: list[tuple[int, float]]) -> tuple[list[int], list[float]]:
    return [step for step, _ in points], [value for _, value in points]


def _confusion(facts: Facts) -> Figure | None:
    """Draw the confusion matrix, or of many classes the largest confusions."""
    metrics = facts.main.main_metrics
    if isinstance(metrics, MultiLabelMetrics):
        return None
    if len(metrics.classes) > MATRIX_CLASSES:
        return _largest_confusions(metrics)
    names = [short_name(entry.label) for entry in metrics.classes]
    counts = np.array(metrics.confusion)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    figure, axes = plt.subplots(figsize=(WIDTH, min(1.1 + 0.26 * len(names), 3.3)))
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    axes.set_xticks(range(len(names)), names)
    axes.set_yticks(range(len(names)), names)
    if _CHARACTER * max(map(len, names)) > _column_width(names, len(names)):
        axes.tick_params(axis="x", labelrotation=90 if len(names) > 6 else 40)
        plt.setp(axes.get_xticklabels(), ha="center" if len(names) > 6 else "right")
        plt.setp(axes.get_xticklabels(), rotation_mode="default" if len(names) > 6 else "anchor")
    size = _text_size(names, columns=len(names), digits=len(str(counts.max())), most=8)
    for (row, column), count in np.ndenumerate(counts):
        colour = "white" if shares[row, column] > 0.5 else "black"
        axes.text(column, row, f"{count}", ha="center", va="center", color=colour, fontsize=size)
    axes.set(xlabel="predicted", ylabel="label")
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    return figure


def _largest_confusions(metrics: Metrics) -> Figure | None:
    """Draw a bar for each of the most frequent confusions; None if there are none."""
    confusions = largest_confusions(metrics, limit=_CONFUSIONS)
    if not confusions:
        return None
    figure, axes = plt.subplots(figsize=(WIDTH, 0.5 + 0.32 * len(confusions)))
    heights = range(len(confusions))[::-1]
    bars = axes.barh(heights, [each.rows for each in confusions], color=COLOURS[0], height=0.55)
    axes.bar_label(bars, [f"{each.rows} ({each.share:.0%})" for each in confusions], padding=2,
                   fontsize=7)  # fmt: skip
    arrow = "\N{RIGHTWARDS ARROW}"
    names = [
        f"{short_name(each.label)}\n{arrow} {short_name(each.predicted)}" for each in confusions
    ]
    axes.set_yticks(heights, names, fontsize=7, linespacing=0.9)
    axes.set_xlim(0, 1.3 * confusions[0].rows)
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes.set(xlabel="rows (share of the class)")
    axes.tick_params(axis="y", length=0)
    return figure


def _column_width(names: Sequence[str], columns: int) -> float:
    """Return what names on the left of a heat map leave for each of its columns, in inches."""
    return (WIDTH - 0.4 - _CHARACTER * max(map(len, names))) / columns


def _text_size(names: Sequence[str], *, columns: int, digits: int, most: float) -> float:
    """Return the font size, in points, at which numbers fit the cells of a heat map."""
    return min(most, 72 * _column_width(names, columns) / (0.6 * digits))


def _compact(value: float, _position: float = 0) -> str:
    """Return a number for an axis: 950, 20k, 1.5M."""
    for unit, name in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= 10 * unit or (unit == 1e6 and abs(value) >= unit):
            return f"{value / unit:.4g}{name}"
    return f"{value:g}"


def _reliability(facts: Facts) -> Figure:
    run = facts.main
    names = run.sets[: len(COLOURS)]
    figure, (top, bottom) = plt.subplots(
        2, 1, figsize=(WIDTH, 2.5), sharex=True, height_ratios=(3, 1)
    )
    top.plot([0, 1], [0, 1], color=GREY, linewidth=0.8, linestyle=":")
    lowest = 1.0
    for number, name in enumerate(names):
        metrics = run.record.metrics[name]
        _draw_bins(top, metrics.reliability, number, label=f"{name} (ECE {metrics.ece:.3f})")
        shift = 0.008 * (number - (len(names) - 1) / 2)
        bottom.bar(
            [each.confidence + shift for each in metrics.reliability],
            [each.rows for each in metrics.reliability],
            width=0.008,
            color=COLOURS[number],
        )
        lowest = min([lowest, *(each.confidence for each in metrics.reliability)])
    # In a multi-label task, a bin holds decisions: one for each label of each row.
    share, rows, x = (
        ("share with label", "decisions", "probability of the label")
        if run.is_multi_label
        else ("accuracy", "rows", "confidence")
    )
    top.set(ylabel=share, ylim=(-0.04, 1.04))
    bottom.set(xlabel=x, ylabel=rows, yscale="log", ylim=(0.5, None))
    bottom.axhline(FEW_ROWS, color=GREY, linewidth=0.6, linestyle=":")
    bottom.set_xlim(max(math.floor(10 * lowest) / 10 - 0.02, -0.02), 1.02)
    figure.legend(frameon=False, loc="outside lower center", ncols=2, columnspacing=1.2)
    return figure


def _coverage(facts: Facts) -> Figure | None:
    """Draw accuracy by coverage; not for a multi-label run or from an older record."""
    run = facts.main
    curves = {
        name: metrics.coverage
        for name in run.sets[: len(COLOURS)]
        if isinstance(metrics := run.record.metrics[name], Metrics) and metrics.coverage
    }
    if not curves:
        return None
    figure, axes = plt.subplots(figsize=(WIDTH, 1.9))
    for number, (name, curve) in enumerate(curves.items()):
        axes.plot(
            [100 * point.coverage for point in curve],
            [100 * point.accuracy for point in curve],
            color=COLOURS[number],
            linestyle=LINE_STYLES[number],
            label=name,
        )
    axes.set(xlabel="rows with an answer (%)", ylabel="accuracy (%)", xlim=(0, 101))
    figure.legend(frameon=False, loc="outside lower center", ncols=2)
    return figure


def _draw_bins(axes: Any, bins: tuple[Bin, ...], number: int, *, label: str) -> None:
    """Draw a line through the bins with enough rows, and hollow markers for the others."""
    style = {"color": COLOURS[number], "marker": MARKERS[number], "markersize": 4}
    filled = [each for each in bins if each.rows >= FEW_ROWS]
    hollow = [each for each in bins if each.rows < FEW_ROWS]
    axes.plot(
        [each.confidence for each in filled],
        [each.accuracy for each in filled],
        linestyle=LINE_STYLES[number],
        label=label,
        **style,
    )
    axes.plot(
        [each.confidence for each in hollow],
        [each.accuracy for each in hollow],
        linestyle="none",
        markerfacecolor="none",
        markeredgewidth=0.6,
        alpha=0.6,
        **style,
    )


def _ranks(facts: Facts) -> Figure | None:
    table = facts.main.ranks()
    if not table.roles:
        return None
    roles = [short_name(role) for role in table.roles]
    figure, axes = plt.subplots(figsize=(WIDTH, 0.6 + 0.2 * len(roles)))
    axes.imshow(table.ranks, cmap="cividis", aspect="auto", vmin=0)
    axes.set_yticks(range(len(roles)), roles)
    axes.xaxis.set_major_locator(MaxNLocator(12, integer=True))
    axes.set(xlabel="layer")
    size = _text_size(roles, columns=len(table.layers), digits=len(str(table.ranks.max())), most=7)
    for (row, column), rank in np.ndenumerate(table.ranks):
        colour = "black" if rank > table.ranks.max() / 2 else "white"
        axes.text(column, row, str(rank), ha="center", va="center", color=colour, fontsize=size)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    return figure


def _spending(facts: Facts) -> Figure | None:
    """Draw accuracy or macro-F1 against trained parameters, one marker per run.

    A study over several data sets has figures of its own.
    """
    if facts.has_datasets:
        return None
    name, metric = facts.main.sets[0], facts.main.metric
    groups: dict[str, list[RunFacts]] = {}
    for run in facts.groups[0]:
        if run.record.parameters is not None:
            # Of a study, the runs of a row differ in their seeds only.
            label = run.name if facts.study is not None else facts.label(run)
            groups.setdefault(short_name(label), []).append(run)
    if sum(map(len, groups.values())) < 2:
        return None
    figure, axes = plt.subplots(figsize=(WIDTH, 1.7 + 0.12 * math.ceil(len(groups) / 2)))
    for number, (label, runs) in enumerate(groups.items()):
        axes.scatter(
            [run.record.parameters.model for run in runs if run.record.parameters],
            [100 * run.headline(name, metric=metric).value for run in runs],
            s=16,
            color=COLOURS[number % len(COLOURS)],
            marker=MARKERS[number % len(MARKERS)],
            label=label,
        )
    counts = [run.record.parameters.model for runs in groups.values() for run in runs
              if run.record.parameters]  # fmt: skip
    if max(counts) > 10 * min(counts):
        axes.set_xscale("log")
    else:
        # On a logarithmic axis of less than a decade, the labels of minor ticks overlap.
        axes.xaxis.set_major_locator(MaxNLocator(4))
        axes.xaxis.set_major_formatter(_compact)
        axes.margins(x=0.1)
    axes.set(xlabel="trained parameters", ylabel=f"{name} {title(metric)} (%)")
    figure.legend(frameon=False, loc="outside lower center", ncols=2)
    return figure


def _comparison(facts: Facts) -> Figure | None:
    """Draw the result of each run, or of each row of a study, with its interval."""
    rows = [] if facts.has_datasets else _compared(facts)
    if len(rows) < 2:
        return None
    rows.reverse()
    figure, axes = plt.subplots(figsize=(WIDTH, 0.5 + 0.2 * len(rows)))
    for height, (_, mean, (low, high)) in enumerate(rows):
        axes.errorbar(
            100 * mean,
            height,
            xerr=[[100 * (mean - low)], [100 * (high - mean)]],
            color=COLOURS[0],
            marker="o",
            markersize=3,
            capsize=2,
        )
    axes.set_yticks(range(len(rows)), [short_name(name) for name, _, _ in rows])
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.set_ylim(-0.6, len(rows) - 0.4)
    axes.set(xlabel=f"{facts.main.sets[0]} {title(facts.compared_metric)} (%)")
    return figure


def _compared(facts: Facts) -> list[tuple[str, float, tuple[float, float]]]:
    """Return the name, the result and its interval of each run, or of each row of a study."""
    name = facts.main.sets[0]
    if facts.study is not None:
        return [
            (row.name, row.mean[name], row.interval[name] or (row.mean[name], row.mean[name]))
            for row in facts.study.rows_with(name)
        ]
    runs = [
        (facts.label(run), run.headline(name, metric=facts.compared_metric))
        for run in facts.groups[0]
    ]
    return [(label, one.value, one.interval or (one.value, one.value)) for label, one in runs]


# Each draws one figure, or returns None if the facts contain nothing to draw.
FIGURES: Mapping[str, Callable[[Facts], Figure | None]] = MappingProxyType(
    {
        "ranks": _ranks,
        "curves": _curves,
        "confusion": _confusion,
        "reliability": _reliability,
        "coverage": _coverage,
        "comparison": _comparison,
        "spending": _spending,
    }
)


def draw(name: str, facts: Facts) -> Figure | None:
    """Return one of `FIGURES`, or None if the facts contain nothing to draw."""
    return draw_figure(FIGURES[name], facts)
