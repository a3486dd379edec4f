"""How all figures look, readable in print and without colour, and how they are written."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import matplotlib as mpl
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

__all__ = [
    "COLOURS",
    "FONT",
    "GREY",
    "LINE_STYLES",
    "MARKERS",
    "STYLE",
    "WIDTH",
    "draw_figure",
    "write_figures",
]

# A Times-like typeface that comes with matplotlib; the paper is set in it as well.
FONT = "STIXGeneral"
# Okabe and Ito's palette. Markers and line styles differ too, so that colour is never needed.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
LINE_STYLES = ("-", "--", "-.", ":", "-", "--", "-.")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
GREY = "#999999"
# Width of a column of a two-column letter page, in inches.
WIDTH = 3.31
STYLE: dict[Any, Any] = {
    "font.size": 9,
    # Labels are the user's own: a dollar sign is one.
    "text.parse_math": False,
    # Characters that the first font lacks come from the second.
    "font.family": [FONT, "DejaVu Serif"],
    "mathtext.fontset": "stix",
    "axes.titlesize": 9,
    "axes.labelsize": 9,
    "legend.fontsize": 8,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "lines.linewidth": 1.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    # Text stays text, in fonts that publishers accept (no Type 3).
    "svg.fonttype": "none",
    "pdf.fonttype": 42,
    "svg.hashsalt": "pennyweight",
    "figure.constrained_layout.use": True,
}

FactsT = TypeVar("FactsT")


def draw_figure(drawing: Callable[[FactsT], Figure | None], facts: FactsT) -> Figure | None:
    """Return a figure in the common style, or None if the facts contain nothing to draw."""
    with mpl.rc_context(STYLE):
        figure = drawing(facts)
    if figure is not None:
        # pyplot would keep every figure in memory, and notebooks would show it twice.
        plt.close(figure)
    return figure


def write_figures(
    figures: Mapping[str, Callable[[FactsT], Figure | None]], facts: FactsT, folder: Path
) -> tuple[str, ...]:
    """Write each figure as NAME.svg, NAME.pdf and NAME.png (300 dots per inch).

    Args:
        figures: by name; each draws the facts, or returns None if they contain nothing to draw.
        facts: what is drawn.
        folder: created if missing.

    Returns:
        The names of the figures that the facts allow to draw.
    """
    mpl.use("agg")
    folder.mkdir(parents=True, exist_ok=True)
    names = []
    for name, drawing in figures.items():
        figure = draw_figure(drawing, facts)
        if figure is not None:
            _save(figure, folder, name)
            names.append(name)
    return tuple(names)


def _save(figure: Figure, folder: Path, name: str) -> None:
    with mpl.rc_context(STYLE):
        # Without dates, equal figures are equal files.
        figure.savefig(folder / f"{name}.svg", metadata={"Date": None})
        figure.savefig(folder / f"{name}.pdf", metadata={"CreationDate": None})
        figure.savefig(folder / f"{name}.png", dpi=300)
