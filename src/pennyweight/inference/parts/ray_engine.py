"""Predict the parts of a job on a Ray cluster: one model an actor, one part a call.

A part is one file under one name, with the same bytes whoever computes it. So the part of an actor
that died is simply computed again, by another actor, and only what an actor has reported counts.
"""

from __future__ import annotations

import os
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from pennyweight.cluster import connected_ray
from pennyweight.errors import PennyweightError, RunError
from pennyweight.inference.parts.manifest import DonePart
from pennyweight.inference.parts.plan import Part, PredictJob
from pennyweight.inference.parts.predictor import PartPredictor

__all__ = ["predict_on_ray"]

# A part that ends this many actors is the cause, and not the machines.
_MOST_DEATHS = 3
_SECONDS_BETWEEN_NOTES = 60.0


def predict_on_ray(
    job: PredictJob,
    parts: Iterator[Part],
    *,
    done: Callable[[DonePart], None],
    workers: int | None,
    log: Callable[[str], None],
) -> None:
    """Predict on the cluster at `RAY_ADDRESS`, or on this machine; see `engines.Engine`.

    Actors that die, with a machine or alone, are replaced. Every machine needs Pennyweight and sees
    the run, the input and the output under the same paths.

    Raises:
        RunError: Ray is missing, no cluster answers, or a part ends one actor after the other.
        PennyweightError: a part cannot be predicted.
    """
    with connected_ray() as ray:
        resources = _resources_of(ray, workers)
        log(resources.described)
        pool = _Pool(ray, job, resources, log)
        try:
            pool.run(parts, done)
        finally:
            pool.close()


@dataclass(frozen=True, slots=True)
class _Resources:
    """How many actors there are, and what each of them gets."""

    workers: int
    cores: int
    gpus: int

    @property
    def described(self) -> str:
        """A line about them."""
        share = "a GPU each" if self.gpus else f"cores each: {self.cores}"
        return f"Ray workers: {self.workers}, {share}"


def _resources_of(ray: Any, workers: int | None) -> _Resources:
    """Share out a cluster: a worker for each GPU, or else for each machine.

    Raises:
        RunError: `workers` is below 1, or the cluster has no core.
    """
    if workers is not None and workers < 1:
        raise RunError(f"--workers {workers}: give a whole number from 1")
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    cores = [int(node.get("CPU", 0)) for node in nodes if node.get("CPU")]
    if not cores:
        raise RunError("the Ray cluster has no machine with a core for workers")
    gpus = int(sum(node.get("GPU", 0) for node in nodes))
    count = workers or gpus or len(cores)
    # More workers than a machine has cores would wait for ever.
    share = max(1, min(min(cores), sum(cores) // count))
    return _Resources(min(count, gpus or sum(cores) // share), share, 1 if gpus else 0)


class _Actor:
    """A `PartPredictor` in a process of its own."""

    def __init__(self, job: PredictJob, cores: int) -> None:
        os.environ["TOKENIZERS_PARALLELISM"] = "true" if cores > 1 else "false"
        import torch

        torch.set_num_threads(cores)
        self._job = job
        self._predictor: PartPredictor | None = None

    def predict(self, part: Part) -> DonePart | str:
        """Return what was written, or the message of the error; the run is loaded first."""
        try:
            self._predictor = self._predictor or PartPredictor(self._job)
            return self._predictor(part)
        except PennyweightError as error:
            return str(error)


@dataclass(slots=True)
class _Pool:
    """The actors, and the part that each of them computes."""

    ray: Any
    job: PredictJob
    resources: _Resources
    log: Callable[[str], None]
    _busy: dict[Any, tuple[Any, Part]] = field(default_factory=dict)
    _waiting: deque[Part] = field(default_factory=deque)
    _deaths: Counter[str] = field(default_factory=Counter)

    def run(self, parts: Iterator[Part], done: Callable[[DonePart], None]) -> None:
        """Predict all parts; see `engines.Engine`."""
        for part in parts:
            self._start(self._new_actor(), part)
            if len(self._busy) == self.resources.workers:
                break
        while self._busy:
            ready, _ = self.ray.wait(list(self._busy), timeout=_SECONDS_BETWEEN_NOTES)
            if not ready:
                self._note_waiting()
            for reference in ready:
                actor, part = self._busy.pop(reference)
                result = self._result(reference, part)
                if result is None:
                    actor = self._new_actor()
                    self._waiting.append(part)
                else:
                    done(result)
                following = self._waiting.popleft() if self._waiting else next(parts, None)
                if following is not None:
                    self._start(actor, following)
                else:
                    self.ray.kill(actor)

    def close(self) -> None:
        """End the actors that are still busy."""
        for actor, _ in self._busy.values():
            self.ray.kill(actor)

    def _new_actor(self) -> Any:
        remote = self.ray.remote(_Actor).options(
            num_cpus=self.resources.cores,
            num_gpus=self.resources.gpus,
            scheduling_strategy="SPREAD",
        )
        return remote.remote(self.job, self.resources.cores)

    def _start(self, actor: Any, part: Part) -> None:
        self._busy[actor.predict.remote(part)] = (actor, part)

    def _result(self, reference: Any, part: Part) -> DonePart | None:
        """Return what became of a part; None if its actor died.

        Raises:
            PennyweightError: it cannot be predicted.
        """
        try:
            result: DonePart | str = self.ray.get(reference)
        except self.ray.exceptions.RayTaskError:
            raise  # an error in the code of the worker
        except self.ray.exceptions.RayError as error:
            self._deaths[part.path] += 1
            if self._deaths[part.path] == _MOST_DEATHS:
                raise RunError(
                    f"{part.file.location}: the part from row {part.start.row + 1:,} on has ended "
                    f"{_MOST_DEATHS} Ray workers one after the other: {_reason(error)}"
                ) from None
            self.log(f"a Ray worker has ended; {part.path} is computed again")
            return None
        if isinstance(result, str):
            raise RunError(result)
        return result

    def _note_waiting(self) -> None:
        free = self.ray.available_resources()
        self.log(
            f"waiting for {len(self._busy)} Ray workers; free cores: {free.get('CPU', 0):.0f}, "
            f"free GPUs: {free.get('GPU', 0):.0f}"
        )


def _reason(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
