"""Lengths of generated texts follow those of the training texts."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from pennyweight.lab.sampling import LengthMethod, draw_lengths, length_fit


@pytest.mark.parametrize("method", ["empirical", "skewed-normal"])
def test_lengths_follow_the_training_texts(method: LengthMethod) -> None:
    generator = np.random.default_rng(0)
    lengths = stats.skewnorm.rvs(4.0, 25.0, 15.0, size=2000, random_state=generator)
    lengths = np.rint(lengths).astype(int)
    drawn = draw_lengths(lengths, 2000, method=method, longest=128, generator=generator)
    assert drawn.min() >= 1
    assert drawn.max() <= 128
    assert length_fit(lengths, drawn)["statistic"] < 0.06
    short = draw_lengths(lengths, 100, method=method, longest=10, generator=generator)
    assert short.max() == 10
