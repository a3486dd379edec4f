"""Batches: no row lost, the same each time, little padding."""

from __future__ import annotations

from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from pennyweight.engine.batch import Tokens, TokenStore, collate, epoch_batches, share, tokenize

LENGTHS = np.random.default_rng(0).integers(3, 60, size=1000)


def _padding(batches: list[np.ndarray]) -> int:
    return sum(int((LENGTHS[b].max() - LENGTHS[b]).sum()) for b in batches)


@pytest.mark.parametrize("order", ["grouped", "random"])
@settings(max_examples=25)
@given(st.integers(1, 300), st.integers(1, 40), st.integers(0, 3))
def test_every_row_is_in_exactly_one_batch_of_an_epoch(
    order: str, rows: int, batch_rows: int, epoch: int
) -> None:
    batches = epoch_batches(LENGTHS[:rows], batch_rows=batch_rows, order=order, seed=1, epoch=epoch)
    assert sorted(np.concatenate(batches)) == list(range(rows))
    assert len(batches) == -(-rows // batch_rows)
    assert max(map(len, batches)) <= batch_rows


@pytest.mark.parametrize("order", ["grouped", "random"])
def test_seed_and_epoch_settle_the_batches(order: str) -> None:
    def drawn(seed: int, epoch: int) -> list[list[int]]:
        found = epoch_batches(LENGTHS, batch_rows=16, order=order, seed=seed, epoch=epoch)
        return [batch.tolist() for batch in found]

    assert drawn(1, 0) == drawn(1, 0)
    assert drawn(1, 0) != drawn(1, 1)
    assert drawn(1, 0) != drawn(2, 0)


@pytest.mark.parametrize("order", ["grouped", "random"])
def test_training_begins_with_the_largest_batch(order: str) -> None:
    first, second = (
        [
            int(LENGTHS[batch].sum())
            for batch in epoch_batches(LENGTHS, batch_rows=16, order=order, seed=1, epoch=epoch)
        ]
        for epoch in (0, 1)
    )
    assert first[0] == max(first)
    assert second[0] < max(second)


def test_grouped_batches_are_padded_far_less_than_random_ones() -> None:
    grouped, plain = (
        _padding(epoch_batches(LENGTHS, batch_rows=16, order=order, seed=1, epoch=0))
        for order in ("grouped", "random")
    )
    assert grouped < plain / 5


@settings(max_examples=50)
@given(st.integers(1, 40), st.integers(1, 5), st.integers(1, 4))
def test_the_shares_of_all_processes_are_the_batch_and_equally_many(
    rows: int, parts: int, processes: int
) -> None:
    batch = np.arange(rows) * 3
    shares = [share(batch, parts=parts, process=p, processes=processes) for p in range(processes)]
    assert {len(pieces) for pieces in shares} == {parts}
    together = np.concatenate([piece for pieces in shares for piece in pieces])
    assert sorted(together) == batch.tolist()


def test_a_batch_is_padded_to_its_longest_row_and_the_mask_says_where() -> None:
    store = TokenStore(pa.chunked_array([pa.array([[5, 6], [7], [8, 9, 10, 11]])]))
    tokens = Tokens(store, np.array([2, 1, 4]), np.array([0, 1, 2]), padding=99)
    batch = collate(tokens, np.array([1, 0]))
    assert batch["input_ids"].tolist() == [[7, 99], [5, 6]]
    assert batch["attention_mask"].tolist() == [[1, 0], [1, 1]]


def test_tokens_are_cut_and_come_from_the_cache_the_second_time(bert: Path, tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(bert)
    rows = datasets.Dataset.from_dict(
        {"text": ["the goal of the week", "bank"], "label": [1, 2], "row": [0, 1]}
    )

    def make(max_tokens: int) -> Tokens:
        return tokenize(
            rows, fingerprint="f", tokenizer=tokenizer, max_tokens=max_tokens, cache=tmp_path
        )

    tokens = make(4)
    assert tokens.lengths.tolist() == [4, 3]
    assert tokens.labels.tolist() == [1, 2]
    assert tokens.padding == tokenizer.pad_token_id == 1
    assert tokens.ids(0).tolist() == [*tokenizer("the goal of the week")["input_ids"][:3], 3]
    files = sorted(tmp_path.iterdir())
    written = [file.stat().st_mtime_ns for file in files]
    make(4)
    assert [file.stat().st_mtime_ns for file in sorted(tmp_path.iterdir())] == written
    assert make(24).lengths.tolist() == [7, 3]
