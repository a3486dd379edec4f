"""Plot the throughput in `results/speed.json` and save it as `results/speed.svg`.

python benchmarks/plot.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("svg")
from matplotlib import pyplot as plt

RESULTS = Path(__file__).parent / "results"
# Okabe and Ito's palette, which remains distinguishable with colour blindness.
COLOURS = {"ours": "#0072B2", "P2": "#E69F00", "P1": "#CC79A7", "floor": "#999999"}


def draw_bars(axes: Any, title: str, systems: dict[str, Any]) -> None:
    """Draw the rows per second of every system, fastest first."""
    names = [name for name in ("floor", "ours", "P2", "P1") if name in systems]
    speeds = [systems[name]["rows_per_second"] for name in names]
    bars = axes.barh(names, speeds, color=[COLOURS[name] for name in names])
    axes.bar_label(bars, fmt="%.0f", padding=3)
    axes.set_title(title, loc="left", fontsize=10)
    axes.set_xlabel("rows per second")
    axes.margins(x=0.15)
    axes.invert_yaxis()


def draw_lines(axes: Any, results: list[dict[str, Any]], key: str, title: str) -> None:
    """Draw the rows per second against the quantity that grows."""
    for system, colour in (("ours", COLOURS["ours"]), ("p2", COLOURS["P2"])):
        points = [r for r in results if r["grows"] == key and r["system"] == system]
        if points:
            axes.plot(
                [r["value"] for r in points],
                [r["rows_per_second"] for r in points],
                marker="o",
                color=colour,
                label={"ours": "ours", "p2": "P2"}[system],
            )
    if not axes.lines:
        axes.set_axis_off()
        return
    axes.set_xscale("log", base=2)
    axes.set_ylim(bottom=0)
    axes.set_title(title, loc="left", fontsize=10)
    axes.set_ylabel("rows per second")
    axes.legend(frameon=False, fontsize=8)


def main() -> None:
    """Read the results and plot them."""
    results = json.loads((RESULTS / "speed.json").read_text(encoding="utf-8"))
    figure, axes = plt.subplots(3, 2, figsize=(9, 9), layout="constrained")
    draw_bars(
        axes[0][0], "Training, RoBERTa-base, r=4 on query and value", results["training roberta"]
    )
    draw_bars(
        axes[0][1], "Training, embedded base, r=16 on all linear", results["training embedded"]
    )
    growth = results.get("growth", [])
    draw_lines(axes[1][0], growth, "batch", "RoBERTa-base: rows per batch")
    draw_lines(axes[1][1], growth, "length", "RoBERTa-base: maximum tokens per text")
    draw_lines(axes[2][0], growth, "rank", "RoBERTa-base: rank")
    draw_lines(axes[2][1], growth, "copies", "RoBERTa-base: adapters at once (rows per adapter)")
    for axis in axes.flat:
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(RESULTS / "speed.svg", metadata={"Date": None})


if __name__ == "__main__":
    main()
