"""Speed and remaining time count from where this process began."""

from __future__ import annotations

from pennyweight.lab.progress import Pace


def test_work_of_an_earlier_process_does_not_count_as_fast() -> None:
    times = iter([100.0, 110.0, 110.0])
    pace = Pace(100, done=40, clock=lambda: next(times))
    assert pace.rate(60) == 2.0
    assert pace.seconds_left(60) == 20.0
