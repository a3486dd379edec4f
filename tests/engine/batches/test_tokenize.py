"""Tokenization: truncated, cached on disk, and the same ids in memory."""

from __future__ import annotations

import tempfile
from pathlib import Path

import datasets
import numpy as np
import pytest
from transformers import AutoTokenizer

from pennyweight.engine.batches import tokenize as tokenize_module
from pennyweight.engine.batches.rows import TokenizedRows
from pennyweight.engine.batches.tokenize import tokenize, tokenize_texts


def test_tokens_are_cut_and_come_from_the_cache_the_second_time(bert: Path, tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(bert)
    dataset = datasets.Dataset.from_dict(
        {"text": ["the goal of the week", "bank"], "label": [1, 2], "row": [0, 1]}
    )

    def make(max_tokens: int) -> TokenizedRows:
        return tokenize(
            dataset, fingerprint="f", tokenizer=tokenizer, max_tokens=max_tokens, cache=tmp_path
        )

    rows = make(4)
    assert rows.lengths.tolist() == [4, 3]
    assert rows.labels.tolist() == [1, 2]
    assert rows.padding == tokenizer.pad_token_id == 1
    assert rows.ids(0).tolist() == [*tokenizer("the goal of the week")["input_ids"][:3], 3]
    files = sorted(tmp_path.iterdir())
    written = [file.stat().st_mtime_ns for file in files]
    make(4)
    assert [file.stat().st_mtime_ns for file in sorted(tmp_path.iterdir())] == written
    assert make(24).lengths.tolist() == [7, 3]


def test_rows_with_cached_tokens_have_their_own_labels(bert: Path, tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(bert)

    def labels_of(dataset: datasets.Dataset) -> list[int]:
        return tokenize(
            dataset, fingerprint="texts", tokenizer=tokenizer, max_tokens=24, cache=tmp_path
        ).labels.tolist()

    texts = ["bank", "the goal", "new week"]
    assert labels_of(datasets.Dataset.from_dict({"text": texts, "label": [0, 1, 2]})) == [0, 1, 2]
    other = datasets.Dataset.from_dict({"text": [*texts, "chip"], "label": [3, 1, -1, 0]})
    assert labels_of(other.select(range(3))) == [3, 1, -1]


def test_many_rows_are_in_several_files_of_which_only_a_damaged_one_is_made_again(
    bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(bert)
    texts = ["bank", "the goal of the week", "new week", "a coach", "border"]
    dataset = datasets.Dataset.from_dict({"text": texts, "label": [0, 1, 2, 3, 0]})

    def make(name: str) -> TokenizedRows:
        cache = tmp_path / name
        return tokenize(dataset, fingerprint="f", tokenizer=tokenizer, max_tokens=24, cache=cache)

    one = make("one")
    monkeypatch.setattr(tokenize_module, "MANY_ROWS", 2)
    many = make("many")
    files = sorted((tmp_path / "many").glob("*.arrow"))
    assert len(files) == 3
    assert many.fingerprint == one.fingerprint
    assert many.labels.tolist() == [0, 1, 2, 3, 0]
    assert many.lengths.tolist() == one.lengths.tolist()
    assert many.full_lengths is not None
    assert many.full_lengths.tolist() == one.lengths.tolist()
    for index in range(5):
        assert many.ids(index).tolist() == one.ids(index).tolist()
    taken = many.take(np.array([4, 1]))
    assert taken.ids(0).tolist() == one.ids(4).tolist()

    written = {file: file.stat().st_mtime_ns for file in files}
    files[1].write_bytes(b"damaged")
    assert make("many").ids(3).tolist() == one.ids(3).tolist()
    assert [file.stat().st_mtime_ns == written[file] for file in files] == [True, False, True]


@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_texts_in_memory_get_the_ids_of_a_dataset(
    family: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(request.getfixturevalue(family))
    texts = ["the goal of the week", "", "bank", "an unknown word", "new week " * 30]
    dataset = datasets.Dataset.from_dict({"text": texts, "label": [0] * len(texts)})
    cached = tokenize(
        dataset, fingerprint="f", tokenizer=tokenizer, max_tokens=24, cache=tmp_path / "cache"
    )
    in_memory = tokenize_texts(texts, tokenizer=tokenizer, max_tokens=24)
    assert len(in_memory) == len(texts)
    assert in_memory.lengths.tolist() == cached.lengths.tolist()
    assert in_memory.padding == cached.padding
    assert in_memory.labels.tolist() == [-1] * len(texts)
    for index in range(len(texts)):
        assert in_memory.ids(index).dtype == np.int32
        assert np.array_equal(in_memory.ids(index), cached.ids(index))
    assert in_memory.take(np.array([4, 2])).ids(1).tolist() == in_memory.ids(2).tolist()


def test_no_texts_give_no_rows_and_nothing_is_written(
    bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(bert)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(datasets.Dataset, "map", None)
    rows = tokenize_texts([], tokenizer=tokenizer, max_tokens=24)
    assert len(rows) == 0
    assert rows.lengths.dtype == np.int64
    assert tokenize_texts(("bank",), tokenizer=tokenizer, max_tokens=24).lengths.tolist() == [3]
    assert list(tmp_path.iterdir()) == []
