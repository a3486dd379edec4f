"""The processes of a Ray cluster that train, as the process sees them that has started them."""

from __future__ import annotations

import tempfile
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from math import floor
from pathlib import Path
from typing import Any, Protocol

import ray
from ray.exceptions import RayError, RayTaskError

from pennyweight.errors import PennyweightError, RunError, TrainingError, first_line
from pennyweight.search.ray_trainer import Event, Order, Trainer

__all__ = ["IDLE", "RayPool", "Resources", "Task", "TaskSource"]

# Nothing can begin now, but something may later.
IDLE = "idle"
_MOST_LOSSES = 3
_SECONDS_BETWEEN_LOOKS = 1.0


@dataclass(frozen=True, slots=True)
class Resources:
    """What each training gets, as Ray counts it, and how many there are at the same time.

    Attributes:
        cpus: CPUs, or a part of one.
        gpus: GPUs, or a part of one; None for one if the cluster has any.
        at_once: trainings at the same time; None for as many as the nodes have room for.
    """

    cpus: float
    gpus: float | None
    at_once: int | None


class Task(Protocol):
    """An order, and what becomes of its events in this process."""

    @property
    def order(self) -> Order:
        """What is sent to a node."""
        ...

    def answer(self, question: Any) -> Any:
        """Return the answer to a question of the training."""
        ...

    def finish(self, result: Any) -> None:
        """Take the result, or the `PennyweightError` that ended the training."""
        ...


class TaskSource(Protocol):
    """Gives out tasks."""

    def __call__(self) -> Task | str | None:
        """Return a task to begin now; `IDLE` if there may be one later; None if all are done."""
        ...


@dataclass(slots=True)
class _Work:
    """A task, and how many processes were lost while they trained it."""

    task: Task
    losses: int = 0


@dataclass(slots=True)
class _Trainer:
    """A process that was asked for.

    Attributes:
        actor: Ray's handle.
        node: name of its node; None while it is not ready.
        work: what it trains.
    """

    actor: Any
    node: str | None = None
    work: _Work | None = None


class RayPool:
    """Trains tasks in processes of a Ray cluster; a process that is lost is replaced.

    Args:
        resources: of each process.
        shared: directory on the file system that all nodes must share.
        log: gets the lines of the trainings.

    Raises:
        RunError: no node has room for a training.
    """

    def __init__(self, resources: Resources, *, shared: Path, log: Callable[[str], None]) -> None:
        self._log = log
        self._shared = shared
        gpus = resources.gpus
        if gpus is None:
            gpus = 1.0 if ray.cluster_resources().get("GPU", 0.0) >= 1.0 else 0.0
        self._needs = {"CPU": resources.cpus, "GPU": gpus}
        self._at_once = resources.at_once
        # By the reference of the answer that is awaited.
        self._busy: dict[Any, _Trainer] = {}
        self._idle: deque[_Trainer] = deque()
        self._lost: deque[_Work] = deque()
        self._describe()

    def run(self, source: TaskSource) -> None:
        """Train all tasks of a source.

        Raises:
            RunError: a node does not share the file system, or a task's `finish` has raised it.
        """
        with tempfile.NamedTemporaryFile(dir=self._shared, prefix=".", suffix=".part") as token:
            try:
                while self._give_out(source, Path(token.name).absolute()):
                    self._take_answers()
            finally:
                for trainer in (*self._busy.values(), *self._idle):
                    ray.kill(trainer.actor)
                self._busy.clear()
                self._idle.clear()

    def _describe(self) -> None:
        nodes = sum(node["Alive"] for node in ray.nodes())
        each = f"{self._needs['CPU']:g} CPUs and {self._needs['GPU']:g} GPUs"
        if self._at_once is None and self._room() == 0:
            raise RunError(
                f"--engine ray: none of {nodes} nodes has {each}; lower --cpus-per-trial or "
                "--gpus-per-trial"
            )
        self._log(f"Ray: {nodes} nodes, {each} per trial, {self._limit()} at the same time")

    def _room(self) -> int:
        """Return how many trainings the nodes that are alive can hold."""
        return sum(
            min(
                floor(node["Resources"].get(name, 0.0) / need + 1e-9)
                for name, need in self._needs.items()
                if need > 0.0
            )
            for node in ray.nodes()
            if node["Alive"]
        )

    def _limit(self) -> int:
        # Where no node has room any more, one process waits for a node to join.
        return self._at_once or max(1, self._room())

    def _give_out(self, source: TaskSource, token: Path) -> bool:
        """Give tasks to idle processes, and ask for more; return whether anything is left to do."""
        while len(self._busy) + len(self._idle) < self._limit():
            trainer = _Trainer(self._start(token))
            self._busy[trainer.actor.node.remote()] = trainer
        while self._idle:
            work = self._next(source)
            if work is None:
                return False
            if isinstance(work, str):
                return True
            trainer = self._idle.popleft()
            trainer.work = work
            is_retry = work.losses > 0
            self._busy[trainer.actor.begin.remote(work.task.order, is_retry=is_retry)] = trainer
        return True

    def _start(self, token: Path) -> Any:
        cpus, gpus = self._needs["CPU"], self._needs["GPU"]
        options = {"num_cpus": cpus, "num_gpus": gpus, "scheduling_strategy": "SPREAD"}
        threads = max(1, floor(cpus))
        actor = ray.remote(**options)(Trainer)
        return actor.remote(Path.cwd(), token, threads=threads, uses_gpu=gpus > 0.0)

    def _next(self, source: TaskSource) -> _Work | str | None:
        if self._lost:
            return self._lost.popleft()
        task = source()
        return task if task is None or isinstance(task, str) else _Work(task)

    def _take_answers(self) -> None:
        """Wait for a while until a process answers, and act on what it says."""
        if not self._busy:
            time.sleep(_SECONDS_BETWEEN_LOOKS)
            return
        ready, _ = ray.wait(list(self._busy), timeout=_SECONDS_BETWEEN_LOOKS)
        for reference in ready:
            trainer = self._busy.pop(reference)
            try:
                answer = ray.get(reference)
            except RayTaskError as error:
                ray.kill(trainer.actor)
                cause = error.cause
                raise (cause if isinstance(cause, PennyweightError) else error) from None
            except RayError as error:
                self._lose(trainer, first_line(error))
                continue
            self._act(trainer, answer)

    def _act(self, trainer: _Trainer, answer: Event | str) -> None:
        if isinstance(answer, str):
            trainer.node = answer
            self._idle.append(trainer)
            return
        assert trainer.work is not None  # noqa: S101 - it was given out
        task = trainer.work.task
        match answer.kind:
            case "line":
                self._log(answer.value)
                self._busy[trainer.actor.next_event.remote()] = trainer
            case "question":
                reply = task.answer(answer.value)
                self._busy[trainer.actor.answer.remote(reply)] = trainer
            case "crash":
                ray.kill(trainer.actor)
                raise answer.value
            case "result" | "failure":
                trainer.work = None
                self._idle.append(trainer)
                task.finish(answer.value)

    def _lose(self, trainer: _Trainer, reason: str) -> None:
        """Have the task of a lost process tried again, unless that was done often already."""
        with suppress(RayError):
            ray.kill(trainer.actor)
        work = trainer.work
        if work is None:
            return
        work.losses += 1
        name = work.task.order.name
        if work.losses > _MOST_LOSSES:
            times = f"{work.losses} processes were lost that trained it"
            work.task.finish(TrainingError(f"{times}, the last one on {trainer.node}: {reason}"))
            return
        self._log(f"{name}: its process on {trainer.node} was lost and is replaced: {reason}")
        self._lost.append(work)
