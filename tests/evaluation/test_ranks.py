"""Ranks over data sets, against the worked example of Demšar (2006) and against scipy."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pennyweight.evaluation.ranks import compare_ranks

# Table 6: AUC of C4.5, C4.5+m, C4.5+cf and C4.5+m+cf on 14 data sets. In the row "voting", the last
# two are both printed as 0.975, but ranked 2 and 3.
_DEMSAR = (
    (0.763, 0.768, 0.771, 0.798),
    (0.599, 0.591, 0.590, 0.569),
    (0.954, 0.971, 0.968, 0.967),
    (0.628, 0.661, 0.654, 0.657),
    (0.882, 0.888, 0.886, 0.898),
    (0.936, 0.931, 0.916, 0.931),
    (0.661, 0.668, 0.609, 0.685),
    (0.583, 0.583, 0.563, 0.625),
    (0.775, 0.838, 0.866, 0.875),
    (1.000, 1.000, 1.000, 1.000),
    (0.940, 0.962, 0.965, 0.962),
    (0.619, 0.666, 0.614, 0.669),
    (0.972, 0.981, 0.9752, 0.9751),
    (0.957, 0.978, 0.946, 0.970),
)


def test_the_published_example_has_its_mean_ranks_and_critical_difference() -> None:
    test = compare_ranks(np.transpose(_DEMSAR))
    assert test.mean_ranks == pytest.approx((3.143, 2.000, 2.893, 1.964), abs=5e-4)
    assert test.ranks[0][9] == 2.5
    assert test.critical_difference == pytest.approx(1.25, abs=0.005)
    # Without a correction for ties, the paper has 9.28 and F = 3.69, with p below 0.05.
    assert test.chi_square is not None
    assert test.chi_square == pytest.approx(9.28 / _correction_for_ties(), abs=0.01)
    assert test.friedman_p is not None
    assert test.p is not None
    assert test.p < test.friedman_p < 0.05


def _correction_for_ties() -> float:
    """Return the usual factor 1 - sum(t³ - t) / (N (k³ - k)) over groups of t equal values."""
    ties = [np.unique(row, return_counts=True)[1] for row in _DEMSAR]
    total = sum(float((counts**3 - counts).sum()) for counts in ties)
    return 1.0 - total / (14 * (4**3 - 4))


@pytest.mark.parametrize(
    # Table 5 of the paper, for Nemenyi's test at 5%.
    ("systems", "q"),
    [(2, 1.960), (3, 2.343), (4, 2.569), (5, 2.728), (6, 2.850), (7, 2.949), (10, 3.164)],
)
def test_the_critical_values_are_those_of_the_published_table(systems: int, q: float) -> None:
    values = np.arange(systems * 6, dtype=float).reshape(systems, 6)
    expected = q * math.sqrt(systems * (systems + 1) / 36)
    assert compare_ranks(values).critical_difference == pytest.approx(expected, rel=5e-4)


def test_systems_that_are_equal_or_only_two_have_no_friedman_test() -> None:
    assert compare_ranks([[1.0, 2.0]] * 3).p is None
    assert compare_ranks([[1.0, 2.0], [2.0, 3.0]]).chi_square is None


def test_data_sets_that_agree_on_the_order_leave_no_doubt() -> None:
    test = compare_ranks([[3.0] * 5, [2.0] * 5, [1.0] * 5])
    assert test.mean_ranks == (1.0, 2.0, 3.0)
    assert test.p == 0.0


def test_one_data_set_is_refused() -> None:
    with pytest.raises(ValueError, match="two data sets"):
        compare_ranks([[1.0], [2.0]])


@given(arrays(float, (4, 3), elements=st.integers(0, 3).map(float)))
def test_ranks_of_a_data_set_add_up_and_grow_as_results_fall(values: np.ndarray) -> None:
    ranks = np.array(compare_ranks(values.tolist()).ranks)
    assert ranks.sum(axis=0) == pytest.approx([10.0] * 3)
    for own, of in zip(values.T, ranks.T, strict=True):
        assert (np.sign(own[:, None] - own) == -np.sign(of[:, None] - of)).all()
