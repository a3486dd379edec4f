"""Connect to a Ray cluster, and have its workers do tasks, where lost workers are replaced.

The cluster is the one at `RAY_ADDRESS`, or one that is started on this machine.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec
from math import floor
from typing import Any

from pennyweight.errors import PennyweightError, RunError, first_line

__all__ = ["IDLE", "Share", "Task", "TaskSource", "WorkerPool", "connected_ray", "require_ray"]

# Nothing can begin now, but something may later.
IDLE = "idle"
# A task that ends this many workers is the cause, and not the machines.
_MOST_LOSSES = 4
_SECONDS_BETWEEN_LOOKS = 1.0
_SECONDS_BETWEEN_NOTES = 60.0
_LOCAL = "local"
# Set before Ray is imported, and inherited by the processes that it starts.
_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    # Without it, Ray warns of a change in a later version whenever a worker needs no GPU.
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}


def require_ray() -> None:
    """Check that Ray is installed, without importing it.

    Raises:
        RunError: it is not.
    """
    if find_spec("ray") is None:
        raise RunError("the engine ray needs Ray; run: pip install 'pennyweight[ray]'")


@contextmanager
def connected_ray() -> Iterator[Any]:
    """Yield the module `ray`, connected to a cluster until the block ends.

    A connection that exists already is used, and left as it is. A cluster on this machine ends with
    the block. Workers need Pennyweight, and see the files of the machine that they run on.

    Raises:
        RunError: Ray is not installed, or no cluster answers at `RAY_ADDRESS`.
    """
    require_ray()
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    import ray

    if ray.is_initialized():
        yield ray
        return
    address = os.environ.get("RAY_ADDRESS") or _LOCAL
    try:
        with _kept_handler():
            ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False)
    except Exception as error:
        where = "on this machine" if address == _LOCAL else f"at RAY_ADDRESS={address}"
        raise RunError(f"no Ray cluster can be used {where}: {first_line(error)}") from error
    try:
        yield ray
    finally:
        with _kept_handler():
            ray.shutdown()


@contextmanager
def _kept_handler() -> Iterator[None]:
    """Keep the handler of SIGTERM in the block, which Ray would replace by its own."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


@dataclass(frozen=True, slots=True)
class Share:
    """The resources of each worker of a cluster, as Ray counts them, and the number of workers.

    Attributes:
        cpus: CPUs, or a part of one.
        gpus: GPUs, or a part of one.
        workers: their number; None for as many as the nodes have room for.
    """

    cpus: float
    gpus: float = 0.0
    workers: int | None = None

    def __str__(self) -> str:
        """Return what a worker gets, as in "4 CPUs and 1 GPU"."""
        cpus = _counted(self.cpus, "CPU")
        return f"{cpus} and {_counted(self.gpus, 'GPU')}" if self.gpus else cpus

    def room(self, ray: Any) -> int:
        """Return how many workers the nodes that are alive can hold."""
        needs = {"CPU": self.cpus, "GPU": self.gpus}
        return sum(
            min(
                floor(node["Resources"].get(name, 0.0) / need + 1e-9)
                for name, need in needs.items()
                if need > 0.0
            )
            for node in ray.nodes()
            if node["Alive"]
        )


@dataclass(slots=True, eq=False)
class Task:
    """Something that a worker does. If the worker is lost, another one begins it again.

    Attributes:
        name: for messages.
        steps: yields the reference of each call of the worker, whose handle it is given, and
            receives the result of that call. Also given is whether a worker was lost before.
        give_up: is called with the reason if the task has ended one worker after the other. An
            error that it raises ends all tasks.
        losses: number of workers that were lost while they did it.
    """

    name: str
    steps: Callable[[Any, bool], Generator[Any, Any, None]]
    give_up: Callable[[str], None]
    losses: int = 0


# Returns a task to begin now; `IDLE` if there may be one later; None if there is none any more.
TaskSource = Callable[[], Task | str | None]


@dataclass(slots=True, eq=False)
class _Worker:
    """A worker that was asked for.

    Attributes:
        actor: Ray's handle.
        node: name of its node; None while it is not ready.
        task: what it does.
        steps: of that task.
    """

    actor: Any
    node: str | None = None
    task: Task | None = None
    steps: Generator[Any, Any, None] | None = None


