"""Packed batches against padded ones: the same logits, loss and gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional
from transformers import AutoModelForSequenceClassification, DistilBertConfig

from engine.families import CONFIGS, adapted, rows_of
from pennyweight.engine.attention import PACKED
from pennyweight.engine.batch import Tokens, collate
from pennyweight.engine.device import Compute, choose_compute
from pennyweight.engine.feed import Feed, make_ready
from pennyweight.engine.pack import can_pack, pack
from pennyweight.errors import TrainingError

FP32 = Compute("cpu", "fp32", PACKED, "")


def _gradients(model: Any) -> dict[str, torch.Tensor]:
    return {n: p.grad for n, p in model.named_parameters() if p.grad is not None}


def _plain(family: str, tokens: Tokens, rows: np.ndarray, **how: Any) -> Any:
    """Transformers and PEFT alone, on a padded batch: logits by row, loss, gradients."""
    model = adapted(family, attention="eager", **how)
    model.train()
    logits = model(**collate(tokens, rows)).logits
    loss = functional.cross_entropy(logits, torch.from_numpy(tokens.labels[rows]))
    loss.backward()
    return logits.detach(), float(loss.detach()), _gradients(model)


@pytest.mark.parametrize("family", CONFIGS)
@pytest.mark.parametrize("count", [21, 70])
def test_packed_and_padded_batches_agree(family: str, count: int) -> None:
    # 21 rows: two tiles, the second not full; 70: tiles of several sizes. Lengths that are no
    # multiple of anything.
    tokens, rows = rows_of(count + 9), np.arange(4, count + 4)
    logits, loss, gradients = _plain(family, tokens, rows)
    model = adapted(family, attention=PACKED)
    feed = make_ready(model, FP32, most_tokens=8192)
    model.train()
    inputs, order = feed.inputs(tokens, rows)
    found = model(**inputs).logits
    found_loss = functional.cross_entropy(found, torch.from_numpy(tokens.labels[order]))
    found_loss.backward()
    torch.testing.assert_close(found, logits[order - 4], atol=1e-5, rtol=1e-5)
    assert abs(float(found_loss.detach()) - loss) < 1e-5
    found_gradients = _gradients(model)
    assert found_gradients.keys() == gradients.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(found_gradients[name], gradient, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("family", CONFIGS)
def test_packed_inference_agrees_too(family: str) -> None:
    # Without gradients another kernel attends.
    tokens, rows = rows_of(9, seed=5), np.arange(9)
    logits, _, _ = _plain(family, tokens, rows)
    model = adapted(family, attention=PACKED).eval()
    feed = make_ready(model, FP32, most_tokens=8192)
    with torch.inference_mode():
        inputs, order = feed.inputs(tokens, rows)
        torch.testing.assert_close(model(**inputs).logits, logits[order], atol=1e-5, rtol=1e-5)


def test_a_packed_model_called_with_a_padded_batch_says_how_to_call_it() -> None:
    model = adapted("bert", attention=PACKED)
    with pytest.raises(ValueError, match="packing="):
        model(**collate(rows_of(3), np.arange(3)))


def test_another_architecture_falls_back_to_padded_batches_and_says_so() -> None:
    config = DistilBertConfig(dim=32, n_layers=1, n_heads=2, hidden_dim=32, vocab_size=60)
    assert not can_pack(config)
    compute = choose_compute(precision="fp32", attention="auto", config=config)
    assert compute.attention != PACKED
    assert "packing does not know distilbert" in compute.why
    with pytest.raises(TrainingError, match="do not work with a distilbert encoder"):
        choose_compute(precision="fp32", attention="packed", config=config)
    model = AutoModelForSequenceClassification.from_config(config, attn_implementation="eager")
    feed = make_ready(model.eval(), compute, most_tokens=512)
    tokens = rows_of(6)
    inputs, order = feed.inputs(tokens, np.array([5, 0, 3]))
    assert list(order) == [5, 0, 3]
    alone = model(**collate(tokens, np.array([3]))).logits
    torch.testing.assert_close(model(**inputs).logits[2:], alone, atol=1e-5, rtol=1e-5)


@settings(max_examples=60)
@given(lengths=st.lists(st.integers(1, 70), min_size=1, max_size=50))
def test_every_token_has_its_own_place_in_a_tile(lengths: list[int]) -> None:
    tokens = rows_of(1)
    tokens = Tokens(_Counting(lengths), np.array(lengths), np.zeros(len(lengths)), 1)  # type: ignore[arg-type]
    inputs, order = pack(tokens, np.arange(len(lengths)), first_position=0)
    packing = inputs["packing"]
    total = sum(lengths)
    assert packing.tokens == total
    assert inputs["input_ids"].shape[1] >= total
    places = packing.places_of_tokens[:total]
    assert len(set(places.tolist())) == total
    assert torch.equal(packing.tokens_of_places[places], torch.arange(total))
    for at, row in enumerate(order):
        begin, end = packing.offsets[at : at + 2].tolist()
        assert end - begin == lengths[row]
        assert inputs["position_ids"][0, begin:end].tolist() == list(range(lengths[row]))
        assert inputs["input_ids"][0, begin:end].tolist() == [row] * lengths[row]


@settings(max_examples=60)
@given(lengths=st.lists(st.integers(1, 40), min_size=1, max_size=90), heads=st.integers(1, 3))
def test_what_goes_into_tiles_comes_back_to_its_token(lengths: list[int], heads: int) -> None:
    tokens = Tokens(_Counting(lengths), np.array(lengths), np.zeros(len(lengths)), 1)  # type: ignore[arg-type]
    inputs, _ = pack(tokens, np.arange(len(lengths)), first_position=0)
    packing = inputs["packing"]
    values = 1.0 + torch.arange(inputs["input_ids"].shape[1] * heads * 2.0).view(-1, heads, 2)
    firsts = packing.offsets[:-1].long()
    for places, wanted in (
        (packing.places(heads), torch.arange(packing.tokens)),
        (packing.places(heads, firsts=True), firsts),
    ):
        room = places.room(values)
        for tile in packing.tiles:
            places.of(room, tile).copy_(places.of(places.gather(values), tile))
        expected = torch.zeros_like(values)
        expected[wanted] = values[wanted]
        assert torch.equal(places.scatter(room), expected)
    for tile in packing.tiles:
        shape = (tile.rows * heads, 1, 2)
        assert packing.places(heads, firsts=True).of(places.gather(values), tile).shape == shape


def test_texts_of_one_length_go_through_attention_together() -> None:
    def tiles(lengths: list[int]) -> list[tuple[int, int]]:
        tokens = Tokens(_Counting(lengths), np.array(lengths), np.zeros(len(lengths)), 1)  # type: ignore[arg-type]
        inputs, _ = pack(tokens, np.arange(len(lengths)), first_position=0)
        return [(tile.rows, tile.length) for tile in inputs["packing"].tiles]

    assert tiles([30] * 64) == [(64, 32)]
    assert tiles([30] * 48 + [40] * 3) == [(32, 32), (16, 32), (4, 48)]
    assert tiles([30] * 100) == [(64, 32), (32, 32), (4, 32)]


class _Counting:
    """A row's ids are its number."""

    def __init__(self, lengths: list[int]) -> None:
        self.lengths = lengths

    def __getitem__(self, row: int) -> np.ndarray:
        return np.full(self.lengths[row], row)


@given(
    lengths=st.lists(st.integers(1, 256), max_size=80),
    most=st.integers(512, 4096),
    is_packed=st.booleans(),
)
def test_pieces_hold_every_row_once_and_keep_the_limit(
    lengths: list[int], most: int, is_packed: bool
) -> None:
    tokens = Tokens(_Counting(lengths), np.array(lengths, dtype=int), np.zeros(0), 1)  # type: ignore[arg-type]
    feed = Feed("cpu", most, 0 if is_packed else None)
    pieces = feed.pieces(tokens, np.arange(len(lengths)))
    assert sorted(np.concatenate(pieces).tolist()) == list(range(len(lengths)))
    for piece in pieces:
        inside = tokens.lengths[piece]
        cost = inside.sum() if is_packed else len(piece) * inside.max(initial=0)
        assert cost <= most or len(piece) == 1
