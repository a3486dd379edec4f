"""Calibration: a temperature undoes overconfidence, and is not fitted on too few mistakes."""

from __future__ import annotations

import numpy as np
import pytest

from pennyweight.evaluation.calibration import FEWEST_MISTAKES, fit_temperature, temperature_of


def _calibrated_rows(count: int, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return logits that are exactly calibrated, and their labels."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(4, size=count)
    means = 1.6 * np.eye(4)
    x = means[labels] + generator.normal(size=(count, 4))
    return x @ means.T - 0.5 * (means**2).sum(axis=1), labels


def test_a_temperature_undoes_overconfidence() -> None:
    logits, labels = _calibrated_rows(4000, seed=3)
    assert temperature_of(logits, labels) == pytest.approx(1.0, abs=0.1)
    assert temperature_of(3.0 * logits, labels) == pytest.approx(3.0, abs=0.3)
    assert fit_temperature(3.0 * logits, labels) == temperature_of(3.0 * logits, labels)


def test_no_temperature_is_fitted_on_rows_with_hardly_any_mistake() -> None:
    logits = 4.0 * np.eye(2)[np.arange(100) % 2]
    labels = np.arange(100) % 2
    labels[: FEWEST_MISTAKES - 1] = 1 - labels[: FEWEST_MISTAKES - 1]
    assert fit_temperature(logits, labels) is None
    labels[FEWEST_MISTAKES] = 1 - labels[FEWEST_MISTAKES]
    assert fit_temperature(logits, labels) is not None
