"""Statistics over seeds and of several comparisons agree with tables and definitions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pennyweight.evaluation.statistics import (
    detectable_difference,
    holm,
    mean_interval,
    paired_p,
)


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
    # Both differences are 0.2, but not in floating point.
    assert paired_p([0.3, 0.4], [0.1, 0.2]) is None


def test_results_of_different_numbers_of_seeds_are_refused() -> None:
    with pytest.raises(ValueError, match="shorter"):
        paired_p([1.0, 2.0, 3.0], [1.0])


def test_p_values_are_adjusted_as_holm_defines_it() -> None:
    # Golden values: tests/evaluation/golden_statistics.py.
    assert holm([0.04, 0.01, 0.03, 0.005]) == pytest.approx([0.06, 0.03, 0.06, 0.02])
    assert holm([]) == []
    assert holm([0.3]) == [0.3]


@given(st.lists(st.floats(0.0, 1.0), max_size=12))
def test_adjusted_p_values_keep_their_order_and_are_never_below_the_raw_ones(
    p_values: list[float],
) -> None:
    adjusted = holm(p_values)
    bonferroni = [min(1.0, len(p_values) * p) for p in p_values]
    for raw, new, highest in zip(p_values, adjusted, bonferroni, strict=True):
        assert raw <= new <= highest + 1e-12
    by_raw = [new for _, new in sorted(zip(p_values, adjusted, strict=True))]
    assert by_raw == sorted(by_raw)


def test_a_difference_of_the_detectable_size_is_found_in_four_of_five_comparisons() -> None:
    # 1.959964 and 0.841621 are the normal quantiles of 97.5 % and 80 %.
    assert detectable_difference(0.01) == pytest.approx(0.01 * (1.959964 + 0.841621), abs=1e-7)
    generator = np.random.default_rng(0)
    estimates = generator.normal(detectable_difference(0.01), 0.01, size=20_000)
    assert np.mean(np.abs(estimates) / 0.01 > 1.959964) == pytest.approx(0.8, abs=0.01)


def test_more_comparisons_and_fewer_seeds_detect_only_larger_differences() -> None:
    alone = detectable_difference(0.01)
    assert detectable_difference(0.01, comparisons=3) > alone
    assert detectable_difference(0.01, degrees_of_freedom=2.0) > alone
