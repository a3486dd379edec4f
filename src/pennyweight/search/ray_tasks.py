"""Trainings as tasks of the workers of a Ray cluster, as the command's process sees them."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Generator
from functools import partial
from math import floor
from pathlib import Path
from typing import Any

from pennyweight.cluster import Share, Task, TaskSource, WorkerPool
from pennyweight.errors import RunError, TrainingError
from pennyweight.search.ray_trainer import Order, Trainer

__all__ = ["train_on_workers", "training_task"]


def training_task(
    order: Order,
    *,
    finish: Callable[[Any], None],
    log: Callable[[str], None],
    answer: Callable[[Any], Any] = lambda question: None,
) -> Task:
    """Return a training as a task.

    Args:
        order: what is sent to a node.
        finish: takes the result, or the `PennyweightError` that ended the training.
        log: gets the lines of the training.
        answer: returns the answer to a question of the training.
    """

    def steps(worker: Any, is_retry: bool) -> Generator[Any, Any, None]:
        event = yield worker.begin.remote(order, is_retry=is_retry)
        while event.kind not in ("result", "failure"):
            if event.kind == "crash":
                raise event.value
            if event.kind == "line":
                log(event.value)
                event = yield worker.next_event.remote()
            else:
                event = yield worker.answer.remote(answer(event.value))
        finish(event.value)

    def give_up(reason: str) -> None:
        finish(TrainingError(f"the training {reason}"))

    return Task(order.name, steps, give_up)


def train_on_workers(
    ray: Any, source: TaskSource, *, share: Share, out: Path, log: Callable[[str], None]
) -> None:
    """Have the workers of a cluster do all trainings of a source.

    Args:
        ray: the module, connected to a cluster.
        source: of trainings as tasks.
        share: of each training.
        out: directory on the file system that all nodes must share.
        log: gets a line before workers start, and one for each that is lost.

    Raises:
        RunError: no node has room for a training or shares the file system, or a training's
            `finish` has raised it.
    """
    if share.workers is None and share.room(ray) == 0:
        raise RunError(
            f"--engine ray: no node of the Ray cluster has {share} for a training; lower "
            "--cpus-per-trial or --gpus-per-trial"
        )
    with tempfile.NamedTemporaryFile(dir=out, prefix=".", suffix=".part") as token:
        worker = partial(
            Trainer,
            Path.cwd(),
            Path(token.name).absolute(),
            threads=max(1, floor(share.cpus)),
            uses_gpu=share.gpus > 0.0,
        )
        WorkerPool(ray, worker, share, log).run(source)
