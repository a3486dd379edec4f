"""`plan` draws the ranks, writes plan files, compares plans, and needs a budget at most."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pennyweight.budget.summary import Matrix, PlanSummary
from pennyweight.cli import plan_tables
from pennyweight.cli.main import app
from pennyweight.cli.plan_tables import show_comparison, show_plan, show_ranks
from pennyweight.errors import ReportError

RATIOS = "adapter.allocate={method='by-type', ratios={'*'=1.0, 'query'=2.0}}"
BY_TYPE = ["--set", "adapter.rank=allocate", "--set", "adapter.alpha=auto", "--set", RATIOS]


def _summary(ranks: dict[tuple[str, int], int], *, budget: int = 1000) -> PlanSummary:
    matrices = [
        Matrix(f"encoder.layer.{layer}.{role}", "lora", rank, 2.0 * rank, 64 * rank, layer, role)
        for (role, layer), rank in ranks.items()
    ]
    head = Matrix.trained_in_full("classifier.weight", kind="head", parameters=12)
    count = sum(m.parameters for m in matrices) + 12
    return PlanSummary(budget, count, 5000, count <= budget, (*matrices, head))


@pytest.fixture(autouse=True)
def terminal_of_80_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")


def test_the_heat_map_has_a_row_for_each_role_and_a_dot_without_an_adapter(
    capsys: pytest.CaptureFixture[str],
) -> None:
    show_plan(_summary({("query", 0): 2, ("query", 1): 12, ("value", 1): 1}))
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["query", "lora", "2", "to", "12", "4", "to", "24", "2", "896"] in lines
    assert ["layer", "0", "1"] in lines
    assert ["query", "2", "12"] in lines
    assert ["value", ".", "1"] in lines


def test_roles_keep_the_models_order_if_the_first_layer_lacks_some() -> None:
    summary = _summary({("value", 0): 2, ("query", 1): 1, ("key", 1): 1, ("value", 1): 3})
    assert summary.ranks().roles == ("query", "key", "value")


def test_equal_ranks_need_no_heat_map(capsys: pytest.CaptureFixture[str]) -> None:
    show_plan(_summary({("query", 0): 2, ("query", 1): 2}))
    assert "rank by layer" not in capsys.readouterr().out


def test_a_heat_map_wider_than_the_terminal_is_continued_below(
    capsys: pytest.CaptureFixture[str],
) -> None:
    ranks = _summary({("attention.self.query", layer): layer + 1 for layer in range(24)}).ranks()
    show_ranks(ranks)
    output = capsys.readouterr().out
    assert all(len(line.rstrip()) <= 80 for line in output.splitlines())
    headers = [line.split()[1:] for line in output.splitlines() if line.startswith("layer")]
    assert [each for header in headers for each in header] == list(map(str, range(24)))
    assert len(headers) == 2


def test_darker_cells_are_larger_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    shades = [plan_tables._cell(rank, 7, 1).style for rank in range(1, 8)]
    assert len({str(style) for style in shades}) == 7


def test_a_comparison_has_a_column_for_each_plan(capsys: pytest.CaptureFixture[str]) -> None:
    show_comparison(
        {
            "one": _summary({("query", 0): 2, ("query", 1): 3}),
            "two": _summary({("value", 1): 4}, budget=2000),
        }
    )
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["query", "lora", "2.5,", "320", "none"] in lines
    # One matrix of two has an adapter.
    assert ["value", "lora", "none", "2.0,", "256"] in lines
    assert ["trainable", "332", "268"] in lines
    assert ["allowed", "1,000", "2,000"] in lines


def test_a_budget_is_all_that_has_to_be_said(pennyweight: Callable[..., str]) -> None:
    output = pennyweight("plan", "--budget", "10k")
    assert "trainable 9,988 of 10,000 allowed (99.9%)" in output
    assert "planned for the 4 classes of the bundled sample" in output


def test_a_plan_file_gives_the_same_plan_again_and_says_when_it_is_too_large(
    pennyweight: Callable[..., str], in_workspace: Path, tmp_path: Path
) -> None:
    path = tmp_path / "plan.toml"
    budget = ["tiny.toml", "--budget", "2000"]
    output = pennyweight("plan", *budget, *BY_TYPE, "--out", str(path))
    assert f"written to {path}" in output
    first = json.loads(pennyweight("plan", *budget, *BY_TYPE, "--json"))
    second = json.loads(pennyweight("plan", *budget, "--plan", str(path), "--json"))
    assert first["matrices"] == second["matrices"]
    result = CliRunner().invoke(app, ["plan", "tiny.toml", "--budget", "900", "--plan", str(path)])
    assert f"plan {path}: over budget: " in str(result.exception)


def test_plans_are_compared_with_recipes_and_plan_files(
    pennyweight: Callable[..., str], in_workspace: Path, tmp_path: Path
) -> None:
    path = tmp_path / "mine.toml"
    pennyweight("plan", "tiny.toml", "--budget", "2000", *BY_TYPE, "--out", str(path))
    output = pennyweight("plan", "tiny.toml", "--compare", str(path), "--compare", "runs/one")
    assert output.splitlines()[0].split()[-3:] == ["tiny", "mine", "runs/one"]
    both = json.loads(pennyweight("plan", "tiny.toml", "--compare", str(path), "--json"))
    assert set(both["compared"]) == {str(path)}


@pytest.mark.parametrize("method", ["full", "vera"])
def test_methods_without_a_rank_for_each_matrix_have_no_plan_file(
    method: str, in_workspace: Path
) -> None:
    arguments = ["plan", "tiny.toml", "--set", f"adapter.method={method}", "--out", "none.toml"]
    result = CliRunner().invoke(app, arguments)
    assert f"{method} has no rank of its own for each matrix" in str(result.exception)
    assert not Path("none.toml").exists()


@pytest.mark.parametrize("ending", ["svg", "png"])
def test_a_figure_is_drawn_into_a_file(
    ending: str, pennyweight: Callable[..., str], in_workspace: Path, tmp_path: Path
) -> None:
    path = tmp_path / f"ranks.{ending}"
    pennyweight("plan", "tiny.toml", "--compare", "runs/one", "--figure", str(path))
    content = path.read_bytes()
    assert content.startswith(b"\x89PNG" if ending == "png" else b"<?xml")
    if ending == "svg":
        assert b"attention.self.query" in content
        assert b"runs/one" in content


def test_a_figure_of_another_kind_is_refused(in_workspace: Path) -> None:
    result = CliRunner().invoke(app, ["plan", "tiny.toml", "--figure", "ranks.gif"])
    assert isinstance(result.exception, ReportError)
    assert "allowed: .svg, .png, .pdf" in str(result.exception)


def test_without_matplotlib_a_figure_says_what_to_install(
    in_workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pennyweight.report.plan_figure", None)
    result = CliRunner().invoke(app, ["plan", "tiny.toml", "--figure", "ranks.svg"])
    assert "pip install 'pennyweight[report]'" in str(result.exception)
