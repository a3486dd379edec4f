"""Full fine-tuning: a teacher and a baseline, and no submission over budget."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from pennyweight.errors import RunError
from pennyweight.recipe import Recipe
from pennyweight.runs.classifier import Classifier
from pennyweight.runs.record import load_record
from pennyweight.runs.training import train
from pennyweight.runs.using import evaluate, submit
from runs.tiny import news, tiny_recipe

TEXTS = [text for _, text in news(12, seed=9)]


def _recipe(base: Path, sets: Path, *, budget: int = 1000, **sections: Any) -> Recipe:
    recipe = tiny_recipe(
        base,
        sets,
        budget={"trainable_parameters": budget},
        optimizer={"learning_rate": 1e-3},
        **sections,
    )
    values = recipe.model_dump(mode="json", exclude_none=True)
    return Recipe.model_validate({**values, "adapter": {"method": "full"}})


@pytest.fixture(scope="module")
def run(roberta: Path, sets: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("full") / "run"
    train(_recipe(roberta, sets, train={"epochs": 8}), out=out)
    return out


def test_every_weight_is_trained_and_counted(roberta: Path, run: Path) -> None:
    record = load_record(run)
    begun = AutoModelForSequenceClassification.from_pretrained(roberta, num_labels=4)
    total = sum(p.numel() for p in begun.parameters())
    assert record.parameters == {"planned": total, "model": total, "file": total, "budget": 1000}
    assert record.over_budget
    trained = load_file(run / "model" / "model.safetensors")
    name = "roberta.encoder.layer.0.output.dense.weight"
    assert not torch.equal(trained[name], begun.state_dict()[name])
    losses = [entry["loss"] for entry in record.history]
    assert np.mean(losses[-6:]) < 0.9 * np.mean(losses[:6])


def test_it_is_a_plain_transformers_model(run: Path) -> None:
    model = AutoModelForSequenceClassification.from_pretrained(run / "model").eval()
    batch = AutoTokenizer.from_pretrained(run / "model")(TEXTS, padding=True, return_tensors="pt")
    batch.pop("token_type_ids", None)
    with torch.inference_mode():
        found = torch.softmax(model(**batch).logits, dim=1).numpy()
    np.testing.assert_allclose(found, Classifier.load(run).predict_probabilities(TEXTS), atol=1e-5)


def test_it_is_evaluated_and_may_not_be_submitted(run: Path, sets: Path, tmp_path: Path) -> None:
    measured = evaluate(run, str(sets / "test.csv"))
    assert measured.accuracy == load_record(run).metrics["test"]["accuracy"]
    with pytest.raises(RunError, match=r"1,000 are allowed: no submission, but a teacher"):
        submit(run, str(sets / "test.csv"), out=tmp_path / "submission.csv")
    assert not (tmp_path / "submission.csv").exists()


def test_it_teaches(roberta: Path, run: Path, sets: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(
        roberta, sets, distillation={"teachers": [str(run)], "hidden": 1.0, "soft": 0.5}
    )
    assert train(recipe, out=tmp_path / "student").status == "complete"


def test_within_a_budget_that_allows_it_it_may_be_submitted(
    roberta: Path, sets: Path, tmp_path: Path
) -> None:
    recipe = _recipe(roberta, sets, budget=1_000_000, train={"max_steps": 2})
    train(recipe, out=tmp_path / "run")
    assert submit(tmp_path / "run", str(sets / "test.csv"), out=tmp_path / "s.csv") == 12


def test_an_interrupted_run_goes_on_as_if_nothing_had_happened(
    roberta: Path, sets: Path, tmp_path: Path
) -> None:
    recipe = _recipe(roberta, sets, train={"epochs": 2})
    whole = train(recipe, out=tmp_path / "whole")

    class StopError(Exception):
        pass

    def stop(step: Any) -> None:
        if step.step == 8:
            raise StopError

    from pennyweight.runs.setup import Watcher

    with pytest.raises(StopError):
        train(recipe, out=tmp_path / "cut", watcher=Watcher(on_step=stop))
    again = train(recipe, out=tmp_path / "cut", resume=True)
    assert [e["loss"] for e in again.history] == pytest.approx([e["loss"] for e in whole.history])
