"""Corrections of a classifier for the class shares of the target."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.special import softmax
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from pennyweight.engine.predictor import Predictions
from pennyweight.errors import RunError
from pennyweight.inference.classifier import Classifier
from pennyweight.inference.correction import (
    Correction,
    ShiftEvidence,
    estimate_correction,
    find_groups,
    load_correction,
)
from pennyweight.inference.evaluate import evaluate
from pennyweight.inference.groups import HiddenStateGroups
from pennyweight.recipe import resolve_recipe
from pennyweight.runs.record import load_record
from pennyweight.settings.values import PriorSettings
from pennyweight.training.train import train
from tiny import LABELS, news, tiny_recipe, write_news

STATED = {"World": 0.97, "Sports": 0.01, "Business": 0.01, "Sci/Tech": 0.01}
EQUAL = [0.25] * 4


@pytest.fixture(scope="module")
def corrected(roberta: Path, sets: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run that is corrected for a target of which nearly every row is World."""
    folder = tmp_path_factory.mktemp("corrected")
    target = write_news(folder / "target.csv", [r for r in news(240, seed=31) if r[0] != 3])
    values = tiny_recipe(roberta, sets, data={"target": str(target)})
    prior = {"method": "stated", "stated": STATED, "groups": "one"}
    recipe = resolve_recipe(
        {**values.model_dump(mode="json", exclude_none=True), "transduction": {"prior": prior}}
    )
    train(recipe, out=folder / "run")
    return folder / "run"


def test_the_metrics_of_a_corrected_run_are_those_that_evaluate_gives(
    corrected: Path, sets: Path
) -> None:
    record, metrics = load_record(corrected), evaluate(corrected, str(sets / "test.csv"))
    assert metrics.accuracy == record.metrics["test"].accuracy
    assert metrics.nll == pytest.approx(record.metrics["test"].nll, abs=1e-5)


def test_the_record_holds_the_shares_with_and_without_the_correction(corrected: Path) -> None:
    record = load_record(corrected)
    assert record.target is not None
    assert record.target.predicted_shares["World"] > 0.9
    assert record.correction is not None
    assert record.correction.method == "stated"
    (group,) = record.correction.groups
    assert (group.name, group.rows, group.refused) == ("target", 180, None)
    assert group.prior["World"].share == 0.97
    assert record.correction.predicted_shares_without["World"] < 0.9
    assert set(record.correction.accuracy_without) == {"validation", "test"}
    assert record.transductive == ("predictions matched to stated class shares of the target",)


def test_the_correction_is_part_of_the_hashed_artifact(corrected: Path) -> None:
    artifact = load_record(corrected).artifact
    assert artifact is not None
    assert "correction.json" in artifact.files


def test_a_correction_for_one_group_is_folded_into_the_merged_model(
    corrected: Path, tmp_path: Path
) -> None:
    assert load_correction(corrected / "adapter") is not None
    classifier = Classifier.load(corrected)
    classifier.merge(tmp_path / "merged")
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path / "merged").eval()
    texts = [text for _, text in news(6, seed=3)]
    batch = AutoTokenizer.from_pretrained(tmp_path / "merged")(
        texts, padding=True, return_tensors="pt"
    )
    batch.pop("token_type_ids", None)
    with torch.inference_mode():
        probabilities = torch.softmax(plain(**batch).logits, dim=1).numpy()
    np.testing.assert_allclose(probabilities, classifier.predict_probabilities(texts), atol=1e-5)


def _settings(method: str) -> PriorSettings:
    return PriorSettings(
        method=method, stated={}, groups="discriminated", discriminator="hidden-states"
    )


