"""Durations and sizes in words."""

from __future__ import annotations

import pytest

from pennyweight.wording import byte_size, duration


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.4, "0 s"), (59.6, "1 min 00 s"), (185.0, "3 min 05 s"), (7800.0, "2 h 10 min")],
)
def test_durations_are_shown_in_two_units_at_most(seconds: float, words: str) -> None:
    assert duration(seconds) == words


@pytest.mark.parametrize(
    ("number", "words"),
    [(6_400_000, "6.40 MB"), (100_000_000, "0.10 GB"), (1_250_000_000, "1.25 GB")],
)
def test_sizes_are_shown_in_megabytes_or_gigabytes(number: int, words: str) -> None:
    assert byte_size(number) == words
