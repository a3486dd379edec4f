"""Finding Ray and a cluster, and workers that are lost; the cluster is simulated."""

from __future__ import annotations

from collections.abc import Callable, Generator
from functools import partial
from typing import Any

import pytest

from fake_ray import FakeRay
from pennyweight import cluster
from pennyweight.cluster import IDLE, Share, Task, WorkerPool
from pennyweight.errors import DataError, RunError

ONE_CPU = Share(1.0)


class Doubler:
    """A worker whose task is two calls."""

    def node(self) -> str:
        return "node"

    def double(self, number: int) -> int:
        if number < 0:
            raise DataError(f"{number} is below 0")
        return 2 * number


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "_SECONDS_BETWEEN_LOOKS", 0.01)


def doubled(
    ray: FakeRay,
    numbers: list[int | str],
    *,
    share: Share = ONE_CPU,
    give_up: Callable[[str], None] = lambda reason: None,
) -> tuple[dict[int, int], list[str]]:
    """Return four times each number, and the lines that were logged."""
    results: dict[int, int] = {}
    lines: list[str] = []

    left = iter(numbers)

    def source() -> Task | str | None:
        number = next(left, None)
        return task(number) if isinstance(number, int) else number

    def task(number: int) -> Task:
        def steps(worker: Any, is_retry: bool) -> Generator[Any, int, None]:
            twice = yield worker.double.remote(number)
            results[number] = yield worker.double.remote(twice)

        return Task(f"number {number}", steps, give_up)

    WorkerPool(ray, partial(Doubler), share, lines.append).run(source)
    return results, lines


def test_tasks_of_several_calls_are_all_done() -> None:
    ray = FakeRay({"CPU": 2.0}, {"CPU": 1.0})
    results, lines = doubled(ray, [1, 2, IDLE, 3, 4, IDLE, 5])
    assert results == {number: 4 * number for number in range(1, 6)}
    assert lines == ["waiting for 3 workers of 1 CPU each on the Ray cluster of 2 nodes"]
    assert sorted(ray.killed) == [0, 1, 2]


@pytest.mark.parametrize(
    ("share", "line"),
    [
        (Share(1.0, 0.0, 1), "waiting for 1 worker of 1 CPU on the Ray cluster of 1 node"),
        (Share(2.0, 1.0), "waiting for 2 workers of 2 CPUs and 1 GPU each on the Ray cluster of"),
        (Share(0.5, 2.0), "waiting for 1 worker of 0.5 CPUs and 2 GPUs on the Ray cluster of 1"),
    ],
)
def test_what_is_waited_for_is_logged_first(share: Share, line: str) -> None:
    _, lines = doubled(FakeRay({"CPU": 4.0, "GPU": 2.0}), [1], share=share)
    assert lines[0].startswith(line)


def test_the_task_of_a_lost_worker_is_begun_again_by_another() -> None:
    calls: list[tuple[int, int]] = []

    def loses(method: str, worker: int, *arguments: Any) -> bool:
        if method == "double":
            calls.append((worker, arguments[0]))
        # Three workers are lost in the second call of a task.
        return method == "double" and arguments[0] == 6 and worker in (0, 1, 2)

    ray = FakeRay({"CPU": 1.0}, is_lost=loses)
    results, lines = doubled(ray, [1, 3, 5])
    assert results == {1: 4, 3: 12, 5: 20}
    assert [number for _, number in calls].count(3) == 4
    assert lines[1:] == 3 * [
        "number 3: its Ray worker on node was lost, and another one begins it again: Its node died"
    ]
    assert ray.killed == [0, 1, 2, 3]


def test_a_task_that_ends_every_worker_is_given_up_and_the_others_are_done() -> None:
    reasons: list[str] = []
    ray = FakeRay({"CPU": 1.0}, is_lost=lambda method, worker, *given: given == (3,))
    results, _ = doubled(ray, [1, 3, 5], give_up=reasons.append)
    assert results == {1: 4, 5: 20}
    assert reasons == [
        "has ended 4 Ray workers one after the other, the last one on node: Its node died"
    ]


def test_workers_that_are_lost_before_they_work_end_everything() -> None:
    ray = FakeRay({"CPU": 1.0}, is_lost=lambda method, *_: method == "node")
    with pytest.raises(RunError, match=r"^4 Ray workers have ended before they could work, the la"):
        doubled(ray, [1])


def test_an_error_of_a_worker_is_raised_here_and_all_workers_end() -> None:
    ray = FakeRay({"CPU": 2.0})
    with pytest.raises(DataError, match=r"^-1 is below 0$"):
        doubled(ray, [-1, 1])
    assert sorted(ray.killed) == [0, 1]


def test_waiting_for_workers_is_logged_again_with_what_is_free(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cluster, "_SECONDS_BETWEEN_NOTES", 0.0)
    ray = FakeRay({"CPU": 1.0})
    answers = [([], None)]
    monkeypatch.setattr(
        ray,
        "wait",
        lambda *each, **other: answers.pop() if answers else FakeRay.wait(*each, **other),
    )
    _, lines = doubled(ray, [1])
    assert lines[1:] == [
        "still waiting for 1 worker of 1 CPU; free on the Ray cluster: 1 CPU, 0 GPUs"
    ]


def test_without_ray_the_message_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "find_spec", lambda name: None)
    with (
        pytest.raises(RunError, match=r"needs Ray; run: pip install 'pennyweight\[ray\]'$"),
        cluster.connected_ray(),
    ):
        pass


def test_an_address_without_a_cluster_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray")
    monkeypatch.setenv("RAY_ADDRESS", "nowhere")
    with (
        pytest.raises(RunError, match=r"^no Ray cluster can be used at RAY_ADDRESS=nowhere: \S"),
        cluster.connected_ray(),
    ):
        pass
