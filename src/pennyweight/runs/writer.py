"""Keeps a run's record on disk up to date while the run is under way."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from pennyweight.engine.train.progress import Step
from pennyweight.environment import peak_memory_bytes
from pennyweight.errors import PennyweightError, PrunedError, RunError
from pennyweight.runs.directory import RunDirectory
from pennyweight.runs.record import RunRecord, save_record

__all__ = ["RecordWriter"]

_SECONDS_BETWEEN_SAVES = 2.0


class RecordWriter:
    """The record of a run under way.

    Args:
        directory: of the run.
        record: with which the run begins; its seconds and peak memory are added to.
        is_main_process: whether this process writes; the others only keep the values.
    """

    def __init__(
        self, directory: RunDirectory, record: RunRecord, *, is_main_process: bool
    ) -> None:
        self._directory = directory
        self._record = record
        self._history = list(record.history)
        self._is_main_process = is_main_process
        self._earlier_seconds = record.seconds
        self._began = self._saved = time.perf_counter()

    @property
    def record(self) -> RunRecord:
        """The record as it is now."""
        return self._record

    def update(self, **changes: Any) -> None:
        """Replace fields of the record and save it."""
        now = time.perf_counter()
        self._record = self._record.with_changes(
            **changes,
            history=tuple(self._history),
            seconds=self._earlier_seconds + now - self._began,
            peak_memory_bytes=max(self._record.peak_memory_bytes, peak_memory_bytes()),
        )
        self._saved = now
        if self._is_main_process:
            save_record(self._directory.path, self._record)

    def add_step(self, step: Step) -> None:
        """Add a step to the history; it is saved within seconds, so that others see the curve."""
        self._history.append(step)
        if time.perf_counter() - self._saved > _SECONDS_BETWEEN_SAVES:
            self.update()

    def forget_after(self, step: int) -> None:
        """Drop the history after a step, from which training resumes."""
        self._history = [entry for entry in self._history if entry.step <= step]

    @contextmanager
    def recording_failures(self) -> Iterator[None]:
        """Record whatever ends the block with an exception, and raise it again."""
        try:
            yield
        except PrunedError as error:
            self._record_end(status="pruned", failure=str(error))
            raise
        except PennyweightError as error:
            self._record_end(status="failed", failure=str(error))
            raise
        except KeyboardInterrupt as error:
            failure = str(error) or "interrupted from the keyboard"
            self._record_end(status="interrupted", failure=failure)
            raise
        except BaseException as error:
            self._record_end(status="failed", failure=f"{type(error).__name__}: {error}")
            raise

    def _record_end(self, *, status: str, failure: str) -> None:
        """Record what ended the run, unless the disk that ended it takes no record either."""
        with suppress(RunError):
            self.update(status=status, failure=failure)
