"""Train the trials of searches and the runs of studies on the nodes of a Ray cluster.

The process that runs the command takes trials from Optuna's database and records them there, and
Ray's processes only train, so that nodes need no database. See docs/how-to/run-on-a-cluster.md.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pennyweight.cluster import connected_ray
from pennyweight.errors import PennyweightError, RunError
from pennyweight.runs.record import RunRecord
from pennyweight.search.job import SearchJob
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

    def search(self, jobs: Sequence[SearchJob], *, log: Log) -> None:
        """Train all trials of some searches.

        Raises:
            RunError: Ray is missing, the cluster has no room or does not share the file system, or
                a storage or run directory cannot be used.
        """
        if not jobs:
            return
        self._check()
        with connected_ray():
            from pennyweight.search.ray_pool import RayPool, Resources
            from pennyweight.search.ray_trials import TrialTasks

            tasks = TrialTasks(jobs, log=log)
            try:
                resources = Resources(self.cpus_per_trial, self.gpus_per_trial, jobs[0].workers)
                RayPool(resources, shared=jobs[0].out, log=log).run(tasks)
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
        self._check()
        with connected_ray():
            from pennyweight.search.ray_pool import RayPool, Resources
            from pennyweight.search.ray_runs import RunTasks

            tasks = RunTasks(runs, log=log)
            resources = Resources(self.cpus_per_trial, self.gpus_per_trial, None)
            RayPool(resources, shared=out, log=log).run(tasks)
            return tasks.results

    def _check(self) -> None:
        for name, number in (("cpus", self.cpus_per_trial), ("gpus", self.gpus_per_trial)):
            if number is not None and (number < 0.0 or (number == 0.0 and name == "cpus")):
                raise RunError(f"--{name}-per-trial {number:g}: give a number above 0")
            if number is not None and number > 1.0 and number != int(number):
                raise RunError(
                    f"--{name}-per-trial {number:g}: give a whole number, or a part of 1, as Ray "
                    "demands"
                )
