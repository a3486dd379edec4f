"""A correction for class shares starts from those that the training has taught."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest

from pennyweight.engine.predictor import Predictions
from pennyweight.engine.train.balance import learned_shares
from pennyweight.inference.correction import ShiftEvidence, estimate_correction
from pennyweight.settings.assemble import settings_of
from pennyweight.settings.values import PriorSettings
from pennyweight.training.class_shares import learned_class_shares
from runs.records import example_record
from tiny import tiny_recipe

_EM = PriorSettings("em", stated={}, groups="one")
_LABELS = np.repeat([0, 1, 2], [60, 30, 10])


def test_shares_follow_the_correction_in_training() -> None:
    assert learned_shares(_LABELS, classes=4).tolist() == pytest.approx([0.6, 0.3, 0.1, 0.0])
    balanced = learned_shares(_LABELS, classes=4, is_balanced=True)
    assert balanced.tolist() == pytest.approx([1 / 3, 1 / 3, 1 / 3, 0.0])
    weighted = learned_shares(_LABELS, classes=4, is_weighted=True)
    assert weighted.tolist() == pytest.approx([1 / 3, 1 / 3, 1 / 3, 0.0])
    adjusted = learned_shares(_LABELS, classes=4, tau=0.5)
    roots = np.sqrt([0.6, 0.3, 0.1])
    assert adjusted.tolist() == pytest.approx([*(roots / roots.sum()), 0.0])
    assert learned_shares(_LABELS, classes=3, tau=1.0).tolist() == pytest.approx([1 / 3] * 3)


def test_weights_that_are_limited_leave_a_rare_class_rare() -> None:
    labels = np.repeat([0, 1], [9990, 10])

    shares = learned_shares(labels, classes=2, is_weighted=True)

    # Its weight is 10 where 500 would be needed.
    assert shares[1] == pytest.approx(10 * 10 / (9990 * 0.5005 + 10 * 10), rel=0.01)


@pytest.mark.parametrize(
    ("train", "shares"),
    [
        ({}, [0.6, 0.3, 0.1]),
        ({"sampling": "balanced"}, [1 / 3] * 3),
        ({"class_weights": "balanced"}, [1 / 3] * 3),
        ({"loss": {"method": "logit-adjusted", "tau": 1.0}}, [1 / 3] * 3),
    ],
)
def test_they_are_read_from_a_recipe(
    bert: Path, sets: Path, train: dict[str, Any], shares: list[float]
) -> None:
    settings = dataclasses.replace(
        settings_of(tiny_recipe(bert, sets, train=train)), labels=("a", "b", "c")
    )

    rows = datasets.Dataset.from_dict({"label": _LABELS})
    learned = learned_class_shares(
        settings, rows, record=example_record(skips_refit=True, keeps_refit=None)
    )

    assert learned.tolist() == pytest.approx(shares)


@pytest.mark.parametrize(
    ("changes", "is_refit"),
    [
        ({"skips_refit": False, "keeps_refit": None}, True),
        ({"skips_refit": True, "keeps_refit": None}, False),
        ({"skips_refit": False, "keeps_refit": True}, True),
        ({"skips_refit": False, "keeps_refit": False}, False),
    ],
)
def test_a_head_that_was_fitted_again_has_no_correction_if_it_was_kept(
    bert: Path, sets: Path, changes: dict[str, Any], is_refit: bool
) -> None:
    recipe = tiny_recipe(
        bert,
        sets,
        base={"pooling": "mean"},
        train={"sampling": "balanced", "head_end": "logistic"},
    )
    settings = dataclasses.replace(settings_of(recipe), labels=("a", "b", "c"))
    rows = datasets.Dataset.from_dict({"label": _LABELS})
    learned = learned_class_shares(settings, rows, record=example_record(**changes))
    assert learned.tolist() == pytest.approx([0.6, 0.3, 0.1] if is_refit else [1 / 3] * 3)


def test_em_finds_the_shares_of_a_target_after_balanced_training() -> None:
    generator = np.random.default_rng(0)

    def answers(share: float) -> tuple[np.ndarray, np.ndarray]:
        """Return the logits of the Bayes classifier for equal shares, and the labels."""
        labels = (generator.random(4000) < share).astype(np.int64)
        points = generator.normal(2.0 * labels, 1.0)
        return np.stack([np.zeros_like(points), 2.0 * points - 2.0], axis=1), labels

    (validation, labels), (target, _) = answers(0.1), answers(0.4)
    evidence = ShiftEvidence(
        names=("a", "b"),
        source=learned_shares(labels, classes=2, is_balanced=True),
        validation=Predictions(validation.astype(np.float32)),
        labels=labels,
        target=Predictions(target.astype(np.float32)),
    )

    _, record = estimate_correction(evidence, _EM, groups=None, seed=0)

    assert record.temperature == pytest.approx(1.0, abs=0.1)
    assert record.groups[0].prior["b"].share == pytest.approx(0.4, abs=0.03)
