"""Print the golden values of `test_statistics.py` and `test_paired_tests.py`.

    python tests/evaluation/golden_statistics.py

They follow the definitions by exact fractions, with none of the libraries that are tested.
"""

from __future__ import annotations

from fractions import Fraction
from math import comb


def mcnemar_values(only_one: int, only_other: int) -> tuple[float, float]:
    """Return the exact two-sided p-value of McNemar's test and its mid-p-value."""
    differing = only_one + only_other
    outcomes = [Fraction(comb(differing, k), 2**differing) for k in range(differing + 1)]
    observed = outcomes[only_one]
    as_unlikely = [outcome for outcome in outcomes if outcome <= observed]
    ties = [outcome for outcome in outcomes if outcome == observed]
    return float(sum(as_unlikely)), float(sum(as_unlikely) - sum(ties) / 2)


def holm_values(p_values: list[Fraction]) -> list[float]:
    """Return Holm's adjusted p-values by their definition."""
    adjusted = []
    for p in p_values:
        steps = [
            (len(p_values) - sum(other < smaller for other in p_values)) * smaller
            for smaller in p_values
            if smaller <= p
        ]
        adjusted.append(float(min(Fraction(1), max(steps))))
    return adjusted


if __name__ == "__main__":
    for counts in ((1, 9), (6, 2), (4, 4), (121, 59)):
        print(counts, *mcnemar_values(*counts))  # noqa: T201
    fractions = [Fraction(p, 1000) for p in (40, 10, 30, 5)]
    print(holm_values(fractions))  # noqa: T201
