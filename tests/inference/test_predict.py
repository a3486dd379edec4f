"""Predicting every row of a file."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from inference.damage import make_weights_nan
from pennyweight.errors import NonFiniteLogitsError, RunError
from pennyweight.inference import classifier as module
from pennyweight.inference.classifier import Classifier
from pennyweight.inference.predict import predict
from tiny import LABELS


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("rows_per_chunk", [8, 4096])
def test_predictions_are_in_the_order_of_the_rows_with_their_probabilities(
    run: Path,
    texts: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    rows_per_chunk: int,
) -> None:
    monkeypatch.setattr(module, "_ROWS_PER_CHUNK", rows_per_chunk)
    out = tmp_path / "predictions.csv"
    assert predict(run, str(tmp_path / "unlabelled.csv"), out=out) == 21
    rows, classifier = _rows(out), Classifier.load(run)
    assert [row["label"] for row in rows] == classifier.predict(texts)
    numbers = [int(row["row"]) for row in rows]
    assert numbers == list(range(numbers[0], numbers[0] + 21))
    expected = classifier.predict_probabilities(texts)
    for row, probabilities in zip(rows, expected, strict=True):
        values = [float(row[f"probability of {label}"]) for label in LABELS]
        assert values == pytest.approx(probabilities.tolist(), abs=1e-5)
        assert float(row["confidence"]) == max(values)


def test_a_missing_folder_is_named_and_not_created(
    run: Path, texts: list[str], tmp_path: Path
) -> None:
    with pytest.raises(RunError, match=r"there is no directory .*/away; create it first"):
        predict(run, str(tmp_path / "unlabelled.csv"), out=tmp_path / "away" / "out.csv")
    assert not (tmp_path / "away").exists()


def test_weights_that_are_nan_leave_the_old_predictions(
    copied_run: Path, texts: list[str], tmp_path: Path
) -> None:
    make_weights_nan(copied_run)
    out = tmp_path / "predictions.csv"
    out.write_text("old")
    with pytest.raises(NonFiniteLogitsError, match=r"^texts: .*NaN or infinite for 21 of 21 rows$"):
        predict(copied_run, str(tmp_path / "unlabelled.csv"), out=out)
    assert out.read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "predictions.csv",
        "run",
        "unlabelled.csv",
    ]
