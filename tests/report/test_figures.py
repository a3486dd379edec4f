"""Figures are reproducible, fit a column, and do not present tiny bins as findings."""

from __future__ import annotations

import struct
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from pennyweight.evaluation.confusions import largest_confusions
from pennyweight.evaluation.metrics import Bin, measure
from pennyweight.report.drawing import FONT, write_figures
from pennyweight.report.facts import Facts, load_facts
from pennyweight.report.figures import FIGURES, draw


def test_figures_come_as_svg_pdf_and_png_and_are_the_same_again(
    finished: Path, tmp_path: Path
) -> None:
    facts = load_facts([finished / "one", finished / "other"])
    names = write_figures(FIGURES, facts, tmp_path / "a")
    assert names == tuple(FIGURES)
    write_figures(FIGURES, facts, tmp_path / "b")
    for name in names:
        for ending in ("svg", "pdf"):
            file = f"{name}.{ending}"
            assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
        width = struct.unpack(">I", (tmp_path / "a" / f"{name}.png").read_bytes()[16:20])[0]
        assert width == pytest.approx(3.31 * 300, abs=3)
        assert FONT in (tmp_path / "a" / f"{name}.svg").read_text()


def test_one_run_alone_has_nothing_to_compare(finished: Path) -> None:
    facts = load_facts([finished / "one"])
    assert draw("comparison", facts) is None
    assert draw("spending", facts) is None


def _with_bins(facts: Facts, bins: tuple[Bin, ...]) -> Facts:
    run = facts.main
    metrics = {"test": replace(run.record.metrics["test"], reliability=bins)}
    return Facts((replace(run, record=run.record.with_changes(metrics=metrics)),))


def test_bins_with_few_rows_are_hollow_and_not_on_the_line(finished: Path) -> None:
    bins = (Bin(0.5, 1.0, 9), Bin(0.7, 0.6, 10), Bin(0.9, 0.9, 200))
    figure = draw("reliability", _with_bins(load_facts([finished / "one"]), bins))
    assert figure is not None
    top, bottom = figure.axes
    _, filled, hollow = top.lines
    assert filled.get_xdata().tolist() == [0.7, 0.9]
    assert hollow.get_xdata().tolist() == [0.5]
    assert hollow.get_markerfacecolor() == "none"
    assert hollow.get_linestyle() == "None"
    assert [bar.get_height() for bar in bottom.patches] == [9, 10, 200]


def test_the_legend_of_the_reliability_diagram_is_outside_its_axes(finished: Path) -> None:
    figure = draw("reliability", load_facts([finished / "one"]))
    assert figure is not None
    figure.canvas.draw()
    (legend,) = figure.legends
    box = legend.get_window_extent()
    assert all(axes.get_legend() is None for axes in figure.axes)
    assert not any(box.overlaps(axes.get_window_extent()) for axes in figure.axes)


def _many_classes(facts: Facts, number: int) -> Facts:
    draw_rows = np.random.default_rng(0)
    labels = draw_rows.integers(number, size=600)
    logits = np.eye(number)[labels] + draw_rows.normal(0, 0.5, (600, number))
    names = [f"class number {index} of many" for index in range(number)]
    run, metrics = facts.main, {"test": measure(logits, labels, names=names)}
    return Facts((replace(run, record=run.record.with_changes(metrics=metrics)),))


def test_of_many_classes_the_largest_confusions_are_drawn(finished: Path) -> None:
    facts = _many_classes(load_facts([finished / "one"]), 77)
    figure = draw("confusion", facts)
    assert figure is not None
    widths = [bar.get_width() for bar in figure.axes[0].patches]
    assert len(widths) == 10
    assert widths == sorted(widths, reverse=True)
    largest = largest_confusions(facts.main.main_metrics, limit=1)[0]
    assert widths[0] == largest.rows
    first = figure.axes[0].get_yticklabels()[0].get_text()
    assert first == f"{largest.label}\n\N{RIGHTWARDS ARROW} {largest.predicted}"


@pytest.mark.parametrize("number", [2, 12, 77])
def test_tick_labels_do_not_overlap(finished: Path, number: int) -> None:
    figure = draw("confusion", _many_classes(load_facts([finished / "one"]), number))
    assert figure is not None
    figure.canvas.draw()
    for axis in (figure.axes[0].xaxis, figure.axes[0].yaxis):
        boxes = [label.get_window_extent() for label in axis.get_ticklabels()]
        assert len(boxes) >= 2
        if number == 2 and axis.axis_name == "x":
            continue  # slanted labels lie beside each other, but their boxes overlap
        overlapping = [one.overlaps(other) for one, other in pairwise(boxes)]
        assert not any(overlapping)


def test_runs_on_other_rows_are_not_drawn_beside_each_other(finished: Path) -> None:
    one, other = load_facts([finished / "one", finished / "other"]).runs
    data = other.record.data
    assert data is not None
    sets = {**data.sets, "test": replace(data.sets["test"], fingerprint="other")}
    changed = other.record.with_changes(data=data.model_copy(update={"sets": sets}))
    facts = Facts((one, replace(other, record=changed)))
    assert draw("comparison", facts) is None
    assert draw("spending", facts) is None
