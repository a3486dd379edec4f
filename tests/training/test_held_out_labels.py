"""No label of a test or target decides anything: with other labels, training is the same."""

from __future__ import annotations

import csv
import re
import shutil
from pathlib import Path

import pytest

import pennyweight
from pennyweight.recipe import resolve_recipe
from pennyweight.training.train import train
from tiny import LABELS, news, tiny_recipe

_SOURCES = Path(pennyweight.__file__).parent
# The only module of training that sees the labels of evaluation sets: it measures finished weights.
# Its correction for a target reads those of validation rows.
_MEASURING = {"final_evaluation.py"}


def _with_other_labels(sets: Path, folder: Path) -> Path:
    """Return a copy of the sets in which every label of the test set is a different one."""
    shutil.copytree(sets, folder)
    with (folder / "test.csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    column = header.index("label")
    names = list(dict.fromkeys(row[column] for row in rows))
    for row in rows:
        row[column] = names[(names.index(row[column]) + 1) % len(names)]
    with (folder / "test.csv").open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return folder


@pytest.fixture
def target(tmp_path: Path) -> Path:
    path = tmp_path / "target.csv"
    with path.open("w", newline="") as file:
        rows = [(LABELS[label], text) for label, text in news(120, seed=31)]
        csv.writer(file).writerows([("label", "text"), *rows])
    return path


def _files(recipe_sets: Path, base: Path, target: Path, teacher: Path, out: Path) -> dict[str, str]:
    values = tiny_recipe(base, recipe_sets, data={"target": str(target)}, train={"epochs": 2})
    use = {
        "prior": {"method": "stated", "stated": "uniform"},
        "self_training": {"method": "balanced", "teachers": [str(teacher)], "labels": "soft"},
    }
    dumped = values.model_dump(mode="json", exclude_none=True)
    record = train(resolve_recipe({**dumped, "transduction": use}), out=out)
    assert record.artifact is not None
    hashes = dict(record.artifact.files)
    # The card reports accuracies on the test.
    hashes.pop("README.md", None)
    return hashes


def test_other_labels_of_test_and_target_give_the_same_classifier(
    roberta: Path, sets: Path, target: Path, tmp_path: Path
) -> None:
    teacher = tmp_path / "teacher"
    train(tiny_recipe(roberta, sets, train={"epochs": 2}), out=teacher)
    first = _files(sets, roberta, target, teacher, tmp_path / "first")
    changed = _with_other_labels(sets, tmp_path / "changed")
    text = target.read_text().replace("World", "Sci/Tech").replace("Sports", "Business")
    target.write_text(text)
    second = _files(changed, roberta, target, teacher, tmp_path / "second")
    assert "correction.json" in first
    assert first == second


def test_only_measurements_read_the_labels_of_evaluation_sets() -> None:
    # Columns are read by name, as in `target["text"]`, and the labels of tokens as an attribute.
    column = re.compile(r'(?:held_out|labelled|target)(?:\[[^\]]*\]|\.values\(\))*\["label"\]')
    attribute = re.compile(r"(?:held_out|labelled)(?:\[[^\]]*\]|\.values\(\))+\.labels")
    modules = [
        *(_SOURCES / "training").glob("*.py"),
        *(_SOURCES / "lab").glob("*.py"),
        *(_SOURCES / "defaults").glob("*.py"),
    ]
    sources = {module.name: module.read_text(encoding="utf-8") for module in modules}
    readers = {
        name for name, text in sources.items() if column.search(text) or attribute.search(text)
    }
    assert readers == _MEASURING
