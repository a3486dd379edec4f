"""A bounded queue of texts, and the one thread that computes them in batches."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from pennyweight.inference.texts import Text
from pennyweight.serve.metrics import Metrics
from pennyweight.serve.options import Batching, Limits
from pennyweight.serve.refusal import RefusedError

__all__ = ["BatchQueue", "Compute"]

# Texts and the name of each one's classifier, to the class probabilities of each text.
Compute = Callable[[Sequence[Text], Sequence[str]], list[np.ndarray]]

# What a batch counts in the estimate of rows per second, once another one follows it.
_FADING = 0.7
_LONGEST_RETRY_SECONDS = 60


@dataclass(slots=True, eq=False)
class _Job:
    """Texts of one request; or, without texts, an action that runs between batches."""

    texts: Sequence[Text]
    names: Sequence[str]
    future: Future[Any]
    action: Callable[[], Any] | None = None
    arrived: float = field(default_factory=time.monotonic)
    results: list[np.ndarray] = field(default_factory=list)
    # How many of the texts have been taken into batches.
    taken: int = 0


@dataclass(frozen=True, slots=True)
class _Slice:
    """The texts of a job that are in a batch: those from `start` to `stop`."""

    job: _Job
    start: int
    stop: int


class BatchQueue:
    """Computes texts of many requests in batches, in the order in which they came.

    A text that comes while nothing else does is computed at once. While several requests are under
    way, a batch that is not full waits until its oldest text has waited `max_wait_ms`; this is
    measured from its arrival, so the time for which it waited for the previous batch counts.

    Args:
        compute: called by the queue's own thread only.
        batching: how large batches are, and how long they may wait.
        limits: how many rows may wait, and for how long.
        metrics: to be told of batches and waiting rows.
    """

    def __init__(
        self, compute: Compute, *, batching: Batching, limits: Limits, metrics: Metrics
    ) -> None:
        self._compute = compute
        self._batching = batching
        self._limits = limits
        self._metrics = metrics
        self._changed = threading.Condition()
        self._jobs: deque[_Job] = deque()
        self._rows = 0
        self._closed = False
        # Sums over the batches so far, in which older ones count less.
        self._computed_rows, self._computed_seconds = 0.0, 0.0
        # Of the previous batch: how many requests it served, and when it ended.
        self._companions, self._ended = 0, 0.0
        metrics.queue_rows.set_function(lambda: self._rows)
        self._thread = threading.Thread(target=self._work, name="batches", daemon=True)
        self._thread.start()

    def submit(self, texts: Sequence[Text], names: Sequence[str]) -> Future[list[np.ndarray]]:
        """Return the future class probabilities of texts, in their order.

        The future can be cancelled until all of its texts are computed; texts that still wait are
        then not computed.

        Raises:
            RefusedError: with status 429, the queue is full, or is so long that the texts would
                not be computed within half of the time limit; with 503, the queue is closed.
        """
        with self._changed:
            rows = self._rows + len(texts)
            # Half of the time is kept in reserve, in case the machine becomes slower.
            is_late = self._seconds(rows) > self._limits.timeout_seconds / 2 and self._rows > 0
            if rows > self._limits.queue_rows or is_late:
                raise self._overloaded(len(texts))
            return self._add(_Job(texts, names, Future()))

    def call(self, action: Callable[[], Any]) -> Future[Any]:
        """Run an action in the queue's thread, after all texts that were accepted before it.

        Raises:
            RefusedError: with status 503, the queue is closed.
        """
        with self._changed:
            return self._add(_Job((), (), Future(), action))

    def close(self) -> None:
        """Compute what was accepted, accept nothing more, and end the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _add(self, job: _Job) -> Future[Any]:
        if self._closed:
            raise RefusedError(503, "the server is shutting down; send the request to another one")
        self._jobs.append(job)
        self._rows += len(job.texts)
        self._changed.notify()
        return job.future

    def _seconds(self, rows: int) -> float:
        """Return how long it takes to compute rows, as far as that is known."""
        return rows * self._computed_seconds / max(self._computed_rows, 1.0)

    def _overloaded(self, rows: int) -> RefusedError:
        seconds = min(max(1, math.ceil(self._seconds(self._rows))), _LONGEST_RETRY_SECONDS)
        return RefusedError(
            429,
            f"the queue is full: {self._rows} texts are waiting, and this request has {rows}; "
            f"send it again after {seconds} s",
            headers={"Retry-After": str(seconds)},
        )

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._jobs or self._closed)
                if not self._jobs:
                    return
                self._await_companions()
                action, slices = self._take()
            if action is not None:
                _finish(action.future, action.action)
            if slices:
                self._run(slices)

    def _await_companions(self) -> None:
        """Wait for more rows where more are to be expected."""
        wait = self._batching.max_wait_ms / 1000
        if self._companions <= 1 or time.monotonic() - self._ended > wait:
            return
        deadline = self._jobs[0].arrived + wait
        self._changed.wait_for(
            lambda: (
                self._rows >= self._batching.batch_rows
                or self._closed
                or any(job.action for job in self._jobs)
            ),
            max(0.0, deadline - time.monotonic()),
        )

    def _take(self) -> tuple[_Job | None, list[_Slice]]:
        """Take an action, or the rows of a batch, from the front of the queue."""
        if self._jobs[0].action is not None:
            return self._jobs.popleft(), []
        slices: list[_Slice] = []
        room = self._batching.batch_rows
        while room and self._jobs and self._jobs[0].action is None:
            job = self._jobs[0]
            start, left = job.taken, len(job.texts) - job.taken
            if job.future.cancelled():
                self._jobs.popleft()
                self._rows -= left
                continue
            job.taken += min(left, room)
            slices.append(_Slice(job, start, job.taken))
            self._rows -= job.taken - start
            room -= job.taken - start
            if job.taken == len(job.texts):
                self._jobs.popleft()
        return None, slices

    def _run(self, slices: Sequence[_Slice]) -> None:
        began = time.monotonic()
        for piece in slices:
            self._metrics.queue_seconds.observe(began - piece.job.arrived)
        rows = sum(piece.stop - piece.start for piece in slices)
        self._compute_slices(slices)
        self._companions, self._ended = len(slices), time.monotonic()
        seconds = self._ended - began
        self._metrics.batch_rows.observe(rows)
        self._metrics.batch_seconds.observe(seconds)
        self._computed_rows = _FADING * self._computed_rows + rows
        self._computed_seconds = _FADING * self._computed_seconds + seconds

    def _compute_slices(self, slices: Sequence[_Slice]) -> None:
        texts = [text for s in slices for text in s.job.texts[s.start : s.stop]]
        names = [name for s in slices for name in s.job.names[s.start : s.stop]]
        try:
            results = self._compute(texts, names)
        except Exception as error:  # noqa: BLE001 - whatever it is, the thread goes on
            if len(slices) > 1:
                # One request must not make others fail.
                for piece in slices:
                    self._compute_slices([piece])
                return
            self._fail(slices[0].job, error)
            return
        for piece in slices:
            count = piece.stop - piece.start
            piece.job.results += results[:count]
            results = results[count:]
            if len(piece.job.results) == len(piece.job.texts):
                _finish(piece.job.future, partial(list, piece.job.results))

    def _fail(self, job: _Job, error: BaseException) -> None:
        if job.future.set_running_or_notify_cancel():
            job.future.set_exception(error)
        with self._changed:
            if job in self._jobs:
                self._jobs.remove(job)
                self._rows -= len(job.texts) - job.taken


def _finish(future: Future[Any], action: Callable[[], Any] | None) -> None:
    """Set the future to the action's result or error, unless it was cancelled."""
    if action is None or not future.set_running_or_notify_cancel():
        return
    try:
        future.set_result(action())
    except Exception as error:  # noqa: BLE001 - it is raised where the future is awaited
        future.set_exception(error)
