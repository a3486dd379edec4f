"""The model card of a run: what it says, and that its code works."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from pennyweight.inference.classifier import Classifier
from pennyweight.inference.model_card import usage_notes, write_merged_card, write_model_card
from pennyweight.runs.record import BaseRecord, load_record
from pennyweight.training.train import train
from runs.records import example_recipe, example_record
from tiny import tiny_recipe


def _card(folder: Path) -> str:
    return (folder / "README.md").read_text(encoding="utf-8")


def _front_matter(card: str) -> dict[str, object]:
    values: dict[str, object] = yaml.safe_load(card.split("---")[1])
    return values


def test_a_run_describes_itself_and_the_card_is_part_of_the_artifact(run: Path) -> None:
    card, record = _card(run / "adapter"), load_record(run)
    assert record.artifact is not None
    assert "README.md" in record.artifact.files
    metrics, counts = record.metrics["test"], record.parameters
    assert counts is not None
    low, high = metrics.accuracy_interval
    assert f"| test | 12 | {metrics.accuracy:.2%} ({low:.2%} to {high:.2%}) |" in card
    assert f"{counts.file:,} in the saved file, of a budget of 1,000,000" in card
    assert "`World`, `Sports`, `Business`, `Sci/Tech`" in card
    assert "**Training rows:** 48 (other rows: validation 16, test 12)" in card
    assert "lora: W + (alpha / r) B A" in card
    assert "[More Information Needed]" not in card
    # The base is a local directory, whose path says nothing to others.
    assert str(run.parent.parent) not in card
    assert _front_matter(card) == {
        "license": "unknown",
        "library_name": "peft",
        "pipeline_tag": "text-classification",
        "tags": ["pennyweight", "lora"],
    }


@pytest.mark.parametrize("head", ["full", "output-only"])
def test_the_code_for_plain_peft_gives_the_runs_predictions(
    roberta: Path, sets: Path, tmp_path: Path, texts: list[str], head: str
) -> None:
    recipe = tiny_recipe(roberta, sets, adapter={"head": head}, train={"max_steps": 2})
    train(recipe, out=tmp_path / "run")
    card = _card(tmp_path / "run" / "adapter")
    (code,) = (
        block for block in re.findall(r"```python\n(.*?)```", card, re.DOTALL) if "peft" in block
    )
    assert ("fresh_weights" in code) == (head != "full")
    code = code.replace("DIRECTORY", str(tmp_path / "run" / "adapter"))
    names: dict[str, object] = {}
    # The card's own code, with the paths that it leaves open.
    exec(code.replace("'BASE'", repr(str(roberta))), names)
    model, tokenizer = names["model"], names["tokenizer"]
    with torch.inference_mode():
        logits = model(**tokenizer(texts, padding=True, return_tensors="pt")).logits  # type: ignore[operator]
    expected = Classifier.load(tmp_path / "run").predict_probabilities(texts)
    np.testing.assert_allclose(logits.softmax(dim=1).numpy(), expected, atol=1e-5)


def test_the_embedded_base_is_named_by_its_hub_id_and_its_path_is_given(tmp_path: Path) -> None:
    base = BaseRecord(
        name="embedded",
        reference="sentence-transformers/all-MiniLM-L6-v2",
        revision=None,
        origin="embedded",
    )
    (tmp_path / "adapter").mkdir()
    write_model_card(tmp_path, example_record(base=base), license_id="cc0-1.0")
    card = _card(tmp_path / "adapter")
    assert _front_matter(card)["base_model"] == "sentence-transformers/all-MiniLM-L6-v2"
    assert _front_matter(card)["license"] == "cc0-1.0"
    assert "get_model_path" in card
    assert "from_pretrained('sentence-transformers/all-MiniLM-L6-v2', num_labels=2)" in card
    assert "**LEAKS: 2 rows of train are also in test**" in card


def test_a_merged_model_says_what_it_does_not_do(tmp_path: Path) -> None:
    recipe = example_recipe(data={"clean": ["html-entities", "whitespace"], "max_tokens": 32})
    record = example_record(recipe=recipe)
    clean, truncate = usage_notes(record)
    assert "html-entities, whitespace, in this order" in clean
    assert "max_length=32" in truncate
    write_merged_card(tmp_path, record)
    assert f"- {clean}" in _card(tmp_path)
    assert _front_matter(_card(tmp_path))["library_name"] == "transformers"
