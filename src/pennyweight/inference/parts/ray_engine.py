"""Predict the parts of a job on a Ray cluster: one model a worker, one part a call.

A part is one file under one name, with the same bytes whoever computes it. So the part of a worker
that was lost is simply computed again, by another one, and only what a worker has reported counts.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Generator, Iterator
from functools import partial
from typing import Any

from pennyweight.cluster import Share, Task, WorkerPool, connected_ray
from pennyweight.errors import RunError
from pennyweight.inference.parts.manifest import DonePart
from pennyweight.inference.parts.plan import Part, PredictJob
from pennyweight.inference.parts.predictor import PartPredictor

__all__ = ["predict_on_ray"]


def predict_on_ray(
    job: PredictJob,
    parts: Iterator[Part],
    *,
    done: Callable[[DonePart], None],
    workers: int | None,
    log: Callable[[str], None],
) -> None:
    """Predict on the cluster at `RAY_ADDRESS`, or on this machine; see `engines.Engine`.

    Workers that are lost, with a machine or alone, are replaced. Every machine needs Pennyweight
    and sees the run, the input and the output under the same paths.

    Raises:
        RunError: Ray is missing, no cluster answers, or a part ends one worker after the other.
        PennyweightError: a part cannot be predicted.
    """

    def next_task() -> Task | None:
        part = next(parts, None)
        return None if part is None else _task(part, done)

    with connected_ray() as ray:
        share = _share_of(ray, workers)
        WorkerPool(ray, partial(_Actor, job, int(share.cpus)), share, log).run(next_task)


def _share_of(ray: Any, workers: int | None) -> Share:
    """Share out a cluster: a worker for each GPU, or else for each machine, with all its cores.

    Raises:
        RunError: `workers` is below 1, or the cluster has no core.
    """
    if workers is not None and workers < 1:
        raise RunError(f"--workers {workers}: give a whole number from 1")
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    cores = [int(node["CPU"]) for node in nodes if node.get("CPU", 0) >= 1]
    if not cores:
        raise RunError("the Ray cluster has no machine with a core for workers")
    gpus = float(sum(node.get("GPU", 0) for node in nodes) >= 1)
    if workers is None:
        workers = Share(1.0, gpus).room(ray) if gpus else len(cores)
    # More workers than a machine has cores would wait for ever.
    workers = max(1, min(workers, Share(1.0, gpus).room(ray)))
    shares = (Share(float(share), gpus, workers) for share in range(min(cores), 0, -1))
    return next((share for share in shares if share.room(ray) >= workers), Share(1.0, gpus, 1))


class _Actor:
    """A `PartPredictor` in a process of its own, which loads the run for its first part."""

    def __init__(self, job: PredictJob, cores: int) -> None:
        os.environ["TOKENIZERS_PARALLELISM"] = "true" if cores > 1 else "false"
        import torch

        torch.set_num_threads(cores)
        self._job = job
        self._predictor: PartPredictor | None = None

    def node(self) -> str:
        """Return the name of this node."""
        return platform.node()

    def predict(self, part: Part) -> DonePart:
        """Return what was written.

        Raises:
            PennyweightError: the part cannot be predicted.
        """
        self._predictor = self._predictor or PartPredictor(self._job)
        return self._predictor(part)


def _task(part: Part, done: Callable[[DonePart], None]) -> Task:
    """Return a part as a task; a part that ends one worker after the other ends the prediction."""

    def steps(worker: Any, is_retry: bool) -> Generator[Any, DonePart, None]:
        done((yield worker.predict.remote(part)))

    def give_up(reason: str) -> None:
        row = part.start.row + 1
        raise RunError(f"{part.file.location}: the part from row {row:,} on {reason}")

    return Task(part.path, steps, give_up)
