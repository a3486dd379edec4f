"""Engines that run the trainings of searches and studies: this machine, or a Ray cluster."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

from pennyweight.errors import PennyweightError, RunError
from pennyweight.runs.record import RunRecord
from pennyweight.search.job import SearchJob
from pennyweight.search.ray_engine import RayEngine
from pennyweight.search.study_training import StudyRun, train_here
from pennyweight.training.watcher import Watcher

__all__ = ["ENGINES", "Engine", "LocalEngine", "RayEngine", "engine_of"]

Log = Callable[[str], None]


class Engine(Protocol):
    """Trains the trials of searches, and the runs of studies.

    Attributes:
        trains_rows_together: whether the rows of a study are trained at the same time, so that it
            is best to name all of them in one call.
    """

    @property
    def trains_rows_together(self) -> bool:
        """See the attributes."""
        ...

    def search(self, jobs: Sequence[SearchJob], *, log: Log) -> None:
        """Train all trials of some searches.

        Raises:
            PennyweightError: a worker could not go on.
        """
        ...

    def train(
        self, runs: Sequence[StudyRun], *, out: Path, log: Log, watcher: Watcher | None
    ) -> list[RunRecord | PennyweightError]:
        """Return the record of each run of a study, or why it failed.

        Args:
            runs: complete ones are read, unfinished ones resumed.
            out: directory of the study.
            log: gets a line when a run begins, and when it fails.
            watcher: sees the trainings, if they are in this process.
        """
        ...


@dataclass(frozen=True, slots=True)
class LocalEngine:
    """Trains in this process, or the trials of a search in several on this machine."""

    trains_rows_together: bool = False

    def search(self, jobs: Sequence[SearchJob], *, log: Log) -> None:
        """Train one search after the other."""
        for job in jobs:
            _search(job, log)

    def train(
        self, runs: Sequence[StudyRun], *, out: Path, log: Log, watcher: Watcher | None
    ) -> list[RunRecord | PennyweightError]:
        """Train one run after the other."""
        del out
        return [train_here(run, log=log, watcher=watcher) for run in runs]


def engine_of(engine: str | Engine) -> Engine:
    """Return an engine by its name, with its defaults; or the one that is given.

    Raises:
        RunError: there is none of this name.
    """
    if not isinstance(engine, str):
        return engine
    if engine not in ENGINES:
        raise RunError(f"engine {engine}: unknown; choose from {', '.join(ENGINES)}")
    return ENGINES[engine]()


def _search(job: SearchJob, log: Log) -> None:
    """Train in this process, or in several on this machine, each with its share of threads."""
    from pennyweight.search.worker import work

    workers = job.workers or 1
    if workers == 1:
        work(job, log=log)
        return
    # Forked processes would share the locks and threads of torch.
    context = multiprocessing.get_context("spawn")
    threads = max(1, _cores() // workers)
    processes, connections = [], []
    for _ in range(workers):
        receiver, sender = context.Pipe(duplex=False)
        process = context.Process(target=_worker, args=(replace(job, workers=1), threads, sender))
        process.start()
        sender.close()
        processes.append(process)
        connections.append(receiver)
    try:
        errors = _listen(connections, log)
    finally:
        # After Ctrl-C, which reaches all of them, each finishes the step under way.
        for process in processes:
            process.join()
    if errors:
        raise RunError(errors[0])
    codes = [process.exitcode for process in processes if process.exitcode]
    if codes:
        raise RunError(
            f"{len(codes)} of {workers} workers ended with exit code {codes[0]}; the same "
            "command continues the search"
        )


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _worker(job: SearchJob, threads: int, sender: Connection) -> None:
    """Work in a process of its own; lines and the error that ends it go to the parent."""
    import torch

    from pennyweight.search.worker import work

    torch.set_num_threads(threads)

    def log(line: str) -> None:
        try:
            sender.send(("line", line))
        except OSError:  # the parent has ended
            raise KeyboardInterrupt from None

    try:
        work(job, log=log)
    except PennyweightError as error:
        sender.send(("error", str(error)))
    except KeyboardInterrupt:
        raise SystemExit(130) from None


def _listen(connections: list[Connection], log: Log) -> list[str]:
    """Log what workers say until all have ended; return the errors that ended them."""
    errors: list[str] = []
    still_open = list(connections)
    while still_open:
        for ready in wait(still_open):
            assert isinstance(ready, Connection)  # noqa: S101 - given above
            try:
                kind, text = ready.recv()
            except (EOFError, OSError):  # it has ended, or was killed while it sent a line
                still_open.remove(ready)
                continue
            if kind == "error":
                errors.append(text)
            else:
                log(text)
    return errors


ENGINES: Mapping[str, Callable[[], Engine]] = MappingProxyType(
    {"local": LocalEngine, "ray": RayEngine}
)
