"""A quantized base trains in less memory, and its adapters load in plain PEFT."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, BitsAndBytesConfig

from pennyweight.base import locate
from pennyweight.errors import BaseModelError, RecipeError
from pennyweight.inference.classifier import Classifier
from pennyweight.model import BaseOptions, load_base
from pennyweight.model.quantize import (
    disable_weight_packing,
    frozen_bytes,
    initialize_with_loftq,
)
from pennyweight.recipe import load_recipe
from pennyweight.settings import find_base, plan
from pennyweight.training.train import train
from tiny import LABELS, news, tiny_recipe

pytest.importorskip("bitsandbytes")
TEXTS = [text for _, text in news(12, seed=9)]


def _recipe(base: Path, sets: Path, quantization: str, **adapter: Any) -> Any:
    return tiny_recipe(
        base,
        sets,
        base={"quantization": quantization},
        adapter={"rank": 2, "alpha": 4, **adapter},
        train={"epochs": 6},
    )


@pytest.mark.parametrize(
    ("quantization", "method"), [("nf4", "lora"), ("nf4", "dora"), ("int8", "lora")]
)
def test_it_learns_and_loads_in_plain_peft_on_the_same_quantized_base(
    roberta: Path, sets: Path, tmp_path: Path, quantization: str, method: str
) -> None:
    out = tmp_path / "run"
    record = train(_recipe(roberta, sets, quantization, method=method), out=out)
    losses = [step.loss for step in record.history]
    assert np.mean(losses[-6:]) < 0.9 * np.mean(losses[:6])
    assert record.parameters.file == record.parameters.planned
    config = (
        BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=["classifier"])
        if quantization == "int8"
        else BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.float32,
            llm_int8_skip_modules=["classifier"],
        )
    )
    plain = AutoModelForSequenceClassification.from_pretrained(
        roberta, num_labels=4, quantization_config=config, dtype=torch.float32
    )
    # bitsandbytes cannot pack matrices as small as these for a CPU.
    disable_weight_packing(plain)
    model = peft.PeftModel.from_pretrained(plain, str(out / "adapter")).eval()
    batch = AutoTokenizer.from_pretrained(out / "adapter")(TEXTS, padding=True, return_tensors="pt")
    batch.pop("token_type_ids", None)
    classifier = Classifier.load(out)
    with torch.inference_mode():
        logits = model(**batch).logits / classifier.temperature
    probabilities = torch.softmax(logits, dim=1).numpy()
    # In 8 bits plain PEFT rounds activations too, and merging does not.
    tolerance = 1e-4 if quantization == "nf4" else 0.03
    expected = classifier.predict_probabilities(TEXTS)
    np.testing.assert_allclose(probabilities, expected, atol=tolerance)


def test_nf4_takes_at_most_a_fifth_of_the_memory_of_float32_matrices(roberta: Path) -> None:
    base = locate(str(roberta), labels=LABELS)
    sizes = {}
    for quantization in ("none", "nf4"):
        model, _ = load_base(base, BaseOptions(seed=0, quantization=quantization))
        sizes[quantization] = frozen_bytes(model.roberta.encoder.layer.requires_grad_(False))
    matrices = 2 * 4 * (4 * 32 * 32 + 2 * 32 * 48)
    others = sizes["none"] - matrices
    assert sizes["nf4"] - others < 0.2 * matrices


def test_random_weights_can_be_quantized_too(roberta: Path, sets: Path, tmp_path: Path) -> None:
    recipe = _recipe(roberta, sets, "nf4")
    recipe = recipe.model_copy(
        update={"base": recipe.base.model_copy(update={"weights": "random"})}
    )
    train(recipe, out=tmp_path / "run")
    assert Classifier.load(tmp_path / "run").predict(TEXTS[:2])


def test_loftq_compensates_for_part_of_the_quantization_error(roberta: Path, sets: Path) -> None:
    recipe = _recipe(roberta, sets, "nf4", initialization="loftq", alpha=6)
    base = find_base(recipe, config_only=False)
    planned = plan(recipe, base=base)
    original, _ = load_base(base, BaseOptions(seed=0))
    quantized, _ = load_base(base, BaseOptions(seed=0, quantization="nf4"))
    assert planned.peft_config is not None
    model = peft.get_peft_model(quantized, planned.peft_config)

    def distance() -> float:
        layer = model.get_base_model().roberta.encoder.layer[0].attention.self.query
        weight = original.roberta.encoder.layer[0].attention.self.query.weight
        eye = torch.eye(32)
        product = layer(eye) - layer.base_layer.bias
        return float((product.T - weight).norm().detach())

    before = distance()
    initialize_with_loftq(model, original)
    assert distance() < 0.95 * before


def test_loftq_trains(roberta: Path, sets: Path, tmp_path: Path) -> None:
    record = train(_recipe(roberta, sets, "nf4", initialization="loftq"), out=tmp_path / "run")
    losses = [step.loss for step in record.history]
    assert np.mean(losses[-6:]) < 0.9 * np.mean(losses[:6])


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["adapter.initialization=loftq"], 'needs base.quantization = "nf4"'),
        (["base.quantization=nf4", "adapter.initialization=pissa"], "changes the base's weights"),
        (["base.quantization=int8", "adapter.bias=all"], 'adapter.bias: cannot train "all" biases'),
        (
            ["base.quantization=nf4", "adapter.method=full"],
            'adapter.method: full does not work with base.quantization = "nf4"',
        ),
        (
            ["base.quantization=int8", "adapter.method=dora"],
            'adapter.method: dora does not work with .* or base.quantization = "nf4"',
        ),
        (
            ["base.quantization=nf4", "adapter.method=dora", "adapter.initialization=loftq"],
            '"loftq" does not work with dora',
        ),
    ],
)
def test_keys_that_do_not_work_together_are_refused(overrides: list[str], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        load_recipe("spar-lora", overrides=overrides)


def test_without_bitsandbytes_the_error_names_what_to_install(
    roberta: Path, sets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pennyweight.model.quantize.find_spec", lambda _: None)
    with pytest.raises(BaseModelError, match=r"pip install 'pennyweight\[quantization\]'"):
        train(_recipe(roberta, sets, "nf4"), out=tmp_path / "run")
