"""The notebook is executed, complete, and free of what differs between machines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pennyweight.cli.tables import headline
from pennyweight.runs.record import load_record


@pytest.fixture
def notebook(report: Path) -> Any:
    return json.loads((report / "notebook.ipynb").read_text())


def _outputs(notebook: Any) -> list[Any]:
    return [output for cell in notebook["cells"] for output in cell.get("outputs", [])]


def test_it_prints_metrics_the_verified_count_and_the_two_numbers(
    finished: Path, notebook: Any
) -> None:
    record = load_record(finished / "one")
    printed = ["".join(output.get("text", "")) for output in _outputs(notebook)]
    test, counts = record.metrics["test"], record.parameters
    assert counts is not None
    low, high = test.accuracy_interval
    everything = "".join(printed)
    assert f"{test.accuracy:.2%}" in everything
    assert f"{low:.2%} to {high:.2%}" in everything
    assert f"counted again from the file: {counts.file:,}" in everything
    assert headline("test", test) in printed[-1]
    assert f"trainable parameters: {counts.file:,}" in printed[-1]


def test_it_shows_five_figures(notebook: Any) -> None:
    images = [output for output in _outputs(notebook) if "image/png" in output.get("data", {})]
    assert len(images) == 5


def test_it_classifies_sentences(notebook: Any) -> None:
    cell = next(cell for cell in notebook["cells"] if "Classifier.load" in "".join(cell["source"]))
    lines = "".join(cell["outputs"][0]["text"]).splitlines()
    assert len(lines) == 4
    assert all(line.split()[0] in ("World", "Sports", "Business", "Sci/Tech") for line in lines)


def test_it_holds_no_absolute_path_no_times_and_no_warnings(
    finished: Path, report: Path, notebook: Any
) -> None:
    text = json.dumps(notebook)
    assert str(finished) not in text
    assert str(report) not in text
    assert str(Path.home()) not in text
    assert all("execution" not in cell["metadata"] for cell in notebook["cells"])
    assert all(output.get("name") != "stderr" for output in _outputs(notebook))
