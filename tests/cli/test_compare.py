"""The `compare` command: formats, groups, files, and errors in one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pennyweight.errors import RunError
from runs.finished import noisy_answers, write_run

LABELS = np.array([0, 1] * 100)


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Directories of two runs of different recipes."""
    monkeypatch.setenv("COLUMNS", "80")
    return [
        str(
            write_run(
                tmp_path / name,
                {"test": (LABELS, noisy_answers(LABELS, accuracy, seed=seed))},
                recipe={"name": name, "adapter": {"alpha": float(seed)}},
            )
        )
        for seed, (name, accuracy) in enumerate((("weak", 0.7), ("strong", 0.95)), start=1)
    ]


def test_the_table_fits_the_terminal_and_ends_in_words(
    runs: list[str], pennyweight: Callable[..., str]
) -> None:
    output = pennyweight("compare", *runs)
    lines = output.splitlines()
    assert lines[0] == "test: 200 rows, accuracy in %"
    assert lines[2].split()[:2] == ["weak", "1"]
    assert max(map(len, lines)) <= 80
    assert "strong is better than weak by" in " ".join(lines)


def test_every_format_can_be_written_to_a_file(
    runs: list[str], pennyweight: Callable[..., str], tmp_path: Path
) -> None:
    begins = {"table": "test: 200", "markdown": "**test", "json": "{", "latex": r"\begin{table}"}
    for name, begin in begins.items():
        out = tmp_path / f"out.{name}"
        output = pennyweight("compare", *runs, "--format", name, "--out", str(out))
        assert output == f"comparison in {out}\n"
        assert out.read_text().startswith(begin)


def test_groups_reference_and_sets_are_passed_on(
    runs: list[str], pennyweight: Callable[..., str]
) -> None:
    groups = ["--group", f"A={runs[0]}", "--group", f"B={runs[1]}", "--reference", "B"]
    values = json.loads(pennyweight("compare", *groups, "--only", "test", "--format", "json"))
    assert [system["name"] for system in values["systems"]] == ["B", "A"]
    assert values["sets"][0]["comparisons"][0]["verdict"] == "worse"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--group", "mine"], "--group mine: expected NAME=RUN,RUN"),
        (["--group", "=x"], "--group =x: expected NAME=RUN,RUN"),
        (["--group", "a=x", "--group", "a=y"], "there are two groups a; list all runs in one"),
        (["nowhere"], r"nowhere: not a run: record\.json is missing"),
        ([], "a comparison needs at least two systems"),
    ],
)
def test_mistakes_are_explained(
    arguments: list[str], message: str, pennyweight: Callable[..., str]
) -> None:
    with pytest.raises(RunError, match=message):
        pennyweight("compare", *arguments)


def test_json_is_short_for_the_format(runs: list[str], pennyweight: Callable[..., str]) -> None:
    assert pennyweight("compare", *runs, "--json") == pennyweight(
        "compare", *runs, "--format", "json"
    )
    with pytest.raises(RunError, match="--json and --format latex: give either"):
        pennyweight("compare", *runs, "--json", "--format", "latex")
