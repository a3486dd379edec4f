"""Distillation: teachers' logits are right, cached, and reach the loss row by row."""

from __future__ import annotations

from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from scipy.special import log_softmax, softmax
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from pennyweight.engine.batch import Targets, Taught
from pennyweight.engine.objective import Objective
from pennyweight.errors import RecipeError
from pennyweight.recipe import Recipe
from pennyweight.runs import teacher as teacher_room
from pennyweight.runs.classifier import Classifier
from pennyweight.runs.teacher import teach
from pennyweight.runs.training import train
from runs.tiny import news, tiny_recipe

ROWS = news(14, seed=21)


@pytest.fixture(scope="module")
def teacher(bert: Path, sets: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("teacher") / "run"
    train(tiny_recipe(bert, sets, train={"epochs": 2}), out=out)
    return out


@pytest.fixture
def rows() -> datasets.Dataset:
    return datasets.Dataset.from_dict(
        {"text": [text for _, text in ROWS], "label": [label for label, _ in ROWS]}
    )


def _recipe(base: Path, sets: Path, *teachers: Path, **keys: object) -> Recipe:
    told = {"teachers": [str(one) for one in teachers], **keys}
    return tiny_recipe(base, sets, distillation=told)


def test_a_run_teaches_its_probabilities_and_they_are_computed_once(
    roberta: Path,
    sets: Path,
    teacher: Path,
    rows: datasets.Dataset,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recipe, said = _recipe(roberta, sets, teacher), list[str]()
    taught = teach(recipe, rows, width=32, say=said.append)
    expected = Classifier.load(teacher).predict_probabilities(rows["text"])
    np.testing.assert_allclose(taught.log_probabilities.exp(), expected, atol=1e-5)
    assert taught.features is None
    assert len(said) == 1
    monkeypatch.setattr(teacher_room, "_load", None)
    again = teach(recipe, rows, width=32, say=said.append)
    assert torch.equal(again.log_probabilities, taught.log_probabilities)
    assert len(said) == 1


def test_a_transformers_classifier_teaches_too_and_several_teach_their_mean(
    roberta: Path, sets: Path, teacher: Path, rows: datasets.Dataset, tmp_path: Path
) -> None:
    Classifier.load(teacher).merge(tmp_path / "merged")
    merged = AutoModelForSequenceClassification.from_pretrained(tmp_path / "merged")
    with torch.no_grad():
        merged.classifier.weight.mul_(-1.0)
    merged.save_pretrained(tmp_path / "merged")
    batch = AutoTokenizer.from_pretrained(tmp_path / "merged")(
        list(rows["text"]), padding=True, return_tensors="pt"
    )
    with torch.inference_mode():
        plain = merged.eval()(**batch).logits.numpy()
    recipe = _recipe(roberta, sets, tmp_path / "merged", hidden=0.5)
    alone = teach(recipe, rows, width=32, say=print)
    np.testing.assert_allclose(alone.log_probabilities, log_softmax(plain, axis=1), atol=1e-5)
    with torch.inference_mode():
        pooled = merged.bert(**batch).pooler_output.numpy()
    assert alone.features is not None
    np.testing.assert_allclose(alone.features, pooled, atol=1e-5)
    recipe = _recipe(roberta, sets, teacher, tmp_path / "merged")
    both = teach(recipe, rows, width=32, say=print)
    mean = (
        Classifier.load(teacher).predict_probabilities(rows["text"]) + softmax(plain, axis=1)
    ) / 2
    np.testing.assert_allclose(both.log_probabilities.exp(), mean, atol=1e-5)


def test_the_loss_is_the_mix_of_labels_and_teachers_at_the_temperature() -> None:
    logits = torch.tensor([[2.0, 0.0, -1.0], [0.5, 0.1, 0.2]])
    taught = Taught(torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8]]).log())
    labels = torch.tensor([0, 2])
    found = Objective(temperature=3.0, soft=0.25).of_rows([logits], Targets(labels, taught))
    hard = -logits.log_softmax(1)[torch.arange(2), labels].sum()
    p, q = (taught.log_probabilities / 3).softmax(1), (logits / 3).softmax(1)
    soft = 9 * (p * (p / q).log()).sum()
    torch.testing.assert_close(found, 0.75 * hard + 0.25 * soft)


def test_a_student_of_soft_targets_alone_comes_to_agree_with_its_teacher(
    roberta: Path, sets: Path, teacher: Path, tmp_path: Path
) -> None:
    recipe = _recipe(roberta, sets, teacher, soft=1.0, temperature=1.0)
    recipe = recipe.model_copy(update={"train": recipe.train.model_copy(update={"epochs": 8})})
    record = train(recipe, out=tmp_path / "run")
    losses = [entry["loss"] for entry in record.history]
    assert np.mean(losses[-6:]) < 0.5 * np.mean(losses[:6])


def test_a_student_told_what_its_teacher_thinks_comes_to_think_alike(
    bert: Path, sets: Path, teacher: Path, rows: datasets.Dataset, tmp_path: Path
) -> None:
    def likeness(out: Path, **told: object) -> float:
        recipe = _recipe(bert, sets, teacher, soft=0.0, **told)
        recipe = recipe.model_copy(update={"train": recipe.train.model_copy(update={"epochs": 6})})
        train(recipe, out=out)
        mine, theirs = (Classifier.load(run).both(rows)[1] for run in (out, teacher))
        return float(
            np.mean(
                np.sum(mine * theirs, axis=1)
                / (np.linalg.norm(mine, axis=1) * np.linalg.norm(theirs, axis=1))
            )
        )

    told = likeness(tmp_path / "told", hidden=5.0)
    assert told > likeness(tmp_path / "untold") + 0.001


def test_a_teacher_of_another_width_cannot_share_its_thoughts(
    roberta: Path, sets: Path, teacher: Path, rows: datasets.Dataset
) -> None:
    with pytest.raises(RecipeError, match="reads 32 numbers, the student's 64"):
        teach(_recipe(roberta, sets, teacher, hidden=1.0), rows, width=64, say=print)
    with pytest.raises(RecipeError, match="exactly one teacher"):
        _recipe(roberta, sets, teacher, teacher, hidden=1.0)


@pytest.mark.parametrize("what", ["missing", "headless", "other classes"])
def test_what_is_no_teacher_is_named(
    bert: Path, roberta: Path, sets: Path, tmp_path: Path, rows: datasets.Dataset, what: str
) -> None:
    if what == "missing":
        recipe, said = _recipe(roberta, sets, tmp_path / "nothing"), "no such directory"
    elif what == "headless":
        recipe, said = _recipe(roberta, sets, bert), "no trained head"
    else:
        names = ["A", "B", "C", "D"]
        train(
            tiny_recipe(bert, sets, data={"labels": names}, train={"max_steps": 1}),
            out=tmp_path / "run",
        )
        recipe, said = _recipe(roberta, sets, tmp_path / "run"), "knows the classes A, B, C, D"
    with pytest.raises(RecipeError, match=said):
        teach(recipe, rows, width=32, say=print)
