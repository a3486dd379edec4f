"""Selective classification: coverage, accuracy and thresholds agree with the rows they describe."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pennyweight.evaluation.selective import area_under_risk, coverage_curve, threshold_at

_ROWS = st.lists(st.tuples(st.sampled_from([0.3, 0.5, 0.6, 0.9, 1.0]), st.booleans()), min_size=1)


@given(_ROWS)
def test_every_point_is_what_its_threshold_gives(rows: list[tuple[float, bool]]) -> None:
    confidence = np.array([one for one, _ in rows])
    correct = np.array([one for _, one in rows])
    curve = coverage_curve(confidence, correct)
    assert curve[-1].coverage == 1.0
    assert [each.coverage for each in curve] == sorted({each.coverage for each in curve})
    for point in curve:
        answered = confidence >= point.confidence
        assert point.coverage == pytest.approx(answered.mean())
        assert point.accuracy == pytest.approx(correct[answered].mean())


def test_a_curve_of_many_rows_has_a_point_for_every_two_percent() -> None:
    confidence = np.random.default_rng(0).permutation(np.arange(5000)) / 5000
    curve = coverage_curve(confidence, np.ones(5000, dtype=bool))
    np.testing.assert_allclose([each.coverage for each in curve], np.arange(1, 51) / 50)


def test_the_area_is_small_only_if_mistakes_have_the_lowest_confidence() -> None:
    correct = np.arange(100) >= 20
    by_confidence = area_under_risk(np.arange(100) / 100, correct)
    reverse = area_under_risk(-np.arange(100) / 100, correct)
    assert by_confidence < 0.03
    assert reverse > 0.5
    assert area_under_risk(np.full(100, 0.7), correct) == pytest.approx(0.2)
    assert area_under_risk(np.arange(100) / 100, np.ones(100, dtype=bool)) == 0.0


def test_a_threshold_answers_the_requested_share() -> None:
    confidence = np.random.default_rng(1).random(2000)
    curve = coverage_curve(confidence, confidence > 0.5)
    for coverage in (0.2, 0.51, 0.9, 0.97):
        answered = (confidence >= threshold_at(curve, coverage)).mean()
        assert answered == pytest.approx(coverage, abs=0.01)
    assert threshold_at(curve, 1.0) == 0.0
