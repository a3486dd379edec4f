"""Unlabelled text from the target inside a run: self-training, consistency, weights."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pennyweight.data.splits import make_splits
from pennyweight.errors import RecipeError
from pennyweight.recipe import Recipe, resolve_recipe
from pennyweight.runs.record import RunRecord, TrainingRows
from pennyweight.settings.assemble import settings_of
from pennyweight.settings.values import DensityRatioSettings
from pennyweight.training.rows import RowContext, prepare_rows
from pennyweight.training.target import consistency_rows, density_weights, labelled_table
from pennyweight.training.train import train
from pennyweight.training.watcher import Watcher
from tiny import LABELS, news, tiny_recipe


def _recipe(
    base: Path, sets: Path, target: Path, use: dict[str, Any], **train_keys: object
) -> Recipe:
    values = tiny_recipe(base, sets, data={"target": str(target)}, train=train_keys)
    return resolve_recipe(
        {**values.model_dump(mode="json", exclude_none=True), "transduction": use}
    )


def _training_rows(record: RunRecord) -> TrainingRows:
    assert record.data is not None
    assert record.data.training is not None
    return record.data.training


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """Return a file of 180 unlabelled texts; its labels are wrong, and must never be read."""
    path = tmp_path / "target.csv"
    with path.open("w", newline="") as file:
        rows = [("not a label", text) for label, text in news(240, seed=31) if label != 3]
        csv.writer(file).writerows([("label", "text"), *rows])
    return path


def test_the_target_is_used_without_its_labels_and_every_use_is_reported(
    roberta: Path, sets: Path, target: Path, tmp_path: Path
) -> None:
    use = {"prior": {"method": "em"}, "consistency": 0.5, "density_ratio": {}}
    recipe = _recipe(roberta, sets, target, use, epochs=3)
    lines: list[str] = []
    record = train(recipe, out=tmp_path / "run", watcher=Watcher(log=lines.append))
    assert record.transductive == (
        "consistency on the target",
        "training rows weighted towards the target",
        "class shares estimated on the target",
    )
    assert [line for line in lines if line.startswith("TRANSDUCTIVE: ")] == [
        f"TRANSDUCTIVE: {use}" for use in record.transductive
    ]
    assert _training_rows(record).rows == 48 + 180
    assert record.target is not None
    assert record.target.rows == 180
    assert sum(record.target.predicted_shares.values()) == pytest.approx(1.0)


def test_self_training_adds_the_rows_that_a_run_labels_with_confidence(
    roberta: Path, sets: Path, target: Path, tmp_path: Path
) -> None:
    train(tiny_recipe(roberta, sets, train={"epochs": 6}), out=tmp_path / "teacher")
    options: dict[str, Any] = {
        "method": "confident",
        "teachers": [str(tmp_path / "teacher")],
        "confidence": 0.3,
        "most_per_class": 20,
    }
    recipe = _recipe(roberta, sets, target, {"self_training": options})
    record = train(recipe, out=tmp_path / "student")
    (step,) = _training_rows(record).steps
    assert step.by_class is not None
    assert step.added == sum(step.by_class.values()) > 0
    assert _training_rows(record).rows == 48 + step.added
    assert max(step.by_class.values()) <= 20
    assert record.transductive == ("self-training on the target",)

    # A class whose rows are all below its own threshold is named.
    options["by_class"] = {LABELS[0]: 0.9999}
    settings = settings_of(_recipe(roberta, sets, target, {"self_training": options}))
    data, lines = settings.data, list[str]()
    splits = make_splits(data.sources, read=data.read, split=data.split, overlap=data.overlap)
    context = RowContext(settings.labels, settings.seed, tmp_path, lines.append)
    prepared = prepare_rows(splits, settings.rows, context)
    assert any(line.startswith(f"self-training: no row of {LABELS[0]}") for line in lines)
    assert prepared.smoothing is not None
    assert len(prepared.smoothing) == len(prepared.table)


def test_a_teacher_without_a_correction_is_corrected_as_the_recipe_says(
    roberta: Path, sets: Path, target: Path, tmp_path: Path
) -> None:
    train(tiny_recipe(roberta, sets, train={"epochs": 6}), out=tmp_path / "teacher")
    use = {
        "prior": {"method": "stated", "stated": "uniform", "groups": "one"},
        "self_training": {
            "method": "balanced",
            "teachers": [str(tmp_path / "teacher")],
            "share": 0.6,
        },
    }
    lines: list[str] = []
    watcher = Watcher(log=lines.append)
    first = train(_recipe(roberta, sets, target, use), out=tmp_path / "student", watcher=watcher)
    assert any(line.endswith("is corrected for the class shares of the target") for line in lines)
    (step,) = _training_rows(first).steps
    assert step.by_class is not None
    # Uniform shares of the target give each class nearly as many rows, though none of the target's
    # texts is about the last one.
    assert min(step.by_class.values()) > 0
    assert first.transductive == (
        "self-training on the target",
        "predictions matched to stated class shares of the target",
    )
    # A teacher with a correction is used as it is.
    use["self_training"]["teachers"] = [str(tmp_path / "student")]
    lines.clear()
    train(_recipe(roberta, sets, target, use), out=tmp_path / "third", watcher=watcher)
    assert not any("is corrected for the class shares" in line for line in lines)


def test_soft_labels_teach_the_probabilities_of_all_target_rows(
    roberta: Path, sets: Path, target: Path, tmp_path: Path
) -> None:
    train(tiny_recipe(roberta, sets, train={"epochs": 6}), out=tmp_path / "teacher")
    use = {
        "self_training": {
            "method": "balanced",
            "teachers": [str(tmp_path / "teacher")],
            "share": 1.0,
            "labels": "soft",
            "weights": "confidence",
            "copies": 2,
        },
        "consistency": 0.5,
    }
    recipe = _recipe(roberta, sets, target, use, label_smoothing=0.1)
    settings = settings_of(recipe)
    data = settings.data
    splits = make_splits(data.sources, read=data.read, split=data.split, overlap=data.overlap)
    context = RowContext(settings.labels, settings.seed, tmp_path, lambda _: None)
    prepared = prepare_rows(splits, settings.rows, context)
    soft, weights, smoothing = prepared.soft_labels, prepared.weights, prepared.smoothing
    assert soft is not None
    assert weights is not None
    assert smoothing is not None
    labels = np.asarray(prepared.table["label"][:])
    assert len(prepared.table) == len(soft) == len(weights) == len(smoothing) == 48 + 3 * 180
    # Training rows teach their labels, which are smoothed as the recipe says.
    np.testing.assert_array_equal(soft[:48], np.eye(len(LABELS), dtype=np.float32)[labels[:48]])
    assert (weights[:48] == 1.0).all()
    assert smoothing[:48] == pytest.approx(0.1)
    # Target rows teach probabilities, each in two copies, and are weighted by the largest one.
    added = soft[48:-180]
    np.testing.assert_array_equal(added[:180], added[180:])
    np.testing.assert_allclose(added.sum(axis=1), 1.0, rtol=1e-5)
    assert (added.argmax(axis=1) == labels[48:-180]).all()
    np.testing.assert_array_equal(weights[48:-180], added.max(axis=1))
    assert (smoothing[48:] == 0.0).all()
    # Rows for the consistency loss have no label at all.
    assert (labels[-180:] == -1).all()
    record = train(recipe, out=tmp_path / "student")
    (step,) = _training_rows(record).steps
    assert step.added == 180


def test_a_self_training_teacher_of_other_classes_is_refused(
    bert: Path, sets: Path, target: Path, tmp_path: Path
) -> None:
    names = ["A", "B", "C", "D"]
    other = tiny_recipe(bert, sets, data={"labels": names}, train={"max_steps": 1})
    train(other, out=tmp_path / "teacher")
    recipe = _recipe(
        bert,
        sets,
        target,
        {"self_training": {"method": "confident", "teachers": [str(tmp_path / "teacher")]}},
    )
    with pytest.raises(RecipeError, match=r"its classes are A, B, C, D, and data\.labels are Worl"):
        train(recipe, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_consistency_rows_are_drawn_without_labels_from_the_seed() -> None:
    target = labelled_table([f"text {n}" for n in range(50)], np.zeros(50, dtype=np.int64))
    rows = consistency_rows(target, 7, seed=3)
    assert len(rows) == len(set(rows["text"])) == 7
    assert set(rows["label"]) == {-1}
    assert rows["text"][:] == consistency_rows(target, 7, seed=3)["text"][:]
    assert rows["text"][:] != consistency_rows(target, 7, seed=4)["text"][:]
    assert consistency_rows(target, None, seed=3)["text"][:] == target["text"][:]


def test_density_weights_favour_rows_like_the_target_and_average_one() -> None:
    near, far = [text for _, text in news(120, seed=3)], [f"{n} q z x" for n in range(120)]
    rows = labelled_table([*near, *far], np.zeros(240, dtype=np.int64))
    target = labelled_table([t for _, t in news(200, seed=4)], np.full(200, -1))
    lines: list[str] = []
    settings = DensityRatioSettings(largest=5.0, power=1.0)
    weights, step = density_weights(rows, target, settings, seed=0, log=lines.append)
    assert weights.dtype == np.float32
    assert weights.mean() == pytest.approx(1.0, abs=1e-5)
    assert weights[:120].mean() > 5 * weights[120:].mean()
    # As many rows as equally weighted ones would need to be for the same variance.
    assert step.effective_rows == pytest.approx(weights.sum() ** 2 / (weights**2).sum(), rel=1e-5)
    assert lines == [line for line in lines if line.startswith("density ratio: weights from ")]
