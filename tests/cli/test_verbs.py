"""What a user types, and what comes back."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from pennyweight.cli.main import app

if TYPE_CHECKING:
    from pathlib import Path

VERBS = ("plan", "train", "evaluate", "predict", "submit", "merge", "inspect", "recipes", "doctor")
OUTPUT_DENSE = 'adapter.targets=["query", "output.dense"]'
ALL_THREE = 'adapter.targets=["query", "value", "output.dense"]'


def pennyweight(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pennyweight", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself(verb: str) -> None:
    result = CliRunner().invoke(app, [verb, "--help"])
    assert result.exit_code == 0
    assert "Usage" in result.output


def test_help_does_not_load_torch() -> None:
    code = (
        "import sys\nfrom pennyweight.cli.main import app\n"
        "sys.exit(any(m in sys.modules for m in ('torch', 'transformers', 'datasets')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("recipe", "changes", "trainable", "total"),
    [
        ("spar-lora", (), 741_124, 125_389_832),
        ("spar-lora", ("adapter.rank=8",), 888_580, 125_537_288),
        ("leon-lora", (), 916_996, 125_463_560),
        ("spar-lora", (OUTPUT_DENSE,), 925_444, 125_574_152),
        ("spar-lora", (ALL_THREE, "adapter.rank=2"), 796_420, 125_445_128),
        ("spar-lora", ('adapter.rank="fill"',), 999_172, 125_647_880),
    ],
)
def test_plan_gives_the_published_counts(
    recipe: str, changes: tuple[str, ...], trainable: int, total: int
) -> None:
    sets = [part for change in changes for part in ("--set", change)]
    result = CliRunner().invoke(app, ["plan", recipe, "--json", *sets])
    plan = json.loads(result.output)
    assert (plan["trainable_parameters"], plan["total_parameters"]) == (trainable, total)
    assert plan["within_budget"]
    assert sum(matrix["parameters"] for matrix in plan["matrices"]) == trainable
    assert set(plan["matrices"][0]) == {"name", "kind", "rank", "alpha", "parameters"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("plan", "spar-lroa"), 'did you mean "spar-lora"?'),
        (("plan", "spar-lora", "--set", "adapter.rnak=4"), 'did you mean "rank"?'),
        (
            (
                "plan",
                "spar-lora",
                *("--set", "adapter.rank=16"),
                *("--set", 'adapter.targets=["query","key","value","output.dense"]'),
            ),
            "1,510,596 more than the 1,000,000 allowed",
        ),
        (("evaluate", "nowhere", "--data", "x.csv"), "record.json is missing"),
        (("inspect", "nowhere"), "adapter_config.json is missing"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(arguments: tuple[str, ...], said: str) -> None:
    result = pennyweight(*arguments)
    assert result.returncode == 2
    assert said in result.stderr
    assert "Traceback" not in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_an_unknown_base_is_an_error_that_names_the_embedded_one(tmp_path: Path) -> None:
    arguments = ("train", "demo", "--out", str(tmp_path / "run"), "--set", "base.name=no/such")
    result = pennyweight(*arguments)
    assert result.returncode == 2
    assert "--set base.name=embedded" in result.stderr
    assert not (tmp_path / "run").exists()
