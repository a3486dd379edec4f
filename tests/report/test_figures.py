"""Figures are reproducible, fit a column, and do not present tiny bins as findings."""

from __future__ import annotations

import struct
from dataclasses import replace
from pathlib import Path

import pytest

from pennyweight.evaluation.metrics import Bin
from pennyweight.report.facts import Facts, load_facts
from pennyweight.report.figures import FIGURES, FONT, draw, write_figures


def test_figures_come_as_svg_pdf_and_png_and_are_the_same_again(
    finished: Path, tmp_path: Path
) -> None:
    facts = load_facts([finished / "one", finished / "other"])
    names = write_figures(facts, tmp_path / "a")
    assert names == tuple(FIGURES)
    write_figures(facts, tmp_path / "b")
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
