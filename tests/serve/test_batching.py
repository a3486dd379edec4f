"""The queue: order, batches, waiting, limits, and failures that stay with their request."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import contextmanager

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pennyweight.inference.texts import Text
from pennyweight.serve.batching import BatchQueue
from pennyweight.serve.metrics import Metrics
from pennyweight.serve.options import Batching, Limits
from pennyweight.serve.refusal import RefusedError


class Echo:
    """Returns the length of each text; waits for `gate` before it does."""

    def __init__(self) -> None:
        self.batches: list[list[Text]] = []
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()

    def __call__(self, texts: Sequence[Text], names: Sequence[str]) -> list[np.ndarray]:
        self.batches.append(list(texts))
        self.entered.set()
        assert self.gate.wait(10)
        if "bad" in texts:
            raise ValueError("a bad text")
        return [
            np.array([float(len(text)), float(name)])
            for text, name in zip(texts, names, strict=True)
        ]


@contextmanager
def queue_of(
    echo: Echo, *, batch_rows: int = 8, max_wait_ms: float = 0.0, **limits: float
) -> Iterator[BatchQueue]:
    queue = BatchQueue(
        echo,
        batching=Batching(batch_rows=batch_rows, max_wait_ms=max_wait_ms),
        limits=Limits(**{"queue_rows": 100, "request_texts": 50, **limits}),
        metrics=Metrics(),
    )
    yield queue
    echo.gate.set()
    queue.close()


@contextmanager
def busy(echo: Echo, queue: BatchQueue) -> Iterator[None]:
    """Keep the queue's thread in a batch of one text."""
    echo.gate.clear()
    echo.entered.clear()
    queue.submit(["busy"], ["0"])
    assert echo.entered.wait(10)
    yield
    echo.gate.set()


@settings(max_examples=40)
@given(
    sizes=st.lists(st.integers(1, 20), min_size=1, max_size=12),
    batch_rows=st.integers(1, 16),
)
def test_every_request_gets_its_own_answers_in_order(sizes: list[int], batch_rows: int) -> None:
    echo = Echo()
    with queue_of(echo, batch_rows=batch_rows, queue_rows=1000) as queue:
        with busy(echo, queue):
            futures = [
                queue.submit(["x" * row for row in range(size)], [str(request)] * size)
                for request, size in enumerate(sizes)
            ]
        for request, (size, future) in enumerate(zip(sizes, futures, strict=True)):
            answers = future.result(10)
            assert [tuple(answer) for answer in answers] == [(row, request) for row in range(size)]
    full = [len(batch) for batch in echo.batches[1:]]
    assert full[:-1] == [batch_rows] * (len(full) - 1)


def test_a_text_alone_does_not_wait_and_one_among_several_requests_does() -> None:
    echo = Echo()
    with queue_of(echo, max_wait_ms=300) as queue:
        for _ in range(3):
            began = time.monotonic()
            queue.submit(["one"], ["0"]).result(10)
            assert time.monotonic() - began < 0.15
        with busy(echo, queue):
            futures = [queue.submit(["two"], ["0"]) for _ in range(2)]
        for future in futures:
            future.result(10)
        # The batch served two requests, so others are to be expected beside this one.
        began = time.monotonic()
        early = queue.submit(["early"], ["0"])
        time.sleep(0.05)
        queue.submit(["late"], ["0"])
        early.result(10)
        assert 0.25 < time.monotonic() - began < 2
    assert echo.batches[-1] == ["early", "late"]


def test_a_full_batch_does_not_wait() -> None:
    echo = Echo()
    with queue_of(echo, batch_rows=2, max_wait_ms=60_000) as queue:
        with busy(echo, queue):
            futures = [queue.submit(["a"], ["0"]) for _ in range(4)]
        for future in futures:
            future.result(10)
    assert echo.batches[1:] == [["a", "a"], ["a", "a"]]


def test_a_full_queue_refuses_and_says_when_to_come_back() -> None:
    echo = Echo()
    with queue_of(echo, queue_rows=10, request_texts=10) as queue:
        with busy(echo, queue):
            accepted = queue.submit(["a"] * 9, ["0"] * 9)
            with pytest.raises(RefusedError, match="9 texts are waiting") as refused:
                queue.submit(["a"] * 2, ["0"] * 2)
            assert refused.value.status == 429
            assert int(refused.value.headers["Retry-After"]) >= 1
        assert len(accepted.result(10)) == 9
        assert len(queue.submit(["a"] * 10, ["0"] * 10).result(10)) == 10


def test_texts_that_would_be_computed_too_late_are_refused_before_the_queue_is_full() -> None:
    echo = Echo()
    with queue_of(echo, timeout_seconds=1) as queue:
        with busy(echo, queue):
            time.sleep(0.1)
        with busy(echo, queue):
            queue.submit(["a"], ["0"])
            # A text has taken 0.1 s, so 3 fit into half of the limit, and 51 do not.
            queue.submit(["a"] * 2, ["0"] * 2)
            with pytest.raises(RefusedError, match="the queue is full"):
                queue.submit(["a"] * 48, ["0"] * 48)


def test_a_request_that_fails_takes_no_other_with_it() -> None:
    echo = Echo()
    with queue_of(echo) as queue:
        with busy(echo, queue):
            good, bad = queue.submit(["fine"], ["0"]), queue.submit(["bad"], ["0"])
            other = queue.submit(["well"], ["1"])
        assert good.result(10)[0][0] == 4
        assert other.result(10)[0].tolist() == [4, 1]
        with pytest.raises(ValueError, match="a bad text"):
            bad.result(10)


def test_the_rest_of_a_request_that_failed_is_not_computed() -> None:
    echo = Echo()
    with queue_of(echo, batch_rows=2) as queue:
        with pytest.raises(ValueError, match="a bad text"):
            queue.submit(["bad", "a", "b", "c", "d"], ["0"] * 5).result(10)
        queue.submit(["next"], ["0"]).result(10)
    assert echo.batches == [["bad", "a"], ["next"]]


def test_cancelled_texts_are_not_computed_and_leave_the_queue() -> None:
    echo = Echo()
    with queue_of(echo, queue_rows=10, request_texts=10) as queue:
        with busy(echo, queue):
            cancelled = queue.submit(["no"] * 9, ["0"] * 9)
            assert cancelled.cancel()
        queue.submit(["yes"], ["0"]).result(10)
        assert len(queue.submit(["a"] * 10, ["0"] * 10).result(10)) == 10
    assert not any("no" in batch for batch in echo.batches)
    with pytest.raises(CancelledError):
        cancelled.result(1)


def test_an_action_runs_after_the_texts_before_it_and_before_those_after_it() -> None:
    echo = Echo()
    with queue_of(echo) as queue:
        with busy(echo, queue):
            queue.submit(["before"], ["0"])
            action = queue.call(lambda: [*echo.batches])
            queue.submit(["after"], ["0"])
        assert action.result(10) == [["busy"], ["before"]]
    assert echo.batches[-1] == ["after"]


def test_closing_computes_what_was_accepted_and_accepts_nothing_more() -> None:
    echo = Echo()
    with queue_of(echo, batch_rows=1) as queue:
        with busy(echo, queue):
            accepted = [queue.submit(["a"], ["0"]) for _ in range(5)]
        queue.close()
        assert all(future.done() for future in accepted)
        with pytest.raises(RefusedError, match="shutting down"):
            queue.submit(["b"], ["0"])
