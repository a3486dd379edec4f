"""A classifier on pooled hidden states: what it computes, and that plain libraries load it."""

from __future__ import annotations

import copy
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import peft
import pytest
import torch
from transformers import AutoModel, AutoTokenizer

from engine.families import CONFIGS, rows_of
from pennyweight.base import ConfigChanges, locate, skeleton
from pennyweight.base.locate import pooled
from pennyweight.base.pooled import PooledClassifier
from pennyweight.budget.layout import layout_of
from pennyweight.engine.batches.tokenize import tokenize_texts
from pennyweight.engine.device import Compute
from pennyweight.engine.features import set_head
from pennyweight.engine.kernels.attention import PACKED
from pennyweight.engine.kernels.prepare import prepare_model
from pennyweight.engine.predictor import TorchBackend
from pennyweight.errors import BaseModelError
from pennyweight.model.build import BaseOptions, load_base

LABELS = ("a", "b", "c")
TEXTS = ["one", "a text with a few more words in it", "two words"]


def load(pooling: str, attention: str = "eager") -> tuple[PooledClassifier, object]:
    base = locate("embedded", labels=LABELS, changes=ConfigChanges(pooling=pooling))  # type: ignore[arg-type]
    model, fresh = load_base(base, BaseOptions(seed=0, attention=attention))
    assert fresh == {"classifier.weight", "classifier.bias"}
    return model.eval(), AutoTokenizer.from_pretrained(base.location)  # type: ignore[return-value]


@pytest.mark.parametrize("pooling", ["mean", "first"])
@torch.no_grad()
def test_the_head_reads_the_pooled_hidden_states(pooling: str) -> None:
    model, tokenizer = load(pooling)
    base = locate("embedded", labels=LABELS)
    encoder = AutoModel.from_pretrained(base.location).eval()
    inputs = tokenizer(TEXTS, padding=True, return_tensors="pt")  # type: ignore[operator]
    hidden, mask = encoder(**inputs).last_hidden_state, inputs["attention_mask"].unsqueeze(-1)
    mean = (hidden * mask).sum(1) / mask.sum(1)
    expected = model.classifier(mean if pooling == "mean" else hidden[:, 0])
    torch.testing.assert_close(model(**inputs).logits, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("pooling", ["mean", "first"])
def test_packed_batches_give_the_same_logits_as_padded_ones(pooling: str) -> None:
    logits = []
    for attention in ("eager", PACKED):
        model, tokenizer = load(pooling, attention)
        compute = Compute("cpu", "fp32", attention, why="")
        batcher = prepare_model(model, compute, max_tokens=4096)
        backend = TorchBackend(model, batcher, compute, batch_rows=8, output_layer="classifier")
        rows = tokenize_texts(TEXTS, tokenizer=tokenizer, max_tokens=32)
        predictions = backend.predict(rows, features=True)
        assert predictions.features is not None
        assert predictions.features.shape == (3, 384)
        logits.append(predictions.logits)
    np.testing.assert_allclose(logits[0], logits[1], atol=1e-5)


def test_auto_is_the_pooling_that_a_sentence_encoder_was_trained_with(tmp_path: Path) -> None:
    embedded = locate("embedded", labels=LABELS, changes=ConfigChanges(pooling="auto"))
    assert embedded.config.classifier_pooling == "mean"
    copied = tmp_path / "encoder"
    shutil.copytree(embedded.location, copied)
    modes = {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}
    (copied / "1_Pooling" / "config.json").write_text(json.dumps(modes))
    changes = ConfigChanges(pooling="auto")
    assert locate(str(copied), labels=LABELS, changes=changes).config.classifier_pooling == "cls"
    shutil.rmtree(copied / "1_Pooling")
    assert locate(str(copied), labels=LABELS, changes=changes).config.classifier_pooling == "mean"


def test_a_pooled_head_is_one_linear_layer() -> None:
    base = locate(
        "roberta-base", labels=LABELS, config_only=True, changes=ConfigChanges(pooling="auto")
    )
    layout = layout_of(skeleton(base), labels=len(LABELS))
    assert layout.head_dense is None
    assert layout.head_output.name == "classifier"
    assert sum(layout.elements_in("classifier").values()) == 3 * 768 + 3
    assert layout.encoder[0].name == "roberta.encoder.layer.0.attention.self.query"


def test_a_pooled_head_of_a_low_rank_is_two_linear_layers() -> None:
    many = [f"class {number}" for number in range(1_000)]
    full, low = (
        layout_of(
            skeleton(
                locate(
                    "roberta-base",
                    labels=many,
                    config_only=True,
                    changes=ConfigChanges(pooling="auto", head_rank=rank),
                )
            ),
            labels=1_000,
        )
        for rank in (None, 16)
    )
    assert low.head_output.name == "classifier.out"
    assert low.encoder == full.encoder
    assert sum(low.elements_in("classifier").values()) == 16 * (768 + 1_000) + 1_000
    # What the planner proposes is what would be built.
    assert full.with_head_rank(16) == low
    assert low.with_head_rank(None) == full


@torch.no_grad()
def test_a_head_of_full_rank_in_two_layers_gives_the_same_logits() -> None:
    changes = ConfigChanges(pooling="mean", head_rank=3)
    model, _ = load_base(locate("embedded", labels=LABELS, changes=changes), BaseOptions(seed=0))
    draw = np.random.default_rng(0)
    weight, bias = draw.normal(size=(3, 384)), draw.normal(size=3)
    set_head(model, "classifier.out", weight, bias)
    features = torch.randn(5, 384)
    expected = features.numpy() @ weight.T + bias
    np.testing.assert_allclose(model.classifier(features).numpy(), expected, rtol=1e-4, atol=1e-4)


def test_a_native_head_keeps_its_shape() -> None:
    base = locate("embedded", labels=LABELS, changes=ConfigChanges(head_rank=2))
    assert not hasattr(base.config, "classifier_rank")
    low = locate("embedded", labels=LABELS, changes=ConfigChanges(pooling="mean", head_rank=2))
    assert not hasattr(pooled(low).config, "classifier_rank")
    assert low.config.classifier_rank == 2


def test_any_encoder_can_be_pooled_without_a_change_to_its_own_head() -> None:
    base = locate("embedded", labels=LABELS)
    assert pooled(base).config.classifier_pooling == "mean"
    assert not hasattr(base.config, "classifier_pooling")
    assert pooled(pooled(base)).config.classifier_pooling == "mean"


def test_a_model_that_is_no_plain_encoder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "bart"}')
    with pytest.raises(BaseModelError, match="is not a plain encoder"):
        locate(str(tmp_path), labels=LABELS, changes=ConfigChanges(pooling="mean"))


