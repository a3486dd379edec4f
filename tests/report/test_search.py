"""The report of a search: Markdown, one HTML page, and figures that show every trial."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from pennyweight.report import search as report
from pennyweight.report.search import search_markdown, write_search_report
from pennyweight.report.search_figures import Scale
from pennyweight.search.results import (
    HeldOut,
    SearchResult,
    TrialRow,
    describe_held_out,
    load_result,
    save_result,
)


def _result(**changes: Any) -> SearchResult:
    keys = ["optimizer.learning_rate", "adapter.targets"]
    rows = [
        TrialRow(
            "trial-0000",
            True,
            "complete",
            dict(zip(keys, (0.01, ["query"]), strict=True)),
            0.81,
            5.0,
        ),
        TrialRow(
            "trial-0001",
            False,
            "complete",
            dict(zip(keys, (0.002, ["key"]), strict=True)),
            0.86,
            6.0,
        ),
        TrialRow(
            "trial-0002",
            False,
            "pruned",
            dict(zip(keys, (1e-5, ["key"]), strict=True)),
            0.4,
            2.0,
            "weak",
        ),
        TrialRow(
            "trial-0003",
            False,
            "failed",
            dict(zip(keys, (0.9, ["key"]), strict=True)),
            reason="a|b <x>",
        ),
    ]
    values: dict[str, Any] = {
        "name": "tickets <b>",
        "metric": "accuracy",
        "is_lower_better": False,
        "trials": 4,
        "sampler": "tpe",
        "pruning": "median",
        "seed": 3,
        "keys": keys,
        "rows": rows,
        "best": "trial-0001",
        "importances": {keys[0]: 0.9, keys[1]: 0.1},
        "held_out": {
            "test": HeldOut("accuracy", 500, 0.85, (0.82, 0.88), 0.83, 0.02, 21, 11, 0.11)
        },
    }
    return SearchResult(**{**values, **changes})


def test_the_markdown_says_what_was_found_and_what_the_test_says() -> None:
    text = search_markdown(_result())
    assert text.startswith(r"# Search: tickets \<b\>")
    assert "4 trials of 4 (2 complete, 1 pruned, 1 failed)" in text
    assert "| `optimizer.learning_rate` | `0.002` | `0.01` |" in text
    assert "| **trial-0001** | `0.002` | `['key']` | 0.8600 | complete | 6 |" in text
    assert "a difference of +2.00 points, which may be chance (McNemar's test" in text
    assert (
        "Only the best trial answers 21 rows correctly, and only the recipe itself 11 rows" in text
    )
    assert r"- trial-0003 failed: a\|b \<x\>" in text
    assert "| `adapter.targets` | 10% |" in text


def test_leaks_and_uses_of_the_target_are_said_beside_the_results() -> None:
    text = search_markdown(_result(marks=["LEAKS: 3 rows of train are also in test"]))
    assert "- **LEAKS: 3 rows of train are also in test**" in text


def test_a_search_without_a_complete_trial_has_a_report_as_well() -> None:
    text = search_markdown(_result(best=None, held_out={}, importances={}))
    assert "best trial" not in text
    assert "## All trials" in text


@pytest.mark.parametrize(
    ("changes", "ending"),
    [
        ({"p": 0.01}, "a difference of +2.00 points (McNemar's test, p = 0.010)"),
        ({"p": 0.5}, "points, which may be chance (McNemar's test, p = 0.500)"),
        ({"only_best": 0, "only_default": 0, "difference": 0.0}, "the same of the recipe itself"),
        ({"default": None, "difference": None}, "the recipe itself was not completed"),
    ],
)
def test_the_comparison_is_one_sentence(changes: dict[str, Any], ending: str) -> None:
    values: dict[str, Any] = {
        "metric": "macro_f1", "rows": 500, "best": 0.85, "default": 0.83, "difference": 0.02,
        "only_best": 21, "only_default": 11, "p": 0.11,
    }  # fmt: skip
    sentence = describe_held_out("test", HeldOut(**{**values, **changes}))
    assert sentence.startswith("test (500 rows): macro F1 85.00% of the best trial")
    assert sentence.endswith(ending)


def test_the_report_has_figures_and_a_page_that_needs_nothing_else(tmp_path: Path) -> None:
    assert write_search_report(_result(), tmp_path) is None
    for name in ("parallel", "importances", "progress"):
        for suffix in ("svg", "png"):
            assert (tmp_path / "figures" / f"{name}.{suffix}").stat().st_size > 0
    drawing = (tmp_path / "figures" / "parallel.svg").read_text()
    assert "learning_rate" in drawing
    assert "validation accuracy" in drawing
    page = (tmp_path / "report.html").read_text()
    assert page.count("<svg") == 3
    assert "<img" not in page
    assert "tickets <b>" not in page
    assert "tickets &lt;b&gt;" in page


def test_figures_are_left_out_where_there_is_nothing_to_draw(tmp_path: Path) -> None:
    result = _result(rows=_result().rows[:1], best="trial-0000", importances={})
    assert write_search_report(result, tmp_path) is None
    assert list((tmp_path / "figures").iterdir()) == []
    assert "<svg" not in (tmp_path / "report.html").read_text()


def test_without_matplotlib_there_is_a_report_and_an_instruction(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        report, "find_spec", lambda name: None if name == "matplotlib" else object()
    )
    note = write_search_report(_result(), tmp_path)
    assert note is not None
    assert "pip install 'pennyweight[report]'" in note
    assert [path.name for path in tmp_path.iterdir()] == ["report.md"]


def test_values_that_differ_by_factors_are_on_a_logarithmic_axis() -> None:
    scale = Scale([1e-5, 1e-3, 1e-1])
    assert scale.is_log
    assert scale.place(1e-3) == pytest.approx(0.5)
    linear = Scale([1, 2, 4])
    assert not linear.is_log
    assert linear.ticks() == [(0.0, "1"), (pytest.approx(1 / 3), "2"), (1.0, "4")]
    words = Scale(["lora", "dora", "lora", None])
    assert [words.place(value) for value in ("lora", "dora", None)] == [0.0, 0.5, 1.0]
    assert not math.isnan(Scale([3, 3]).place(3))


def test_a_result_is_read_as_it_was_written(tmp_path: Path) -> None:
    save_result(_result(), tmp_path)
    assert load_result(tmp_path) == _result()
