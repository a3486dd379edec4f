"""Training progress on a terminal."""

from __future__ import annotations

import pytest

from pennyweight.cli import progress


def test_square_brackets_in_a_line_are_shown_as_they_are(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with progress._bar() as watcher:
        watcher.log('class "[/b]pos" and "[urgent]" have 1 training row each')
    assert '"[/b]pos" and "[urgent]" have 1' in capsys.readouterr().out
