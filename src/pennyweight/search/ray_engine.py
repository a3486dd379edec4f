"""Train the trials of searches and the runs of studies on the nodes of a Ray cluster.

The process that runs the command takes trials from Optuna's database and records them there, and
Ray's processes only train, so that nodes need no database. See docs/how-to/run-on-a-cluster.md.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pennyweight.cluster import Share, connected_ray
from pennyweight.errors import PennyweightError, RunError
from pennyweight.runs.record import RunRecord
from pennyweight.search.job import SearchJob
from pennyweight.search.ray_tasks import train_on_workers
from pennyweight.search.study_training import StudyRun
from pennyweight.training.watcher import Watcher

__all__ = ["RayEngine"]

Log = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class RayEngine:
    """Trains on a Ray cluster whose nodes share the file system with this process.

    Attributes:
        cpus_per_trial: CPUs of each training, or a part of one.
        gpus_per_trial: GPUs of each training, or a part of one; None for one if the cluster has
            any, and else for none.
        trains_rows_together: see `pennyweight.search.engines.Engine`.
    """

    cpus_per_trial: float = 1.0
    gpus_per_trial: float | None = None
    trains_rows_together: bool = True

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            RunError: Ray does not know such a share of a node.
        """
        _check_share("cpus", self.cpus_per_trial, "a whole number from 1, or a fraction")
        if self.gpus_per_trial:
            _check_share("gpus", self.gpus_per_trial, "a whole number from 0, or a fraction")

    def search(self, jobs: Sequence[SearchJob], *, log: Log) -> None:
        """Train all trials of some searches.

        Raises:
            RunError: Ray is missing, the cluster has no room or does not share the file system, or
                a storage or run directory cannot be used.
        """
        if not jobs:
            return
        with connected_ray() as ray:
            from pennyweight.search.ray_trials import TrialTasks

            tasks = TrialTasks(jobs, log=log)
            try:
                share = self._share(ray, jobs[0].workers)
                train_on_workers(ray, tasks, share=share, out=jobs[0].out, log=log)
            finally:
                tasks.close()

    def train(
        self, runs: Sequence[StudyRun], *, out: Path, log: Log, watcher: Watcher | None
    ) -> list[RunRecord | PennyweightError]:
        """Return the record of each run of a study, or why it failed.

        Raises:
            RunError: Ray is missing, or the cluster has no room or does not share the file system.
        """
        del watcher
        if not runs:
            return []
        with connected_ray() as ray:
            from pennyweight.search.ray_runs import RunTasks

            tasks = RunTasks(runs, log=log)
            train_on_workers(ray, tasks, share=self._share(ray, None), out=out, log=log)
            return tasks.results

    def _share(self, ray: Any, workers: int | None) -> Share:
        gpus = self.gpus_per_trial
        if gpus is None:
            gpus = float(ray.cluster_resources().get("GPU", 0.0) >= 1.0)
        return Share(self.cpus_per_trial, gpus, workers)


def _check_share(name: str, number: float, allowed: str) -> None:
    """Refuse what is no share of a node.

    Raises:
        RunError: it is none.
    """
    # Not a number is neither.
    if not (0.0 < number < 1.0 or (number >= 1.0 and number.is_integer())):
        raise RunError(f"--{name}-per-trial {number:g}: give {allowed} such as 0.5")
