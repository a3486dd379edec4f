"""Tests of two runs agree with their definitions and with scipy's own permutation test."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import permutation_test
from sklearn.metrics import f1_score

from pennyweight.evaluation.answers import answered_rows
from pennyweight.evaluation.paired_tests import mcnemar, randomization_p


def rights(only_one: int, only_other: int, *, both: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """Return which rows two runs answer correctly; two rows are answered wrong by both."""
    counts = (only_one, only_other, both, 2)
    one = np.repeat([True, False, True, False], counts)
    return one, np.repeat([False, True, True, False], counts)


# Golden values: tests/evaluation/golden_statistics.py.
@pytest.mark.parametrize(
    ("only_one", "only_other", "exact", "mid"),
    [
        (1, 9, 0.021484375, 0.01171875),
        (6, 2, 0.2890625, 0.1796875),
        (4, 4, 1.0, 0.86328125),
        (121, 59, 4.434449263755176e-06, 3.2666467957745924e-06),
    ],
)
def test_mcnemar_gives_the_exact_and_the_mid_p_value(
    only_one: int, only_other: int, exact: float, mid: float
) -> None:
    test = mcnemar(*rights(only_one, only_other))
    assert (test.rows, test.only_one, test.only_other) == (
        *(only_one + only_other + 7, only_one, only_other),
    )
    assert test.exact_p == pytest.approx(exact)
    assert test.p == pytest.approx(mid)


def test_runs_that_are_right_on_the_same_rows_do_not_differ() -> None:
    test = mcnemar(*rights(0, 0))
    assert (test.p, test.exact_p, test.only_one, test.only_other) == (1.0, 1.0, 0, 0)


@given(st.integers(0, 40), st.integers(0, 40))
def test_mcnemar_is_symmetric_and_its_mid_p_never_above_the_exact_p(one: int, other: int) -> None:
    test, turned = mcnemar(*rights(one, other)), mcnemar(*rights(other, one))
    assert test.p == pytest.approx(turned.p)
    assert 0.0 <= test.p <= test.exact_p <= 1.0


def test_randomization_of_macro_f1_agrees_with_scipy() -> None:
    draw = np.random.default_rng(0)
    labels = draw.choice(3, size=60, p=(0.7, 0.2, 0.1))
    first, second = (
        np.where(draw.random(60) < share, labels, draw.integers(0, 3, 60)) for share in (0.6, 0.85)
    )

    def difference(one: Any, other: Any) -> float:
        kept = {"labels": [0, 1, 2], "average": "macro", "zero_division": 0.0}
        return float(f1_score(labels, other, **kept) - f1_score(labels, one, **kept))

    expected = permutation_test(
        (first, second),
        difference,
        permutation_type="samples",
        vectorized=False,
        n_resamples=600,
        rng=np.random.default_rng(1),
    ).pvalue
    answers = answered_rows(labels, [first, second], classes=3, metric="macro_f1")
    p = randomization_p(answers, resamples=4000, generator=np.random.default_rng(2))
    assert p == pytest.approx(expected, abs=0.03)


def test_randomization_of_the_accuracy_is_mcnemars_exact_test() -> None:
    one, other = rights(3, 10)
    answers = answered_rows(
        np.ones(len(one), dtype=int),
        [one.astype(int), other.astype(int)],
        classes=2,
        metric="accuracy",
    )
    p = randomization_p(answers, resamples=20_000, generator=np.random.default_rng(0))
    assert p == pytest.approx(mcnemar(one, other).exact_p, abs=0.01)
