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
from pennyweight.inference.classifier import Classifier
from pennyweight.inference.evaluate import evaluate
from pennyweight.inference.submit import submit
from pennyweight.recipe import Recipe
from pennyweight.runs.record import ParameterCounts, load_record
from pennyweight.training.train import train
from tiny import news, tiny_recipe
from training.outcomes import interrupt_at, losses

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
    untrained = AutoModelForSequenceClassification.from_pretrained(roberta, num_labels=4)
    total = sum(p.numel() for p in untrained.parameters())
    assert record.parameters == ParameterCounts(planned=total, model=total, file=total, budget=1000)
    assert record.over_budget
    trained = load_file(run / "model" / "model.safetensors")
    name = "roberta.encoder.layer.0.output.dense.weight"
    assert not torch.equal(trained[name], untrained.state_dict()[name])
    assert np.mean(losses(record)[-6:]) < 0.9 * np.mean(losses(record)[:6])


def test_the_result_is_a_plain_transformers_model(run: Path) -> None:
    model = AutoModelForSequenceClassification.from_pretrained(run / "model").eval()
    batch = AutoTokenizer.from_pretrained(run / "model")(TEXTS, padding=True, return_tensors="pt")
    batch.pop("token_type_ids", None)
    classifier = Classifier.load(run)
    with torch.inference_mode():
        plain = torch.softmax(model(**batch).logits / classifier.temperature, dim=1).numpy()
    np.testing.assert_allclose(plain, classifier.predict_probabilities(TEXTS), atol=1e-5)


def test_the_record_names_the_directory_of_the_whole_model(run: Path) -> None:
    artifact = load_record(run).artifact
    assert artifact is not None
    assert artifact.directory == "model"
    assert "model.safetensors" in artifact.files


def test_a_run_over_budget_is_evaluated_but_cannot_be_submitted(
    run: Path, sets: Path, tmp_path: Path
) -> None:
    metrics = evaluate(run, str(sets / "test.csv"))
    assert metrics.accuracy == load_record(run).metrics["test"].accuracy
    with pytest.raises(RunError, match=r"1,000 are allowed, so it cannot be submitted; use it as"):
        submit(run, str(sets / "test.csv"), out=tmp_path / "submission.csv")
    assert not (tmp_path / "submission.csv").exists()


def test_a_run_over_budget_can_teach(roberta: Path, run: Path, sets: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(
        roberta, sets, distillation={"teachers": [str(run)], "hidden": 1.0, "soft": 0.5}
    )
    assert train(recipe, out=tmp_path / "student").status == "complete"


def test_a_run_within_its_budget_can_be_submitted(
    roberta: Path, sets: Path, tmp_path: Path
) -> None:
    recipe = _recipe(roberta, sets, budget=1_000_000, train={"max_steps": 2})
    train(recipe, out=tmp_path / "run")
    assert submit(tmp_path / "run", str(sets / "test.csv"), out=tmp_path / "s.csv") == 12


def test_an_interrupted_run_continues_as_if_nothing_had_happened(
    roberta: Path, sets: Path, tmp_path: Path
) -> None:
    recipe = _recipe(roberta, sets, train={"epochs": 2})
    unbroken = train(recipe, out=tmp_path / "unbroken")
    with pytest.raises(KeyboardInterrupt):
        train(recipe, out=tmp_path / "run", watcher=interrupt_at(8))
    resumed = train(recipe, out=tmp_path / "run", resume=True)
    assert losses(resumed) == pytest.approx(losses(unbroken))
