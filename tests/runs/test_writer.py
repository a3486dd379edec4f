"""The record of a run under way is kept up to date on disk."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from pennyweight.errors import DataError, RunError, TerminatedError
from pennyweight.runs import writer as module
from pennyweight.runs.directory import RunDirectory
from pennyweight.runs.record import load_record
from pennyweight.runs.writer import RecordWriter
from runs.records import example_record, example_step


class _Clock:
    """A clock that moves when it is told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> _Clock:
    clock = _Clock()
    monkeypatch.setattr(module, "time", clock)
    monkeypatch.setattr(module, "peak_memory_bytes", lambda: 5_000)
    return clock


def _writer(run: Path, *, is_main_process: bool = True, **changes: object) -> RecordWriter:
    record = example_record(status="running", failure=None, **changes)
    return RecordWriter(RunDirectory(run), record, is_main_process=is_main_process)


def test_seconds_and_peak_memory_include_those_of_the_interrupted_run(
    tmp_path: Path, clock: _Clock
) -> None:
    writer = _writer(tmp_path, seconds=40.0, peak_memory_bytes=10_000)
    clock.now += 2.5
    writer.update()
    clock.now += 1.0
    writer.update(status="complete")
    saved = load_record(tmp_path)
    assert (saved.seconds, saved.peak_memory_bytes) == (43.5, 10_000)


def test_a_larger_peak_replaces_the_earlier_one(tmp_path: Path, clock: _Clock) -> None:
    writer = _writer(tmp_path, peak_memory_bytes=3_000)
    writer.update()
    assert load_record(tmp_path).peak_memory_bytes == 5_000


def test_a_step_is_saved_within_seconds_and_not_at_once(tmp_path: Path, clock: _Clock) -> None:
    writer = _writer(tmp_path, history=())
    writer.update()
    clock.now += 1.0
    writer.add_step(example_step(1))
    assert load_record(tmp_path).history == ()
    clock.now += 1.5
    writer.add_step(example_step(2))
    assert load_record(tmp_path).history == (example_step(1), example_step(2))


def test_steps_after_the_checkpoint_are_forgotten(tmp_path: Path, clock: _Clock) -> None:
    writer = _writer(tmp_path)
    assert [step.step for step in writer.record.history] == [1, 2, 3, 4]
    writer.forget_after(2)
    writer.add_step(example_step(3))
    writer.update()
    assert [step.step for step in load_record(tmp_path).history] == [1, 2, 3]


def test_only_the_main_process_writes(tmp_path: Path, clock: _Clock) -> None:
    writer = _writer(tmp_path, is_main_process=False)
    writer.update(status="complete")
    assert writer.record.status == "complete"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("error", "status", "failure"),
    [
        (DataError("row 7: no label"), "failed", "row 7: no label"),
        (KeyboardInterrupt(), "interrupted", "interrupted from the keyboard"),
        (TerminatedError(signal.SIGTERM), "interrupted", "stopped by SIGTERM"),
        (ZeroDivisionError("by zero"), "failed", "ZeroDivisionError: by zero"),
        (SystemExit(3), "failed", "SystemExit: 3"),
    ],
)
def test_whatever_ends_a_run_is_recorded_and_raised_again(
    error: BaseException, status: str, failure: str, tmp_path: Path, clock: _Clock
) -> None:
    writer = _writer(tmp_path)
    writer.add_step(example_step(5))
    with pytest.raises(type(error)) as caught, writer.recording_failures():
        raise error
    assert caught.value is error
    saved = load_record(tmp_path)
    assert (saved.status, saved.failure) == (status, failure)
    assert saved.history[-1] == example_step(5)


def test_an_error_of_the_disk_is_not_hidden_by_the_record_that_cannot_be_written(
    tmp_path: Path, clock: _Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = _writer(tmp_path)
    full = RunError("record.json: cannot be written: No space left on device")
    monkeypatch.setattr(module, "save_record", _raise(full))
    with pytest.raises(OSError, match="adapter"), writer.recording_failures():
        raise OSError("adapter")


def _raise(error: Exception) -> Callable[..., None]:
    def function(*_: object) -> None:
        raise error

    return function
