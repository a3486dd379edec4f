"""Speed and remaining time count from where this process began."""

from __future__ import annotations

import pytest

from pennyweight.lab.progress import Pace, in_words


def test_work_of_an_earlier_process_does_not_count_as_fast() -> None:
    times = iter([100.0, 110.0, 110.0])
    pace = Pace(100, done=40, clock=lambda: next(times))
    assert pace.rate(60) == 2.0
    assert pace.seconds_left(60) == 20.0


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.4, "0 s"), (59.6, "1 min 00 s"), (185.0, "3 min 05 s"), (7800.0, "2 h 10 min")],
)
def test_durations_are_shown_in_two_units_at_most(seconds: float, words: str) -> None:
    assert in_words(seconds) == words
