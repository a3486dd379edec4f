"""The figures of a study: results against trained parameters, with the Pareto frontier."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from pennyweight.report.drawing import COLOURS, GREY, WIDTH
from pennyweight.report.facts import StudyFacts
from pennyweight.report.phrases import title

__all__ = ["STUDY_FIGURES", "frontier"]

# Height of a line of the legend, in inches.
_LINE = 0.14


def frontier(points: Sequence[tuple[int, float]]) -> list[int]:
    """Return the indices of the points that no other one dominates, by growing parameters.

    A point is dominated by one with at most as many parameters and a result at least as good.

    Args:
        points: the parameters and the result of each row.
    """
    best: list[int] = []
    for index in sorted(range(len(points)), key=lambda i: (points[i][0], -points[i][1])):
        if not best or points[index][1] > points[best[-1]][1]:
            best.append(index)
    return best


def _pareto(study: StudyFacts) -> Figure | None:
    """Draw the mean over the data sets of each row against its parameters."""
    rows = study.overall()
    if len({parameters for _, parameters, _ in rows}) < 2:
        return None
    best = frontier([(parameters, mean) for _, parameters, mean in rows])
    figure, axes = plt.subplots(figsize=(WIDTH, 2.4 + _LINE * ((len(best) + 1) // 2)))
    _draw(axes, rows, numbered=True)
    of = "mean over data sets" if len(study.datasets) > 1 else study.leading_set
    axes.set(xlabel="trained parameters", ylabel=f"{of} (%)", title=_metrics(study))
    names = [
        f"{place}  {rows[index][0]} ({100 * rows[index][2]:.1f})"
        for place, index in enumerate(best, start=1)
    ]
    handles = [Line2D([], [], linestyle="none") for _ in names]
    figure.legend(
        handles, names, loc="outside lower left", ncols=2, handlelength=0, fontsize=7, frameon=False
    )
    return figure


def _pareto_by_dataset(study: StudyFacts) -> Figure | None:
    """Draw the results on each data set against the parameters."""
    if len(study.datasets) < 2:
        return None
    lines = (len(study.datasets) + 1) // 2
    figure, grid = plt.subplots(lines, 2, figsize=(2 * WIDTH, 1.8 * lines), squeeze=False)
    for axes, dataset in zip(grid.flat, study.datasets, strict=False):
        _draw(axes, study.on(dataset), numbered=False)
        metric = title(study.metric_on(dataset))
        axes.set(title=f"{dataset}, {metric} (%)", xlabel="trained parameters")
    for axes in list(grid.flat)[len(study.datasets) :]:
        axes.set_visible(False)
    return figure


def _metrics(study: StudyFacts) -> str:
    names = dict.fromkeys(title(study.metric_on(dataset)) for dataset in study.datasets)
    return " or ".join(names)


def _draw(axes: Any, rows: Sequence[tuple[str, int, float]], *, numbered: bool) -> None:
    """Draw all rows in grey, and over them those on the frontier, joined by a line."""
    points = [(parameters, 100 * mean) for _, parameters, mean in rows]
    best = [points[index] for index in frontier(points)]
    axes.scatter(*zip(*points, strict=True), s=12, color=GREY)
    axes.plot(
        *zip(*best, strict=True),
        color=COLOURS[1],
        marker="o",
        markersize=3,
        drawstyle="steps-post",
    )
    if numbered:
        # Neighbours that are close have their numbers on different sides.
        for place, point in enumerate(best, start=1):
            side, offset = ("right", (-3, 2)) if place % 2 else ("left", (3, -7))
            axes.annotate(
                str(place), point, xytext=offset, textcoords="offset points", ha=side, fontsize=7
            )
    axes.set_xscale("log")


# Each draws one figure, or returns None if the study does not allow it.
STUDY_FIGURES: Mapping[str, Callable[[StudyFacts], Figure | None]] = MappingProxyType(
    {"pareto": _pareto, "pareto-by-dataset": _pareto_by_dataset}
)
