"""Predictions for rows, texts and streams of texts."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from engine.families import CONFIGS, adapted, rows_of
from pennyweight.engine import predictor as module
from pennyweight.engine.batches.rows import TokenizedRows
from pennyweight.engine.batches.tokenize import tokenize_texts
from pennyweight.engine.device import Compute
from pennyweight.engine.features import output_layer_of
from pennyweight.engine.kernels.attention import PACKED
from pennyweight.engine.kernels.prepare import prepare_model
from pennyweight.engine.predictor import Predictions, Predictor, TorchBackend
from pennyweight.errors import NonFiniteLogitsError
from tiny import news

TEXTS = [text for _, text in news(30, seed=5)]
OUTPUT_LAYERS = {"bert": "classifier", "roberta": "classifier.out_proj"}
MAX_TOKENS = 16


@pytest.fixture(params=["bert-eager", "roberta-eager", f"bert-{PACKED}", f"roberta-{PACKED}"])
def tested(request: pytest.FixtureRequest) -> tuple[Any, Predictor, Any]:
    """A model, its predictor, and its tokenizer."""
    family, attention = request.param.split("-")
    folder: Path = request.getfixturevalue(family)
    model = _model(folder, attention)
    backend = _backend(model, attention, OUTPUT_LAYERS[family])
    tokenizer = AutoTokenizer.from_pretrained(folder)
    return model, Predictor(backend, tokenizer=tokenizer, max_tokens=MAX_TOKENS), tokenizer


def _model(folder: str | Path, attention: str) -> Any:
    """The same LoRA model each time."""
    torch.manual_seed(0)
    base = AutoModelForSequenceClassification.from_pretrained(
        folder, num_labels=4, attn_implementation=attention
    )
    config = peft.LoraConfig(
        task_type="SEQ_CLS", r=2, target_modules=["query", "value"], init_lora_weights=False
    )
    return peft.get_peft_model(base, config)


def _backend(model: Any, attention: str, output_layer: str, **options: Any) -> TorchBackend:
    compute = Compute("cpu", "fp32", attention, "")
    batcher = prepare_model(model, compute, max_tokens=256)
    return TorchBackend(model, batcher, compute, batch_rows=8, output_layer=output_layer, **options)


def _assert_same(one: Predictions, other: Predictions) -> None:
    assert np.array_equal(one.logits, other.logits)
    assert one.features is not None
    assert other.features is not None
    assert np.array_equal(one.features, other.features)


def test_rows_and_texts_give_the_same_to_the_bit(
    tested: tuple[Any, Predictor, Any],
) -> None:
    _, predictor, tokenizer = tested
    rows = tokenize_texts(TEXTS, tokenizer=tokenizer, max_tokens=MAX_TOKENS)
    from_rows = predictor.rows(rows, features=True)
    _assert_same(predictor.texts(TEXTS, features=True), from_rows)


def test_predictions_do_not_depend_on_the_batches_and_keep_the_order(
    tested: tuple[Any, Predictor, Any],
) -> None:
    _, predictor, _ = tested
    together = predictor.texts(TEXTS)
    alone = np.concatenate([predictor.texts([text]).logits for text in TEXTS])
    assert together.logits.dtype == np.float32
    assert together.logits.shape == (len(TEXTS), 4) == (len(together), 4)
    np.testing.assert_allclose(alone, together.logits, atol=1e-5)
    assert len({row.tobytes() for row in together.logits}) == len(TEXTS)


def test_logits_are_those_of_the_plain_model(tested: tuple[Any, Predictor, Any]) -> None:
    model, predictor, tokenizer = tested
    plain = _model(model.config._name_or_path, "eager").eval()
    batch = tokenizer(TEXTS, truncation=True, max_length=MAX_TOKENS, padding=True)
    inputs = {key: torch.tensor(batch[key]) for key in ("input_ids", "attention_mask")}
    with torch.no_grad():
        logits = plain(**inputs).logits.numpy()
    np.testing.assert_allclose(predictor.texts(TEXTS).logits, logits, atol=1e-5)


def test_features_are_the_input_of_the_output_layer(tested: tuple[Any, Predictor, Any]) -> None:
    model, predictor, _ = tested
    with_features, without = predictor.texts(TEXTS, features=True), predictor.texts(TEXTS)
    assert np.array_equal(with_features.logits, without.logits)
    assert without.features is None
    name = OUTPUT_LAYERS[model.config.model_type]
    layer = output_layer_of(model, name)
    features = with_features.features
    assert features is not None
    assert features.dtype == np.float32
    assert features.shape == (len(TEXTS), layer.in_features)
    with torch.no_grad():
        logits = layer(torch.from_numpy(features)).numpy()
    np.testing.assert_allclose(logits, with_features.logits, atol=1e-6)
    assert not layer._forward_pre_hooks


def test_no_texts_give_empty_arrays_of_the_right_width(tested: tuple[Any, Predictor, Any]) -> None:
    _, predictor, _ = tested
    empty = predictor.texts([], features=True)
    assert empty.features is not None
    assert (empty.logits.shape, empty.features.shape) == ((0, 4), (0, 32))
    assert (empty.logits.dtype, empty.features.dtype) == (np.float32, np.float32)


def test_long_texts_are_truncated(tested: tuple[Any, Predictor, Any]) -> None:
    _, predictor, _ = tested
    words = "goal coach season league shares profit bank merger chip software orbit browser the a"
    same = predictor.texts([words, f"{words} minister treaty border election {'report ' * 500}"])
    np.testing.assert_allclose(same.logits[0], same.logits[1], atol=1e-6)


def test_the_model_is_evaluated_without_dropout_and_stays_in_its_mode() -> None:
    config = CONFIGS["bert"].__class__.from_dict(
        {**CONFIGS["bert"].to_dict(), "hidden_dropout_prob": 0.5}
    )
    model = AutoModelForSequenceClassification.from_config(config, attn_implementation="eager")
    predictor = Predictor(_backend(model, "eager", "classifier"))
    model.train()
    one, other = predictor.rows(rows_of(9)), predictor.rows(rows_of(9))
    assert np.array_equal(one.logits, other.logits)
    assert all(part.training for part in model.modules())
    model.eval()
    predictor.rows(rows_of(9))
    assert not any(part.training for part in model.modules())


class _Broken:
    def predict(self, rows: TokenizedRows, *, features: bool = False) -> Predictions:
        logits = np.zeros((len(rows), 4), dtype=np.float32)
        logits[2, 1], logits[2, 3], logits[4, 0] = np.nan, np.inf, -np.inf
        return Predictions(logits)


def test_non_finite_logits_are_refused_with_the_set_and_the_number_of_rows() -> None:
    with pytest.raises(NonFiniteLogitsError) as caught:
        Predictor(_Broken()).rows(rows_of(9), name="step 3, validation")
    assert str(caught.value) == (
        "step 3, validation: the model's logits are NaN or infinite for 2 of 9 rows"
    )


def test_texts_need_a_tokenizer() -> None:
    with pytest.raises(ValueError, match="no tokenizer"):
        Predictor(_Broken()).texts(["a"])
    with pytest.raises(ValueError, match="max_tokens"):
        Predictor(_Broken(), tokenizer=object())


@dataclasses.dataclass
class _Processes:
    num_processes: int
    process_index: int


@pytest.mark.parametrize("count", [0, 1, 8])
def test_several_processes_share_the_rows_and_get_all_predictions(
    monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    model = adapted("bert", attention="eager", targets=["query"])
    expected = _backend(model, "eager", "classifier").predict(rows_of(count), features=True)
    backends = [
        _backend(model, "eager", "classifier", accelerator=_Processes(3, process))
        for process in range(3)
    ]
    shares = []
    for backend in backends:
        share = np.arange(backend._accelerator.process_index, count, 3)  # type: ignore[union-attr]
        shares.append(backend._run(rows_of(count).take(share), features=True))
    monkeypatch.setattr(module, "gather_object", lambda own: shares)
    for backend in backends:
        gathered = backend.predict(rows_of(count), features=True)
        assert gathered.features is not None
        np.testing.assert_allclose(gathered.logits, expected.logits, atol=1e-5)
        np.testing.assert_allclose(gathered.features, expected.features, atol=1e-5)
