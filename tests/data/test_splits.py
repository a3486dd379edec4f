"""Splits: overlaps are found once for the same rows, and again for others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pennyweight.data import splits as room
from pennyweight.data.ingest import Source
from pennyweight.data.overlap import find_overlap
from pennyweight.data.splits import Reading, Splits, make_splits


def _write(path: Path, texts: list[str]) -> Source:
    rows = "".join(f"{number % 2},{text}\n" for number, text in enumerate(texts))
    path.write_text(f"label,text\n{rows}")
    return Source(str(path))


def test_overlaps_are_found_once_for_the_same_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def counted(one: str, *args: Any, **kwargs: Any) -> Any:
        asked.append(one)
        return find_overlap(one, *args, **kwargs)

    monkeypatch.setattr(room, "find_overlap", counted)
    texts = [f"row number {number} of the training set" for number in range(20)]
    train = _write(tmp_path / "train.csv", texts)
    validation = _write(tmp_path / "validation.csv", ["one more", "and another"])

    def made(test: Source) -> Splits:
        return make_splits(
            train,
            validation=validation,
            held_out={"test": test},
            reading=Reading(("a", "b"), (), "stop", tmp_path / "cache"),
            validation_fraction=0.1,
            train_rows=None,
            overlap="remove",
            similarity=0.8,
            seed=0,
        )

    first = made(_write(tmp_path / "test.csv", [texts[3], "something else"]))
    again = made(Source(str(tmp_path / "test.csv")))
    assert asked == ["train", "validation"]
    assert first.removed == again.removed == 1
    for one, other in zip(first.overlaps, again.overlaps, strict=True):
        assert one.to_json() == other.to_json()
        assert np.array_equal(one.exact_rows, other.exact_rows)
    assert first.facts["train"] == again.facts["train"]
    other = made(_write(tmp_path / "other.csv", [texts[3], texts[4]]))
    assert asked == ["train", "validation"] * 2
    assert other.removed == 2
