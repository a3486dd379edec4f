"""A report's figures, in one style that reads in print and to the colour-blind; SVG and PNG."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from pennyweight.report.facts import Facts, RunFacts

__all__ = ["FIGURES", "draw", "write_figures"]

# Okabe and Ito's palette, and marks besides, so that no line is told by colour alone.
_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#000000")
_STYLES = ("-", "--", "-.", ":", "-", "--", "-.")
_MARKS = ("o", "s", "^", "D", "v", "P", "X")
# One column of a two-column letter page, in inches.
_WIDTH = 3.31
_STYLE: dict[Any, Any] = {
    "font.size": 8,
    "font.family": "DejaVu Sans",
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "legend.fontsize": 7,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "pennyweight",
    "figure.constrained_layout.use": True,
}


def _curves(facts: Facts) -> Figure:
    run = facts.main
    figure, (left, right) = plt.subplots(1, 2, figsize=(_WIDTH, 1.7))
    steps, losses = zip(*run.losses, strict=True) if run.losses else ((), ())
    left.plot(steps, losses, color=_COLOURS[0], linewidth=1)
    left.set(xlabel="step", ylabel="training loss", ylim=(0, None))
    found = run.evaluations("accuracy")
    at, accuracy = zip(*found, strict=True) if found else ((), ())
    right.plot(at, [100 * a for a in accuracy], color=_COLOURS[1], marker="s", markersize=3)
    right.set(xlabel="step", ylabel="validation accuracy, %")
    return figure


def _confusion(facts: Facts) -> Figure:
    run = facts.main
    metrics = run.record.metrics[run.sets[0]]
    names = [entry["label"] for entry in metrics["classes"]]
    counts = np.array(metrics["confusion"])
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    figure, axes = plt.subplots(figsize=(_WIDTH, 2.4))
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(len(names)), names, rotation=30, ha="right")
    axes.set_yticks(range(len(names)), names)
    axes.set(xlabel="predicted", ylabel="label")
    for (row, column), count in np.ndenumerate(counts):
        colour = "white" if shares[row, column] > 0.5 else "black"
        axes.text(column, row, f"{count}", ha="center", va="center", color=colour, fontsize=7)
    axes.spines[:].set_visible(False)
    return figure


def _reliability(facts: Facts) -> Figure:
    run = facts.main
    figure, axes = plt.subplots(figsize=(_WIDTH, 2.0))
    axes.plot([0, 1], [0, 1], color="#999999", linewidth=0.8, linestyle=":")
    for number, name in enumerate(run.sets[:3]):
        bins = run.record.metrics[name].get("reliability", [])
        axes.plot(
            [b["confidence"] for b in bins],
            [b["accuracy"] for b in bins],
            color=_COLOURS[number],
            linestyle=_STYLES[number],
            marker=_MARKS[number],
            markersize=3,
            linewidth=1,
            label=f"{name} (ECE {run.record.metrics[name]['ece']:.3f})",
        )
    axes.set(xlabel="confidence", ylabel="accuracy", xlim=(0, 1.02), ylim=(0, 1.02))
    axes.legend(frameon=False, loc="lower right")
    return figure


def _ranks(facts: Facts) -> Figure | None:
    kinds, layers, table = facts.main.ranks()
    if not kinds:
        return None
    figure, axes = plt.subplots(figsize=(_WIDTH, 0.6 + 0.2 * len(kinds)))
    axes.imshow(table, cmap="cividis", aspect="auto", vmin=0)
    axes.set_yticks(range(len(kinds)), kinds)
    axes.set_xticks(layers)
    axes.set(xlabel="layer")
    for (row, column), rank in np.ndenumerate(table):
        colour = "black" if rank > table.max() / 2 else "white"
        axes.text(column, row, str(rank), ha="center", va="center", color=colour, fontsize=6)
    axes.spines[:].set_visible(False)
    return figure


def _spending(facts: Facts) -> Figure | None:
    """Accuracy against trained parameters, one mark per run."""
    runs = [run for run in facts.runs if run.sets]
    if len(runs) < 2:
        return None
    figure, axes = plt.subplots(figsize=(_WIDTH, 2.6))
    for number, (name, group) in enumerate(_by_name(runs).items()):
        values = [100 * run.record.metrics[run.sets[0]]["accuracy"] for run in group]
        axes.scatter(
            [run.record.parameters["model"] for run in group],
            values,
            s=14,
            color=_COLOURS[number % len(_COLOURS)],
            marker=_MARKS[number % len(_MARKS)],
            label=name,
        )
    axes.set_xscale("log")
    axes.set(xlabel="trained parameters", ylabel=f"{runs[0].sets[0]} accuracy, %")
    figure.legend(frameon=False, loc="outside lower center", ncols=2)
    return figure


def _comparison(facts: Facts) -> Figure | None:
    """Each run's accuracy with its interval, or of a study each row's over seeds."""
    rows = _compared(facts)
    if len(rows) < 2:
        return None
    figure, axes = plt.subplots(figsize=(_WIDTH, 0.5 + 0.22 * len(rows)))
    for at, (_name, mean, low, high) in enumerate(reversed(rows)):
        axes.errorbar(
            100 * mean,
            at,
            xerr=[[100 * (mean - low)], [100 * (high - mean)]],
            color=_COLOURS[0],
            marker="o",
            markersize=3,
            capsize=2,
            linewidth=1,
        )
    axes.set_yticks(range(len(rows)), [name for name, *_ in reversed(rows)])
    axes.set(xlabel=f"{facts.main.sets[0]} accuracy, %")
    return figure


def _compared(facts: Facts) -> list[tuple[str, float, float, float]]:
    name = facts.main.sets[0]
    if facts.study is not None:
        found = []
        for row in facts.study["rows"]:
            if name in row["mean"]:
                low, high = row["interval"][name] or (row["mean"][name],) * 2
                found.append((row["name"], row["mean"][name], low, high))
        return found
    return [
        (run.name, m["accuracy"], *m["accuracy_interval"])
        for run in facts.runs
        if (m := run.record.metrics.get(name))
    ]


def _by_name(runs: list[RunFacts]) -> dict[str, list[RunFacts]]:
    found: dict[str, list[RunFacts]] = {}
    for run in runs:
        found.setdefault(run.name, []).append(run)
    return found


FIGURES: Mapping[str, tuple[str, Callable[[Facts], Figure | None]]] = MappingProxyType(
    {
        "curves": ("Loss of the training steps, and accuracy on validation.", _curves),
        "ranks": ("Rank of every adapted matrix, by layer.", _ranks),
        "confusion": ("Labels against predictions; shade is the share of the label.", _confusion),
        "reliability": ("Accuracy by confidence; on the dotted line they agree.", _reliability),
        "comparison": ("Accuracy with 95 % intervals.", _comparison),
        "spending": ("Accuracy against trained parameters.", _spending),
    }
)


def draw(name: str, facts: Facts) -> Figure | None:
    """One figure, or None where the facts give nothing to draw; a notebook shows it."""
    with mpl.rc_context(_STYLE):
        figure = FIGURES[name][1](facts)
    if figure is not None:
        # Nobody but the caller keeps it.
        plt.close(figure)
    return figure


def write_figures(facts: Facts, folder: Path) -> dict[str, Path]:
    """Write every figure there is as SVG and PNG (300 dots per inch); the PNGs' paths by name."""
    mpl.use("agg")
    folder.mkdir(parents=True, exist_ok=True)
    written = {}
    for name in FIGURES:
        figure = draw(name, facts)
        if figure is None:
            continue
        with mpl.rc_context(_STYLE):
            # A date in the file would make every run's another.
            figure.savefig(folder / f"{name}.svg", metadata={"Date": None})
            figure.savefig(folder / f"{name}.png", dpi=300)
        written[name] = folder / f"{name}.png"
    return written
