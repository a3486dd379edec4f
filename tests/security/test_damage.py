"""Damaged files are noticed: caches are made again, and nothing else is used as if whole."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from inference.damage import flip_a_byte
from pennyweight.budget.patterns import matches
from pennyweight.data.ingest import ReadOptions, Rows, read_rows
from pennyweight.data.source import Source
from pennyweight.engine.batches.tokenize import tokenize
from pennyweight.errors import RunError
from pennyweight.inference.correction import load_correction
from pennyweight.runs.directory import hash_artifact, verify_artifact
from runs.records import example_record
from tiny import LABELS, news, write_news


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:200])


DAMAGES = [flip_a_byte, _truncate, Path.unlink]


def _rows(folder: Path) -> Rows:
    source = folder / "rows.csv"
    if not source.exists():
        write_news(source, news(40, seed=3))
    options = ReadOptions(LABELS, (), "stop", folder / "cache")
    return read_rows("train", Source(str(source)), options)


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_cached_rows_are_read_again(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    first = _rows(tmp_path)
    texts = first.table["text"][:]
    damage(next((tmp_path / "cache").rglob("rows.arrow")))
    again = _rows(tmp_path)
    assert again.table["text"][:] == texts
    assert again.fingerprint == first.fingerprint


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_cached_tokens_are_made_again(
    tmp_path: Path, bert: Path, damage: Callable[[Path], None]
) -> None:
    rows = _rows(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(bert)

    def ids() -> list[list[int]]:
        tokens = tokenize(
            rows.table,
            fingerprint=rows.fingerprint,
            tokenizer=tokenizer,
            max_tokens=16,
            cache=tmp_path / "tokens",
        )
        return [tokens.ids(row).tolist() for row in range(len(rows.table))]

    first = ids()
    damage(next((tmp_path / "tokens").glob("*.arrow")))
    assert ids() == first


@pytest.mark.parametrize(
    "change",
    [
        {"temperature": float("nan")},
        {"temperature": 0.0},
        {"temperature": "x"},
        {"source": [0.5, float("nan")]},
        {"priors": [[0.5, float("inf")]]},
        {"priors": [[1.0]]},
        {"source": None},
    ],
)
def test_a_correction_whose_numbers_are_damaged_is_refused(
    tmp_path: Path, change: dict[str, object]
) -> None:
    values = {"temperature": 1.5, "source": [0.5, 0.5], "priors": [[0.0, 1.0]], "groups": None}
    (tmp_path / "correction.json").write_text(json.dumps(values))
    assert load_correction(tmp_path) is not None
    (tmp_path / "correction.json").write_text(json.dumps({**values, **change}))
    with pytest.raises(RunError, match=r"correction\.json: cannot be read"):
        load_correction(tmp_path)


def test_a_file_that_was_added_to_an_adapter_is_refused(tmp_path: Path) -> None:
    artifact = tmp_path / "adapter"
    artifact.mkdir()
    (artifact / "weights").write_text("x")
    record = example_record(artifact=hash_artifact(artifact))
    verify_artifact(tmp_path, record, artifact)
    (artifact / ".DS_Store").write_text("")
    verify_artifact(tmp_path, record, artifact)
    (artifact / "correction.json").write_text("{}")
    with pytest.raises(RunError, match=r"correction\.json: not among the files"):
        verify_artifact(tmp_path, record, artifact)


def test_a_pattern_of_many_stars_is_matched_in_no_time() -> None:
    name = ".".join(["a" * 200] * 5)
    began = time.monotonic()
    assert not matches("*a" * 60 + "b", name)
    assert matches("*a" * 60, name)
    assert matches("a*b*c", "x.aXbYc.z")
    assert matches("*ab*ab*", "x.ababab")
    assert not matches("*ab*ab", "ab.ab")
    assert time.monotonic() - began < 1.0
