"""The model card of a run: what it says, and that its code works."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from pennyweight.evaluation.metrics import measure
from pennyweight.inference.card_usage import usage_notes
from pennyweight.inference.classifier import Classifier
from pennyweight.inference.merge import merge
from pennyweight.inference.model_card import write_merged_card, write_model_card
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
    for name, shown in (("tf-idf", "TF-IDF"), ("embedding", "the frozen encoder's embeddings")):
        assert f"| logistic regression on {shown} |" in card
        assert f" {record.baselines[name].metrics['test'].accuracy:.2%} |" in card
    assert "**Task:** one of 4 classes for each text\n" in card
    assert f"{counts.file:,} in the saved file, of a budget of 1,000,000" in card
    assert "`World`, `Sports`, `Business`, `Sci/Tech`" in card
    assert "**Training rows:** 48 (other rows: validation 16, test 12)" in card
    assert "lora: W + (alpha / r) B A" in card
    assert "[More Information Needed]" not in card
    # The base is a local directory, whose path says nothing to others.
    assert str(run.parent.parent) not in card
    front_matter: dict[str, Any] = _front_matter(card)
    (index,) = front_matter.pop("model-index")
    assert index["name"] == "tiny"
    accuracy, f1 = index["results"][0]["metrics"]
    assert index["results"][0]["dataset"] == {"type": "test", "name": "test (12 rows)"}
    assert accuracy["value"] == round(metrics.accuracy, 6)
    assert accuracy["args"] == {"interval_95": [round(low, 6), round(high, 6)]}
    assert (f1["type"], f1["args"]["average"]) == ("f1", "macro")
    assert front_matter == {
        "license": "unknown",
        "library_name": "peft",
        "pipeline_tag": "text-classification",
        "tags": ["pennyweight", "lora"],
    }


def _run_peft_code(run: Path, base: Path) -> dict[str, Any]:
    """Run the code for plain PEFT in a run's card, and return what it defines."""
    card = _card(run / "adapter")
    (code,) = (
        block for block in re.findall(r"```python\n(.*?)```", card, re.DOTALL) if "peft" in block
    )
    names: dict[str, Any] = {"__code__": code}
    # The card's own code, with the paths that it leaves open.
    code = code.replace("DIRECTORY", str(run / "adapter")).replace("'BASE'", repr(str(base)))
    exec(code, names)
    return names


def _logits(names: dict[str, Any], texts: list[str]) -> torch.Tensor:
    with torch.inference_mode():
        inputs = names["tokenizer"](texts, padding=True, return_tensors="pt")
        logits: torch.Tensor = names["model"](**inputs).logits
    return logits


def _calibrated(logits: torch.Tensor, run: Path) -> np.ndarray:
    """Return probabilities as the notes of a run's card say."""
    found = re.search(r"Divide the logits by the temperature ([\d.]+)", _card(run / "adapter"))
    temperature = float(found[1]) if found else 1.0
    assert temperature == pytest.approx(Classifier.load(run).temperature, abs=1e-4)
    probabilities: np.ndarray = (logits / temperature).softmax(dim=1).numpy()
    return probabilities


@pytest.mark.parametrize("head", ["full", "output-only"])
def test_the_code_for_plain_peft_gives_the_runs_predictions(
    roberta: Path, sets: Path, tmp_path: Path, texts: list[str], head: str
) -> None:
    recipe = tiny_recipe(roberta, sets, adapter={"head": head}, train={"max_steps": 2})
    train(recipe, out=tmp_path / "run")
    names = _run_peft_code(tmp_path / "run", roberta)
    assert ("fresh_weights" in names["__code__"]) == (head != "full")
    expected = Classifier.load(tmp_path / "run").predict_probabilities(texts)
    probabilities = _calibrated(_logits(names, texts), tmp_path / "run")
    np.testing.assert_allclose(probabilities, expected, atol=1e-4)