@dataclass(slots=True)
class WorkerPool:
    """Has workers do all tasks of a source, those of lost workers first.

    Attributes:
        ray: the module, connected to a cluster.
        worker: the class of the workers, and its arguments. Its method `node` returns the name of
            the node, or raises if it cannot work there.
        share: of each worker.
        log: gets a line before workers start, and one for each that is lost.
    """

    ray: Any
    worker: partial[Any]
    share: Share
    log: Callable[[str], None]
    _workers: list[_Worker] = field(default_factory=list)
    # By the reference of the answer that is awaited.
    _busy: dict[Any, _Worker] = field(default_factory=dict)
    _idle: deque[_Worker] = field(default_factory=deque)
    _lost: deque[Task] = field(default_factory=deque)
    _losses_at_start: int = 0
    _noted: float = field(default_factory=time.monotonic)

    def run(self, source: TaskSource) -> None:
        """Do all tasks.

        Raises:
            PennyweightError: a worker or a task has raised it.
            RunError: workers end before they can work.
        """
        nodes = _counted(sum(node["Alive"] for node in self.ray.nodes()), "node")
        self.log(f"waiting for {self._asked()} on the Ray cluster of {nodes}")
        try:
            while self._give_out(source):
                self._take_answers()
        finally:
            for worker in self._workers:
                self._end(worker)

    def _asked(self) -> str:
        count = self._limit()
        return f"{_counted(count, 'worker')} of {self.share}{' each' if count > 1 else ''}"

    def _limit(self) -> int:
        # Where no node has room any more, one worker waits for a node to join.
        return self.share.workers or max(1, self.share.room(self.ray))

    def _give_out(self, source: TaskSource) -> bool:
        """Give tasks to idle workers, and ask for more; return whether anything is left to do."""
        for _ in range(len(self._workers), self._limit()):
            worker = _Worker(self._start())
            self._workers.append(worker)
            self._busy[worker.actor.node.remote()] = worker
        while self._idle:
            task = self._lost.popleft() if self._lost else source()
            if task is None:
                return any(worker.task for worker in self._workers)
            if isinstance(task, str):
                return True
            worker = self._idle.popleft()
            worker.task = task
            worker.steps = task.steps(worker.actor, task.losses > 0)
            self._go_on(worker, None)
        return True

    def _start(self) -> Any:
        remote = self.ray.remote(
            num_cpus=self.share.cpus, num_gpus=self.share.gpus, scheduling_strategy="SPREAD"
        )
        return remote(self.worker.func).remote(*self.worker.args, **self.worker.keywords)

    def _take_answers(self) -> None:
        """Wait for a while until a worker answers, and act on what it says."""
        if not self._busy:
            time.sleep(_SECONDS_BETWEEN_LOOKS)
            return
        ready, _ = self.ray.wait(list(self._busy), timeout=_SECONDS_BETWEEN_LOOKS)
        if not ready:
            self._note_waiting()
        for reference in ready:
            worker = self._busy.pop(reference)
            try:
                answer = self.ray.get(reference)
            except self.ray.exceptions.RayTaskError as error:
                cause = error.cause
                raise (cause if isinstance(cause, PennyweightError) else error) from None
            except self.ray.exceptions.RayError as error:
                self._lose(worker, _reason(error))
                continue
            if worker.node is None:
                worker.node, self._losses_at_start = answer, 0
                self._idle.append(worker)
            else:
                self._go_on(worker, answer)

    def _go_on(self, worker: _Worker, answer: Any) -> None:
        """Give an answer to the task of a worker, and make the next call."""
        assert worker.steps is not None  # noqa: S101 - a task was given out
        try:
            reference = worker.steps.send(answer)
        except StopIteration:
            worker.task = worker.steps = None
            self._idle.append(worker)
        else:
            self._busy[reference] = worker

    def _lose(self, worker: _Worker, reason: str) -> None:
        """Have the task of a lost worker tried again, unless that was done often already.

        Raises:
            RunError: workers end before they can work.
        """
        self._workers.remove(worker)
        self._end(worker)
        task = worker.task
        if task is None:
            self._losses_at_start += 1
            if self._losses_at_start == _MOST_LOSSES:
                raise RunError(
                    f"{_MOST_LOSSES} Ray workers have ended before they could work, the last one: "
                    f"{reason}; all nodes need Pennyweight and its packages"
                )
            return
        task.losses += 1
        if task.losses == _MOST_LOSSES:
            last = f"the last one on {worker.node}: {reason}"
            task.give_up(f"has ended {_MOST_LOSSES} Ray workers one after the other, {last}")
            return
        lost = f"its Ray worker on {worker.node} was lost"
        self.log(f"{task.name}: {lost}, and another one begins it again: {reason}")
        self._lost.append(task)

    def _end(self, worker: _Worker) -> None:
        with suppress(self.ray.exceptions.RayError):
            self.ray.kill(worker.actor)

    def _note_waiting(self) -> None:
        """Say what is free where no worker has started for a minute."""
        now = time.monotonic()
        if any(worker.node for worker in self._workers) or (
            now - self._noted < _SECONDS_BETWEEN_NOTES
        ):
            return
        self._noted = now
        free = self.ray.available_resources()
        cpus, gpus = (_counted(floor(free.get(name, 0.0)), name) for name in ("CPU", "GPU"))
        self.log(f"still waiting for {self._asked()}; free on the Ray cluster: {cpus}, {gpus}")


def _counted(number: float, noun: str) -> str:
    return f"{number:g} {noun}" if number == 1 else f"{number:g} {noun}s"


def _reason(error: BaseException) -> str:
    """Return why a worker was lost: the first sentence of the last line that Ray says about it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1].partition(". ")[0] if lines else type(error).__name__