def _sample(
    draw: np.random.Generator, prior: list[float], count: int, place: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return Bayes-optimal logits, features around `place`, and labels of a drawn population."""
    means = 2.5 * np.eye(4)
    labels = draw.choice(4, size=count, p=prior)
    x = means[labels] + draw.normal(size=(count, 4))
    features = np.c_[x, place + draw.normal(size=(count, 3))]
    return x @ means.T - 0.5 * (means**2).sum(1), features, labels


def test_two_groups_are_separated_and_each_gets_its_shares(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    logits, features, labels = _sample(draw, EQUAL, 1500, 0.0)
    near = _sample(draw, EQUAL, 1000, 0.0)
    far = _sample(draw, [0.05, 0.05, 0.1, 0.8], 1000, 6.0)
    target_logits, target_features, target_labels = (
        np.concatenate(pair) for pair in zip(near, far, strict=True)
    )
    evidence = ShiftEvidence(
        names=LABELS,
        source=np.array(EQUAL),
        validation=Predictions(logits, features),
        labels=labels,
        target=Predictions(target_logits, target_features),
    )
    settings = _settings("em")
    groups = find_groups(evidence, settings, seed=0)
    correction, record = estimate_correction(evidence, settings, groups=groups, seed=0)
    assert record.area_under_curve is not None
    assert record.area_under_curve > 0.7
    first, second = record.groups
    assert second.name == "unlike training"
    assert abs(second.rows - 1000) < 60
    assert second.prior["Sci/Tech"].share == pytest.approx(0.8, abs=0.05)
    assert first.prior["Sci/Tech"].share == pytest.approx(0.25, abs=0.05)
    low, high = second.prior["Sci/Tech"].interval
    assert low < 0.8 < high
    target, texts = evidence.target, [""] * len(target_labels)
    predicted = correction.apply(target, texts).logits.argmax(1)
    uncorrected = target_logits.argmax(1)
    assert (predicted == target_labels).mean() > (uncorrected == target_labels).mean()
    correction.save(tmp_path)
    loaded = load_correction(tmp_path)
    assert loaded is not None
    assert np.array_equal(
        loaded.apply(target, texts).logits, correction.apply(target, texts).logits
    )


def test_stated_shares_are_met_where_a_class_has_no_training_rows() -> None:
    draw = np.random.default_rng(1)
    logits = draw.normal(size=(400, 4))
    evidence = ShiftEvidence(
        names=LABELS,
        source=np.array([0.4, 0.3, 0.3, 0.0]),
        validation=Predictions(logits[:100]),
        labels=np.array([draw.choice(4, p=p) for p in softmax(logits[:100], axis=1)]),
        target=Predictions(logits[100:]),
    )
    stated = {"World": 0.1, "Sports": 0.2, "Business": 0.3, "Sci/Tech": 0.4}
    settings = replace(_settings("stated"), stated=stated, groups="one")
    correction, _ = estimate_correction(evidence, settings, groups=None, seed=0)
    corrected = correction.apply(evidence.target, [""] * 300).logits
    np.testing.assert_allclose(softmax(corrected, axis=1).mean(0), list(stated.values()), atol=1e-4)


def test_texts_that_cannot_be_told_apart_are_one_group() -> None:
    draw = np.random.default_rng(0)
    logits, features = draw.normal(size=(600, 4)) * 3, draw.normal(size=(600, 5))
    labels = np.array([draw.choice(4, p=p) for p in softmax(logits, axis=1)])
    evidence = ShiftEvidence(
        names=LABELS,
        source=np.full(4, 0.25),
        validation=Predictions(logits[:300], features[:300]),
        labels=labels[:300],
        target=Predictions(logits[300:], features[300:]),
    )
    settings = _settings("confusion")
    groups = find_groups(evidence, settings, seed=0)
    correction, record = estimate_correction(evidence, settings, groups=groups, seed=0)
    assert correction.grouping is None
    assert len(record.groups) == 1
    assert record.one_group_because is not None
    assert "cannot be told apart" in record.one_group_because


def test_a_directory_without_a_correction_has_none(tmp_path: Path) -> None:
    assert load_correction(tmp_path) is None


@pytest.mark.parametrize("text", ["{", "[]", json.dumps({"temperature": 1.0})])
def test_a_correction_that_cannot_be_read_is_named(text: str, tmp_path: Path) -> None:
    (tmp_path / "correction.json").write_text(text)
    with pytest.raises(RunError, match=r"correction\.json: cannot be read: ") as caught:
        load_correction(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_run_with_two_groups_is_not_merged(corrected: Path, tmp_path: Path) -> None:
    classifier = Classifier.load(corrected)
    one = classifier._processing.correction
    assert one is not None
    two = Correction(
        one.temperature,
        one.source,
        np.stack([one.priors[0]] * 2),
        HiddenStateGroups(np.zeros(33)),
    )
    classifier._processing = replace(classifier._processing, correction=two)
    with pytest.raises(RunError, match=r"two groups of texts.*transduction\.prior\.groups"):
        classifier.merge(tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


def _noisy(texts: list[str]) -> list[str]:
    """Return texts written in another way: without vowels after the first letter of a word."""
    return [re.sub(r"(?<=\w)[aeiou]", "", text) for text in texts]


@pytest.fixture(scope="module")
def mixed(roberta: Path, sets: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run corrected for uniform shares in each group of a target of two kinds."""
    folder = tmp_path_factory.mktemp("mixed")
    rows = news(160, seed=32)
    odd = [(row[0], *_noisy(list(row[1:]))) for row in news(160, seed=33)]
    target = write_news(folder / "target.csv", [*rows, *odd])
    values = tiny_recipe(roberta, sets, data={"target": str(target)})
    recipe = resolve_recipe(
        {
            **values.model_dump(mode="json", exclude_none=True),
            "transduction": {"prior": {"method": "stated", "stated": "uniform"}},
        }
    )
    train(recipe, out=folder / "run")
    return folder / "run"


def test_groups_are_told_apart_by_how_texts_are_written(mixed: Path) -> None:
    correction = load_record(mixed).correction
    assert correction is not None
    first, second = correction.groups
    assert (first.name, second.name) == ("like training", "unlike training")
    assert abs(first.rows - 160) < 20
    assert len(second.examples) == 3
    assert set(second.examples) <= set(_noisy(list(second.examples)))
    assert all(prior.share == 0.25 for prior in second.prior.values())


def test_a_run_with_two_ways_of_writing_gives_the_same_answers_everywhere(
    mixed: Path, sets: Path
) -> None:
    classifier = Classifier.load(mixed)
    texts = [row[1] for row in news(40, seed=34)] + _noisy([row[1] for row in news(40, seed=35)])
    together = classifier.predict_probabilities(texts)
    alone = np.concatenate([classifier.predict_probabilities([text]) for text in texts])
    np.testing.assert_allclose(together, alone, atol=1e-5)
    record = load_record(mixed)
    metrics = evaluate(mixed, str(sets / "test.csv"))
    assert metrics.accuracy == record.metrics["test"].accuracy
    assert (mixed / "adapter" / "discriminator.safetensors").is_file()
    assert record.artifact is not None
    assert "discriminator.safetensors" in record.artifact.files


def test_a_correction_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    values = {"temperature": 1.0, "source": EQUAL, "priors": [EQUAL] * 2, "direction": [1.0, -0.5]}
    (tmp_path / "correction.json").write_text(json.dumps(values))
    correction = load_correction(tmp_path)
    assert correction is not None
    features = np.array([[0.0], [1.0]])
    assert correction.groups_of(["", ""], features).tolist() == [0, 1]