PLAIN = """
import sys, torch
from transformers import AutoConfig, AutoModelForSequenceClassification
for path in sys.argv[1:]:
    model = AutoModelForSequenceClassification.from_pretrained(path, trust_remote_code=True)
    assert "pennyweight" not in sys.modules
    print(model(input_ids=torch.tensor([[101, 2028, 102]])).logits.tolist())
"""


def test_plain_transformers_loads_a_saved_one(tmp_path: Path) -> None:
    expected = {}
    for rank in (None, 2):
        changes = ConfigChanges(pooling="mean", head_rank=rank)
        base = locate("embedded", labels=LABELS, changes=changes)
        model, _ = load_base(base, BaseOptions(seed=0))
        path = str(tmp_path / f"rank-{rank}")
        model.eval().save_pretrained(path)
        expected[path] = model(input_ids=torch.tensor([[101, 2028, 102]])).logits.tolist()
    command = [sys.executable, "-c", PLAIN, *expected]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    logits = [json.loads(line) for line in done.stdout.splitlines()]
    np.testing.assert_allclose(logits, list(expected.values()), atol=1e-5)


def test_the_loss_follows_the_task() -> None:
    for is_multi_label, labels in ((False, [2]), (True, [[1, 0, 1]])):
        changes = ConfigChanges(pooling="mean", multi_label=is_multi_label)
        base = locate("embedded", labels=LABELS, changes=changes)
        model, _ = load_base(base, BaseOptions(seed=0))
        output = model(input_ids=torch.tensor([[101, 2028, 102]]), labels=torch.tensor(labels))
        assert float(output.loss.detach()) > 0.0


def test_peft_adapts_it_like_any_classifier() -> None:
    model, _ = load("mean")
    config = peft.LoraConfig(task_type="SEQ_CLS", target_modules=["query"], r=1)
    adapted = peft.get_peft_model(model, config)
    trained = [name for name, p in adapted.named_parameters() if p.requires_grad]
    assert any("classifier" in name for name in trained)
    assert adapted(input_ids=torch.tensor([[101, 2028, 102]])).logits.shape == (1, 3)


@pytest.mark.parametrize("family", ["mpnet", "electra"])
def test_every_encoder_is_pooled_with_an_attention_that_it_has(family: str) -> None:
    rows, logits = rows_of(12), []
    for attention in (None, PACKED):
        config = copy.deepcopy(CONFIGS[family])
        config.classifier_pooling = "mean"
        torch.manual_seed(0)
        model = PooledClassifier._from_config(config, attn_implementation=attention).eval()
        compute = Compute("cpu", "fp32", attention or "eager", why="")
        batcher = prepare_model(model, compute, max_tokens=4096)
        inputs, order = batcher.inputs(rows, np.arange(12))
        with torch.no_grad():
            logits.append(model(**inputs).logits.numpy()[np.argsort(order)])
    np.testing.assert_allclose(logits[0], logits[1], atol=1e-5)
