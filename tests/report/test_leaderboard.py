"""A study over data sets: its Pareto figures, its Markdown, and its part of the paper."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pennyweight.report.drawing import write_figures
from pennyweight.report.facts import StudyFacts, load_facts
from pennyweight.report.leaderboard import study_markdown
from pennyweight.report.study_figures import STUDY_FIGURES, frontier
from pennyweight.report.write import write_report
from pennyweight.search.choosing import Choice, Tried
from pennyweight.search.studies import StudyRow
from pennyweight.search.study_ranks import rank_rows

_KEY = "optimizer.learning_rate"
_RESULTS = {"one": (0.7, 0.6), "two|x": (0.8, 0.9), "three": (0.5, 0.6)}


def _choice(rate: float) -> Choice:
    tried = [Tried({_KEY: each}, 0.5) for each in (0.01, 0.1)]
    return Choice({_KEY: rate}, "accuracy", tried, [_KEY] if rate == 0.1 else [])


def _rows() -> list[StudyRow]:
    by_set = ("values", "deviation", "p", "predicted_shares", "failures")
    rows = []
    for index, dataset in enumerate(("first", "second")):
        for number, (name, results) in enumerate(_RESULTS.items(), start=1):
            values: dict[str, Any] = {key: {} for key in by_set}
            values |= {"mean": {"validation": 0.1, "test": results[index]}, "seeds": [1]}
            values |= {"interval": {"validation": None, "test": None}, "leaks": []}
            values |= {"metric": "macro_f1" if index else "accuracy", "parameters": number * 100}
            values |= {"seconds": 1.0, "peak_memory_bytes": 1, "transductive": []}
            choice = _choice(0.1 if name == "one" else 0.01)
            rows.append(StudyRow(name=name, dataset=dataset, budget=500, choice=choice, **values))
    return rows


@pytest.fixture
def study(finished: Path, tmp_path: Path) -> Path:
    """Return the directory of a study with three rows on two data sets."""
    out = tmp_path / "study"
    shutil.copytree(finished / "one", out / "01-one" / "first" / "seed-1")
    shutil.copytree(finished / "other", out / "01-one" / "second" / "seed-1")
    shutil.copytree(finished / "other", out / "01-one" / "first" / "choose" / "trial-0000")
    rows = _rows()
    table = {
        "summary": "a study",
        "rows": [asdict(row) for row in rows],
        "ranks": [asdict(ranks) for ranks in rank_rows(rows)],
    }
    (out / "study.json").write_text(json.dumps(table))
    return out


def _facts(study: Path) -> StudyFacts:
    facts = load_facts([study])
    # Runs among which values were chosen are not results.
    assert len(facts.runs) == 2
    assert facts.study is not None
    return facts.study


def test_the_markdown_has_results_with_ranks_and_chosen_values_with_their_edges(
    study: Path,
) -> None:
    lines = study_markdown(_facts(study), figures=["pareto"]).splitlines()
    assert lines[0] == "# a study"
    assert "first accuracy, second macro F1" in lines[2]
    assert "## 500 parameters" in lines
    assert r"| two\|x | 1.00 | 80.00 (1) | 90.00 (1) | 85.00 | 200 |" in lines
    assert "| one | 2.25 | 70.00 (2) | 60.00 (2.5) | 65.00 | 100 |" in lines
    assert r"| one | 0.1\* | 0.1\* |" in lines
    assert "| three | 0.01 | 0.01 |" in lines
    assert any(line.startswith("critical difference 2.34 (Nemenyi, 5%)") for line in lines)
    assert lines[-1] == "![pareto](figures/pareto.svg)"


def test_the_pareto_figures_name_the_rows_that_no_other_dominates(
    study: Path, tmp_path: Path
) -> None:
    names = write_figures(STUDY_FIGURES, _facts(study), tmp_path / "figures")
    assert names == ("pareto", "pareto-by-dataset")
    assert {path.suffix for path in (tmp_path / "figures").iterdir()} == {".svg", ".pdf", ".png"}
    drawing = (tmp_path / "figures" / "pareto.svg").read_text()
    assert "1  one (65.0)" in drawing
    assert "2  two|x (85.0)" in drawing
    assert "three" not in drawing
    assert "mean over data sets (%)" in drawing
    assert "accuracy or macro F1" in drawing


def test_the_report_of_a_study_over_data_sets_ranks_its_rows(study: Path, tmp_path: Path) -> None:
    pytest.importorskip("typst")
    lines: list[str] = []
    written = write_report(
        [study], out=tmp_path / "report", parts=["figures", "paper"], log=lines.append
    )
    assert written["study"].read_text().startswith("# a study")
    latex = written["latex"].read_text()
    assert "Dem" in latex
    assert "two|x & 500 & 1.00 & 85.00 & 200" in latex
    assert "figures/pareto.pdf" in latex
    assert not (tmp_path / "report" / "figures" / "comparison.svg").exists()
    # Runs on other data sets are no mistake here.
    assert not any("not compared" in line for line in lines)


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(0, 9).map(float)), min_size=1))
def test_the_frontier_dominates_every_point_and_none_of_its_own(
    points: list[tuple[int, float]],
) -> None:
    best = [points[index] for index in frontier(points)]
    assert best == sorted(best)
    for cost, value in points:
        assert any(c <= cost and v >= value for c, v in best)
    for place, (cost, value) in enumerate(best):
        others = best[:place] + best[place + 1 :]
        assert not any(c <= cost and v >= value for c, v in others)
