"""Packed and padded batchers: pieces, sizes, copies and layers that can be skipped."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForSequenceClassification, DistilBertConfig

from engine.families import adapted, rows_of
from pennyweight.engine.batches.batcher import Batcher, PackedBatcher, PaddedBatcher
from pennyweight.engine.batches.rows import TokenizedRows
from pennyweight.engine.kernels.attention import PACKED


class _NoTokens:
    """Storage of rows whose lengths alone matter."""


def _rows(lengths: list[int]) -> TokenizedRows:
    return TokenizedRows(_NoTokens(), np.array(lengths, dtype=int), np.zeros(0), 1)  # type: ignore[arg-type]


@given(
    lengths=st.lists(st.integers(1, 256), max_size=80),
    max_tokens=st.integers(512, 4096),
    copies=st.integers(1, 3),
    is_packed=st.booleans(),
)
def test_pieces_hold_every_row_once_and_keep_the_limit(
    lengths: list[int], max_tokens: int, copies: int, is_packed: bool
) -> None:
    rows = _rows(lengths)
    batcher: Batcher = PaddedBatcher("cpu", max_tokens)
    if is_packed:
        batcher = PackedBatcher("cpu", max_tokens, first_position=0)
    pieces = batcher.pieces(rows, np.arange(len(lengths)), copies=copies)
    assert sorted(np.concatenate(pieces).tolist()) == list(range(len(lengths)))
    for piece in pieces:
        inside = rows.lengths[piece]
        cost = inside.sum() if is_packed else len(piece) * inside.max(initial=0)
        assert copies * cost <= max_tokens or len(piece) == 1
    if len(pieces) > 1:
        assert np.diff(rows.lengths[np.concatenate(pieces)]).min() >= 0
        assert max(map(len, pieces)) - min(map(len, pieces)) <= 1


def test_padding_counts_toward_the_limit_of_padded_batches_only() -> None:
    rows = _rows([10, 100, 10, 100])
    indices = np.arange(4)
    assert len(PackedBatcher("cpu", 220, first_position=0).pieces(rows, indices)) == 1
    padded = PaddedBatcher("cpu", 220).pieces(rows, indices)
    assert [piece.tolist() for piece in padded] == [[0, 2], [1, 3]]


@pytest.mark.parametrize("is_packed", [True, False])
def test_copies_follow_each_other_and_their_tokens_are_counted(is_packed: bool) -> None:
    rows, indices = rows_of(20), np.array([7, 2, 11])
    batcher: Batcher = PaddedBatcher("cpu", 512)
    if is_packed:
        batcher = PackedBatcher("cpu", 512, first_position=0)
    inputs, order = batcher.inputs(rows, indices, copies=2)
    assert order[:3].tolist() == order[3:].tolist()
    assert sorted(order[:3]) == sorted(indices)
    lengths = rows.lengths[indices]
    tokens = lengths.sum() if is_packed else 3 * lengths.max()
    assert batcher.tokens_in(inputs) == 2 * tokens
    ids = inputs["input_ids"].flatten()
    assert torch.equal(ids[:tokens], ids[tokens : 2 * tokens])


def test_layers_below_the_lowest_adapter_can_be_skipped_by_packed_batches_only() -> None:
    packed, padded = PackedBatcher("cpu", 512, first_position=0), PaddedBatcher("cpu", 512)
    for layers, skippable in (([2], 2), ([1, 2], 1), ([0, 2], 0), (None, 0)):
        model = adapted("roberta", attention=PACKED, layers=layers)
        assert packed.skippable_layers(model) == skippable
        assert padded.skippable_layers(model) == 0
    config = DistilBertConfig(dim=32, n_layers=1, n_heads=2, hidden_dim=32, vocab_size=60)
    assert padded.skippable_layers(AutoModelForSequenceClassification.from_config(config)) == 0


@pytest.mark.parametrize(("family", "first_position"), [("bert", 0), ("roberta", 2)])
def test_a_batcher_knows_the_first_position_of_the_model_it_is_attached_to(
    family: str, first_position: int
) -> None:
    model = adapted(family, attention=PACKED)
    batcher = PackedBatcher.attach(model, device="cpu", max_tokens=512)
    assert batcher.first_position == first_position
    assert int(batcher.inputs(rows_of(3), np.arange(3))[0]["position_ids"].min()) == first_position
