"""Predictions of finished runs, and whether two runs were evaluated on the same rows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pennyweight.errors import RunError
from pennyweight.runs.predictions import load_predictions, mcnemar_of_runs, same_rows
from pennyweight.runs.record import load_record
from runs.finished import noisy_answers, write_run
from runs.records import example_recipe, example_record

LABELS = np.array([0, 1] * 30)


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    """Two runs on the same rows."""
    one, other = (
        write_run(tmp_path / name, {"test": (LABELS, noisy_answers(LABELS, accuracy, seed=seed))})
        for name, accuracy, seed in (("one", 0.7, 1), ("other", 0.9, 2))
    )
    return one, other


def test_two_runs_are_compared_row_by_row(pair: tuple[Path, Path]) -> None:
    comparison = mcnemar_of_runs(*pair, "test")
    one, other = (load_record(path).metrics["test"].accuracy for path in pair)
    difference = (comparison.only_one - comparison.only_other) / comparison.rows
    assert difference == pytest.approx(one - other)
    assert 0.0 < comparison.p <= 1.0


def test_a_set_without_predictions_cannot_be_compared(pair: tuple[Path, Path]) -> None:
    with pytest.raises(RunError, match="no predictions for the set nothing"):
        mcnemar_of_runs(*pair, "nothing")


def test_runs_on_different_labels_cannot_be_compared(
    pair: tuple[Path, Path], tmp_path: Path
) -> None:
    answers = load_predictions(pair[0], "test")
    rolled = np.roll(answers.labels, 1)
    np.savez(tmp_path / "predictions.npz", **{"test": answers.predicted, "test.labels": rolled})
    with pytest.raises(RunError, match="their test sets hold different rows"):
        mcnemar_of_runs(pair[0], tmp_path, "test")


def test_other_cleaning_steps_make_no_other_rows() -> None:
    data = example_record().data
    assert data is not None
    other = {**data.sets, "test": replace(data.sets["test"], fingerprint="other")}
    changed = data.model_copy(update={"sets": other})
    cleaned = example_record(data=changed, recipe=example_recipe(data={"clean": ["whitespace"]}))
    assert same_rows(example_record(), cleaned, "test")
    assert not same_rows(example_record(), example_record(data=changed), "test")


def test_validation_rows_that_another_seed_split_off_are_other_rows() -> None:
    data = example_record().data
    assert data is not None
    validation = data.sets["test"]
    records = [
        example_record(
            data=data.model_copy(
                update={"sets": {"validation": replace(validation, fingerprint=str(number))}}
            ),
            recipe=example_recipe(data={"clean": clean}).model_copy(update={"seed": seed}),
        )
        for number, (seed, clean) in enumerate([(1, []), (2, ["whitespace"]), (1, ["whitespace"])])
    ]
    assert not same_rows(records[0], records[1], "validation")
    assert same_rows(records[0], records[2], "validation")
