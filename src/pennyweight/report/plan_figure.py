"""A figure of plans: the rank of every matrix, by role and layer, one panel for each plan."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pennyweight.budget.summary import PlanSummary, RankTable
from pennyweight.errors import ReportError
from pennyweight.report.drawing import STYLE

__all__ = ["draw_plans", "write_plan_figure"]

_FORMATS = (".svg", ".png", ".pdf")
# In inches: the names of the roles, and a cell.
_NAMES, _WIDE, _HIGH = 1.7, 0.27, 0.22
# Side by side up to this number; more are drawn below each other.
_SIDE_BY_SIDE = 2


def draw_plans(plans: Mapping[str, PlanSummary]) -> Figure:
    """Return a figure with a heat map of the ranks of each plan, on one scale.

    Args:
        plans: by the name that is written above their panel; they may have different bases.
    """
    tables = {name: plan.ranks() for name, plan in plans.items()}
    largest = max(int(table.ranks.max(initial=1)) for table in tables.values())
    columns = min(len(plans), _SIDE_BY_SIDE)
    rows = -(-len(plans) // columns)
    width = _NAMES + _WIDE * max(len(table.layers) for table in tables.values())
    height = 0.8 + _HIGH * max(len(table.roles) for table in tables.values())
    with mpl.rc_context(STYLE):
        figure, grid = plt.subplots(
            rows, columns, figsize=(width * columns, height * rows), squeeze=False
        )
        for axes, (name, table) in zip(grid.flat, tables.items(), strict=False):
            _draw(axes, table, largest)
            plan = plans[name]
            axes.set_title(f"{name}: {plan.trainable_parameters:,} of {plan.budget:,}")
        for axes in list(grid.flat)[len(plans) :]:
            axes.set_visible(False)
    plt.close(figure)
    return figure


def _draw(axes: Axes, table: RankTable, largest: int) -> None:
    axes.imshow(table.ranks, cmap="Blues", aspect="auto", vmin=0, vmax=largest)
    axes.set_yticks(range(len(table.roles)), table.roles)
    axes.xaxis.set_major_locator(MaxNLocator(12, integer=True))
    axes.set_xlabel("layer")
    for (row, column), rank in np.ndenumerate(table.ranks):
        colour = "white" if rank > largest / 2 else "black"
        text = str(rank) if rank else "·"
        axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=7)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)


def write_plan_figure(plans: Mapping[str, PlanSummary], path: Path) -> None:
    """Draw plans into a file, whose name says whether it is an SVG, a PNG or a PDF.

    Raises:
        ReportError: the name has another ending, a plan has no adapters, or the file cannot be
            written.
    """
    if path.suffix.lower() not in _FORMATS:
        raise ReportError(
            f"--figure {path}: given the ending {path.suffix!r}; allowed: {', '.join(_FORMATS)}"
        )
    for name, plan in plans.items():
        if not plan.ranks().roles:
            raise ReportError(f"--figure {path}: {name} has no adapters inside layers to draw")
    mpl.use("agg")
    figure = draw_plans(plans)
    metadata = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}.get(path.suffix.lower())
    try:
        with mpl.rc_context(STYLE):
            figure.savefig(path, metadata=metadata, dpi=300)
    except OSError as error:
        raise ReportError(f"--figure {path}: cannot be written: {error.strerror}") from None