@pytest.fixture(scope="module")
def pooled_run(bert: Path, sets: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("pooled") / "run"
    train(tiny_recipe(bert, sets, base={"pooling": "mean"}, train={"max_steps": 2}), out=out)
    return out


def test_the_code_for_a_pooled_classifier_gives_the_runs_predictions(
    pooled_run: Path, bert: Path, texts: list[str]
) -> None:
    names = _run_peft_code(pooled_run, bert)
    assert "AutoModelForSequenceClassification" not in names["__code__"]
    expected = Classifier.load(pooled_run).predict_probabilities(texts)
    probabilities = _calibrated(_logits(names, texts), pooled_run)
    np.testing.assert_allclose(probabilities, expected, atol=1e-4)


def test_the_card_of_a_merged_pooled_model_says_whose_code_runs_and_its_code_works(
    pooled_run: Path, texts: list[str], tmp_path: Path
) -> None:
    notes = merge(pooled_run, out=tmp_path / "merged").notes
    assert notes[0].startswith("Load it with `trust_remote_code=True`: transformers has no class")
    card = _card(tmp_path / "merged")
    assert "`pooled.py`, beside the weights, is the code that runs" in card
    (code,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    assert "trust_remote_code=True" in code
    names: dict[str, Any] = {}
    exec(code.replace('model="DIRECTORY"', f"model={str(tmp_path / 'merged')!r}"), names)
    answers = names["classify"](texts)
    assert [answer["label"] for answer in answers] == Classifier.load(pooled_run).predict(texts)


def test_a_card_leads_with_macro_f1_where_classes_are_uneven(tmp_path: Path) -> None:
    labels = np.array([0] * 7 + [1])
    uneven = measure(np.array([[1.0, 0.0]] * 8), labels, names=("a", "b"))
    write_merged_card(tmp_path, example_record(metrics={"test": uneven}))
    card = _card(tmp_path)
    assert "| set | rows | macro F1 (95% interval) | accuracy |" in card
    assert "| test | 8 | 46.67% (" in card
    assert ") | 87.50% |" in card


def test_a_card_about_several_labels_or_pairs_says_what_a_row_is(tmp_path: Path) -> None:
    train_rows = {"location": "train.csv", "pair_columns": ["premise", "hypothesis"]}
    recipe = example_recipe(data={"task": "multi-label", "train": train_rows})
    logits, labels = np.array([[1.0, -2.0], [-1.0, -2.0]]), np.array([[1, 0], [0, 0]])
    several = measure(logits, labels, names=("a", "b"))
    write_merged_card(tmp_path, example_record(recipe=recipe, metrics={"test": several}))
    card = _card(tmp_path)
    assert "any number of 2 labels for each pair of texts (`premise`, `hypothesis`)" in card
    assert "| macro F1 (95% interval) | micro F1 | mean average precision | all" in card
    assert "the label's threshold in `pennyweight.json`" in card
    assert 'classify({"text": "A text.", "text_pair": "Another text."}, top_k=None)' in card
    assert '"premise" as the text and "hypothesis" as the text pair' in card


def test_the_embedded_base_is_named_by_its_hub_id_and_its_path_is_given(tmp_path: Path) -> None:
    base = BaseRecord(
        name="embedded",
        reference="sentence-transformers/all-MiniLM-L6-v2",
        revision=None,
        origin="embedded",
    )
    (tmp_path / "adapter").mkdir()
    write_model_card(tmp_path, example_record(base=base))
    card = _card(tmp_path / "adapter")
    assert _front_matter(card)["base_model"] == "sentence-transformers/all-MiniLM-L6-v2"
    assert _front_matter(card)["base_model_relation"] == "adapter"
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
    assert "The temperature 1.2000, which calibrates the probabilities, is folded into" in _card(
        tmp_path
    )
    assert _front_matter(_card(tmp_path))["library_name"] == "transformers"
