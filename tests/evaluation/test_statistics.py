"""Statistics over seeds agree with tables, and undefined tests give None."""

from __future__ import annotations

import pytest

from pennyweight.evaluation.statistics import mean_interval, paired_p


def test_the_interval_of_a_mean_is_student_s() -> None:
    # 4.302652 is Student's t at 97.5 % with two degrees of freedom.
    half = 4.302652 * 0.02 / 3**0.5
    assert mean_interval([0.9, 0.92, 0.94]) == pytest.approx((0.92 - half, 0.92 + half), abs=1e-6)


def test_two_values_have_no_interval_and_equal_values_have_an_empty_one() -> None:
    assert mean_interval([0.9]) is None
    assert mean_interval([0.9, 0.8]) is None
    assert mean_interval([0.9, 0.9, 0.9]) == pytest.approx((0.9, 0.9))


def test_a_difference_that_every_seed_shows_is_significant() -> None:
    p = paired_p([0.90, 0.92, 0.91], [0.80, 0.83, 0.80])
    assert p is not None
    assert p < 0.01


def test_equal_results_have_p_1_and_an_undefined_test_has_none() -> None:
    assert paired_p([1.0, 2.0, 3.5], [1.0, 2.0, 3.5]) == 1.0
    assert paired_p([0.9], [0.8]) is None
    assert paired_p([2.0, 3.0], [1.0, 2.0]) is None


def test_results_of_different_numbers_of_seeds_are_refused() -> None:
    with pytest.raises(ValueError, match="shorter"):
        paired_p([1.0, 2.0, 3.0], [1.0])
