"""Distillation: the teachers' outputs are right, cached, and reach the loss row by row."""

from __future__ import annotations

from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from scipy.special import log_softmax, softmax
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from pennyweight.data.splits import fingerprint_of
from pennyweight.engine.batches.rows import Targets, TeacherOutputs
from pennyweight.engine.train.objective import Objective, ObjectiveOptions
from pennyweight.errors import RecipeError
from pennyweight.inference.classifier import Classifier
from pennyweight.recipe import Recipe
from pennyweight.settings.assemble import settings_of
from pennyweight.training import teacher as module
from pennyweight.training.teacher import teach
from pennyweight.training.train import train
from tiny import news, tiny_recipe
from training.outcomes import losses

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
    return tiny_recipe(
        base, sets, distillation={"teachers": [str(one) for one in teachers], **keys}
    )


def _teach(
    recipe: Recipe, rows: datasets.Dataset, *, width: int = 32, lines: list[str] | None = None
) -> TeacherOutputs:
    log = print if lines is None else lines.append
    return teach(rows, fingerprint_of(rows), settings_of(recipe), width=width, log=log)


def test_a_run_teaches_its_probabilities_and_they_are_computed_once(
    roberta: Path,
    sets: Path,
    teacher: Path,
    rows: datasets.Dataset,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recipe, lines = _recipe(roberta, sets, teacher), list[str]()
    outputs = _teach(recipe, rows, lines=lines)
    expected = Classifier.load(teacher).predict_probabilities(rows["text"][:])
    np.testing.assert_allclose(outputs.log_probabilities.exp(), expected, atol=1e-5)
    assert outputs.features is None
    assert lines == [f"teacher {teacher}: predicting 14 rows"]
    monkeypatch.setattr(module, "_outputs", None)
    again = _teach(recipe, rows, lines=lines)
    assert torch.equal(again.log_probabilities, outputs.log_probabilities)
    assert len(lines) == 1


def test_a_transformers_classifier_teaches_too_and_several_teach_their_mean(
    roberta: Path, sets: Path, teacher: Path, rows: datasets.Dataset, tmp_path: Path
) -> None:
    Classifier.load(teacher).merge(tmp_path / "merged")
    merged = AutoModelForSequenceClassification.from_pretrained(tmp_path / "merged")
    with torch.no_grad():
        merged.classifier.weight.mul_(-1.0)
    merged.save_pretrained(tmp_path / "merged")
    batch = AutoTokenizer.from_pretrained(tmp_path / "merged")(
        rows["text"][:], padding=True, return_tensors="pt"
    )
    with torch.inference_mode():
        logits = merged.eval()(**batch).logits.numpy()
        pooled = merged.bert(**batch).pooler_output.numpy()
    alone = _teach(_recipe(roberta, sets, tmp_path / "merged", hidden=0.5), rows)
    np.testing.assert_allclose(alone.log_probabilities, log_softmax(logits, axis=1), atol=1e-5)
    assert alone.features is not None
    np.testing.assert_allclose(alone.features, pooled, atol=1e-5)
    both = _teach(_recipe(roberta, sets, teacher, tmp_path / "merged"), rows)
    first = Classifier.load(teacher).predict_probabilities(rows["text"][:])
    mean = (first + softmax(logits, axis=1)) / 2
    np.testing.assert_allclose(both.log_probabilities.exp(), mean, atol=1e-5)


@pytest.fixture
def plain_teacher(bert: Path, tmp_path: Path) -> Path:
    """Return a transformers classifier that is no run, with an untrained head."""
    AutoModelForSequenceClassification.from_pretrained(bert, num_labels=4).save_pretrained(
        tmp_path / "plain"
    )
    AutoTokenizer.from_pretrained(bert).save_pretrained(tmp_path / "plain")
    return tmp_path / "plain"


def test_a_transformers_classifier_labels_both_texts_of_a_pair(
    roberta: Path, sets: Path, plain_teacher: Path, rows: datasets.Dataset
) -> None:
    pairs = rows.add_column("text_pair", rows["text"][::-1])
    batch = AutoTokenizer.from_pretrained(plain_teacher)(
        pairs["text"][:], pairs["text_pair"][:], padding=True, max_length=24, truncation=True,
        return_token_type_ids=False, return_tensors="pt",
    )  # fmt: skip
    model = AutoModelForSequenceClassification.from_pretrained(plain_teacher)
    with torch.inference_mode():
        logits = model.eval()(**batch).logits.numpy()
    outputs = _teach(_recipe(roberta, sets, plain_teacher), pairs)
    np.testing.assert_allclose(outputs.log_probabilities, log_softmax(logits, axis=1), atol=1e-5)


def test_a_teacher_is_asked_again_when_other_tokens_of_long_rows_are_kept(
    roberta: Path, sets: Path, plain_teacher: Path, rows: datasets.Dataset
) -> None:
    recipe, lines = _recipe(roberta, sets, plain_teacher), list[str]()
    _teach(recipe, rows, lines=lines)
    ends = recipe.data.model_copy(update={"truncation": "head-tail"})
    _teach(recipe.model_copy(update={"data": ends}), rows, lines=lines)
    assert lines == [f"teacher {plain_teacher}: predicting 14 rows"] * 2


def test_the_loss_mixes_labels_and_teachers_at_the_temperature() -> None:
    logits = torch.tensor([[2.0, 0.0, -1.0], [0.5, 0.1, 0.2]])
    outputs = TeacherOutputs(torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8]]).log())
    labels = torch.tensor([0, 2])
    objective = Objective(ObjectiveOptions(temperature=3.0, soft=0.25))
    loss = objective.of_rows([logits], Targets(labels, outputs))
    hard = -logits.log_softmax(1)[torch.arange(2), labels].sum()
    p, q = (outputs.log_probabilities / 3).softmax(1), (logits / 3).softmax(1)
    soft = 9 * (p * (p / q).log()).sum()
    torch.testing.assert_close(loss, 0.75 * hard + 0.25 * soft)


