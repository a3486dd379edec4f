"""Packed batches against padded ones: the same logits, loss and gradients."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional
from transformers import AutoModelForSequenceClassification, DistilBertConfig

from engine.families import CONFIGS, adapted, rows_of
from pennyweight.engine.batches.packing import pack
from pennyweight.engine.batches.rows import TokenizedRows, collate
from pennyweight.engine.device import Compute, choose_compute
from pennyweight.engine.kernels.attention import PACKED
from pennyweight.engine.kernels.families import can_pack
from pennyweight.engine.kernels.prepare import prepare_model
from pennyweight.errors import TrainingError

FP32 = Compute("cpu", "fp32", PACKED, "")


def _gradients(model: Any) -> dict[str, torch.Tensor]:
    return {n: p.grad for n, p in model.named_parameters() if p.grad is not None}


def _plain(family: str, rows: TokenizedRows, indices: np.ndarray) -> Any:
    """Return logits, loss and gradients of plain transformers and PEFT on a padded batch."""
    model = adapted(family, attention="eager")
    model.train()
    logits = model(**collate(rows, indices)).logits
    loss = functional.cross_entropy(logits, torch.from_numpy(rows.labels[indices]))
    loss.backward()
    return logits.detach(), float(loss.detach()), _gradients(model)


@pytest.mark.parametrize("family", CONFIGS)
@pytest.mark.parametrize("count", [21, 70])
def test_packed_and_padded_batches_agree(family: str, count: int) -> None:
    # 21 rows: two tiles, the second not full; 70: tiles of several sizes. Lengths that are no
    # multiple of anything.
    rows, indices = rows_of(count + 9), np.arange(4, count + 4)
    logits, loss, gradients = _plain(family, rows, indices)
    model = adapted(family, attention=PACKED)
    batcher = prepare_model(model, FP32, max_tokens=8192)
    model.train()
    inputs, order = batcher.inputs(rows, indices)
    packed = model(**inputs).logits
    packed_loss = functional.cross_entropy(packed, torch.from_numpy(rows.labels[order]))
    packed_loss.backward()
    torch.testing.assert_close(packed, logits[order - 4], atol=1e-5, rtol=1e-5)
    assert abs(float(packed_loss.detach()) - loss) < 1e-5
    packed_gradients = _gradients(model)
    assert packed_gradients.keys() == gradients.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(packed_gradients[name], gradient, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("family", CONFIGS)
def test_packed_inference_agrees_too(family: str) -> None:
    # Without gradients another attention kernel runs.
    rows, indices = rows_of(9, seed=5), np.arange(9)
    logits, _, _ = _plain(family, rows, indices)
    model = adapted(family, attention=PACKED).eval()
    batcher = prepare_model(model, FP32, max_tokens=8192)
    with torch.inference_mode():
        inputs, order = batcher.inputs(rows, indices)
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
    assert "distilbert encoders do not support packed batches" in compute.why
    with pytest.raises(TrainingError, match="distilbert encoders do not support packed"):
        choose_compute(precision="fp32", attention="packed", config=config)
    model = AutoModelForSequenceClassification.from_config(config, attn_implementation="eager")
    batcher = prepare_model(model.eval(), compute, max_tokens=512)
    rows = rows_of(6)
    inputs, order = batcher.inputs(rows, np.array([5, 0, 3]))
    assert list(order) == [5, 0, 3]
    single = model(**collate(rows, np.array([3]))).logits
    torch.testing.assert_close(model(**inputs).logits[2:], single, atol=1e-5, rtol=1e-5)


@settings(max_examples=60)
@given(lengths=st.lists(st.integers(1, 70), min_size=1, max_size=50))
def test_every_token_has_its_own_place_in_a_tile(lengths: list[int]) -> None:
    inputs = pack(_rows(lengths), np.arange(len(lengths)), first_position=0)
    packing = inputs["packing"]
    total = sum(lengths)
    assert packing.tokens == total
    assert inputs["input_ids"].shape[1] >= total
    places = packing.places_of_tokens[:total]
    assert len(set(places.tolist())) == total
    assert torch.equal(packing.tokens_of_places[places], torch.arange(total))
    for row in range(len(lengths)):
        begin, end = packing.offsets[row : row + 2].tolist()
        assert end - begin == lengths[row]
        assert inputs["position_ids"][0, begin:end].tolist() == list(range(lengths[row]))
        assert inputs["input_ids"][0, begin:end].tolist() == [row] * lengths[row]


@settings(max_examples=60)
@given(lengths=st.lists(st.integers(1, 40), min_size=1, max_size=90), heads=st.integers(1, 3))
def test_what_goes_into_tiles_comes_back_to_its_token(lengths: list[int], heads: int) -> None:
    inputs = pack(_rows(lengths), np.arange(len(lengths)), first_position=0)
    packing = inputs["packing"]
    values = 1.0 + torch.arange(inputs["input_ids"].shape[1] * heads * 2.0).view(-1, heads, 2)
    firsts = packing.offsets[:-1].long()
    for places, held_tokens in (
        (packing.places(heads), torch.arange(packing.tokens)),
        (packing.places(heads, firsts=True), firsts),
    ):
        entries = places.empty(values)
        for tile in packing.tiles:
            places.of(entries, tile).copy_(places.of(places.gather(values), tile))
        expected = torch.zeros_like(values)
        expected[held_tokens] = values[held_tokens]
        assert torch.equal(places.scatter(entries), expected)
    for tile in packing.tiles:
        shape = (tile.rows * heads, 1, 2)
        assert packing.places(heads, firsts=True).of(places.gather(values), tile).shape == shape


def test_texts_of_one_length_go_through_attention_together() -> None:
    def tiles(lengths: list[int]) -> list[tuple[int, int]]:
        inputs = pack(_rows(lengths), np.arange(len(lengths)), first_position=0)
        return [(tile.rows, tile.length) for tile in inputs["packing"].tiles]

    assert tiles([30] * 64) == [(64, 32)]
    assert tiles([30] * 48 + [40] * 3) == [(32, 32), (16, 32), (4, 48)]
    assert tiles([30] * 100) == [(64, 32), (32, 32), (4, 32)]


class _IndexStore:
    """Rows whose token ids all equal the row's index."""

    def __init__(self, lengths: list[int]) -> None:
        self.lengths = lengths

    def __getitem__(self, index: int) -> np.ndarray:
        return np.full(self.lengths[index], index)


def _rows(lengths: list[int]) -> TokenizedRows:
    store, labels = _IndexStore(lengths), np.zeros(len(lengths))
    return TokenizedRows(store, np.array(lengths), labels, padding=1)  # type: ignore[arg-type]


def test_a_trained_position_bias_gets_the_same_gradient_in_packed_batches() -> None:
    # 23 texts fill no tile, so that some of its rows repeat a text.
    rows, indices = rows_of(23, seed=2), np.arange(23)
    gradients = []
    for attention in ("eager", PACKED):
        torch.manual_seed(0)
        model = AutoModelForSequenceClassification.from_config(
            CONFIGS["mpnet"], attn_implementation=attention
        ).train()
        batcher = prepare_model(model, replace(FP32, attention=attention), max_tokens=8192)
        inputs, order = batcher.inputs(rows, indices)
        loss = functional.cross_entropy(
            model(**inputs).logits, torch.from_numpy(rows.labels[order])
        )
        loss.backward()
        gradients.append(model.mpnet.encoder.relative_attention_bias.weight.grad)
    assert float(gradients[0].abs().max()) > 1e-4
    torch.testing.assert_close(*gradients, atol=1e-6, rtol=1e-4)
