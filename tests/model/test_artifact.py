"""A run saves a standard PEFT adapter which, merged, is a plain transformers model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

from pennyweight.errors import BaseModelError, RunError
from pennyweight.inference.classifier import Classifier
from pennyweight.model import (
    ArtifactFacts,
    BaseOptions,
    load_adapter,
    load_base,
    load_tokenizer,
    read_artifact_facts,
)
from pennyweight.settings import find_base
from pennyweight.training.train import train
from tiny import LABELS, news, tiny_recipe

TEXTS = [text for _, text in news(12, seed=9)]


def _plain_logits(model: Any, tokenizer: Any) -> np.ndarray:
    batch = tokenizer(TEXTS, padding=True, return_tensors="pt")
    batch.pop("token_type_ids", None)
    model.eval()
    with torch.inference_mode():
        return model(**batch).logits.numpy()


def _our_logits(classifier: Classifier) -> np.ndarray:
    logits = np.log(classifier.predict_probabilities(TEXTS)) * classifier.temperature
    return logits - logits.mean(axis=1, keepdims=True)


def _centred(logits: np.ndarray) -> np.ndarray:
    return logits - logits.mean(axis=1, keepdims=True)


def test_the_saved_tokenizer_does_not_depend_on_what_was_tokenized_before(
    bert: Path, sets: Path, tmp_path: Path
) -> None:
    recipe = tiny_recipe(bert, sets, train={"max_steps": 1}, data={"max_tokens": 23})
    saved = []
    # The second run finds the tokens in the cache, and never calls the tokenizer.
    for name in ("one", "two"):
        train(recipe, out=tmp_path / name)
        saved.append((tmp_path / name / "adapter" / "tokenizer.json").read_bytes())
    assert saved[0] == saved[1]
    assert json.loads(saved[0])["truncation"] is None


@pytest.mark.parametrize(
    ("family", "head", "bias"),
    [
        ("bert", "full", "none"),
        ("bert", "low-rank", "lora_only"),
        ("bert", "frozen", "all"),
        ("roberta", "full", "all"),
        ("roberta", "low-rank", "none"),
        ("roberta", "output-only", "none"),
        ("roberta", "frozen", "lora_only"),
        ("bert", "full", "all"),
        ("roberta", "output-only", "all"),
    ],
)
def test_plain_peft_loads_the_adapter_on_the_plain_base_with_the_same_logits(
    request: pytest.FixtureRequest, sets: Path, tmp_path: Path, family: str, head: str, bias: str
) -> None:
    base = request.getfixturevalue(family)
    adapter = {"head": head, "rank": {"layer.0": 3, "layer.1": 1}, "targets": ["query", "dense"]}
    if family == "bert":
        adapter["targets"] = ["query", "intermediate.dense"]
    recipe = tiny_recipe(base, sets, train={"max_steps": 3}, adapter={**adapter, "bias": bias})
    record = train(recipe, out=tmp_path / "run")
    folder = tmp_path / "run" / "adapter"

    counts = record.parameters
    assert counts is not None
    assert counts.planned == counts.model == counts.file
    temperature = None if record.calibration is None else record.calibration.temperature
    expected_facts = ArtifactFacts(LABELS, "lora", temperature=temperature)
    assert read_artifact_facts(folder) == expected_facts
    plain = AutoModelForSequenceClassification.from_pretrained(base, num_labels=4)
    if (folder / "fresh_weights.safetensors").is_file():
        assert head != "full"
        plain.load_state_dict(load_file(folder / "fresh_weights.safetensors"), strict=False)
    else:
        assert head == "full" or (family == "bert" and head != "frozen")
    model = peft.PeftModel.from_pretrained(plain, str(folder))
    logits = _plain_logits(model, AutoTokenizer.from_pretrained(folder))

    expected = _our_logits(Classifier.load(tmp_path / "run"))
    np.testing.assert_allclose(_centred(logits), expected, atol=1e-4)


def test_the_merged_model_is_a_plain_one_that_names_the_labels(
    roberta: Path, sets: Path, tmp_path: Path
) -> None:
    recipe = tiny_recipe(roberta, sets, train={"max_steps": 3}, adapter={"head": "low-rank"})
    train(recipe, out=tmp_path / "run")
    classifier = Classifier.load(tmp_path / "run")
    probabilities, predicted = classifier.predict_probabilities(TEXTS), classifier.predict(TEXTS)
    expected = _our_logits(classifier) / classifier.temperature
    classifier.merge(tmp_path / "merged")

    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path / "merged")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "merged")
    assert type(plain).__name__ == "RobertaForSequenceClassification"
    assert plain.dtype == torch.float32
    np.testing.assert_allclose(_centred(_plain_logits(plain, tokenizer)), expected, atol=1e-5)
    answers = pipeline(
        "text-classification", model=str(tmp_path / "merged"), device="cpu", top_k=None
    )(TEXTS)
    assert [answer[0]["label"] for answer in answers] == predicted
    for answer, row in zip(answers, probabilities, strict=True):
        by_label = {entry["label"]: entry["score"] for entry in answer}
        assert [by_label[label] for label in LABELS] == pytest.approx(row.tolist(), abs=1e-5)
    again = Classifier.load(tmp_path / "run")
    with pytest.raises(RunError, match="not empty"):
        again.merge(tmp_path / "merged")


def test_the_adapters_config_names_the_base_and_a_run_with_random_weights_can_be_loaded(
    roberta: Path, sets: Path, tmp_path: Path
) -> None:
    recipe = tiny_recipe(
        roberta,
        sets,
        base={"weights": "random", "tokenizer": str(roberta)},
        adapter={"head": "output-only"},
        train={"max_steps": 2},
    )
    record = train(recipe, out=tmp_path / "run")
    folder = tmp_path / "run" / "adapter"
    config = json.loads((folder / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(roberta)
    assert not (folder / "fresh_weights.safetensors").exists()
    assert len(Classifier.load(tmp_path / "run").predict(TEXTS)) == 12
    assert record.status == "complete"


def test_fresh_weights_are_drawn_from_the_seed(roberta: Path, sets: Path) -> None:
    base = find_base(tiny_recipe(roberta, sets), config_only=False)

    def head(seed: int) -> torch.Tensor:
        model, fresh = load_base(base, BaseOptions(seed=seed))
        assert {name.split(".")[0] for name in fresh} == {"classifier"}
        return model.classifier.dense.weight.detach()

    assert torch.equal(head(1), head(1))
    assert not torch.equal(head(1), head(2))


def test_an_artifact_or_tokenizer_that_cannot_be_loaded_is_named_in_one_line(
    bert: Path, sets: Path, tmp_path: Path
) -> None:
    base = find_base(tiny_recipe(bert, sets), config_only=False)
    model, _ = load_base(base, BaseOptions(seed=0))
    with pytest.raises(RunError, match=r"^\S*nothing: adapter_model.safetensors is missing; .*$"):
        load_adapter(model, tmp_path / "nothing")
    assert read_artifact_facts(tmp_path) is None
    with pytest.raises(BaseModelError, match=r"base\.tokenizer: \S*: cannot be loaded"):
        load_tokenizer(base, tokenizer=str(tmp_path))


def test_an_adapter_without_facts_beside_it_still_loads(
    roberta: Path, sets: Path, tmp_path: Path
) -> None:
    recipe = tiny_recipe(roberta, sets, train={"max_steps": 1})
    train(recipe, out=tmp_path / "run")
    folder = tmp_path / "run" / "adapter"
    (folder / "pennyweight.json").unlink()
    model, _ = load_base(find_base(recipe, config_only=False), BaseOptions(seed=recipe.seed))
    assert isinstance(load_adapter(model, folder), peft.PeftModel)