def test_a_student_of_soft_targets_alone_learns_to_agree_with_its_teacher(
    roberta: Path, sets: Path, teacher: Path, tmp_path: Path
) -> None:
    recipe = _recipe(roberta, sets, teacher, soft=1.0, temperature=1.0)
    recipe = recipe.model_copy(update={"train": recipe.train.model_copy(update={"epochs": 8})})
    record = train(recipe, out=tmp_path / "run")
    assert np.mean(losses(record)[-6:]) < 0.5 * np.mean(losses(record)[:6])


def test_a_student_that_is_taught_features_comes_to_have_similar_ones(
    bert: Path, sets: Path, teacher: Path, rows: datasets.Dataset, tmp_path: Path
) -> None:
    def similarity(out: Path, **keys: object) -> float:
        """Train a student, and return the mean cosine of its features to the teacher's."""
        recipe = _recipe(bert, sets, teacher, soft=0.0, **keys)
        recipe = recipe.model_copy(update={"train": recipe.train.model_copy(update={"epochs": 6})})
        train(recipe, out=out)
        student, target = (
            Classifier.load(run).outputs(rows, features=True).features for run in (out, teacher)
        )
        assert student is not None
        assert target is not None
        norms = np.linalg.norm(student, axis=1) * np.linalg.norm(target, axis=1)
        return float(np.mean(np.sum(student * target, axis=1) / norms))

    assert similarity(tmp_path / "with", hidden=5.0) > similarity(tmp_path / "without") + 0.001


def test_a_teacher_of_another_width_cannot_teach_features(
    roberta: Path, sets: Path, teacher: Path, rows: datasets.Dataset
) -> None:
    with pytest.raises(RecipeError, match="reads 32 features, the student's 64"):
        _teach(_recipe(roberta, sets, teacher, hidden=1.0), rows, width=64)
    with pytest.raises(RecipeError, match="exactly one teacher"):
        _recipe(roberta, sets, teacher, teacher, hidden=1.0)


@pytest.mark.parametrize("problem", ["missing", "headless", "other classes"])
def test_a_teacher_that_cannot_be_used_is_named(
    bert: Path, roberta: Path, sets: Path, tmp_path: Path, rows: datasets.Dataset, problem: str
) -> None:
    directory, message = {
        "missing": (tmp_path / "nothing", "no such directory"),
        "headless": (bert, "no trained head"),
        "other classes": (tmp_path / "run", "its classes are A, B, C, D"),
    }[problem]
    if problem == "other classes":
        names = ["A", "B", "C", "D"]
        other = tiny_recipe(bert, sets, data={"labels": names}, train={"max_steps": 1})
        train(other, out=directory)
    with pytest.raises(RecipeError, match=message) as caught:
        _teach(_recipe(roberta, sets, directory), rows)
    assert str(caught.value).startswith(f"distillation.teachers: {directory}: ")


def test_a_teacher_of_other_classes_is_refused_before_anything_is_written(
    bert: Path, sets: Path, teacher: Path, tmp_path: Path
) -> None:
    recipe = tiny_recipe(
        bert,
        sets,
        data={"labels": ["A", "B", "C", "D"]},
        distillation={"teachers": [str(teacher)]},
    )
    with pytest.raises(RecipeError, match="its classes are World, Sports"):
        train(recipe, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
