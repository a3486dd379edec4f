"""A directory that is not a run is refused, with the run that may be meant."""

from __future__ import annotations

from pathlib import Path

import pytest

from pennyweight.errors import RunError
from pennyweight.runs.exists import RECORD, require_run


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    folder = tmp_path / "runs"
    for name in ("news", "tickets", "other"):
        (folder / name).mkdir(parents=True)
        (folder / name / RECORD).touch()
    (folder / "data").mkdir()
    (folder / "data" / "train.csv").touch()
    return folder


def test_a_run_is_accepted(runs: Path) -> None:
    require_run(runs / "news")


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("ticket", "did you mean {}/tickets?"),
        ("", "it holds the runs {0}/news, {0}/other, {0}/tickets"),
        ("data", "name the directory of a finished run"),
        ("quite-new", "train one with --out {}/quite-new"),
    ],
)
def test_another_directory_is_refused_with_advice(runs: Path, name: str, advice: str) -> None:
    with pytest.raises(RunError) as caught:
        require_run(runs / name)
    message = f"{runs / name}: not a run: record.json is missing; {advice.format(runs)}"
    assert str(caught.value) == message
