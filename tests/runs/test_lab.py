"""The lab inside a run: rows are filtered, added and weighted; nothing leaks."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from scipy.special import softmax
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from pennyweight.errors import DataError, RecipeError
from pennyweight.lab.manifest import write_made
from pennyweight.recipe import Recipe, resolve_recipe
from pennyweight.runs.classifier import Classifier
from pennyweight.runs.correction import CORRECTION, estimate_correction, load_correction
from pennyweight.runs.lab import prepare_rows
from pennyweight.runs.reading import read_splits
from pennyweight.runs.training import train
from pennyweight.runs.using import evaluate
from runs.tiny import LABELS, news, tiny_recipe, write_news


def _recipe(base: Path, sets: Path, values: dict[str, Any], **sections: Any) -> Recipe:
    told = tiny_recipe(base, sets, **sections).model_dump(mode="json", exclude_none=True)
    for key, value in values.items():
        told[key] = {**told[key], **value} if key in told else value
    return resolve_recipe(told)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """Unlabelled text with a column of wrong labels that nobody may read."""
    path = tmp_path / "target.csv"
    with path.open("w", newline="") as file:
        rows = [("not a label", text) for label, text in news(240, seed=31) if label != 3]
        csv.writer(file).writerows([("label", "text"), *rows])
    return path


def test_removed_rows_are_written_and_the_rest_is_trained_on(
    roberta: Path, sets: Path, tmp_path: Path
) -> None:
    recipe = _recipe(roberta, sets, {"data": {"filters": [{"method": "length", "shortest": 7}]}})
    record = train(recipe, out=tmp_path / "run")
    (step,) = record.data["lab"]["steps"]
    removed = [json.loads(line) for line in Path(step["file"]).read_text().splitlines()]
    assert len(removed) == step["removed"] > 0
    assert record.data["lab"]["rows"] == 48 - len(removed)
    assert all(len(row["text"].split()) < 7 and row["label"] in LABELS for row in removed)


def test_a_filter_that_empties_a_class_is_refused(
    roberta: Path, sets: Path, tmp_path: Path
) -> None:
    recipe = _recipe(roberta, sets, {"data": {"filters": [{"method": "length", "shortest": 40}]}})
    with pytest.raises(DataError, match="length leaves no row of World, Sports"):
        train(recipe, out=tmp_path / "run")


def test_copies_have_their_parents_labels_and_come_from_training_rows_alone(
    roberta: Path, sets: Path, tmp_path: Path
) -> None:
    step = {"method": "swap", "copies": 2, "count": 1}
    recipe = _recipe(roberta, sets, {"data": {"augmentations": [step]}})
    splits = read_splits(recipe, bad_rows=tmp_path / "bad", say=print)
    prepared = prepare_rows(recipe, splits, out=tmp_path, say=print)
    rows = prepared.rows
    added = prepared.facts[0]["added"]
    assert len(rows) == 48 + added > 48 + 40
    parents = {
        tuple(sorted(t.split())): n
        for t, n in zip(rows["text"][:48], rows["label"][:48], strict=True)
    }
    for text, label in zip(rows["text"][48:], rows["label"][48:], strict=True):
        assert parents[tuple(sorted(text.split()))] == label


def test_extra_rows_that_stand_in_a_held_out_set_are_left_out(
    roberta: Path, sets: Path, tmp_path: Path
) -> None:
    leak = news(76, seed=1)[70][1]
    table = pa.table({"text": ["a fresh row", leak], "label": [0, 1]})
    write_made(tmp_path / "extra.parquet", table, {})
    recipe = _recipe(roberta, sets, {"data": {"extra": [str(tmp_path / "extra.parquet")]}})
    record = train(recipe, out=tmp_path / "run")
    (step,) = record.data["lab"]["steps"]
    assert (step["added"], step["removed"]) == (1, 1)
    assert record.data["lab"]["rows"] == 49
    write_made(tmp_path / "extra.parquet", pa.table({"text": ["x"], "label": [7]}), {})
    with pytest.raises(DataError, match="labels outside 0 to 3"):
        train(recipe, out=tmp_path / "other")


def test_the_target_is_used_without_its_labels_and_every_use_is_told(
    roberta: Path, sets: Path, target: Path, tmp_path: Path
) -> None:
    use = {"prior": {"method": "em"}, "consistency": 0.5, "density_ratio": {}}
    values = {"data": {"target": str(target)}, "transduction": use}
    recipe = _recipe(roberta, sets, values, train={"epochs": 3})
    said: list[str] = []
    from pennyweight.runs.setup import Watcher

    record = train(recipe, out=tmp_path / "run", watcher=Watcher(say=said.append))
    assert len(record.transductive) == 3
    assert sum(line.startswith("TRANSDUCTIVE: ") for line in said) == 3
    assert record.data["lab"]["rows"] == 48 + 180
    shares = record.target["predicted_shares"]
    assert sum(shares.values()) == pytest.approx(1.0)


def test_what_is_measured_with_a_correction_is_what_evaluate_gives(
    roberta: Path, sets: Path, target: Path, tmp_path: Path
) -> None:
    stated = {"World": 0.97, "Sports": 0.01, "Business": 0.01, "Sci/Tech": 0.01}
    use = {"prior": {"method": "stated", "stated": stated, "groups": "one"}}
    recipe = _recipe(roberta, sets, {"data": {"target": str(target)}, "transduction": use})
    record = train(recipe, out=tmp_path / "run")
    measured = evaluate(tmp_path / "run", str(sets / "test.csv"))
    assert measured.accuracy == record.metrics["test"]["accuracy"]
    assert measured.nll == pytest.approx(record.metrics["test"]["nll"], abs=1e-5)
    correction = load_correction(tmp_path / "run" / "adapter")
    assert correction is not None
    classifier = Classifier.load(tmp_path / "run")
    classifier.merge(tmp_path / "merged")
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path / "merged").eval()
    texts = [text for _, text in news(6, seed=3)]
    batch = AutoTokenizer.from_pretrained(tmp_path / "merged")(
        texts, padding=True, return_tensors="pt"
    )
    batch.pop("token_type_ids", None)
    with torch.inference_mode():
        found = torch.softmax(plain(**batch).logits, dim=1).numpy()
    np.testing.assert_allclose(found, classifier.predict_probabilities(texts), atol=1e-5)
    assert record.target["predicted_shares"]["World"] > 0.9
    assert record.correction["groups"][0]["prior"]["World"]["share"] == 0.97
    assert record.correction["predicted_shares_without"]["World"] < 0.9


def test_two_groups_are_told_apart_and_each_gets_its_shares(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    means = 2.5 * np.eye(4)

    def rows(prior: list[float], count: int, place: float) -> tuple[np.ndarray, ...]:
        labels = draw.choice(4, size=count, p=prior)
        x = means[labels] + draw.normal(size=(count, 4))
        features = np.c_[x, place + draw.normal(size=(count, 3))]
        return x @ means.T - 0.5 * (means**2).sum(1), features, labels

    equal, skewed = [0.25] * 4, [0.05, 0.05, 0.1, 0.8]
    validation = rows(equal, 1500, 0.0)
    near, far = rows(equal, 1000, 0.0), rows(skewed, 1000, 6.0)
    target = tuple(np.concatenate(pair) for pair in zip(near, far, strict=True))
    correction, told = estimate_correction(
        "em",
        groups="discriminated",
        stated={},
        names=LABELS,
        source=np.array(equal),
        validation=validation,
        target=target[:2],
        seed=0,
    )
    assert told["area_under_curve"] > 0.7
    first, second = told["groups"]
    assert second["name"] == "unlike training"
    assert abs(second["rows"] - 1000) < 60
    assert second["prior"]["Sci/Tech"]["share"] == pytest.approx(0.8, abs=0.05)
    assert first["prior"]["Sci/Tech"]["share"] == pytest.approx(0.25, abs=0.05)
    corrected = correction.apply(target[0], target[1]).argmax(1)
    assert (corrected == target[2]).mean() > (target[0].argmax(1) == target[2]).mean()
    (tmp_path / CORRECTION).write_text(json.dumps(correction.to_json()))
    again = load_correction(tmp_path)
    assert again is not None
    assert np.array_equal(again.apply(*target[:2]), correction.apply(*target[:2]))


def test_text_that_is_not_told_apart_is_one_group() -> None:
    draw = np.random.default_rng(0)
    logits, features = draw.normal(size=(600, 4)) * 3, draw.normal(size=(600, 5))
    labels = np.array([draw.choice(4, p=p) for p in softmax(logits, axis=1)])
    correction, told = estimate_correction(
        "confusion",
        groups="discriminated",
        stated={},
        names=LABELS,
        source=np.full(4, 0.25),
        validation=(logits[:300], features[:300], labels[:300]),
        target=(logits[300:], features[300:]),
        seed=0,
    )
    assert correction.direction is None
    assert len(told["groups"]) == 1


def test_self_training_takes_over_what_a_run_is_sure_of(
    roberta: Path, sets: Path, target: Path, tmp_path: Path
) -> None:
    train(tiny_recipe(roberta, sets, train={"epochs": 6}), out=tmp_path / "teacher")
    how = {"teacher": str(tmp_path / "teacher"), "confidence": 0.3, "most_per_class": 20}
    values = {"data": {"target": str(target)}, "transduction": {"self_training": how}}
    record = train(_recipe(roberta, sets, values), out=tmp_path / "student")
    (step,) = record.data["lab"]["steps"]
    assert step["added"] == sum(step["by_class"].values()) > 0
    assert max(step["by_class"].values()) <= 20
    assert record.transductive == ["self-training on the target"]
    how["by_class"] = {LABELS[0]: 0.9999}
    said: list[str] = []
    splits = read_splits(_recipe(roberta, sets, values), bad_rows=tmp_path, say=said.append)
    prepare_rows(_recipe(roberta, sets, values), splits, out=tmp_path, say=said.append)
    assert any(f"of no row of {LABELS[0]} is the teacher sure" in line for line in said)
    how["teacher"] = str(tmp_path / "nothing")
    with pytest.raises(RecipeError, match="no run; train one first"):
        train(_recipe(roberta, sets, values), out=tmp_path / "other")


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"transduction": {"consistency": 1.0}}, "data.target: missing"),
        ({"generate": {}}, r"\[generate\] works on unlabelled text"),
        (
            {"data": {"target": "x"}, "transduction": {"prior": {"method": "stated"}}},
            "give every class a share",
        ),
        (
            {
                "data": {"target": "x"},
                "transduction": {"self_training": {"teacher": "t", "by_class": {"Spam": 0.5}}},
            },
            '"Spam" is no class',
        ),
    ],
)
def test_what_cannot_be_meant_is_refused(
    roberta: Path, sets: Path, values: dict[str, Any], said: str
) -> None:
    with pytest.raises(RecipeError, match=said):
        _recipe(roberta, sets, values)


def test_the_target_may_be_the_tests_own_texts_without_leaking_a_label(
    roberta: Path, sets: Path, tmp_path: Path
) -> None:
    texts = [(9, text) for _, text in news(76, seed=1)[64:]]
    write_news(tmp_path / "test_texts.csv", texts)
    recipe = _recipe(roberta, sets, {"data": {"target": str(tmp_path / "test_texts.csv")}})
    splits = read_splits(recipe, bad_rows=tmp_path / "bad", say=print)
    assert splits.target is not None
    assert set(splits.target["label"]) == {-1}
    assert len(splits.target) == 12
    (told,) = [found for found in splits.overlaps if found.one == "target"]
    assert (told.other, told.exact) == ("test", 12)
    assert splits.leaks == ()
    plain = train(recipe, out=tmp_path / "run")
    assert Classifier.load(tmp_path / "run").predict([texts[0][1]])[0] in LABELS
    assert plain.target["rows"] == 12
