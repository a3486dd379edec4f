"""Measuring a finished run on labelled rows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from inference.damage import make_weights_nan
from pennyweight.data.source import Source
from pennyweight.errors import DataError, NonFiniteLogitsError
from pennyweight.inference.evaluate import evaluate
from pennyweight.runs.record import load_record
from tiny import news, write_news


def test_the_metrics_are_those_of_the_record(run: Path, sets: Path) -> None:
    metrics, expected = evaluate(run, str(sets / "test.csv")), load_record(run).metrics["test"]
    assert metrics.rows == 12
    assert metrics.confusion == expected.confusion
    assert metrics.nll == pytest.approx(expected.nll, abs=1e-5)


def test_a_source_names_its_columns(run: Path, sets: Path, tmp_path: Path) -> None:
    text = (sets / "test.csv").read_text().replace("label,text", "topic,headline", 1)
    (tmp_path / "renamed.csv").write_text(text)
    source = Source(
        location=str(tmp_path / "renamed.csv"), text_columns=("headline",), label_column="topic"
    )
    assert evaluate(run, source) == evaluate(run, str(sets / "test.csv"))


def test_bad_rows_stop_it_or_are_set_aside_in_the_run(copied_run: Path, tmp_path: Path) -> None:
    rows = [*news(8, seed=12), (7, "the label of this row is unknown")]
    data = str(write_news(tmp_path / "some_bad.csv", rows))
    with pytest.raises(DataError, match="row 9"):
        evaluate(copied_run, data)
    assert evaluate(copied_run, data, on_bad_row="set-aside").rows == 8
    lines = (copied_run / "bad_rows" / "evaluate.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["row"] for line in lines] == [9]


def test_rows_without_labels_are_refused(run: Path, texts: list[str], tmp_path: Path) -> None:
    with pytest.raises(DataError, match="label"):
        evaluate(run, str(tmp_path / "unlabelled.csv"))


def test_weights_that_are_nan_give_no_metrics(copied_run: Path, sets: Path) -> None:
    make_weights_nan(copied_run)
    with pytest.raises(NonFiniteLogitsError, match=r"NaN or infinite for 12 of 12 rows$"):
        evaluate(copied_run, str(sets / "test.csv"))
